"""The read service, on rows that storage's own writers made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, text

from tests.factories import decision
from torghut.domain.decisions import Decision
from torghut.domain.deny_reasons import DenyReason
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.exposure import Facts, Reservations, TradingState
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.limits import Rule
from torghut.domain.orders import Order
from torghut.domain.risk_case import Check, Verdict
from torghut.domain.submission import Proof
from torghut.ports import Answer, BrokerAccount, BrokerPosition, FillActivity, Outcome
from torghut.storage import (
    attempts,
    control,
    decisions,
    discrepancies,
    executions,
    facts,
    fills,
    intake,
    leases,
    pnl,
    queries,
    verdicts,
)
from torghut.storage.attempts import Intent
from torghut.storage.database import Database
from torghut.storage.decisions import Advance
from torghut.storage.executions import Observation
from torghut.storage.fills import Booking
from torghut.storage.queries import Filters, HashNotUsable
from torghut.storage.verdicts import Judgement

NOW = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
ACCOUNT = "paper"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


def take_in(tx: Connection, *given: Decision, now: datetime = NOW) -> None:
    intake.insert(tx, given, source="test", now=now)


def step(
    tx: Connection, given: Decision, *path: DecisionStatus, reason: str = Reason.ACCEPTED
) -> int:
    """Walk a decision along `path`; returns its id."""
    row = tx.execute(
        text("SELECT decision_id, status FROM trade_decisions WHERE decision_hash = :hash"),
        {"hash": given.decision_hash},
    ).one()
    before = DecisionStatus(row.status)
    for after in path:
        advance = Advance(
            decision_id=row.decision_id, before=before, after=after, reason=reason, due_at=NOW
        )
        assert decisions.advance(tx, [advance], token=1, now=NOW)
        before = after
    return int(row.decision_id)


def broker_order(given: Decision, **over: object) -> Order:
    values: dict[str, Any] = {
        "broker_order_id": f"b-{given.decision_hash[:8]}",
        "client_order_id": given.decision_hash,
        "symbol": given.order.symbol,
        "side": given.order.side.value,
        "order_type": "market",
        "time_in_force": "day",
        "status": "filled",
        "qty": Decimal(10),
        "notional": None,
        "limit_price": None,
        "stop_price": None,
        "cum_qty": Decimal(10),
        "avg_px": Decimal("101.50"),
        "created_at": NOW,
        "updated_at": NOW,
        "submitted_at": NOW,
        "replaces": None,
        "replaced_by": None,
        "raw": {"status": "filled"},
    }
    return Order(**{**values, **over})


def fill_of(order: Order, number: int, qty: str) -> FillActivity:
    return FillActivity(
        activity_id=f"{order.broker_order_id}-{number}",
        broker_order_id=order.broker_order_id,
        symbol=order.symbol,
        side=order.side,
        last_qty=Decimal(qty),
        last_px=Decimal("101.5"),
        cum_qty=Decimal(qty),
        leaves_qty=Decimal(0),
        transact_time=NOW + timedelta(seconds=number),
        raw={},
    )


def whole_life(tx: Connection, given: Decision) -> Order:
    """planned … closed, with a verdict, an attempt, an order, two fills and a discrepancy."""
    take_in(tx, given)
    id_ = step(tx, given, DecisionStatus.APPROVED, DecisionStatus.SUBMITTING)
    rule = Rule(
        DenyReason.ORDER_NOTIONAL, "max_order_notional", Decimal(100_000), "currency", "default"
    )
    check = Check(rule.code, rule, True, Decimal(1015))
    verdict = Verdict(
        deny_reason=None,
        made=(check,),
        policy_version="v1",
        reference_px=Decimal("101.5"),
        size_qty=Decimal(10),
        notional=Decimal(1015),
    )
    known = Facts(state=TradingState.ACTIVE, state_reason="default", account=None)
    item = Judgement(decision_id=id_, verdict=verdict, facts=known, reservations=Reservations())
    verdicts.add(tx, [item], now=NOW)
    intent = Intent(
        decision_id=id_,
        attempt_no=1,
        client_order_id=given.decision_hash,
        order_sent=given.order.payload(),
        strategy=given.strategy,
        counted_today=False,
    )
    attempts.add_intents(tx, ACCOUNT, [intent], token=1, day=NOW.date(), now=NOW)
    order = broker_order(given)
    answer = Answer(outcome=Outcome.ACCEPTED, order=order, message="", http_status=200)
    attempts.set_outcomes(tx, [(id_, 1, Proof.ACCEPTED, answer)], now=NOW)
    seen = Observation(order, id_, "submitted", "submit")
    [recorded] = executions.record(tx, ACCOUNT, [seen], now=NOW)
    step(tx, given, DecisionStatus.SUBMITTED)
    bookings = [
        Booking(fill_of(order, number, qty), recorded.execution_id, id_, given.strategy)
        for number, qty in ((1, "4"), (2, "6"))
    ]
    fills.append(tx, ACCOUNT, bookings, now=NOW)
    discrepancies.open_(
        tx,
        ACCOUNT,
        DiscrepancyKind.ORDER_DIFFERS,
        given.decision_hash,
        {"qty": "9"},
        actor="test",
        now=NOW,
    )
    assert decisions.close_finished(tx, ACCOUNT, now=NOW, limit=10)
    return order


def pages(
    list_: Callable[[Connection, Filters], list[dict[str, Any]]], tx: Connection, **given: Any
) -> list[int]:
    """Ids of a list read three at a time."""
    seen: list[int] = []
    before = None
    while rows := list_(tx, Filters(limit=3, before=before, **given)):
        assert len(rows) <= 3
        seen += [row["id"] for row in rows]
        before = rows[-1]["id"]
    return seen


def test_decisions_are_listed_newest_first_and_by_every_filter(database: Database) -> None:
    with database.transaction() as tx:
        for number in range(10):
            one = decision(
                intent=str(number),
                symbol="MSFT" if number % 2 else "AAPL",
                strategy="slow" if number < 3 else "fast",
            )
            take_in(tx, one, now=NOW + timedelta(minutes=number))
            if number == 4:
                step(tx, one, DecisionStatus.DENIED, reason=DenyReason.ORDER_QTY)

        def intents(**given: Any) -> list[int]:
            return [int(row["intent"]) for row in queries.decisions(tx, Filters(**given))]

        assert intents() == list(range(9, -1, -1))
        assert intents(limit=2) == [9, 8]
        assert intents(symbol="msft") == [9, 7, 5, 3, 1]
        assert intents(strategy="slow") == [2, 1, 0]
        assert intents(status="denied") == [4]
        assert intents(account="other") == []
        assert intents(since=NOW + timedelta(minutes=8)) == [9, 8]
        assert intents(symbol="AAPL", strategy="fast", status="planned", limit=2) == [8, 6]
        assert pages(queries.decisions, tx) == sorted(pages(queries.decisions, tx), reverse=True)
        assert len(pages(queries.decisions, tx)) == 10
        assert len(queries.decisions(tx, Filters(limit=-5))) == 1


def test_a_decision_as_plain_json(database: Database) -> None:
    given = decision(qty="1.50", correlation_id="c-1")
    with database.transaction() as tx:
        take_in(tx, given)
        [row] = queries.decisions(tx, Filters())
    assert list(row) == [
        *("id", "decision_hash", "account", "strategy", "symbol", "side", "type", "qty"),
        *("notional", "limit_price", "event_ts", "intent", "status", "status_reason"),
        *("status_detail", "attempts", "expires_at", "created_at", "updated_at"),
        "correlation_id",
    ]
    assert row["qty"] == "1.5"
    assert row["notional"] is None
    assert row["event_ts"] == "2026-01-05T14:30:00.000000Z"
    assert row["created_at"] == "2026-01-05T15:00:00.000000Z"
    assert json.loads(json.dumps(row)) == row


def test_orders_fills_and_positions(database: Database) -> None:
    mine, other = decision(), decision(strategy="other", intent="2", side="sell", symbol="MSFT")
    with database.transaction() as tx:
        whole_life(tx, mine)
        whole_life(tx, other)
        foreign = broker_order(
            mine, broker_order_id="b-x", client_order_id="by hand", status="new", cum_qty=Decimal(0)
        )
        seen = Observation(foreign, None, "external", "rest")
        executions.record(tx, ACCOUNT, [seen], now=NOW)

        def orders(**given: Any) -> list[str]:
            return [r["client_order_id"] for r in queries.executions(tx, Filters(**given))]

        hashes = [mine.decision_hash, other.decision_hash]
        assert orders() == ["by hand", hashes[1], hashes[0]]
        assert orders(strategy="other") == [hashes[1]]
        assert orders(status="new") == ["by hand"]
        assert orders(symbol="MSFT", account=ACCOUNT) == [hashes[1]]
        assert orders(since=NOW + timedelta(seconds=1)) == []
        first = queries.executions(tx, Filters(symbol="MSFT"))[0]
        assert (first["strategy"], first["cum_qty"], first["avg_px"]) == ("other", "10", "101.5")
        assert queries.executions(tx, Filters(status="new"))[0]["strategy"] is None

        booked = queries.fills(tx, Filters(strategy="sample"))
        assert [row["last_qty"] for row in booked] == ["6", "4"]
        assert booked[0]["client_order_id"] == mine.decision_hash
        assert len(queries.fills(tx, Filters(status="filled"))) == 4
        assert len(queries.fills(tx, Filters(since=NOW + timedelta(seconds=2)))) == 2
        assert len(pages(queries.fills, tx)) == 4

        held = pnl.positions(tx, Filters())
        assert [(row["symbol"], row["qty"]) for row in held] == [("AAPL", "10"), ("MSFT", "-10")]
        assert held[0]["avg_px"] == "101.5" and held[0]["strategy"] is None
        [own] = pnl.positions(tx, Filters(strategy="other"))
        assert (own["symbol"], own["qty"], own["strategy"]) == ("MSFT", "-10", "other")
        assert len(pnl.positions(tx, Filters(status="open"))) == 2
        assert pnl.positions(tx, Filters(status="flat")) == []
        assert len(pages(pnl.positions, tx)) == 2


def test_the_whole_story(database: Database) -> None:
    given = decision(params={"why": "crossed"})
    with database.transaction() as tx:
        order = whole_life(tx, given)
    with database.transaction() as tx:
        queries.begin(tx)
        told = queries.story(tx, given.decision_hash)
    assert told is not None
    assert json.loads(json.dumps(told)) == told
    assert told["decision"]["status"] == "closed"
    assert told["decision"]["payload"] == given.payload()
    assert told["identity"] == given.identity()
    assert told["identity_intact"] is True
    assert told["canonical_identity"].startswith('{"account":"paper","event_ts":')
    [verdict] = told["verdicts"]
    assert verdict["outcome"] == "approved" and verdict["notional"] == "1015"
    assert verdict["checks"][0]["limit"] == "100000"
    assert verdict["facts"]["facts"]["state"] == "active"
    [attempt] = told["attempts"]
    assert (attempt["operation"], attempt["attempt_no"], attempt["outcome"]) == (
        "submit",
        1,
        "accepted",
    )
    assert attempt["broker_order_id"] == order.broker_order_id
    assert attempt["order_sent"] == given.order.payload()
    [execution] = told["executions"]
    assert execution["broker_order_id"] == order.broker_order_id
    assert [event["status"] for event in execution["events"]] == ["filled"]
    assert [fill["last_qty"] for fill in told["fills"]] == ["4", "6"]
    assert [d["kind"] for d in told["discrepancies"]] == ["order_differs"]


def test_a_decision_by_prefix(database: Database) -> None:
    given = [decision(intent=str(number)) for number in range(50)]
    with database.transaction() as tx:
        take_in(tx, *given)
        for one in given:
            for prefix in (one.decision_hash, one.decision_hash[:8], f" {one.decision_hash[:20]} "):
                found = queries.decision(tx, prefix.upper())
                assert found is not None and found["decision_hash"] == one.decision_hash
        assert queries.decision(tx, "0" * 64) is None
        assert queries.story(tx, "f" * 64) is None
        for unusable in ("", "abc", "g" * 64, "a" * 65, "%", "' OR 1=1 --"):
            with pytest.raises(HashNotUsable):
                queries.decision(tx, unusable)


def test_an_ambiguous_prefix_is_said_to_be_so(database: Database) -> None:
    with database.transaction() as tx:
        for end in ("0", "f"):
            tx.execute(
                text("""INSERT INTO trade_decisions (decision_hash, hash_version, payload_digest,
                  account, strategy, symbol, side, event_ts, intent, payload, source, due_at,
                  expires_at, created_at, updated_at)
                VALUES (:hash, 1, :hash, 'paper', 's', 'A', 'buy', :now, :end,
                  '{"type": "market", "qty": "1"}', 'test', :now, :now, :now, :now)"""),
                {"hash": "ab" * 4 + end * 56, "end": end, "now": NOW},
            )
        with pytest.raises(HashNotUsable, match="more than one"):
            queries.decision(tx, "ab" * 4)
        found = queries.decision(tx, "ab" * 4 + "0")
        assert found is not None and found["intent"] == "0"
        told = queries.story(tx, "ab" * 4 + "f")
        assert told is not None and told["identity_intact"] is False  # the hash was made up


def test_summary(database: Database) -> None:
    doubtful = decision(intent="doubt")
    with database.transaction() as tx:
        nothing = queries.summary(tx, ACCOUNT)
        assert nothing["lease"] is None and nothing["broker_account"] is None
        assert set(nothing["decisions"].values()) == {0}
        assert nothing["in_doubt"] == {"decisions": 0, "oldest_age_s": None}

        whole_life(tx, decision())
        take_in(tx, decision(intent="new"), doubtful)
        step(
            tx,
            doubtful,
            DecisionStatus.APPROVED,
            DecisionStatus.SUBMITTING,
            DecisionStatus.IN_DOUBT,
            reason=Reason.NO_DEFINITE_ANSWER,
        )
        live = broker_order(doubtful, status="new", cum_qty=Decimal(0), client_order_id="by hand")
        seen = Observation(live, None, "external", "rest")
        executions.record(tx, ACCOUNT, [seen], now=NOW)
        leases.acquire(tx, ACCOUNT, "host:1", ttl_s=60)
        control.set_trading_state(
            tx, "account:paper", TradingState.HALTED, actor="cli:me", reason="news", now=NOW
        )
        answer = BrokerAccount(
            account_number="PA1",
            status="ACTIVE",
            currency="USD",
            cash=Decimal("100.10"),
            equity=Decimal(200),
            buying_power=Decimal(400),
            blocked=False,
            raw={"last_equity": "1"},
        )
        position = BrokerPosition(
            symbol="AAPL", qty=Decimal(10), avg_px=None, current_price=Decimal(100)
        )
        facts.store_account(tx, ACCOUNT, answer, [position], observed_at=NOW)
        stands = queries.summary(tx, ACCOUNT, now=NOW + timedelta(seconds=90))
        assert stands["decisions"]["closed"] == 1
        assert stands["decisions"]["planned"] == 1
        assert stands["decisions"]["in_doubt"] == 1
        assert stands["in_doubt"] == {"decisions": 1, "oldest_age_s": 90.0}
        assert stands["open_orders"] == 1
        assert stands["open_discrepancies"] == 1
        assert stands["lease"] == {"owner": "host:1", "fencing_token": 1, "valid": True}
        assert stands["trading_state"] == {
            "state": "halted",
            "reason": "account:paper by cli:me: news",
        }
        assert stands["broker_account"]["cash"] == "100.1"
        assert "raw" not in stands["broker_account"]
        assert json.loads(json.dumps(stands)) == stands

        assert [row["scope"] for row in queries.trading_states(tx)] == ["account:paper"]
        [opened] = queries.discrepancies(tx, Filters(status="open", account=ACCOUNT))
        assert opened["evidence"] == {"qty": "9"} and opened["resolved_at"] is None


def test_every_question_may_be_asked_of_a_read_only_snapshot(database: Database) -> None:
    with database.transaction() as tx:
        queries.begin(tx)
        for list_ in (queries.decisions, queries.executions, queries.fills, pnl.positions):
            assert list_(tx, Filters(strategy="s", symbol="A", account="a", status="open")) == []
        assert queries.decision(tx, "a" * 64) is None
        for status in (None, "open", "resolved"):
            whole = Filters(status=status, account="a", since=NOW, before=9)
            assert queries.discrepancies(tx, whole) == []
        assert queries.trading_states(tx) == []
        queries.summary(tx, ACCOUNT)
