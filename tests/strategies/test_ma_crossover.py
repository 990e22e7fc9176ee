"""Moving-average crossover, against crosses computed apart with fractions."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from statistics import fmean

import pytest

from tests.strategies.market import bar, facts_of, facts_on, real_bars, sessions
from torghut.strategies.ma_crossover import MovingAverageCrossover

D = Decimal
START = date(2012, 1, 2)


def crosses(symbol: str, fast: int, slow: int) -> dict[date, str]:
    """Day → buy or sell, computed independently of the strategy with running sums."""
    bars = real_bars()[symbol]
    closes = [Fraction(b.close) for b in bars]
    found: dict[date, str] = {}
    fast_sum, slow_sum = Fraction(0), Fraction(0)
    above: list[bool | None] = []
    for n, close in enumerate(closes):
        fast_sum += close - (closes[n - fast] if n >= fast else 0)
        slow_sum += close - (closes[n - slow] if n >= slow else 0)
        difference = fast_sum / fast - slow_sum / slow
        above.append(difference > 0 if difference else None)
        if n >= slow and above[n] is not None and above[n] != above[n - 1]:
            found[bars[n].session] = "buy" if above[n] else "sell"
    return found


def decided(strategy: MovingAverageCrossover, closes: list[int], **known: object) -> list[object]:
    bars = [bar("AAPL", str(START + timedelta(days=n)), px) for n, px in enumerate(closes)]
    facts = facts_of({"AAPL": bars}, bars[-1].session, **known)  # type: ignore[arg-type]
    return [(d["side"], d["qty"]) for d in strategy.decide(facts)]


@pytest.mark.parametrize(("fast", "slow"), [(20, 50), (5, 20)])
@pytest.mark.parametrize("symbol", ["AAPL", "FB", "GOOG", "IBM", "MSFT"])
def test_every_cross_of_the_real_bars_is_found_and_nothing_else(
    symbol: str, fast: int, slow: int
) -> None:
    strategy = MovingAverageCrossover(fast=fast, slow=slow)
    expected = crosses(symbol, fast, slow)
    found: dict[date, str] = {}
    for day in sessions():
        # a position below the target lets both sides be seen
        facts = facts_on(day, positions={symbol: D(1)})
        for decision in strategy.decide(facts):
            if decision["symbol"] == symbol:
                found[day] = str(decision["side"])
                assert decision["intent"] == (
                    f"cross-{'up' if decision['side'] == 'buy' else 'down'}-{day}"
                )
    assert found == expected
    assert {"buy", "sell"} == set(found.values())


def test_a_cross_known_by_date() -> None:
    """Apple's 20-day average fell below its 50-day one in autumn 2012; the averages are those of
    the file, taken by statistics.fmean."""
    day = min(d for d, side in crosses("AAPL", 20, 50).items() if side == "sell" and d.year == 2012)
    closes = [float(b.close) for b in real_bars()["AAPL"] if b.session <= day]
    assert fmean(closes[-20:]) < fmean(closes[-50:])
    assert fmean(closes[-21:-1]) > fmean(closes[-51:-1])
    decisions = MovingAverageCrossover().decide(facts_on(day, positions={"AAPL": D("12.5")}))
    assert [d for d in decisions if d["symbol"] == "AAPL"] == [
        {
            "symbol": "AAPL",
            "side": "sell",
            "qty": "12.5",
            "type": "market",
            "time_in_force": "day",
            "intent": f"cross-down-{day}",
        }
    ]


UP, DOWN = [10, 10, 10, 10, 40], [10, 10, 10, 10, 4]


@pytest.mark.parametrize(
    ("closes", "held", "expected"),
    [
        (UP, "0", [("buy", "250")]),
        (UP, "249.5", [("buy", "0.5")]),
        (UP, "250", []),
        (UP, "300", []),
        (UP, "-10", [("buy", "260")]),
        (DOWN, "7", [("sell", "7")]),
        (DOWN, "0", []),
        (DOWN, "-7", []),
        ([10, 10, 40, 41, 42], "0", []),  # was above already
        ([10] * 5, "0", []),
        ([10, 40], "0", []),  # too few bars
    ],
)
def test_only_differences_are_sent(
    closes: list[int], held: str, expected: list[tuple[str, str]]
) -> None:
    strategy = MovingAverageCrossover(fast=2, slow=4)
    assert decided(strategy, closes, positions={"AAPL": D(held)}) == expected


@pytest.mark.parametrize(
    ("params", "qty"),
    [
        ({"target_weight": 0.25}, "625"),
        ({"target_weight": "1"}, "2500"),
        ({"target_notional": 119}, "2"),
        ({"target_notional": "120.00"}, "3"),
    ],
)
def test_the_target_is_in_whole_shares(params: dict[str, object], qty: str) -> None:
    strategy = MovingAverageCrossover(fast=2, slow=4, **params)
    assert decided(strategy, UP) == [("buy", qty)]


def test_less_than_a_share_is_nothing() -> None:
    assert decided(MovingAverageCrossover(fast=2, slow=4, target_notional=39), UP) == []


def test_a_symbol_that_stopped_trading_gives_nothing() -> None:
    old = [bar("OLD", str(START + timedelta(days=n)), px) for n, px in enumerate(UP)]
    new = [bar("NEW", str(START + timedelta(days=n)), 10) for n in range(6)]
    strategy = MovingAverageCrossover(fast=2, slow=4)
    assert strategy.decide(facts_of({"OLD": old, "NEW": new}, new[-1].session)) == []
    assert strategy.decide(facts_of({"OLD": old, "NEW": new[:5]}, old[-1].session)) != []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"fast": 50, "slow": 20}, "fast must be at least 1, below slow"),
        ({"fast": 20, "slow": 20}, "below slow"),
        ({"fast": 0}, "at least 1"),
        ({"slow": 5000}, "below 1000"),
        ({"fast": "20"}, "fast must be a whole number"),
        ({"slow": True}, "slow must be a whole number"),
        ({"target_weight": 0}, "target_weight must be greater than 0"),
        ({"target_weight": "1.5"}, "target_weight must be at most 1"),
        ({"target_weight": "much"}, "target_weight is not a finite"),
        ({"target_notional": -5}, "target_notional must be greater than 0"),
        ({"target_weight": 1, "target_notional": 5}, "give one of them"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovingAverageCrossover(**params)  # type: ignore[arg-type]
