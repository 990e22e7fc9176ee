"""SIGKILL at random instants, under load, with every kind of fault (stories 21, 22, 23, 40)."""

from __future__ import annotations

import random
import time

import pytest

from tests.crash.answers import Answer
from tests.crash.conftest import Build
from tests.crash.world import numbered

DECISIONS = 30
STORM = Answer("storm")


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_instant(seed: int, build: Build) -> None:
    """30 decisions, a fifth of all requests fails in every way there is, two kills at any time."""
    print(f"seed {seed}")
    rng = random.Random(f"random instants {seed}")
    world = build(STORM, others=0, faults=("all:0.2",), seed=seed)
    load = [world.subject, *numbered(0, DECISIONS - 1)]
    world.accept(load)
    for _ in range(2):
        daemon = world.start()
        instant = time.monotonic() + rng.uniform(0.2, 2.0)
        world.wait(lambda at=instant: time.monotonic() >= at, "the instant")
        daemon.kill()
    world.start()
    world.wait(lambda: world.state()["open"] < DECISIONS / 2, "half of them")
    world.end_faults()
    world.wait(world.settled, "the rest")
    assert world.book_faults() == []
    assert [world.status_of(item) for item in load] == ["closed"] * DECISIONS
