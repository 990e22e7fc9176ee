"""The bench from its beginning to its end: which parts run, in which order, on which grounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torghut.bench import intake, path, reading
from torghut.bench.figures import Figure
from torghut.bench.grounds import database_home, grounds
from torghut.bench.null_broker import NullBroker

WIRE_THREADS = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    decisions: int
    requests: int
    orders: int
    waits: int


WHOLE = Sizes(decisions=20_000, requests=4_000, orders=2_000, waits=400)
QUICK = Sizes(decisions=2_000, requests=500, orders=300, waits=50)

Part = Callable[[Path, Sizes], list[Figure]]


def _intake(home: Path, sizes: Sizes) -> list[Figure]:
    with grounds(home, "bench_intake", NullBroker()) as on:
        return [
            *intake.library(on, sizes.decisions),
            *intake.file(on, sizes.decisions // 2),
            *intake.http(on, sizes.requests),
        ]


def _path(home: Path, sizes: Sizes) -> list[Figure]:
    broker = NullBroker()
    with grounds(home, "bench_path", broker) as on:
        return [
            *path.full(on, broker, sizes.decisions // 2),
            *path.latency(on, broker, sizes.waits),
            *reading.lists(on),
            *reading.relay(on),
            *reading.memory(),
        ]


def _wire(home: Path, sizes: Sizes) -> list[Figure]:
    with grounds(home, "bench_wire", None, threads=WIRE_THREADS) as on:
        return path.wire(on, sizes.orders, WIRE_THREADS)


PARTS: dict[str, Part] = {"intake": _intake, "path": _path, "wire": _wire}


def run(names: Sequence[str], sizes: Sizes) -> Iterator[tuple[str, list[Figure]]]:
    """The parts by name, one after the other, in one server that is gone afterwards."""
    with database_home() as home:
        for name in names:
            yield name, PARTS[name](home, sizes)
