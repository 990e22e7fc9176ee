"""Replay: the stored facts are all that a verdict was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.services.rig import ACCOUNT, Rig
from tests.services.test_order_cancel import resting
from torghut.domain.exposure import (
    AccountFacts,
    AssetFacts,
    Facts,
    OrderCounts,
    Reservations,
    RestingOrder,
    TradingState,
)
from torghut.domain.risk_policy import RiskPolicy
from torghut.services import order_requests
from torghut.services.replay import Replayed, replay
from torghut.storage import verdicts

MakeRig = Callable[..., Rig]

LIMITS = {
    "max_order_notional": 2_000,
    "max_position_notional": 4_500,
    "max_orders_per_minute": 6,
    "max_gross_exposure": 9_000,
    "price_collar_bps": 500,
    "symbol": {"MSFT": {"max_order_qty": 2}},
    "strategy": {"trend": {"max_open_orders": 50}},
}


@pytest.fixture
def busy(make_rig: MakeRig) -> Rig:
    """An account that has sent, been denied for several reasons, and sent again."""
    rig = make_rig(risk=LIMITS)
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "100"})
    rig.control("POST", "/market/price", {"symbol": "MSFT", "price": "100"})
    for number in range(8):
        rig.send(qty=str(number + 14), intent=f"a{number}")
        rig.send(symbol="MSFT", qty=str(number % 4 + 1), intent=f"m{number}", strategy="trend")
        rig.send(side="sell", qty="1", intent=f"s{number}", type="limit", limit_price="90")
        rig.execute()
        rig.reconcile()
    return rig


def again(rig: Rig, policy: RiskPolicy | None = None) -> Replayed:
    return replay(rig.database, ACCOUNT, since=None, policy=policy)


def test_every_verdict_comes_out_byte_for_byte(busy: Rig) -> None:
    done = again(busy)
    reasons = dict(
        busy.sql("SELECT coalesce(deny_reason, 'approved'), count(*) FROM risk_verdicts GROUP BY 1")
    )
    assert len(reasons) >= 4, "a replay of approvals alone would show little"
    assert dict(done.before) == reasons == dict(done.after)
    assert (done.judged, done.same) == (sum(reasons.values()),) * 2
    assert (done.changed, done.unreadable) == ([], 0)


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE risk_verdicts SET checks = jsonb_set(checks, '{0,measured}', '\"x\"')",
        "UPDATE risk_verdicts SET facts = jsonb_set(facts, '{facts,ledger_qty}', '\"77\"')",
        "UPDATE risk_verdicts SET facts = jsonb_set(facts, '{facts,ledger_qty}', '\"many\"')",
        "UPDATE risk_verdicts SET facts = '{}'",
        "UPDATE risk_verdicts SET facts = '[]'",
        "UPDATE risk_verdicts SET facts_id = NULL",
        "UPDATE risk_verdicts SET outcome = 'denied', deny_reason = 'cooldown'",
        "UPDATE risk_verdicts SET reference_px = coalesce(reference_px, 0) + 0.01",
        "UPDATE risk_verdicts SET notional = coalesce(notional, 0) - 1",
        "UPDATE risk_verdicts SET judged_at = judged_at + interval '1 s'",
        "UPDATE risk_verdicts SET policy_version = 'another'",
        "UPDATE risk_policies SET policy = jsonb_set(policy, '{risk,max_order_qty}', '\"5\"')",
        "DELETE FROM risk_policies",
        "DELETE FROM risk_verdicts",
    ],
)
def test_control_what_was_changed_afterwards_is_found(busy: Rig, tamper: str) -> None:
    """Whatever it was that somebody changed or took away."""
    for table in ("risk_verdicts", "risk_policies"):
        busy.sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    judged = busy.sql("SELECT count(*) FROM risk_verdicts")[0][0]
    busy.sql(tamper)
    done = again(busy)
    assert (done.same, len(done.changed), done.unreadable) == (0, judged, 0)


def test_another_policy_shows_what_would_have_changed(busy: Rig) -> None:
    looser = RiskPolicy({**LIMITS, "max_order_notional": "off"}, account=ACCOUNT, live=False)
    done = again(busy, looser)
    assert done.changed
    assert {change.before for change in done.changed} == {"order_notional"}
    assert done.after["order_notional"] == 0 < done.before["order_notional"]
    same = RiskPolicy(LIMITS, account=ACCOUNT, live=False)
    assert again(busy, same).changed == []


def test_verdicts_of_an_older_version_are_counted_and_left_alone(busy: Rig) -> None:
    busy.sql("ALTER TABLE risk_verdicts DISABLE TRIGGER verdict_append_only")
    busy.sql("UPDATE risk_verdicts SET facts_id = NULL, facts = '{}' WHERE verdict_id % 2 = 0")
    done = again(busy)
    assert done.unreadable > 0 and done.same == done.judged > 0


def test_the_policy_of_a_version_is_the_policy() -> None:
    policy = RiskPolicy(
        {**LIMITS, "symbols": "AAPL,MSFT", "shorts_allowed": "no", "account": {"paper": {
            "max_daily_loss": 5}}}, account=ACCOUNT, live=False)  # fmt: skip
    stored = RiskPolicy.from_json(policy.as_json())
    assert stored.version == policy.version
    for strategy, symbol in (("trend", "AAPL"), ("x", "MSFT")):
        assert stored.limits_for(strategy, symbol) == policy.limits_for(strategy, symbol)


def test_facts_survive_the_row(rig: Rig) -> None:
    """Every field, away from its default, as it was."""
    now = rig.time()
    facts = Facts(
        state=TradingState.REDUCING,
        state_reason="account:paper by x: y",
        account=AccountFacts(
            equity=Decimal("1.10"),
            last_equity=None,
            buying_power=Decimal("1E+3"),
            blocked=True,
            observed_at=now,
            shorting_enabled=False,
            peak_equity=Decimal("2.000"),
            account_number="n",
        ),
        live_account_number="",
        bid_px=Decimal("0.0001"),
        ask_px=Decimal(2),
        quoted_at=now,
        asset=AssetFacts(listed=None),
        daily_volume=Decimal(5),
        broker_qty=Decimal("-1.5"),
        ledger_qty=Decimal("-0"),
        last_fill_at=now,
        session_open=False,
        open_discrepancies=2,
        by_person=True,
    )
    counts = OrderCounts(open_orders=1, last_second=2, last_minute=3, today=4)
    reservations = Reservations(
        buy_qty=Decimal(1),
        others_gross=None,
        counts=counts,
        strategy_counts=counts,
        twin_at=now,
        resting=(RestingOrder(side="sell", limit_px=Decimal(1), stop_px=None),),
    )
    for each in (replace(facts, account=None), facts):
        data = verdicts._facts_json(each, reservations)
        stored = verdicts.json.loads(data)
        assert verdicts._FACTS.validate_python(stored["facts"]) == each
        assert verdicts._RESERVATIONS.validate_python(stored["reservations"]) == reservations


def replacing(make_rig: MakeRig) -> Rig:
    """A rig on which larger orders were asked for: two denied, and one that stands."""
    rig = make_rig(risk={"max_order_qty": "20", "max_order_notional": 2_000})
    hash_ = resting(rig)
    for number, (qty, price) in enumerate((("21", "1"), ("15", "200"), ("20", "1.5"))):
        rig.time.pass_s(60)  # the signal's age is not the request's
        changes = {"qty": qty, "limit_price": price}
        rig.finish(order_requests.replace(rig.database, hash_, changes, rig.asker(f"k{number}")))
    reasons = rig.sql("""SELECT deny_reason FROM risk_verdicts WHERE action_id IS NOT NULL
        ORDER BY verdict_id""")
    assert [row.deny_reason for row in reasons] == ["order_qty", "order_notional", None]
    return rig


def test_a_replacement_is_judged_again_as_the_order_that_it_asked_for(make_rig: MakeRig) -> None:
    rig = replacing(make_rig)
    done = again(rig)
    assert (done.judged, done.same, done.changed, done.unreadable) == (4, 4, [], 0)
    assert dict(done.before) == {"approved": 2, "order_qty": 1, "order_notional": 1}
    wanted = rig.sql("""SELECT wanted ->> 'qty' AS qty, wanted ->> 'limit_price' AS limit_price
        FROM risk_verdicts WHERE action_id IS NOT NULL ORDER BY verdict_id""")
    assert [tuple(row) for row in wanted] == [("21", "1"), ("15", "200"), ("20", "1.5")]


@pytest.mark.parametrize(
    "tamper", ["wanted = NULL", "action_id = NULL", 'wanted = wanted || \'{"qty": "9"}\'']
)
def test_control_judged_as_the_decision_it_comes_out_otherwise(
    make_rig: MakeRig, tamper: str
) -> None:
    """Without the order that was asked for, or with the decision's time for the request's."""
    rig = replacing(make_rig)
    rig.sql("ALTER TABLE risk_verdicts DISABLE TRIGGER verdict_append_only")
    rig.sql(f"UPDATE risk_verdicts SET {tamper} WHERE action_id IS NOT NULL")
    assert again(rig).same < 4
