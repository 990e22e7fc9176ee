"""Controls: the same kills and the same check with a protection taken away, and the check fails.

| taken away | what is found |
|---|---|
| every question to the broker, and broker uniqueness | two orders for one decision |
| "a failed lookup is no absence", and uniqueness | two orders |
| the same with uniqueness | one order, sent twice |
| the lookup after a refusal | rejected, and live (stories 2, 5, 38) |
| broker uniqueness, a frozen process | two orders: see `test_frozen` |
| the fence, a frozen process | a writer that is not the owner: see `test_frozen` |
"""

from __future__ import annotations

import pytest

from tests.crash import cases
from tests.crash.answers import BY_NAME
from tests.crash.conftest import Build
from tests.crash.world import World
from torghut.recovery_points import RecoveryPoint as P

NO_UNIQUENESS = {"uniqueness": "off"}
DEAF = ("lookup_removed", "reconciler_removed")

# their commit is the knowledge that the order exists: after it nothing is sent, asked or not
SETTLED_BY_THEN = frozenset({P.SETTLE_AFTER_COMMIT, P.RECONCILE_AFTER_COMMIT})


@pytest.mark.parametrize("point", [p for p in cases.POINTS if p not in SETTLED_BY_THEN], ids=str)
def test_control_without_questions_and_uniqueness_it_is_sent_twice(point: P, build: Build) -> None:
    """Killed at any point, restarted without lookups: the matrix's check sees the duplicate."""
    case = cases.case(point, BY_NAME["accept_then_reset"])
    rules = case.rules
    if point is P.RECONCILE_BEFORE_COMMIT:  # else a lookup may have settled it by then
        rules = [cases.away("by_client_order_id", 4)]
    world = build(case.answer, others=0, rules=rules, switches=NO_UNIQUENESS)
    kill_at_all(world, case.kills)
    mutated = world.start(mutated=DEAF)
    world.wait(lambda: world.orders_of(world.subject) > 1, "a second order")
    mutated.kill()
    world.run_until_settled()
    found = world.faults()
    assert any("duplicates 1" in fault for fault in found), found
    assert "duplicate_order" in world.discrepancies(), "the daemon itself did not see it"


def kill_at_all(world: World, kills: tuple[P, ...]) -> None:
    """The case's kills, all of which must happen, and nothing after them."""
    if kills[0].value.startswith("intake."):
        assert world.submit_by_cli([world.subject], kills[0]).power_failed
        kills = kills[1:]
    world.accept([world.subject])
    for point in kills:
        assert world.run_until_dead(point)
    world.return_lists()


@pytest.mark.parametrize("uniqueness", ["off", "permanent"])
def test_control_a_failed_lookup_taken_for_absence(uniqueness: str, build: Build) -> None:
    """Stories 22, 23: without broker uniqueness two orders; with it one, though sent twice."""
    rules = [cases.away("by_client_order_id", 6)]
    switches = {"uniqueness": uniqueness}
    world = build("accept_then_reset", others=0, rules=rules, switches=switches)
    world.accept([world.subject])
    mutated = world.start(mutated=("failed_lookup_is_absence", "reconciler_removed"))
    world.wait(lambda: world.posts_of(world.subject) > 1, "a second POST")
    mutated.kill()
    world.run_until_settled()
    found = world.faults()
    assert any("2 POSTs" in fault for fault in found), found
    duplicates = [fault for fault in found if "duplicates 1" in fault]
    assert bool(duplicates) == (uniqueness == "off"), found


@pytest.mark.parametrize("answer", ["live_behind_403", "live_behind_422"])
def test_control_no_lookup_after_a_refusal(answer: str, build: Build) -> None:
    """Stories 2, 38: the 4xx is believed, and the order lives; the check and the daemon see it."""
    world = build(answer, others=0)
    world.accept([world.subject])
    mutated = world.start(mutated=DEAF)
    world.wait(lambda: world.status_of(world.subject) == "rejected", "the refusal believed")
    mutated.kill()
    world.start()
    world.wait(lambda: bool(world.discrepancies()) and world.settled(), "the late order is seen")
    found = world.faults()
    assert any("is rejected, but the broker has 1 order" in fault for fault in found), found
    assert world.discrepancies() == ["order_after_end"]
