"""The database knows the steps of an order action, and keeps what was asked for (P5)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from tests.migrations.test_schema import decision, drop_guards, insert, plain, refusal
from torghut.domain.order_actions import ACTION_ENDED, ACTION_TRANSITIONS, ActionStatus

ACTION = """
INSERT INTO order_actions (account, operation, decision_id, target, request_key, request, changes,
  requested_by, reason, due_at, created_at, updated_at)
SELECT 'paper', 'replace', decision_id, 'target', 'key', '{}', '{}', 'test', 'a test', now(), now(),
  now() FROM trade_decisions"""
STEP = """
UPDATE order_actions SET status = %(to)s, status_reason = 'r', attempts = 1, fencing_token = 1,
  broker_order_id = 'b', client_order_id = 'c', open_qty = 1,
  in_doubt_since = CASE WHEN %(to)s = 'in_doubt' THEN now() END,
  finalized_at = CASE WHEN %(ended)s THEN now() END"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A database with one decision and one action."""
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        insert(connection, **decision())
        connection.execute(ACTION)
        yield connection


def steps(connection: Connection) -> dict[ActionStatus, frozenset[ActionStatus]]:
    """Every step that the database takes, each tried from a row brought there without guards."""
    found: dict[ActionStatus, frozenset[ActionStatus]] = {}
    for before in ActionStatus:
        connection.execute("ALTER TABLE order_actions DISABLE TRIGGER action_guard")
        connection.execute(STEP, {"to": before.value, "ended": before in ACTION_ENDED})
        connection.execute("ALTER TABLE order_actions ENABLE TRIGGER action_guard")
        taken = {
            after
            for after in ActionStatus
            if after is not before
            and refusal(connection, STEP, {"to": after.value, "ended": after in ACTION_ENDED})
            is None
        }
        found[before] = frozenset(taken)
    return found


def test_p5_the_database_has_the_same_table(connection: Connection) -> None:
    assert steps(connection) == ACTION_TRANSITIONS


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE order_actions SET reason = 'another'",
        'UPDATE order_actions SET changes = \'{"qty": "1"}\'',
        "UPDATE order_actions SET client_order_id = 'another'",
        "UPDATE order_actions SET attempts = 0, status = 'requested'",
        "DELETE FROM order_actions",
    ],
)
def test_what_was_asked_for_stays(connection: Connection, statement: str) -> None:
    """Above all a client_order_id that has left: it is how we know the order for ours."""
    connection.execute(STEP, {"to": "sending", "ended": False})
    assert refusal(connection, statement) is not None
    drop_guards(connection, "order_actions")
    assert refusal(connection, statement) is None
