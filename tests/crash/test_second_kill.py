"""Recovery dies as well: the next daemon ends what dead ones left (stories 23, 28, 41, 47)."""

from __future__ import annotations

import pytest

from tests.crash.answers import BY_NAME
from tests.crash.cases import Case
from tests.crash.conftest import Build
from torghut.recovery_points import RecoveryPoint as P

STORIES = [
    # killed with the order placed and not known; then while it is being found
    ("accepted", (P.SUBMIT_AFTER_CALL, P.SWEEP_BEFORE_COMMIT, P.RECONCILE_BEFORE_COMMIT)),
    ("accept_then_reset", (P.OUTCOME_BEFORE_COMMIT, P.SWEEP_AFTER_COMMIT, P.SUBMIT_AFTER_CALL)),
    ("lookups_fail", (P.SUBMIT_AFTER_CALL, P.SETTLE_AFTER_CALL, P.SETTLE_BEFORE_COMMIT)),
    # killed with nothing sent; then before and after it is sent again
    ("reset_before", (P.CLAIM_AFTER_COMMIT, P.CHECK_AFTER_CALL, P.SUBMIT_AFTER_CALL)),
    ("refuse_503", (P.SUBMIT_BEFORE_CALL, P.SUBMIT_BEFORE_CALL, P.OUTCOME_AFTER_COMMIT)),
    # killed around a refusal
    ("no_buying_power", (P.SUBMIT_AFTER_CALL, P.SUBMIT_AFTER_CALL, P.CHECK_AFTER_CALL)),
    ("live_behind_403", (P.CHECK_BEFORE_CALL, P.SWEEP_AFTER_COMMIT, P.SETTLE_AFTER_CALL)),
    ("must_be_unique_422", (P.CHECK_AFTER_CALL, P.RECONCILE_BEFORE_COMMIT)),
]


@pytest.mark.parametrize(("answer", "kills"), STORIES, ids=[name for name, _ in STORIES])
def test_killed_again_while_recovering(answer: str, kills: tuple[P, ...], build: Build) -> None:
    """Two or three daemons die at different points; the end is the same."""
    case = Case(BY_NAME[answer], kills)
    world = build(case.answer, rules=case.rules)
    assert world.play(kills) == list(kills)
    assert world.faults() == []
