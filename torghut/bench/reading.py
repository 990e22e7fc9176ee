"""What reading costs: lists, the relay, and the memory of the process."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path

from torghut.bench.figures import Figure, percentile
from torghut.bench.grounds import Grounds
from torghut.clock import utc_now
from torghut.domain.outbox import Message
from torghut.services.relay import Relay
from torghut.storage import queries
from torghut.storage.queries import Filters

LOOKS = 50
MIB = 1024 * 1024


class Counted:
    """A sink that takes every event and keeps nothing but their number."""

    def __init__(self) -> None:
        self.count = 0

    def publish(self, message: Message) -> None:
        self.count += 1

    def close(self) -> None:
        """Nothing is held."""


def lists(grounds: Grounds) -> list[Figure]:
    """The first page of decisions, of all and of one strategy, by the rows that there are."""
    figures = []
    for name, filters in (
        ("list_decisions", Filters(limit=50)),
        ("list_of_strategy", Filters(limit=50, strategy="two")),
    ):
        took_s = []
        for _ in range(LOOKS):
            began = time.perf_counter()
            with grounds.daemon.database.transaction() as tx:
                queries.decisions(tx, filters)
            took_s.append(time.perf_counter() - began)
        figures.append(Figure(f"{name}_p99", percentile(took_s, 0.99) * 1e3, "ms", "50 rows"))
    return figures


def relay(grounds: Grounds) -> list[Figure]:
    """All events that there are to a sink that takes them at once."""
    daemon, sink = grounds.daemon, Counted()
    one = Relay(
        "bench",
        sink,
        daemon.database,
        daemon.owner,
        lease_ttl_s=10,
        from_now=False,
        rng=random.Random(1),
        secrets=(),
    )
    began = time.perf_counter()
    while one.run_once(utc_now()):
        pass
    took_s = time.perf_counter() - began
    return [Figure("relay", sink.count / took_s, "events/s", f"{sink.count:,} events, one sink")]


def memory() -> list[Figure]:
    """What this process holds now, and held at most."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return [
        Figure("memory", pages * resource.getpagesize() / MIB, "MiB", "after all of the above"),
        Figure("memory_peak", peak / MIB, "MiB", "at most"),
    ]
