"""The transition table: what the design says, nothing more (P5)."""

from __future__ import annotations

import itertools

import pytest

from torghut.domain import lifecycle
from torghut.domain.lifecycle import MAY_BE_LIVE, TERMINAL, TRANSITIONS, DecisionStatus, allowed

DESIGN = """
planned → approved | denied | expired
approved → submitting | expired | canceled
submitting → submitted | rejected | in_doubt | approved
in_doubt → submitted | rejected | approved | expired
submitted → closed
"""

STEPS = {
    (DecisionStatus(before.strip()), DecisionStatus(after.strip()))
    for line in DESIGN.strip().splitlines()
    for before, _, afters in [line.partition("→")]
    for after in afters.split("|")
}


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(DecisionStatus, DecisionStatus))
)
def test_exactly_the_steps_of_the_design_are_allowed(
    before: DecisionStatus, after: DecisionStatus
) -> None:
    assert allowed(before, after) is ((before, after) in STEPS)


def test_every_status_has_a_row_and_only_final_ones_lead_nowhere() -> None:
    assert set(TRANSITIONS) == set(DecisionStatus)
    assert {s.value for s in TERMINAL} == {"closed", "denied", "rejected", "expired", "canceled"}


def test_every_status_is_reached_from_planned_and_every_decision_can_end() -> None:
    def reachable(start: DecisionStatus) -> set[DecisionStatus]:
        seen = {start}
        while more := {after for status in seen for after in TRANSITIONS[status]} - seen:
            seen |= more
        return seen

    assert reachable(DecisionStatus.PLANNED) == set(DecisionStatus)
    assert all(reachable(status) & TERMINAL for status in DecisionStatus)


def test_an_order_that_may_be_live_is_never_final_nor_denied() -> None:
    """P7, stories 2 and 22: no step leads from in doubt to a status that means "no order" but by
    proof, and risk counts every status in which an order may stand."""
    assert not MAY_BE_LIVE & TERMINAL
    into_live = {before for before in TRANSITIONS if TRANSITIONS[before] & MAY_BE_LIVE}
    assert into_live - MAY_BE_LIVE == {DecisionStatus.APPROVED}
    for status in MAY_BE_LIVE:
        assert DecisionStatus.DENIED not in TRANSITIONS[status]
        assert DecisionStatus.CANCELED not in TRANSITIONS[status]


def test_the_only_way_out_of_submitted_is_its_order_being_terminal() -> None:
    assert TRANSITIONS[DecisionStatus.SUBMITTED] == {DecisionStatus.CLOSED}


def test_the_picture_of_the_module_names_every_status() -> None:
    picture = (lifecycle.__doc__ or "").split("```")[1]
    assert all(status.value in picture for status in DecisionStatus)
