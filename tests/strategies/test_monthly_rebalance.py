"""Monthly rebalance on the real bars and by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal

import pytest

from tests.strategies.market import bar, facts_of, facts_on, real_bars, sessions
from torghut.strategies.monthly_rebalance import MonthlyRebalance

D = Decimal


def first_sessions() -> list[date]:
    """The first session of each month but the first in the file, known from the file alone."""
    firsts: dict[tuple[int, int], date] = {}
    for day in sessions():
        firsts.setdefault((day.year, day.month), day)
    return list(firsts.values())[1:]


def close_on(symbol: str, day: date) -> Decimal | None:
    return next((b.close for b in real_bars()[symbol] if b.session == day), None)


def after(
    positions: Mapping[str, Decimal], decisions: Sequence[Mapping[str, object]]
) -> dict[str, Decimal]:
    changed = dict(positions)
    for d in decisions:
        qty = D(str(d["qty"])) if d["side"] == "buy" else -D(str(d["qty"]))
        changed[str(d["symbol"])] = changed.get(str(d["symbol"]), D(0)) + qty
    return changed


def test_it_acts_at_the_first_session_of_each_month_only() -> None:
    strategy = MonthlyRebalance()
    acted = [day for day in sessions() if strategy.decide(facts_on(day))]
    assert acted == first_sessions()
    assert len(acted) == 36


@pytest.mark.parametrize("weights", [None, {"AAPL": "0.4", "ibm": 0.25, "MSFT": 0.35}])
def test_holdings_are_within_one_share_of_the_target_and_never_above(
    weights: Mapping[str, object] | None,
) -> None:
    strategy = MonthlyRebalance(weights=weights, capital_share=0.9, min_order_notional=0)
    positions: dict[str, Decimal] = {"GOOG": D(3), "FB": D("0.25")}
    for day in first_sessions():
        equity = D(50_000) + day.toordinal() % 7 * 10_000
        decisions = strategy.decide(facts_on(day, positions=positions, equity=equity))
        positions = after(positions, decisions)
        prices = {s: px for s in real_bars() if (px := close_on(s, day)) is not None}
        wanted = {k.upper(): D(str(w)) for k, w in (weights or {}).items()}
        for symbol, px in prices.items():
            weight = wanted.get(symbol, D(0)) if weights else D(1) / len(prices)
            target = weight * D("0.9") * equity
            assert target - px < positions.get(symbol, D(0)) * px <= target
        assert {d["intent"] for d in decisions} <= {f"rebalance-{day:%Y-%m}"}


def test_a_rebalance_done_twice_sends_nothing_the_second_time() -> None:
    strategy = MonthlyRebalance()
    for day in first_sessions():
        positions = after({}, strategy.decide(facts_on(day)))
        assert strategy.decide(facts_on(day, positions=positions)) == []


def decided(strategy: MonthlyRebalance, **positions: str) -> list[tuple[object, ...]]:
    bars = {
        "AAA": [bar("AAA", "2012-03-30", 9), bar("AAA", "2012-04-02", 10)],
        "BBB": [bar("BBB", "2012-03-30", 99), bar("BBB", "2012-04-02", 100)],
        "OLD": [bar("OLD", "2012-03-30", 50)],
    }
    held = {symbol: D(qty) for symbol, qty in positions.items()}
    facts = facts_of(bars, date(2012, 4, 2), positions=held, equity=1000)
    return [(d["side"], d["symbol"], d["qty"]) for d in strategy.decide(facts)]


def test_sells_come_before_buys() -> None:
    strategy = MonthlyRebalance(capital_share=1, min_order_notional=0)
    assert decided(strategy) == [("buy", "AAA", "50"), ("buy", "BBB", "5")]
    assert decided(strategy, BBB="9") == [("sell", "BBB", "4"), ("buy", "AAA", "50")]
    assert decided(strategy, AAA="50.5", BBB="-1") == [("sell", "AAA", "0.5"), ("buy", "BBB", "6")]


def test_a_symbol_without_a_weight_is_sold_and_one_without_a_price_is_left() -> None:
    strategy = MonthlyRebalance(weights={"BBB": 0.5, "OLD": 0.5}, capital_share=1)
    assert decided(strategy, AAA="20", OLD="7") == [("sell", "AAA", "20"), ("buy", "BBB", "5")]


@pytest.mark.parametrize(
    ("minimum", "orders"), [("0", 2), ("200", 2), ("200.01", 1), ("500", 1), ("501", 0)]
)
def test_small_orders_are_skipped(minimum: str, orders: int) -> None:
    strategy = MonthlyRebalance(capital_share=1, min_order_notional=minimum)
    assert len(decided(strategy, AAA="30")) == orders


def test_the_turn_of_a_year_is_a_new_month() -> None:
    bars = [bar("AAA", "2011-12-30", 10), bar("AAA", "2012-12-03", 10)]
    decisions = MonthlyRebalance().decide(facts_of({"AAA": bars}, date(2012, 12, 3)))
    assert [d["intent"] for d in decisions] == ["rebalance-2012-12"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"weights": {}}, "weights must be a table"),
        ({"weights": ["AAPL"]}, "weights must be a table"),
        ({"weights": {"AAPL": 0.6, "IBM": 0.5}}, "at most 1, not to 1.1"),
        ({"weights": {"AAPL": 0}}, "more than 0"),
        ({"weights": {"AAPL": -1}}, "weights.AAPL must not be below 0"),
        ({"weights": {"AAPL": "half"}}, "weights.AAPL is not a finite"),
        ({"weights": {"$": 1}}, "is not a symbol"),
        ({"weights": {"ibm": 0.1, "IBM": 0.1}}, "names IBM twice"),
        ({"capital_share": 0}, "capital_share must be in"),
        ({"capital_share": 2}, "capital_share must be in"),
        ({"min_order_notional": -1}, "min_order_notional must not be below 0"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MonthlyRebalance(**params)


def test_weights_of_many_decimals_may_add_up_to_exactly_one() -> None:
    tenth = {f"S{n}": 0.1 for n in range(10)}
    assert sum((MonthlyRebalance(weights=tenth).weights or {}).values()) == 1
