"""How fast decisions become orders: throughput, latency, and what the wire adds."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import partial

from torghut import places
from torghut.bench.figures import Figure, percentile
from torghut.bench.grounds import Cost, Grounds, made, until
from torghut.bench.null_broker import NullBroker
from torghut.bootstrap import Daemon
from torghut.storage import queries

PACE_PER_S = 200
REST_S = 0.02  # so that the system is idle when the next one comes


def full(grounds: Grounds, broker: NullBroker, count: int) -> list[Figure]:
    """Claim → risk engine → null broker → execution, events; every order exactly once."""
    grounds.take_in(made(count, "full"))
    cost = Cost(grounds.daemon)
    began = grounds.give_over()
    until(lambda: len(broker.left_at) >= count and _submitted(grounds.daemon) >= count, "the path")
    took_s = time.perf_counter() - began
    if len(broker.left_at) != count or broker.repeated:
        raise AssertionError("an order was lost or sent twice")
    return [
        Figure("full_path", count / took_s, "decisions/s", f"{count:,} decisions, null broker"),
        cost.figure("full_path", count),
    ]


def _submitted(daemon: Daemon) -> int:
    with daemon.database.transaction() as tx:
        counts = queries.summary(tx, daemon.settings.account)["decisions"]
    return int(counts.get("submitted", 0) + counts.get("closed", 0))


def latency(grounds: Grounds, broker: NullBroker, count: int) -> list[Figure]:
    """From the acknowledgement of a decision to the moment its order leaves."""
    figures = []
    for name, pause_s, what in (
        ("latency", 0.0, "one after the other, otherwise idle"),
        ("latency_paced", 1 / PACE_PER_S, f"at {PACE_PER_S}/s"),
    ):
        waits = _waits(grounds, broker, count, name, pause_s)
        for share in (0.5, 0.99):
            value = percentile(waits, share) * 1e3
            figures.append(Figure(f"{name}_p{share * 100:.0f}", value, "ms", what))
    return figures


def _waits(
    grounds: Grounds, broker: NullBroker, count: int, run: str, pause_s: float
) -> list[float]:
    accepted: dict[str, float] = {}
    never = threading.Event()
    next_at = time.perf_counter()
    for decision in made(count, run):
        grounds.take_in([decision])
        accepted[decision.decision_hash] = time.perf_counter()
        if not pause_s:
            until(partial(_left, broker, accepted), "an order")
        next_at += pause_s
        never.wait(max(0.0, next_at - time.perf_counter()) if pause_s else REST_S)
    until(partial(_left, broker, accepted), "the last orders")
    return [max(broker.left_at[hash_] - at, 0.0) for hash_, at in accepted.items()]


def _left(broker: NullBroker, accepted: dict[str, float]) -> bool:
    return accepted.keys() <= broker.left_at.keys()


def wire(grounds: Grounds, count: int, threads: int) -> list[Figure]:
    """Over HTTP by alpaca-py to the simulator, against a bare loop of `submit_order`."""
    daemon = grounds.daemon
    grounds.take_in(made(count, "wire"))
    began = grounds.give_over()
    until(lambda: _submitted(daemon) >= count, "the orders over the wire")
    rate = count / (time.perf_counter() - began)
    url = places.reach(daemon.settings).base_url
    command = [sys.executable, "-m", "torghut.bench.bare_loop", url, str(count), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    bare = float(done.stdout)
    return [
        Figure("wire", rate, "orders/s", f"{count:,} orders, {threads} threads, simulator"),
        Figure("wire_bare", bare, "orders/s", "alpaca-py alone, as many threads"),
        Figure("wire_share", rate / bare * 100, "%", "of the bare loop"),
    ]
