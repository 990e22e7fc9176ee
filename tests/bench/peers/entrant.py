"""What each program under comparison shares.

A program is started as `python -m tests.bench.peers.NAME PHASE --url … --postmaster … --count …` on
an empty database, does one phase and prints, as the last line, one JSON document:

    {"figures": [{"name": "intake_rows_per_s", "value": 42000.0, "unit": "rows/s"}, …]}

which is also what `torghut bench --json` is taken to print. CPU time is that of the program and of
all processes of Postgres together, from /proc: so it needs Linux, and a Postgres that does nothing
else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import sysconf
from pathlib import Path
from typing import TypeVar

import psycopg

from tests.bench.peers import work

BATCH = 500
WARM_UP = 3
SAMPLES = 100 + WARM_UP
PAUSE_S = 0.05
DEADLINE_S = 60.0

INTAKE = "intake_rows_per_s"
INTAKE_CPU = "intake_cpu_ms_per_row"
DUPLICATES = "duplicates_refused_per_s"
DUPLICATE_WAL = "wal_bytes_per_duplicate"
PATH = "path_decisions_per_s"
PATH_CPU = "path_cpu_ms_per_decision"
START_P50 = "start_latency_p50_ms"
START_P99 = "start_latency_p99_ms"
OTHERS = "cores_used_by_others"

UNITS = {
    INTAKE: "rows/s",
    INTAKE_CPU: "ms",
    DUPLICATES: "rows/s",
    DUPLICATE_WAL: "bytes",
    PATH: "decisions/s",
    PATH_CPU: "ms",
    START_P50: "ms",
    START_P99: "ms",
    OTHERS: "cores",
}


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str


@dataclass
class Window:
    """What a stretch of time cost; filled in when it is over."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    wal_bytes: int = 0
    others_cores: float = 0.0


class Race:
    """One phase of one entrant, on its own database."""

    def __init__(self, url: str, postmaster: int, count: int) -> None:
        self.url = url
        self.postmaster = postmaster
        self.count = count
        self.windows: list[Window] = []
        self.connection = psycopg.connect(url, autocommit=True)

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Measure what is inside. A checkpoint comes first, so that each pays for its own."""
        self.connection.execute("CHECKPOINT")
        window = Window()
        wal = self._wal()
        machine, used, began = _machine_s(), self._used_s(), time.perf_counter()
        yield window
        window.wall_s = time.perf_counter() - began
        window.cpu_s = self._used_s() - used
        window.others_cores = max(0.0, _machine_s() - machine - window.cpu_s) / window.wall_s
        window.wal_bytes = self._wal() - wal
        self.windows.append(window)

    def _used_s(self) -> float:
        return time.process_time() + _tree_s(self.postmaster)

    def _wal(self) -> int:
        # what others of this server write is counted, too: there are none
        row = self.connection.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def expect(self, **rows: int) -> None:
        """Fail unless each of the tables has so many rows."""
        for table, wanted in rows.items():
            row = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert row is not None
            if row[0] != wanted:
                raise SystemExit(f"{table} has {row[0]} rows, {wanted} expected")

    def expect_work(self, count: int) -> None:
        """Fail unless every decision went the whole way."""
        self.expect(**dict.fromkeys(work.WRITTEN, count))

    # ------------------------------------------------------------------ figures

    def intake(self, count: int, window: Window) -> dict[str, float]:
        """Figures of a fresh intake."""
        return {INTAKE: count / window.wall_s, INTAKE_CPU: 1_000 * window.cpu_s / count}

    def duplicates(self, count: int, again: Window, once_more: Window) -> dict[str, float]:
        """Figures of an intake of nothing new, twice.

        The log is measured the second time: whoever reads a row first notes in it that its writer
        committed, and with checksums that is logged. It belongs to the row, not to the duplicate.
        """
        return {DUPLICATES: count / again.wall_s, DUPLICATE_WAL: once_more.wal_bytes / count}

    def path(self, window: Window) -> dict[str, float]:
        """Figures of the full path; fails unless every decision went it."""
        self.expect_work(self.count)
        return {PATH: self.count / window.wall_s, PATH_CPU: 1_000 * window.cpu_s / self.count}

    def latency(self, began: Mapping[str, float], started: Mapping[str, float]) -> dict[str, float]:
        """Figures of single decisions, from just before it was sent to when it was taken up.

        The first few do not count: the worker may not be listening yet.
        """
        assert began.keys() == started.keys()
        took = sorted(1_000 * (started[key] - began[key]) for key in list(began)[WARM_UP:])
        return {START_P50: percentile(took, 50), START_P99: percentile(took, 99)}


T = TypeVar("T")
Phase = Callable[[Race], Mapping[str, float]]


def main(phases: Mapping[str, Phase]) -> None:
    """The program: one phase, and its figures on the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("phase", choices=phases)
    parser.add_argument("--url", required=True)
    parser.add_argument("--postmaster", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    race = Race(given.url, given.postmaster, given.count)
    values = dict(phases[given.phase](race))
    if race.windows:
        wall_s = sum(window.wall_s for window in race.windows)
        values[OTHERS] = sum(w.others_cores * w.wall_s for w in race.windows) / wall_s
    figures = [Figure(name, value, UNITS[name]) for name, value in values.items()]
    print(json.dumps({"figures": [asdict(figure) for figure in figures]}), flush=True)


def batches(rows: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """The rows in batches."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def singly(
    jobs: Sequence[tuple[str, T]],
    send: Callable[[str, T], object],
    started: Mapping[str, float],
    arrived: threading.Event,
    *,
    pause_s: float = PAUSE_S,
) -> dict[str, float]:
    """Send jobs one at a time, each after a pause of random length; when each was sent.

    `started` is filled by the handler, by decision_hash, and `arrived` set by it then.
    """
    rng = random.Random(7)
    began: dict[str, float] = {}
    for hash_, job in jobs:
        threading.Event().wait(rng.uniform(0, pause_s))
        arrived.clear()
        began[hash_] = time.perf_counter()
        send(hash_, job)
        while hash_ not in started:
            if not arrived.wait(DEADLINE_S):
                raise SystemExit(f"a decision was not taken up within {DEADLINE_S} s")
            arrived.clear()
    return began


async def singly_async(
    jobs: Sequence[tuple[str, T]],
    send: Callable[[str, T], Awaitable[object]],
    started: Mapping[str, float],
    arrived: asyncio.Event,
) -> dict[str, float]:
    """The same within an event loop."""
    rng = random.Random(7)
    began: dict[str, float] = {}
    for hash_, job in jobs:
        await asyncio.sleep(rng.uniform(0, PAUSE_S))
        arrived.clear()
        began[hash_] = time.perf_counter()
        await send(hash_, job)
        while hash_ not in started:
            await asyncio.wait_for(arrived.wait(), DEADLINE_S)
            arrived.clear()
    return began


# ---------------------------------------------------------------------- processor time

_TICK_S = 1 / sysconf("SC_CLK_TCK")


def _machine_s() -> float:
    """Processor seconds used on the whole machine, by whomever."""
    fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in fields[:8])
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def _tree_s(postmaster: int) -> float:
    """Processor seconds of a postmaster and all children it ever had."""
    used = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name of the program, in brackets, may hold anything
            fields = status.read_text("utf-8", "replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent, own, of_ended = int(fields[1]), fields[11:13], fields[13:15]
        if status.parent.name == str(postmaster):
            used += sum(map(int, own + of_ended))
        elif parent == postmaster:
            used += sum(map(int, own))
    return used * _TICK_S
