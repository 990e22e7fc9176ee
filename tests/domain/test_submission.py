"""The submission table: every answer, every lookup, every doubt (P4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from torghut.domain.lifecycle import DecisionStatus, Reason, allowed
from torghut.domain.submission import (
    BACKOFF_CAP_S,
    LOOKUP_CAP_S,
    LOOKUP_FIRST_S,
    MISSES_FOR_ABSENCE,
    SENT_AGAIN,
    Doubt,
    Proof,
    Retries,
    Step,
    after_lookup,
    after_submit,
    backoff,
)

S = DecisionStatus
NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
GRACE_S = 30.0
LOOKUPS = (None, Proof.FOUND, Proof.ABSENT, Proof.UNANSWERED)
ATTEMPTS = (1, 2, 7, 1000)

# proof → status without a lookup that was answered by "found"
EXPECTED: dict[Proof, dict[Proof | None, DecisionStatus]] = {
    proof: dict.fromkeys((None, Proof.ABSENT, Proof.UNANSWERED), status)
    for proof, status in {
        Proof.ACCEPTED: S.SUBMITTED,
        Proof.IN_DOUBT: S.IN_DOUBT,
        Proof.EXISTS: S.IN_DOUBT,  # it proves an order, so absence right after it proves nothing
        Proof.REFUSED: S.IN_DOUBT,
        Proof.ACCOUNT_REFUSED: S.APPROVED,
        Proof.RATE_LIMITED: S.APPROVED,
        Proof.NEVER_LEFT: S.APPROVED,
        Proof.NOT_SENT: S.APPROVED,
        Proof.FOUND: S.IN_DOUBT,
        Proof.ABSENT: S.IN_DOUBT,
        Proof.UNANSWERED: S.IN_DOUBT,
    }.items()
}
EXPECTED[Proof.REFUSED][Proof.ABSENT] = S.REJECTED


@pytest.mark.parametrize(("proof", "lookup", "attempt"), list(product(Proof, LOOKUPS, ATTEMPTS)))
def test_after_submit(proof: Proof, lookup: Proof | None, attempt: int) -> None:
    """Every answer × lookup × attempt; the attempt changes the wait and never the status."""
    step = after_submit(proof, lookup, attempt_no=attempt, wait_s=17.0)
    expected = S.SUBMITTED if lookup is Proof.FOUND else EXPECTED[proof][lookup]
    assert step.status is expected
    assert allowed(S.SUBMITTING, step.status)
    if lookup is Proof.FOUND:
        assert step.reason is Reason.RECOVERED
    elif proof is Proof.RATE_LIMITED:
        assert step == Step(S.APPROVED, Reason.RATE_LIMITED, 17.0)
    elif step.status is S.APPROVED:
        assert step.wait_s == min(BACKOFF_CAP_S, 2.0 ** (attempt - 1) if attempt < 20 else 1e9)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_only_a_definite_refusal_rejects(attempt: int) -> None:
    """Story 22: no number of unanswered tries ends in `rejected`; story 7: a definite 403 does."""
    rejecting = {
        (proof, lookup)
        for proof, lookup in product(Proof, LOOKUPS)
        if after_submit(proof, lookup, attempt_no=attempt, wait_s=0).status is S.REJECTED
    }
    assert rejecting == {(Proof.REFUSED, Proof.ABSENT)}


def test_story_5_and_6_must_be_unique_is_never_a_refusal() -> None:
    for lookup in LOOKUPS:
        step = after_submit(Proof.EXISTS, lookup, attempt_no=1, wait_s=0)
        assert step.status in (S.SUBMITTED, S.IN_DOUBT)
    assert after_submit(Proof.EXISTS, Proof.FOUND, attempt_no=1, wait_s=0).status is S.SUBMITTED


def test_story_38_a_refusal_whose_lookup_finds_the_order_is_submitted() -> None:
    assert after_submit(Proof.REFUSED, Proof.FOUND, attempt_no=3, wait_s=0).status is S.SUBMITTED


# ---------------------------------------------------------------------- after a lookup


def doubt(
    *,
    age_s: float = GRACE_S,
    lookups: int = 9,
    misses: int = MISSES_FOR_ABSENCE - 1,
    refused: bool = False,
    expires_in_s: float = 3600,
) -> Doubt:
    return Doubt(
        since=NOW - timedelta(seconds=age_s),
        lookups=lookups,
        misses=misses,
        refused=refused,
        expires_at=NOW + timedelta(seconds=expires_in_s),
    )


def settle(proof: Proof, **changes: object) -> Step:
    return after_lookup(proof, doubt(**changes), NOW, absence_grace_s=GRACE_S)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("proof", "age_s", "misses", "refused", "expires_in_s", "status", "reason"),
    [
        # found, whatever else: also long expired, also refused (story 2: ask before rejecting)
        (Proof.FOUND, 0, 0, False, 3600, S.SUBMITTED, Reason.RECOVERED),
        (Proof.FOUND, 9999, 99, True, -3600, S.SUBMITTED, Reason.RECOVERED),
        # absent: only after the grace and the third miss, both
        (Proof.ABSENT, GRACE_S, 2, False, 3600, S.APPROVED, Reason.PROVEN_ABSENT),
        (Proof.ABSENT, GRACE_S - 0.001, 2, False, 3600, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
        (Proof.ABSENT, 0, 1000, False, 3600, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
        (Proof.ABSENT, 9999, 1, False, 3600, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
        (Proof.ABSENT, 9999, 0, False, 3600, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
        # absent and its time over; absent and refused
        (Proof.ABSENT, GRACE_S, 2, False, 0, S.EXPIRED, Reason.OUT_OF_TIME),
        (Proof.ABSENT, GRACE_S, 2, False, -1, S.EXPIRED, Reason.OUT_OF_TIME),
        (Proof.ABSENT, GRACE_S, 2, True, 3600, S.REJECTED, Reason.REFUSED_BY_BROKER),
        (Proof.ABSENT, GRACE_S, 2, True, -1, S.REJECTED, Reason.REFUSED_BY_BROKER),
        (Proof.ABSENT, 1, 2, True, 3600, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
        # an unanswered question proves nothing, ever (story 22)
        (Proof.UNANSWERED, 9999, 1000, False, 3600, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
        (Proof.UNANSWERED, 9999, 1000, False, -1, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
        (Proof.UNANSWERED, 9999, 1000, True, -1, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER),
    ],
)
def test_after_lookup(proof, age_s, misses, refused, expires_in_s, status, reason) -> None:
    step = settle(proof, age_s=age_s, misses=misses, refused=refused, expires_in_s=expires_in_s)
    assert (step.status, step.reason) == (status, reason)
    assert step.status is S.IN_DOUBT or allowed(S.IN_DOUBT, step.status)


@pytest.mark.parametrize("proof", [p for p in Proof if p not in (Proof.FOUND, Proof.ABSENT)])
def test_nothing_but_found_and_absent_settles(proof: Proof) -> None:
    assert settle(proof, age_s=10**6, misses=10**6).status is S.IN_DOUBT


def test_an_order_is_never_sent_again_after_its_time() -> None:
    """A stale signal must not trade, whatever became of its first attempt."""
    assert settle(Proof.ABSENT, expires_in_s=0).status is not S.APPROVED
    assert settle(Proof.ABSENT, expires_in_s=0.001).status is S.APPROVED  # control


def test_lookups_back_off() -> None:
    waits = [settle(Proof.UNANSWERED, lookups=n).wait_s for n in range(8)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, LOOKUP_CAP_S, LOOKUP_CAP_S]
    assert settle(Proof.UNANSWERED, lookups=10**6).wait_s == LOOKUP_CAP_S


@pytest.mark.parametrize(
    ("attempt", "expected"), [(1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (10**9, 30.0)]
)
def test_backoff(attempt: int, expected: float) -> None:
    assert backoff(attempt, first_s=1.0, cap_s=BACKOFF_CAP_S) == expected


def test_three_misses_take_less_than_the_grace_to_ask_for() -> None:
    """The grace decides, not the backoff: the third question is asked within it."""
    assert LOOKUP_FIRST_S * (1 + 2 + 4) < GRACE_S


STEPS = [
    (Proof.ACCEPTED, None, S.SUBMITTED, Reason.ACCEPTED, 0),
    (Proof.IN_DOUBT, Proof.FOUND, S.SUBMITTED, Reason.RECOVERED, 0),
    (Proof.REFUSED, Proof.ABSENT, S.REJECTED, Reason.REFUSED_BY_BROKER, 0),
    (Proof.REFUSED, Proof.UNANSWERED, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, LOOKUP_FIRST_S),
    (Proof.ACCOUNT_REFUSED, None, S.APPROVED, Reason.ACCOUNT_REFUSED, 4.0),
    (Proof.RATE_LIMITED, None, S.APPROVED, Reason.RATE_LIMITED, 17.0),
    (Proof.NEVER_LEFT, None, S.APPROVED, Reason.NEVER_LEFT, 4.0),
    (Proof.NOT_SENT, None, S.APPROVED, Reason.NEVER_LEFT, 4.0),
    (Proof.EXISTS, Proof.ABSENT, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, LOOKUP_FIRST_S),
    (Proof.IN_DOUBT, None, S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, LOOKUP_FIRST_S),
]


@pytest.mark.parametrize(("proof", "lookup", "status", "reason", "wait_s"), STEPS)
def test_the_whole_step(
    proof: Proof, lookup: Proof | None, status: DecisionStatus, reason: Reason, wait_s: float
) -> None:
    """Status, why, and how long: at the third attempt, with a rate limit that lasts 17 s."""
    step = after_submit(proof, lookup, attempt_no=3, wait_s=17.0)
    assert step == Step(status, reason, wait_s)


@pytest.mark.parametrize(
    ("doubt", "step"),
    [
        ({}, Step(S.APPROVED, Reason.PROVEN_ABSENT)),
        ({"refused": True}, Step(S.REJECTED, Reason.REFUSED_BY_BROKER)),
        ({"expires_at": NOW}, Step(S.EXPIRED, Reason.OUT_OF_TIME)),
        ({"misses": 1}, Step(S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, 4 * LOOKUP_FIRST_S)),
        ({"exists": True}, Step(S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, 4 * LOOKUP_FIRST_S)),
        ({"since": NOW}, Step(S.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, 4 * LOOKUP_FIRST_S)),
    ],
)
def test_the_whole_step_after_a_lookup(doubt: dict[str, object], step: Step) -> None:
    values: dict[str, object] = {
        "since": NOW - timedelta(seconds=GRACE_S), "lookups": 2, "misses": 2, "refused": False,
        "expires_at": NOW + timedelta(seconds=1),
    }  # fmt: skip
    found = after_lookup(
        Proof.ABSENT,
        Doubt(**{**values, **doubt}),  # type: ignore[arg-type]
        NOW,
        absence_grace_s=GRACE_S,
    )
    assert found == step


@pytest.mark.parametrize("proof", list(Proof))
def test_spent_attempts_end_in_questions_and_never_in_an_answer(proof: Proof) -> None:
    """What surely left no order is asked for once more; every other row stays as it is."""
    retries = Retries(attempts_max=3)
    for attempt, lookup in product((1, 2, 3, 4), LOOKUPS):
        step = after_submit(proof, lookup, attempt_no=attempt, wait_s=0, retries=retries)
        usual = after_submit(proof, lookup, attempt_no=attempt, wait_s=0)
        if attempt < 3 or proof not in SENT_AGAIN or lookup is Proof.FOUND:
            assert step == usual
        else:
            assert (step.status, step.reason) == (S.IN_DOUBT, Reason.ATTEMPTS_SPENT)


def test_spent_attempts_end_on_proof_alone() -> None:
    """Found is submitted, unanswered is asked again, and only what is proven absent expires."""
    spent = replace(doubt(), spent=True)
    ends = {
        proof: after_lookup(proof, spent, NOW, absence_grace_s=GRACE_S)
        for proof in (Proof.FOUND, Proof.ABSENT, Proof.UNANSWERED)
    }
    assert ends[Proof.FOUND].status is S.SUBMITTED
    assert ends[Proof.UNANSWERED].status is S.IN_DOUBT
    assert ends[Proof.ABSENT] == Step(S.EXPIRED, Reason.ATTEMPTS_SPENT)
    early = after_lookup(Proof.ABSENT, replace(spent, misses=0), NOW, absence_grace_s=GRACE_S)
    assert early.status is S.IN_DOUBT
