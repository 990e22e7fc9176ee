"""The tables of cancels and replacements: one line per story, ending in its step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.factories import order
from torghut.domain.order_actions import (
    ActionDoubt,
    ActionStatus,
    Seen,
    after_cancel,
    after_replace,
    changed,
    enlarges,
    graced,
    seen,
)
from torghut.domain.submission import Proof

S, P = ActionStatus, Proof
NOW = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)


def past(status: ActionStatus = S.SENDING, **over: Any) -> ActionDoubt:
    values = {"since": NOW, "attempts": 1, "looks": 0, "misses": 0, **over}
    return ActionDoubt(status=status, **values)


@pytest.mark.parametrize(
    ("proof", "order_seen", "before", "after"),
    [
        (P.ACCEPTED, Seen.UNANSWERED, past(), S.CONFIRMING),
        (P.REFUSED, Seen.CANCELED, past(), S.DONE),
        (P.REFUSED, Seen.ENDED, past(), S.MOOT),
        (P.REFUSED, Seen.REPLACED, past(), S.REQUESTED),
        (P.REFUSED, Seen.OPEN, past(), S.REQUESTED),
        (P.REFUSED, Seen.OPEN, past(attempts=5), S.REFUSED),
        (P.REFUSED, Seen.UNANSWERED, past(), S.IN_DOUBT),
        (P.IN_DOUBT, Seen.UNANSWERED, past(), S.IN_DOUBT),
        (P.NEVER_LEFT, Seen.UNANSWERED, past(), S.REQUESTED),
        (None, Seen.OPEN, past(S.IN_DOUBT), S.REQUESTED),
        (None, Seen.CHANGING, past(S.IN_DOUBT), S.CONFIRMING),
        (None, Seen.UNANSWERED, past(S.IN_DOUBT), S.IN_DOUBT),
        (None, Seen.UNKNOWN, past(S.IN_DOUBT), S.IN_DOUBT),
        (None, Seen.UNKNOWN, past(S.IN_DOUBT, misses=2), S.REFUSED),
        (None, Seen.OPEN, past(S.CONFIRMING), S.CONFIRMING),
        (None, Seen.OPEN, past(S.CONFIRMING, looks=5), S.REQUESTED),
    ],
)
def test_cancel(proof: Any, order_seen: Seen, before: ActionDoubt, after: ActionStatus) -> None:
    assert after_cancel(proof, order_seen, before, graced=True).status is after


@pytest.mark.parametrize(
    ("proof", "successor", "order_seen", "before", "after"),
    [
        (P.ACCEPTED, P.FOUND, Seen.REPLACED, past(), S.DONE),
        (P.REFUSED, P.FOUND, Seen.REPLACED, past(), S.DONE),
        (P.REFUSED, P.ABSENT, Seen.OPEN, past(), S.REFUSED),
        (P.REFUSED, P.ABSENT, Seen.REPLACED, past(), S.IN_DOUBT),
        (P.REFUSED, P.UNANSWERED, Seen.OPEN, past(), S.IN_DOUBT),
        (P.REFUSED, P.ABSENT, Seen.UNANSWERED, past(), S.IN_DOUBT),
        (P.EXISTS, P.ABSENT, Seen.OPEN, past(), S.IN_DOUBT),
        (P.IN_DOUBT, P.ABSENT, Seen.OPEN, past(), S.IN_DOUBT),
        (P.IN_DOUBT, P.ABSENT, Seen.ENDED, past(), S.MOOT),
        (None, P.ABSENT, Seen.OPEN, past(S.IN_DOUBT, misses=1), S.IN_DOUBT),
        (None, P.ABSENT, Seen.OPEN, past(S.IN_DOUBT, misses=2), S.REQUESTED),
        (None, P.ABSENT, Seen.CHANGING, past(S.IN_DOUBT, misses=9), S.IN_DOUBT),
        (None, P.UNANSWERED, Seen.OPEN, past(S.IN_DOUBT, misses=9), S.IN_DOUBT),
        (None, P.ABSENT, Seen.OPEN, past(S.IN_DOUBT, refused=True), S.REFUSED),
        (None, P.FOUND, Seen.UNANSWERED, past(S.IN_DOUBT), S.DONE),
    ],
)
def test_replace(
    proof: Any, successor: Any, order_seen: Seen, before: ActionDoubt, after: ActionStatus
) -> None:
    assert after_replace(proof, successor, order_seen, before, graced=True).status is after


def test_nothing_is_absent_before_the_grace() -> None:
    """Misses alone are not enough (P4)."""
    doubt = past(S.IN_DOUBT, misses=9)
    assert not graced(doubt, NOW + timedelta(seconds=29), absence_grace_s=30)
    assert after_replace(None, P.ABSENT, Seen.OPEN, doubt, graced=False).status is S.IN_DOUBT


def test_statuses_are_classed() -> None:
    assert seen("partially_filled") is Seen.OPEN
    assert seen("from a later version") is Seen.OPEN
    assert seen("expired") is Seen.ENDED
    assert (seen(None), seen(None, answered=False)) == (Seen.UNKNOWN, Seen.UNANSWERED)


@pytest.mark.parametrize(
    ("side", "changes", "larger"),
    [
        ("buy", {"qty": "9"}, False),
        ("buy", {"qty": "11"}, True),
        ("buy", {"limit_price": "101"}, True),
        ("buy", {"limit_price": "99"}, False),
        ("sell", {"limit_price": "99"}, True),
        ("sell", {"limit_price": "101"}, False),
        ("buy", {"time_in_force": "gtc"}, False),
    ],
)
def test_what_enlarges(side: str, changes: dict[str, object], larger: bool) -> None:
    before = order(side=side, type="limit", limit_price="100")
    assert enlarges(before, changed(before, changes)) is larger
