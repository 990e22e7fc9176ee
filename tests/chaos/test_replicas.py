"""Replicas on one account: one POST each, and take-over in time (P1, stories 36, 42, 45, 47)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import FULL
from tests.chaos.load import Sender, faults, settle
from tests.crash.answers import BY_NAME
from tests.crash.processes import Child
from tests.crash.world import World
from tests.factories import ACCOUNT
from torghut.storage import leases

pytestmark = pytest.mark.timeout(1_200)
REPLICAS, COUNT = (8, 5_000) if FULL else (3, 200)
TTL_S = 3.0
LOADED_S = 0.0 if FULL else 5.0  # the sample runs beside other tests, and proves no figure


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with World(database_url, tmp_path, BY_NAME["accepted"], others=0) as built:
        yield built


def owner(world: World) -> Child | None:
    """The process that owns the account, by its number in the owner's name."""
    with world.database.transaction() as tx:
        lease = leases.current(tx, ACCOUNT)
    if lease is None or not lease[2] or lease[0] is None:
        return None
    pid = int(lease[0].split(":")[1])
    return next((one for one in world.daemons if one.pid == pid), None)


def test_each_decision_is_sent_once(world: World, record_property: pytest.RecordProperty) -> None:
    """Fault-free: exactly one POST per decision, whoever took it and whoever sent it."""
    for _ in range(REPLICAS):
        world.start(TORGHUT_LEASE_TTL_S=5)
    world.wait(lambda: owner(world) is not None, "an owner")
    sender = Sender(world, COUNT, batch=20)
    began = time.monotonic()
    sender.start()
    sender.join(600)
    world.wait(world.settled, "all decisions terminal", 600)
    took_s = time.monotonic() - began
    posts = world.requests()["posts_by_client_order_id"]
    assert {h: posts.get(h, 0) for h in sender.acknowledged} == dict.fromkeys(
        sender.acknowledged, 1
    )
    assert faults(world, sender) == []
    assert not any(daemon.dead for daemon in world.daemons)
    figures = f"{REPLICAS} replicas, {COUNT} decisions, {took_s:.1f} s, one POST each"
    record_property("figures", figures)
    print(figures)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_take_over(
    end: signal.Signals, world: World, record_property: pytest.RecordProperty
) -> None:
    """After kill -9 within the TTL and 2 s, after SIGTERM within 1 s of its end; and it works."""
    run = {"target": "run", "TORGHUT_LEASE_TTL_S": TTL_S, "TORGHUT_HTTP_PORT": 0}
    for _ in range(2):
        world.start(**run)  # type: ignore[arg-type]
    world.wait(lambda: owner(world) is not None, "an owner")
    first = owner(world)
    assert first is not None
    other = next(one for one in world.daemons if one is not first)
    world.wait(lambda: "API at" in other.log.read_text(), "a stand-by")
    first.send(end)
    if end is signal.SIGTERM:
        assert first.join(30) == 0
    began = time.monotonic()
    world.wait(lambda: owner(world) is other, "the take-over")
    took_s = time.monotonic() - began
    assert took_s <= (TTL_S + 2 if end is signal.SIGKILL else 1) + LOADED_S
    sender = Sender(world, 10)
    sender.start()
    sender.join(60)
    settle(world, sender)
    assert faults(world, sender) == []
    record_property("figures", f"{end.name}: {took_s:.2f} s")
    print(f"{end.name}: {took_s:.2f} s")
