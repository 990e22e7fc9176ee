"""Steps of the life cycle as compare-and-set: what a late writer may not do (stories 45, 48)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text

from tests.factories import ACCOUNT, decision
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.storage import decisions, intake
from torghut.storage.database import Database
from torghut.storage.decisions import Advance

NOW = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
S = DecisionStatus


@pytest.fixture
def tx(database_url: str) -> Iterator[Connection]:
    """A transaction on a migrated database."""
    database = Database(database_url)
    with database.transaction() as connection:
        yield connection
    database.close()


def move(
    tx: Connection,
    before: DecisionStatus,
    after: DecisionStatus,
    *,
    token: int,
    attempt_no: int | None = None,
) -> bool:
    """One step of the only decision; True if it was taken."""
    id_ = tx.execute(text("SELECT decision_id FROM trade_decisions")).scalar_one()
    step = Advance(
        decision_id=id_,
        before=before,
        after=after,
        reason=Reason.ACCEPTED.value,
        due_at=NOW,
        attempt_no=attempt_no,
    )
    return decisions.advance(tx, [step], token=token, now=NOW) == {id_}


def submitting(tx: Connection, *, token: int) -> None:
    """A decision in its first attempt under `token`."""
    intake.insert(tx, [decision()], source="test", now=NOW)
    assert move(tx, S.PLANNED, S.APPROVED, token=token)
    assert move(tx, S.APPROVED, S.SUBMITTING, token=token)


def second_attempt(tx: Connection, *, token: int) -> None:
    """The first attempt's owner died; the next one proved absence and sends again."""
    submitting(tx, token=token - 1)
    assert move(tx, S.SUBMITTING, S.IN_DOUBT, token=token)
    assert move(tx, S.IN_DOUBT, S.APPROVED, token=token)
    assert move(tx, S.APPROVED, S.SUBMITTING, token=token)


def test_an_older_token_moves_nothing(tx: Connection) -> None:
    submitting(tx, token=7)
    assert not move(tx, S.SUBMITTING, S.REJECTED, token=6)
    assert move(tx, S.SUBMITTING, S.REJECTED, token=7)


def test_an_outcome_of_an_earlier_attempt_moves_nothing(tx: Connection) -> None:
    """A process that lost the account and got it back still holds an answer to attempt 1."""
    second_attempt(tx, token=6)
    assert not move(tx, S.SUBMITTING, S.APPROVED, token=7, attempt_no=1)
    assert move(tx, S.SUBMITTING, S.SUBMITTED, token=7, attempt_no=2)


def test_control_without_the_attempt_the_late_outcome_would_win(tx: Connection) -> None:
    second_attempt(tx, token=6)
    assert move(tx, S.SUBMITTING, S.APPROVED, token=7, attempt_no=None)


def test_a_status_that_has_moved_on_is_left_alone(tx: Connection) -> None:
    submitting(tx, token=1)
    assert move(tx, S.SUBMITTING, S.SUBMITTED, token=1)
    assert not move(tx, S.SUBMITTING, S.IN_DOUBT, token=1)


def test_the_same_hash_is_answered_three_ways(tx: Connection) -> None:
    (first,) = intake.insert(tx, [decision()], source="test", now=NOW)
    (again,) = intake.insert(tx, [decision()], source="test", now=NOW)
    (other,) = intake.insert(tx, [decision(qty="11", type="market")], source="test", now=NOW)
    assert [a.result for a in (first, again, other)] == ["created", "replayed", "conflict"]
    assert other.differing == ("qty",)
    assert tx.execute(text("SELECT count(*) FROM trade_decisions")).scalar_one() == 1
    assert tx.execute(text("SELECT account FROM trade_decisions")).scalar_one() == ACCOUNT
