"""Entries are facts: the database keeps them as they were booked (P6)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from tests.migrations.test_schema import drop_guards, plain, refusal

ENTRY = """
INSERT INTO account_entries (account, entry_key, kind, symbol, qty, cash, occurred_at, recorded_at,
  actor, reason, raw)
VALUES ('paper', %(key)s, 'CFEE', %(symbol)s, %(qty)s, 0, now(), now(), 'test', 'a test', '{}')"""
GOOD = {"key": "k", "symbol": "BTC/USD", "qty": "-0.000000001"}


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute(ENTRY, GOOD)
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE account_entries SET qty = 1",
        "DELETE FROM account_entries",
        "TRUNCATE account_entries",
    ],
)
def test_p6_an_entry_never_changes(connection: Connection, statement: str) -> None:
    assert refusal(connection, statement) is not None
    drop_guards(connection, "account_entries")
    assert refusal(connection, statement) is None


@pytest.mark.parametrize(
    "change", [{"key": "k"}, {"symbol": None}, {"qty": "NaN"}, {"qty": "Infinity"}]
)
def test_what_makes_no_sense_is_refused(connection: Connection, change: dict[str, object]) -> None:
    """Once each; units have a symbol; amounts can be added."""
    assert refusal(connection, ENTRY, {**GOOD, "key": "other", **change}) is not None
    assert refusal(connection, ENTRY, {**GOOD, "key": "other"}) is None
