"""Reducing risk stays possible when entering is not (P11): no quote, a loss, no buying power."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.factories import order
from torghut.domain.exposure import AccountFacts, Facts, Reservations, TradingState
from torghut.domain.risk import LIMIT_DEFAULTS, DenyReason, Limit, Limits, Verdict, evaluate

NOW = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)


def judge(side: str, qty: int, *, held: int, in_flight: int = 0, **limits: int) -> Verdict:
    """A market order with no quote at all, on an account that has lost 500 and has no money."""
    account = AccountFacts(
        equity=Decimal(9_500),
        last_equity=Decimal(10_000),
        buying_power=Decimal(0),
        blocked=False,
        observed_at=NOW,
    )
    facts = Facts(
        state=TradingState.ACTIVE,
        state_reason="default",
        account=account,
        broker_qty=Decimal(held),
        ledger_qty=Decimal(held),
    )
    by_name = {name: Limit(value, "default") for name, value in LIMIT_DEFAULTS.items()}
    by_name |= {name: Limit(Decimal(value), "test") for name, value in limits.items()}
    return evaluate(
        order(side=side, qty=str(qty)),
        Limits(by_name, None, "default", "v"),
        facts,
        Reservations(sell_qty=Decimal(in_flight)),
        NOW,
        event_ts=NOW,
    )


@pytest.mark.parametrize(("side", "held"), [("sell", 10), ("buy", -10)])
def test_a_position_can_be_closed_without_a_quote_and_after_a_loss(side: str, held: int) -> None:
    verdict = judge(side, 10, held=held, max_daily_loss=100, max_quote_age_s=5)
    assert verdict.approved, verdict.deny_reason


@pytest.mark.parametrize(
    ("qty", "in_flight"), [(11, 0), (10, 1)], ids=["one share too many", "another sell in flight"]
)
def test_control_what_may_open_the_other_side_is_denied(qty: int, in_flight: int) -> None:
    verdict = judge("sell", qty, held=10, in_flight=in_flight, max_daily_loss=100)
    assert verdict.deny_reason is DenyReason.FACTS_UNAVAILABLE


def test_limits_on_size_hold_for_closing_orders_too() -> None:
    assert judge("sell", 10, held=10, max_order_qty=9).deny_reason is DenyReason.ORDER_QTY
