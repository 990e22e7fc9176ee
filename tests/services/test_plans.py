"""Rebalance plans: sells, then buys by what they brought, each item once (P1, P3, P9).

Plans are worked off by the production parts against the simulator; the prices are pinned, so that
what a plan trades is known to the cent.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.services.planning import Planning, of
from tests.services.rig import ACCOUNT, Rig
from torghut.domain.plans import InvalidPlan
from torghut.domain.sagas import StepFailed
from torghut.services import operator
from torghut.storage.rows import IntakeResult


@pytest.fixture
def planning(rig: Rig) -> Planning:
    for symbol, px in (("AAPL", "100"), ("MSFT", "50"), ("SPY", "10"), ("QQQ", "20")):
        rig.control("POST", "/market/price", {"symbol": symbol, "price": px, "bid": px, "ask": px})
    return Planning(rig)


def test_sells_first_then_buys_by_what_they_brought(planning: Planning) -> None:
    """The whole story: two sells, three buys, one of which is cut and one is not funded."""
    planning.hold(("AAPL", "20"), ("MSFT", "20"))
    answer = planning.send(
        ("buy", "SPY", "300"),
        ("sell", "AAPL", "500"),
        ("buy", "QQQ", "900"),
        ("sell", "MSFT", 520),
        ("buy", "SPY", "100"),
        cash="0",
    )
    assert answer.result is IntakeResult.CREATED
    plan = planning.finish(answer.plan_id)
    assert plan["status"] == "completed" and plan["saga"]["status"] == "completed"
    # 5 AAPL and 10 MSFT are sold: 1000; 30 SPY of 300, QQQ is cut from 900 to 700, SPY gets nothing
    assert (plan["proceeds"], plan["budget"]) == ("1000", "1000")
    assert of(plan, "qty") == ["30", "5", "35", "10", None]
    assert of(plan, "status") == ["succeeded"] * 4 + ["skipped"]
    assert of(plan, "reason")[4] == "not_funded"
    assert plan["statistics"] == {
        "sell": {"placed": 2, "succeeded": 2, "skipped": 0, "failed": 0, "duplicates": 0,
                 "trade_value": "1000"},
        "buy": {"placed": 2, "succeeded": 2, "skipped": 1, "failed": 0, "duplicates": 0,
                "trade_value": "1000"},
    }  # fmt: skip
    sells_end = planning.rig.sql(
        "SELECT max(settled_at) AS at FROM plan_items WHERE phase = 'sell'"
    )[0].at
    for row in planning.rig.sql(
        """SELECT d.created_at, d.correlation_id, d.intent FROM plan_items i
        JOIN trade_decisions d USING (decision_hash) WHERE i.phase = 'buy'"""
    ):
        assert row.created_at >= sells_end and row.correlation_id == "plan-1"
    assert {row.intent for row in planning.rig.sql("SELECT intent FROM trade_decisions")} == {
        "buy:300:plan-1", "buy:900:plan-1", "sell:500:plan-1", "sell:520:plan-1",
    }  # fmt: skip
    assert planning.rig.totals()["duplicate_client_order_ids"] == []


def test_a_plan_with_more_buys_than_sells_takes_the_difference_from_cash(
    planning: Planning,
) -> None:
    """What the plan exceeds its sells by; not what a sell that failed did not bring."""
    planning.hold(("AAPL", "3"))
    answer = planning.send(("sell", "AAPL", "1000"), ("buy", "SPY", "1200"))
    plan = planning.finish(answer.plan_id)
    assert of(plan, "qty") == ["3", "50"]  # 3 AAPL are all there is: 300, and the 200 of cash
    assert (plan["proceeds"], plan["budget"]) == ("300", "500")


def test_duplicates_within_a_plan_are_one_order(planning: Planning) -> None:
    """1000, "1000.00" and 1e3 are one amount; another amount or side is another item."""
    answer = planning.send(
        ("buy", "SPY", 1000),
        ("buy", "spy", "1000.00"),
        ("buy", "SPY", "1e3"),
        ("buy", "SPY", "1000.01"),
        ("sell", "SPY", "1000"),
        cash="5000",
    )
    plan = planning.finish(answer.plan_id)
    assert of(plan, "status") == ["succeeded", "duplicate", "duplicate", "succeeded", "skipped"]
    assert len(set(of(plan, "decision_hash")[:3])) == 1
    assert of(plan, "first_status")[1:3] == ["succeeded"] * 2
    assert plan["statistics"]["buy"]["duplicates"] == 2
    assert of(plan, "reason")[4] == "no_position"
    assert planning.rig.count("trade_decisions") == 2


def test_the_same_plan_again_is_answered_with_what_became_of_it(planning: Planning) -> None:
    """And another one under its correlation_id is a conflict that names the difference."""
    first = planning.send(("buy", "SPY", "100"), ("buy", "QQQ", "0.5"))
    planning.finish(first.plan_id)
    again = planning.send(("buy", "SPY", "100.0"), ("buy", "QQQ", 0.5))
    assert again.result is IntakeResult.REPLAYED and again.plan_id == first.plan_id
    assert of(again.plan, "status") == ["succeeded", "skipped"]
    assert of(again.plan, "reason")[1] == "micro_order"
    other = planning.send(("buy", "SPY", "101"), ("sell", "QQQ", "0.5"), ("buy", "AAPL", 1),
                          on_failure="undo")  # fmt: skip
    assert other.result is IntakeResult.CONFLICT
    assert set(other.differing) == {
        "items[0].trade_amount", "items[1].action", "items[2]", "on_failure",
    }  # fmt: skip
    for _ in range(3):
        planning.step()
    assert planning.rig.count("trade_decisions") == 1
    new = planning.send(("buy", "SPY", "100"), correlation_id="plan-2")
    assert new.result is IntakeResult.CREATED
    planning.finish(new.plan_id)
    assert planning.rig.count("trade_decisions") == 2


@pytest.mark.parametrize(
    ("sizing", "amount", "qty"),
    [("whole", "99.99", "9"), ("fractional", "99.99", "9.999"), ("whole", "9.99", None)],
)
def test_shares_are_rounded_down(
    planning: Planning, sizing: str, amount: str, qty: str | None
) -> None:
    answer = planning.send(("buy", "SPY", amount), sizing=sizing)
    plan = planning.finish(answer.plan_id)
    assert of(plan, "qty") == [qty]
    assert of(plan, "reason") == [None if qty else "no_whole_share"]


@pytest.mark.parametrize("sizing", ["whole", "fractional"])
def test_an_absurd_amount_is_denied_and_holds_up_no_other(planning: Planning, sizing: str) -> None:
    """More shares than a decision can have."""
    planning.quote("SPY", "0.01")
    absurd = ("buy", "SPY", "9000000000000000000")
    plan = planning.finish(planning.send(("buy", "QQQ", "100"), absurd, sizing=sizing).plan_id)
    assert plan["status"] == "completed"
    assert of(plan, "status") == ["succeeded", "failed"]
    assert planning.rig.posts() == 1


def test_weights_become_items_once(planning: Planning) -> None:
    """Of the equity, to the cent; 0 sells all there is, what is not named is left alone."""
    planning.hold(("AAPL", "20"), ("MSFT", "10"), ("QQQ", "5"))
    answer = planning.send(targets={"AAPL": "0.01", "SPY": "0.0051", "MSFT": 0})
    plan = planning.finish(answer.plan_id)
    equity = Decimal(planning.rig.sql("SELECT equity FROM broker_accounts")[0].equity)
    assert abs(equity - 100_000) < 100
    traded = {i["symbol"]: (i["action"], i["qty"], i["trade_amount"]) for i in plan["items"]}
    assert traded["MSFT"][:2] == ("sell", "10")
    assert traded["AAPL"][:2] in {("sell", "10"), ("sell", "9")}
    assert Decimal(traded["AAPL"][2]) == (2000 - equity / 100).quantize(Decimal("0.01"))
    assert traded["SPY"][0] == "buy" and Decimal(traded["SPY"][1]) in (Decimal(50), Decimal(51))
    assert "QQQ" not in traded
    again = planning.send(targets={"SPY": "0.00510", "MSFT": "0.0", "AAPL": 0.01})
    assert again.result is IntakeResult.REPLAYED


def test_an_item_that_fails_does_not_stop_the_others(planning: Planning) -> None:
    """`continue`, the default: its failure is remembered, its money is missing, no retry."""
    planning.hold(("AAPL", "10"), ("MSFT", "10"))
    planning.rig.fault("reject", symbol="MSFT", status=422, code=42210000, count=0)
    answer = planning.send(("sell", "AAPL", "200"), ("sell", "MSFT", "100"), ("buy", "SPY", "300"))
    plan = planning.finish(answer.plan_id)
    assert plan["status"] == "completed"
    assert of(plan, "status") == ["succeeded", "failed", "succeeded"]
    assert of(plan, "reason")[1] == "refused_by_broker"
    assert of(plan, "qty")[2] == "20"
    assert planning.rig.posts(of(plan, "decision_hash")[1]) == 1


@pytest.mark.parametrize("policy", ["keep", "undo"])
def test_an_item_that_fails_stops_the_plan(planning: Planning, policy: str) -> None:
    """Open orders are canceled; what was filled is kept, or undone, by policy."""
    planning.hold(("AAPL", "10"))
    rig = planning.rig
    answer = planning.send(
        ("sell", "AAPL", "500"), ("buy", "SPY", "200"), ("buy", "QQQ", "200"), on_failure=policy
    )
    rig.fault("reject", symbol="QQQ", status=422, code=42210000, count=0)
    plan = planning.finish(answer.plan_id)
    assert plan["saga"]["status"] == "compensated"
    assert plan["status"] == ("undone" if policy == "undo" else "stopped")
    assert "QQQ failed: refused_by_broker" in plan["status_detail"]
    left = {row.symbol: row.qty for row in rig.sql("SELECT symbol, qty FROM positions")}
    wanted = {"AAPL": 10, "SPY": 0} if policy == "undo" else {"AAPL": 5, "SPY": 20}
    assert {s: int(q) for s, q in left.items()} == wanted
    assert rig.totals()["duplicate_client_order_ids"] == []
    assert rig.discrepancies() == []


def test_an_order_that_stays_open_is_canceled_at_the_end_of_the_plan(planning: Planning) -> None:
    """expires_at: the sell rests; the buy, whose turn never came, is skipped."""
    planning.hold(("AAPL", "10"))
    planning.rig.control("POST", "/switches", {"hold_fills": True})
    answer = planning.send(("sell", "AAPL", "500"), ("buy", "SPY", "200"), correlation_id="late",
                           expires_at=_later(planning, 120))  # fmt: skip
    planning.until(lambda: planning.plan(answer.plan_id)["items"][0]["status"] == "placed")
    planning.until(lambda: planning.rig.count("executions", "NOT terminal") == 1)
    planning.rig.time.pass_s(200)
    plan = planning.finish(answer.plan_id)
    assert plan["status"] == "stopped"
    assert [(i["status"], i["reason"]) for i in plan["items"]] == [
        ("failed", "not_filled"), ("skipped", "plan_stopped"),
    ]  # fmt: skip
    assert planning.rig.count("executions", "status = 'canceled'") == 1


def test_an_undo_that_is_denied_is_tried_again_under_another_identity(planning: Planning) -> None:
    """Halted meanwhile: the undoing waits for the resume, and ends whole."""
    planning.hold(("AAPL", "10"))
    rig = planning.rig
    answer = planning.send(("sell", "AAPL", "500"), ("buy", "QQQ", "200"), on_failure="undo")
    rig.fault("reject", symbol="QQQ", status=422, code=42210000, count=0)
    planning.until(lambda: rig.count("trade_decisions", "status = 'rejected'"))
    operator.halt(rig.database, operator.scope_of(ACCOUNT), actor="test", reason="stop",
                  now=rig.time(), settings=rig.settings)  # fmt: skip
    denied = "intent LIKE 'undo-1:%' AND status = 'denied'"
    planning.until(lambda: rig.count("trade_decisions", denied))
    planning.until(lambda: planning.plan(answer.plan_id)["saga"]["undo_failures"])
    assert "AAPL are not undone: denied" in planning.plan(answer.plan_id)["saga"]["at"]
    operator.resume(rig.database, operator.scope_of(ACCOUNT), actor="test", reason="on",
                    now=rig.time(), settings=rig.settings)  # fmt: skip
    plan = planning.finish(answer.plan_id)
    assert plan["status"] == "undone"
    assert rig.sql("SELECT qty FROM positions WHERE symbol = 'AAPL'")[0].qty == 10
    assert rig.count("trade_decisions", "intent LIKE 'undo-%' AND status = 'closed'") == 1


def test_two_plans_do_not_sell_the_same_shares(planning: Planning) -> None:
    """What the first one is about to sell is not there for the second, though neither is sent."""
    planning.hold(("AAPL", "7"))
    ids = [
        planning.send(("sell", "AAPL", amount), correlation_id=amount).plan_id
        for amount in ("500", "400", "300")
    ]
    planning.runner.run_once(None, planning.rig.time())
    assert [of(planning.plan(id_), "qty") for id_ in ids] == [["5"], ["2"], [None]]
    plans = [planning.finish(id_) for id_ in ids]
    assert of(plans[2], "reason") == ["no_position"]
    assert planning.rig.sql("SELECT qty FROM positions WHERE symbol = 'AAPL'")[0].qty == 0


def test_an_order_that_waits_for_its_fills_only_is_not_canceled(planning: Planning) -> None:
    """There is nothing to cancel, and asking again with every look would be a storm."""
    planning.hold(("AAPL", "5"))
    rig = planning.rig
    rig.fault("late_activities", symbol="AAPL", delay_s=3)
    answer = planning.send(("sell", "AAPL", "500"), expires_at=_later(planning, 120))
    unbooked = "side = 'sell' AND terminal AND cum_qty > ledger_qty"
    planning.until(lambda: rig.count("executions", unbooked))
    rig.time.pass_s(200)
    planning.until(lambda: planning.plan(answer.plan_id)["saga"]["status"] == "compensating")
    plan = planning.finish(answer.plan_id)
    assert of(plan, "status") == ["succeeded"] and plan["status"] == "stopped"
    assert rig.count("order_actions") == 0


def test_what_is_filled_after_the_end_of_an_item_is_counted(planning: Planning) -> None:
    """P6: the order of a decision that had ended without one is seen, and filled, after all."""
    planning.hold(("AAPL", "10"))
    rig = planning.rig
    answer = planning.send(("sell", "AAPL", "500"), expires_at=_later(planning, 120))
    planning.runner.run_once(None, rig.time())
    rig.time.pass_s(200)
    plan = planning.finish(answer.plan_id)
    assert of(plan, "status") == ["failed"]
    assert plan["statistics"]["sell"]["trade_value"] == "0"
    hash_ = plan["items"][0]["decision_hash"]
    rig.place(client_order_id=hash_, symbol="AAPL", qty="5", side="sell")
    planning.until(lambda: rig.count("fills", "last_qty = 5"))
    plan = planning.plan(answer.plan_id)
    assert plan["statistics"]["sell"]["trade_value"] == "500"
    assert of(plan, "filled_qty") == ["5"]


def test_monitor_and_finaliser_are_told(planning: Planning) -> None:
    """The typed callbacks; a finaliser that fails is tried again, and undoes nothing."""
    planning.heard.trouble = [RuntimeError("busy"), StepFailed("never")]
    answer = planning.send(("buy", "SPY", "100"), ("buy", "QQQ", "0.1"))
    plan = planning.finish(answer.plan_id)
    seen = [(c.symbol, c.status, c.reason) for c in planning.heard.changes]
    assert seen == [
        ("SPY", "placed", None), ("QQQ", "skipped", "micro_order"), ("SPY", "succeeded", None),
    ]  # fmt: skip
    assert planning.heard.changes[-1].filled_value == 100
    assert [r.status for r in planning.heard.reports] == ["completed"] * 2
    assert planning.heard.reports[0].statistics == plan["statistics"]
    assert plan["status"] == "completed"
    assert plan["status_detail"] == "the finaliser failed: never"


def test_without_a_quote_an_item_fails_after_some_tries(planning: Planning) -> None:
    """The others of its phase go on then; a quote that comes back in time is used."""
    answer = planning.send(("buy", "SPY", "100"), ("buy", "NOSUCH", "100"))
    plan = planning.finish(answer.plan_id)
    assert [(i["status"], i["reason"]) for i in plan["items"]] == [
        ("succeeded", None), ("failed", "no_quote"),
    ]  # fmt: skip
    assert plan["status"] == "completed"
    assert [step["failures"] for step in plan["saga"]["steps"]] == [0, 0, 0, 4, 0]


def _later(planning: Planning, seconds: float) -> str:
    from datetime import timedelta

    return (planning.rig.time() + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"correlation_id": None}, "correlation_id: is missing"),
        ({"items": []}, "items: must be a list"),
        ({"items": None}, "items: or targets"),
        ({"targets": {"AAPL": 1}}, "items: or targets"),
        ({"items": [{"symbol": "A", "action": "hold", "trade_amount": 1}]}, "items[0].action"),
        ({"items": [{"symbol": "A", "action": "buy", "trade_amount": 0}]}, "greater than 0"),
        ({"items": [{"symbol": "A", "action": "buy"}]}, "items[0].trade_amount: is missing"),
        ({"items": [{"symbol": "A", "action": "buy", "trade_amount": 1, "x": 1}]}, "items[0].x"),
        ({"items": None, "targets": {"A": "0.6", "B": "0.5"}}, "more than 1"),
        ({"items": None, "targets": {"A": "0.1", "a": "0.5"}}, "a second time"),
        ({"items": None, "targets": {"A": "-0.1"}}, "less than 0"),
        ({"sizing": "odd"}, "sizing: must be one of whole, fractional"),
        ({"account": "other"}, "account: must be one that is traded here: paper"),
        ({"surprise": 1}, "surprise: is not a known field"),
        ({"event_ts": "yesterday"}, "event_ts: is not an RFC 3339 time"),
        ({"cash": "-1"}, "cash: must not be less than 0"),
    ],
)
def test_what_is_no_plan_is_refused_with_every_fault(over: dict[str, Any], said: str) -> None:
    from torghut.domain.plans import parse_plan

    item = {"symbol": "AAPL", "action": "buy", "trade_amount": "10"}
    body = {"correlation_id": "c", "items": [item], **over}
    with pytest.raises(InvalidPlan) as error:
        parse_plan(
            {k: v for k, v in body.items() if v is not None}, accounts=(ACCOUNT,), default=ACCOUNT
        )
    assert said in str(error.value)


def test_control_without_the_rows_a_step_called_again_orders_again(
    make_rig: Callable[..., Rig], planning: Planning
) -> None:
    """Control: what keeps an item at one order is its row; if `placed` is forgotten, and the quote
    has moved, the second order meets the first one's identity and is refused."""
    answer = planning.send(("buy", "SPY", "100"))
    planning.runner.run_once(None, planning.rig.time())
    rig = planning.rig
    first = planning.plan(answer.plan_id)["items"][0]
    assert first["status"] == "placed"
    rig.sql("ALTER TABLE plan_items DISABLE TRIGGER plan_item_guard")
    rig.sql("UPDATE plan_items SET status = 'pending', decision_hash = NULL, qty = NULL")
    rig.sql("ALTER TABLE plan_items ENABLE TRIGGER plan_item_guard")
    rig.control("POST", "/market/price", {"symbol": "SPY", "price": "5", "bid": "5", "ask": "5"})
    rig.time.pass_s(10)
    plan = planning.finish(answer.plan_id)
    assert [(i["status"], i["reason"]) for i in plan["items"]] == [("failed", "identity_taken")]
    assert rig.count("trade_decisions") == 1
