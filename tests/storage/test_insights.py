"""What the console asks beyond the lists: bounded questions, whatever the size of the books."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, text

from tests.factories import decision
from torghut.domain.events import Event, EventKind
from torghut.storage import control, insights, intake, queries
from torghut.storage.database import Database

NOW = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
ACCOUNT = "paper"


@pytest.fixture
def tx(database_url: str) -> Iterator[Connection]:
    database = Database(database_url)
    with database.transaction() as tx:
        yield tx
    database.close()


def judged(tx: Connection, account: str, count: int) -> None:
    """Verdicts a minute apart, with an equity that grows by one."""
    taken = decision(intent=account)
    intake.insert(tx, [taken], source="test", now=NOW)
    tx.execute(
        text("""INSERT INTO risk_verdicts (decision_id, outcome, policy_version, checks, facts,
          judged_at)
        SELECT d.decision_id, 'approved', 'v1', '[]',
          jsonb_build_object('facts', jsonb_build_object('account',
            jsonb_build_object('equity', (1000 + n)::text))),
          CAST(:now AS timestamptz) + n * interval '1 min'
        FROM trade_decisions d, generate_series(1, :count) n WHERE d.decision_hash = :hash"""),
        {"hash": taken.decision_hash, "count": count, "now": NOW},
    )


def test_the_curve_of_equity_is_a_bounded_sample_in_order(tx: Connection) -> None:
    judged(tx, ACCOUNT, 1000)
    tx.execute(
        text("""INSERT INTO risk_verdicts (decision_id, outcome, policy_version, checks, facts,
        judged_at) SELECT decision_id, 'approved', 'v1', '[]', '{}', now() FROM trade_decisions""")
    )  # a verdict without an account's facts, as one whose broker was away
    found = insights.equity(tx, ACCOUNT, points=20)
    values = [Decimal(row["equity"]) for row in found]
    assert 15 <= len(found) <= 21
    assert values == sorted(values) and values[0] == 1001
    assert [row["at"] for row in found] == sorted(row["at"] for row in found)
    assert insights.equity(tx, "another", points=20) == []


def test_no_verdict_no_curve(tx: Connection) -> None:
    assert insights.equity(tx, ACCOUNT, points=20) == []
    assert insights.newest_verdict(tx, ACCOUNT) is None
    assert insights.ticks(tx, each=3) == []
    assert insights.operator_events(tx, before=None, limit=5) == ([], None)


def test_the_newest_ticks_of_each_strategy(tx: Connection) -> None:
    for name in ("b", "a"):
        for hour in range(5):
            at = NOW + timedelta(hours=hour)
            control.claim_tick(tx, name, at, outcome="ran", decisions=hour, owner="me", now=at)
    found = [(row["strategy"], row["decisions"]) for row in insights.ticks(tx, each=2)]
    assert found == [("a", 4), ("a", 3), ("b", 4), ("b", 3)]


def test_the_audit_goes_back_in_bounded_stretches(
    tx: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody decided is not in it; a page may be empty and have an older one."""
    monkeypatch.setattr(insights, "STRETCH", 10)
    payload = {"scope": "global", "before": "active", "after": "halted", "reason": "why"}
    halt = Event(EventKind.TRADING_STATE_CHANGED, "console:local", None, None, payload)
    noise = Event(EventKind.DECISION_PLANNED, "intake", ACCOUNT, None, {})
    control.add_events(tx, [halt, *[noise] * 25, halt], now=NOW)
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        rows, cursor = insights.operator_events(tx, before=cursor, limit=5)
        seen += rows
        pages += 1
    assert [row["actor"] for row in seen] == ["console:local"] * 2
    assert pages >= 3


def test_open_orders_are_those_that_may_still_be_filled(tx: Connection) -> None:
    """`open` is no status of the broker's; it is served by the index of unfinished orders."""
    for number, terminal in enumerate((False, True, False)):
        tx.execute(
            text("""INSERT INTO executions (account, client_order_id, broker_order_id, origin,
              symbol, side, order_type, time_in_force, qty, status, terminal, cum_qty, leaves_qty,
              broker_created_at, created_at, updated_at)
            VALUES (:account, :id, :id, 'external', 'AAPL', 'buy', 'market', 'day', 1, :status,
              :terminal, 0, :leaves, now(), now(), now())"""),
            {
                "account": ACCOUNT,
                "id": f"order-{number}",
                "status": "canceled" if terminal else "new",
                "terminal": terminal,
                "leaves": 0 if terminal else 1,
            },
        )
    filters = queries.Filters(status=queries.OPEN, account=ACCOUNT)
    assert [row["broker_order_id"] for row in queries.executions(tx, filters)] == [
        "order-2",
        "order-0",
    ]
    external = queries.Filters(status=queries.OPEN, origin="submitted")
    assert queries.executions(tx, external) == []
