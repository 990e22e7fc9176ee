"""The runs: one Postgres as durable as in production, a fresh database and a process for each.

Entrants take turns phase by phase, and each repetition begins with another one, so that whatever
else the machine does meets all of them. A run that fails, or whose rows do not add up, ends it all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.bench.peers import entrant, peer_env
from torghut.storage import embedded

PROGRAM_TIMEOUT_S = 600.0
DATABASE = "bench"


@dataclass(frozen=True)
class Entrant:
    """A program under comparison. `counts`: decisions of each phase, as a share of --count."""

    name: str
    module: str
    counts: dict[str, float]
    package: str = ""  # what it needs of the peers' environment

    @property
    def label(self) -> str:
        return f"{self.name} {peer_env.pinned(self.package)}" if self.package else self.name


ENTRANTS = (
    Entrant("floor", "floor", {"intake": 1, "path": 1, "latency": 0}),
    Entrant("Torghut", "torghut_intake", {"intake": 1}),
    Entrant("pgqueuer", "on_pgqueuer", {"intake": 1, "path": 0.5, "latency": 0}, "pgqueuer"),
    Entrant(
        "procrastinate",
        "on_procrastinate",
        {"intake": 0.25, "path": 0.15, "latency": 0},
        "procrastinate",
    ),
    Entrant("DBOS", "on_dbos", {"intake": 0.05, "path": 0.05, "latency": 0}, "dbos"),
)
PHASES = ("intake", "path", "latency")
AS_THE_OTHERS = {"full_path": entrant.PATH, "full_path_cpu": entrant.PATH_CPU}
"""Figures of `torghut bench` that the others have too, under other names."""

Results = dict[str, dict[str, list[float]]]
"""Entrant → figure → a value for each repetition."""


class Ground:
    """The server, and a fresh database on it for whoever comes next."""

    def __init__(self, server: embedded.EmbeddedServer) -> None:
        self.server = server
        self.data_dir = server.data_dir

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """Rows of a query on the maintenance database."""
        with psycopg.connect(self.server.libpq_url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def fresh_database(self) -> str:
        """The address of an empty database."""
        self.query(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        self.query(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
        return self.server.libpq_url.replace("/postgres?", f"/{DATABASE}?")

    def run(self, who: Entrant, phase: str, count: int) -> dict[str, float]:
        """The figures of one phase of one entrant."""
        python = peer_env.python() if who.package else Path(sys.executable)
        command = [python, "-m", f"tests.bench.peers.{who.module}", phase]
        command += ["--url", self.fresh_database(), "--postmaster", str(self.server.pid)]
        return figures_of([*map(str, command), "--count", str(count)])

    def torghut_bench(self) -> dict[str, float] | None:
        """What `torghut bench` measures by itself; None where there is no such command."""
        command = [sys.executable, "-m", "torghut", "bench", "--json"]
        known = subprocess.run(
            [*command, "--help"], cwd=peer_env.ROOT, capture_output=True, check=False
        )
        if known.returncode != 0:
            return None
        figures = figures_of(command, TORGHUT_DATABASE_URL=self.fresh_database())
        return {AS_THE_OTHERS.get(name, name): value for name, value in figures.items()}


def figures_of(command: Sequence[str], **settings: str) -> dict[str, float]:
    """Name → value of the JSON document that a program prints last."""
    done = subprocess.run(
        command,
        cwd=peer_env.ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=PROGRAM_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[1:4])} failed:\n{done.stdout}{done.stderr}")
    figures = json.loads(done.stdout.strip().splitlines()[-1])["figures"]
    return {figure["name"]: float(figure["value"]) for figure in figures}


@contextmanager
def ground() -> Iterator[Ground]:
    """A server of its own, removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="torghut-bench-"))
    home.chmod(0o711)  # as root the server runs under another account, which must get through
    try:
        yield Ground(embedded.start(home, database="postgres"))
    finally:
        embedded.stop(home)
        pointer = home / "pg" / "location"
        if pointer.exists():
            shutil.rmtree(pointer.read_text("utf-8"), ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


def hold(
    place: Ground,
    entrants: Sequence[Entrant],
    *,
    count: int,
    repeat: int,
    tell: Callable[[str], None],
    bench: bool = True,
) -> Results:
    """All runs; `tell` hears of each as it begins. Without `bench` that of Torghut is left out."""
    results: Results = {who.name: {} for who in entrants}

    def note(name: str, figures: dict[str, float]) -> None:
        for figure, value in figures.items():
            results[name].setdefault(figure, []).append(value)

    for round_no in range(repeat):
        start = round_no % len(entrants)
        turn = [*entrants[start:], *entrants[:start]]
        for phase in PHASES:
            for who in turn:
                if phase in who.counts:
                    tell(f"{round_no + 1}/{repeat} {phase}: {who.name}")
                    some = max(1, round(count * who.counts[phase]))
                    note(who.name, place.run(who, phase, some))
        if bench and any(who.name == "Torghut" for who in entrants):
            tell(f"{round_no + 1}/{repeat} torghut bench")
            figures = place.torghut_bench() or {}
            known = results["Torghut"]
            note("Torghut", {n: v for n, v in figures.items() if len(known.get(n, ())) <= round_no})
    return results
