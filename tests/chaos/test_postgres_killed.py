"""Postgres is killed again and again under load: 0 lost, 0 duplicates, all terminal (P1, P2)."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import FULL
from tests.chaos.cluster import Node
from tests.chaos.load import Sender, faults, settle
from tests.crash.answers import BY_NAME
from tests.crash.world import World
from tests.services.rig import eventually

pytestmark = pytest.mark.timeout(3_000)
COUNT = 5_000 if FULL else 100
KILLS_LEAST = 50 if FULL else 2
BETWEEN_S = (0.5, 2.0)


class Killer:
    """kill -9 for the postmaster or for one of its backends, after 0.5 to 2 s each."""

    def __init__(self, node: Node, seed: int) -> None:
        self._node = node
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self.kills = 0

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.wait(self._rng.uniform(*BETWEEN_S)):
            if self._rng.random() < 0.5:
                self._node.crash()
                self._node.start()
            else:
                self._node.crash_backend()
            self.kills += 1


@pytest.fixture
def world(node: Node, tmp_path: Path) -> Iterator[World]:
    with World(node.url, tmp_path, BY_NAME["accepted"], others=0) as built:
        yield built


def test_killed_every_half_to_two_seconds(
    node: Node, world: World, record_property: pytest.RecordProperty
) -> None:
    daemon = world.start(TORGHUT_LEASE_TTL_S=3)
    sender = Sender(world, COUNT, pause_s=0 if FULL else 0.2)
    with Killer(node, seed=COUNT) as killer:
        sender.start()
        sender.join(2_700)
    took_s = settle(world, sender)
    assert faults(world, sender) == []
    assert not daemon.dead  # it outlived them all
    assert killer.kills >= KILLS_LEAST
    figures = f"{COUNT} decisions, {killer.kills} kills, {sender.refusals} refusals, {took_s:.1f} s"
    record_property("figures", figures)
    print(figures)


def test_control_a_sender_that_takes_no_answer_for_one_loses(node: Node, world: World) -> None:
    """The check finds what was counted as acknowledged and is not there."""
    sender = Sender(world, 10, impatient=True)
    node.crash()
    sender.start()
    sender.join(60)
    node.start()
    daemon = world.start()
    eventually(lambda: node.execute("SELECT 1 FROM account_leases"))
    assert not daemon.dead
    assert len(faults(world, sender)) == 10
