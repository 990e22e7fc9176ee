"""Plans, pure: rounding, funding, targets, and what tells plans and items apart."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import ACCOUNT
from torghut.domain.orders import Side
from torghut.domain.plans import (
    PlanItem,
    Sizing,
    differing_parts,
    funded,
    intent,
    item_of_target,
    own_cash,
    parse_plan,
    shares,
)

AMOUNTS = st.decimals("0.01", "1000000", places=2)
PRICES = st.decimals("0.01", "5000", places=4)


@given(AMOUNTS, PRICES, st.sampled_from(Sizing))
def test_shares_never_cost_more_than_the_amount(amount: Decimal, px: Decimal, how: Sizing) -> None:
    """And one step more would."""
    qty = shares(amount, px, how, "AAPL")
    step = Decimal(1) if how is Sizing.WHOLE else Decimal("0.000000001")
    assert 0 <= qty * px <= amount < (qty + step) * px


def test_coins_are_always_sized_in_fractions() -> None:
    assert shares(Decimal(100), Decimal(80_000), Sizing.WHOLE, "BTC/USD") == Decimal("0.00125")


@given(st.lists(AMOUNTS, max_size=20), st.decimals("0", "2000000", places=2))
def test_buys_are_funded_in_order_and_never_beyond_the_budget(
    amounts: list[Decimal], budget: Decimal
) -> None:
    parts = funded(amounts, budget)
    assert sum(parts) == min(sum(amounts), budget)
    cut = [n for n, (part, amount) in enumerate(zip(parts, amounts, strict=True)) if part < amount]
    assert all(not parts[n] for n in cut[1:])


@pytest.mark.parametrize(
    ("weight", "held", "wanted"),
    [
        ("0.5", "0", ("buy", "500.00", False)),
        ("0.5", "2", ("buy", "300.00", False)),
        ("0.1", "5", ("sell", "400.00", False)),
        ("0.1", "1", None),
        ("0", "3", ("sell", "300.00", True)),
        ("0", "-3", ("buy", "300.00", True)),
        ("0.1", "-1", ("buy", "200.00", False)),
        ("0", "0", None),
        ("0", "0.00001", ("sell", "0.01", True)),
    ],
)
def test_a_target_becomes_a_trade(
    weight: str, held: str, wanted: tuple[str, str, bool] | None
) -> None:
    """Of an equity of 1000, at a price of 100."""
    item = item_of_target(
        "AAPL", Decimal(weight), equity=Decimal(1000), held_qty=Decimal(held), px=Decimal(100)
    )
    found = None if item is None else (item.side.value, str(item.trade_amount), item.whole)
    assert found == wanted


def test_the_own_cash_of_a_plan_is_what_its_buys_exceed_its_sells_by() -> None:
    sell, buy = PlanItem("A", Side.SELL, Decimal(300)), PlanItem("B", Side.BUY, Decimal(500))
    assert own_cash([sell, buy]) == 200
    assert own_cash([sell]) == 0


def test_an_intent_names_phase_normalised_amount_and_plan() -> None:
    assert intent("c", Side.SELL, Decimal("1500.50")) == "sell:1500.5:c"
    assert len(intent("c" * 128, Side.SELL, Decimal("1234567890123456789.123456789"))) <= 256 - 20


def plan(**over: object) -> dict[str, object]:
    body: dict[str, object] = {
        "correlation_id": "c",
        "items": [{"symbol": "A", "action": "buy", "trade_amount": "1"}] * 2,
        **over,
    }
    return parse_plan(
        {k: v for k, v in body.items() if v is not None}, accounts=(ACCOUNT,), default=ACCOUNT
    ).payload()


@pytest.mark.parametrize(
    ("over", "differing"),
    [
        ({}, ()),
        ({"min_trade_amount": "1.0", "sizing": "whole", "on_failure": "continue"}, ()),
        ({"min_trade_amount": "0"}, ("min_trade_amount",)),
        ({"strategy": "other", "cash": "1"}, ("cash", "strategy")),
        ({"items": [{"symbol": "a", "action": "BUY", "trade_amount": 1.0}] * 2}, ()),
        ({"items": [{"symbol": "A", "action": "buy", "trade_amount": "1"}]}, ("items[1]",)),
        ({"items": None, "targets": {"A": 1}}, ("items", "targets")),
        ({"event_ts": "2026-01-05T14:30:00Z"}, ("event_ts",)),
    ],
)
def test_what_differs_is_named(over: dict[str, object], differing: tuple[str, ...]) -> None:
    assert differing_parts(plan(), plan(**over)) == differing


def test_of_targets_it_is_named_which() -> None:
    first, second = ({"items": None, "targets": {"A": w, "B": "0.1"}} for w in ("0.2", "0.3"))
    assert differing_parts(plan(**first), plan(**second)) == ("targets.A",)
