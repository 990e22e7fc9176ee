"""A process that freezes beyond its lease and goes on where it was (stories 36, 42, 45).

No fence in a database can stop its HTTP call: the broker's uniqueness does. Its writes are what
the fence stops. Both protections have their control here.
"""

from __future__ import annotations

import signal

import pytest

from tests.crash.answers import Answer
from tests.crash.conftest import Build
from tests.crash.processes import Child
from tests.crash.world import World, numbered
from torghut.recovery_points import RecoveryPoint

FROZEN = Answer("frozen", posts=frozenset({2}))
SENT_ONCE = Answer("frozen after its call")
BATCHES = 6
NOT_THE_OWNER = "owner was a newer one"


def frozen_at(world: World, point: RecoveryPoint, *mutated: str) -> Child:
    """The first daemon stands still at `point`; a second one has finished the subject."""
    world.accept([world.subject])
    first = world.start(point, mutated=("stop_instead_of_kill", *mutated))
    world.wait(lambda: world.state()["attempts"] > 0, "the first daemon's intent")
    world.run_until_settled()
    return first


@pytest.mark.parametrize("uniqueness", ["permanent", "off"])
def test_a_late_post_is_refused_by_the_broker(uniqueness: str, build: Build) -> None:
    """P1 rests on broker uniqueness: with it one order, without it two, and both books say so."""
    world = build(FROZEN, others=0, switches={"uniqueness": uniqueness})
    first = frozen_at(world, RecoveryPoint.SUBMIT_BEFORE_CALL)
    assert world.posts_of(world.subject) == 1, "the first daemon was not frozen in time"
    first.send(signal.SIGCONT)
    world.wait(lambda: world.posts_of(world.subject) == 2, "the late POST")
    if uniqueness == "permanent":
        world.wait(world.settled, "all quiet")
        assert world.faults() == []
        return
    world.wait(lambda: "duplicate_order" in world.discrepancies(), "the second order is seen")
    found = world.faults()
    assert any("duplicates 1" in fault for fault in found), found


@pytest.mark.parametrize("fence", ["kept", "removed"])
def test_a_late_writer_is_kept_out_by_the_fence(fence: str, build: Build) -> None:
    """After its lease ran out a process writes nothing; without the fence it goes on claiming."""
    world = build(SENT_ONCE, others=0)
    mutated = ("fence_removed",) if fence == "removed" else ()
    first = frozen_at(world, RecoveryPoint.SUBMIT_AFTER_CALL, *mutated)
    assert not world.faults()
    first.send(signal.SIGCONT)
    for batch in range(BATCHES):
        world.accept(numbered(batch * 10, 10))
        world.wait(world.settled, f"batch {batch}")
    found = [fault for fault in world.faults() if NOT_THE_OWNER in fault]
    assert bool(found) == (fence == "removed"), world.faults()
    assert fence == "removed" or not world.faults()
