"""What the database refuses about plans, whatever the code does; each with its control."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

PLAN = """
INSERT INTO plans (account, correlation_id, strategy, event_ts, expires_at, payload, digest, source,
  created_at, updated_at)
VALUES ('paper', 'c', 's', now(), now(), '{}', repeat('a', 64), 'test', now(), now());
INSERT INTO plan_items (plan_id, position, phase, symbol, trade_amount, status)
VALUES (1, 0, 'sell', 'A', 5, 'pending'), (1, 1, 'buy', 'A', 5, 'pending');
UPDATE plan_items SET status = 'placed', qty = 1, decision_hash = 'h' WHERE position = 0;
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    url = database_url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(url, autocommit=True) as opened:
        opened.execute(PLAN)
        yield opened


@pytest.mark.parametrize(
    ("statement", "table", "guard"),
    [
        ("UPDATE plans SET payload = '{\"a\": 1}'", "plans", "plan_guard"),
        ("UPDATE plans SET correlation_id = 'd'", "plans", "plan_guard"),
        ("UPDATE plan_items SET decision_hash = 'i' WHERE position = 0", "plan_items",
         "plan_item_guard"),
        ("UPDATE plan_items SET status = 'pending', qty = NULL, decision_hash = NULL"
         " WHERE position = 0", "plan_items", "plan_item_guard"),
        ("UPDATE plan_items SET trade_amount = 6 WHERE position = 1", "plan_items",
         "plan_item_guard"),
        ("DELETE FROM plan_items WHERE position = 1", "plan_items", "plan_item_kept"),
    ],
)  # fmt: skip
def test_p1_what_an_item_is_and_its_order_never_change(
    connection: psycopg.Connection, statement: str, table: str, guard: str
) -> None:
    with pytest.raises(psycopg.errors.IntegrityError):
        connection.execute(statement)
    connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {guard}")
    connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE plan_items SET status = 'succeeded' WHERE position = 1",
        "INSERT INTO plan_items (plan_id, position, phase, symbol, trade_amount, status)"
        " VALUES (1, 2, 'buy', 'A', 5.0, 'pending')",
        "INSERT INTO plan_items (plan_id, position, phase, symbol, trade_amount, status)"
        " VALUES (1, 2, 'buy', 'A', 'NaN', 'pending')",
        "INSERT INTO plan_items (plan_id, position, phase, symbol, trade_amount, status)"
        " VALUES (1, 2, 'buy', 'A', 7, 'duplicate')",
        "UPDATE plans SET status = 'completed'",
        "UPDATE plans SET budget = 1",
    ],
)
def test_checks_refuse_what_is_no_plan(connection: psycopg.Connection, statement: str) -> None:
    """The same item twice without saying so, an end without its time, an order without a hash."""
    with pytest.raises(psycopg.errors.IntegrityError):
        connection.execute(statement)
