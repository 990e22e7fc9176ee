"""The commands of the ledger: what is held beside the broker's, profit, and accepting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from torghut import cli_ledger, cli_reads
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.errors import TorghutError
from torghut.ports import BrokerAccount, BrokerPosition
from torghut.storage import account_entries, discrepancies, facts
from torghut.storage.account_entries import Entry
from torghut.storage.database import Database

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
EVIDENCE = {"ours": "10", "brokers": "12", "difference": "2", "beyond_tolerance": True}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as opened:
        yield opened


@pytest.fixture
def books(database: Database) -> Database:
    """10 AAPL at 100 by our books, 12 by the broker's, which has MSFT too; a dividend."""
    with database.transaction() as tx:
        for entry in (
            Entry(
                key="opening:AAPL", kind="OPENING", symbol="AAPL", qty=Decimal(10),
                px=Decimal(100), occurred_at=NOW, actor="test", reason="a test",
            ),
            Entry(
                key="1", kind="DIV", cash=Decimal("12.5"), occurred_at=NOW, actor="test",
                reason="a test",
            ),
        ):  # fmt: skip
            assert account_entries.append(tx, "paper", entry, now=NOW)
            assert not account_entries.append(tx, "paper", entry, now=NOW), "booked once"
        answer = BrokerAccount(
            account_number="PA1", status="ACTIVE", currency="USD", cash=Decimal(100),
            equity=Decimal(200), buying_power=Decimal(400), blocked=False, raw={},
        )  # fmt: skip
        held = [
            BrokerPosition(symbol=symbol, qty=Decimal(qty), avg_px=None, current_price=Decimal(px))
            for symbol, qty, px in (("AAPL", 12, 110), ("MSFT", 1, 400))
        ]
        facts.store_account(tx, "paper", answer, held, observed_at=NOW)
        kind = DiscrepancyKind.POSITION_DIFFERS
        discrepancies.open_(tx, "paper", kind, "AAPL", EVIDENCE, actor="test", now=NOW)
    return database


def run(database: Database, *arguments: str) -> Result:
    @contextmanager
    def connect() -> Iterator[Database]:
        yield database

    app = typer.Typer()
    cli_ledger.register(app, connect)
    cli_reads.register(app, connect)
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, list(arguments))


def rows(database: Database, *arguments: str) -> list[Any]:
    result = run(database, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_positions_stand_beside_the_brokers(books: Database) -> None:
    apple, other = rows(books, "positions")
    assert (apple["qty"], apple["mark"], apple["unrealized_pl"]) == ("10", "110", "100")
    assert (apple["broker_qty"], apple["difference"]) == ("12", "2")
    assert (other["symbol"], other["qty"], other["difference"]) == ("MSFT", "0", "1")
    shown = run(books, "positions").stdout
    assert "12 (+2)" in shown and "100.00" in shown


@pytest.mark.parametrize("by", ["strategy", "symbol", "account"])
def test_profit_adds_up(books: Database, by: str) -> None:
    found = rows(books, "pnl", "--by", by, "--account", "paper")
    assert sum(Decimal(row["unrealized_pl"]) for row in found) == 100
    shown = run(books, "pnl", "--by", by, "--account", "paper").stdout
    assert "100.00" in shown and "fees and income beside it: 12.50" in shown


def test_profit_of_nothing_says_so(database: Database) -> None:
    assert "no positions yet" in run(database, "pnl", "--account", "paper").stdout


def test_a_difference_is_accepted_once_and_with_a_reason(books: Database) -> None:
    accept = ("accept", "aapl", "--account", "paper")
    assert run(books, *accept, "--reason", " ").exit_code == 2
    done = run(books, *accept, "--reason", "shares from elsewhere")
    assert done.exit_code == 0 and "AAPL: 2 taken over" in done.stdout
    apple = rows(books, "positions")[0]
    assert (apple["qty"], apple["difference"], apple["avg_px"]) == ("12", "0", "101.666666667")
    again = run(books, *accept, "--reason", "shares from elsewhere")
    assert isinstance(again.exception, TorghutError)
    assert "torghut discrepancies" in str(again.exception)
