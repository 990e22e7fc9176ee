"""Monthly rebalance: holdings go to target weights at the first session of a month.

The newest session is the first of its month when the session before it, read from the bars, is
of another month. Then, per symbol: target = weight x capital_share x equity, in whole shares at
the last close, rounded down; the difference to the strategy's own position is sent. SELLs come
before BUYs, so that they free the money, then by symbol.

Nothing is sent for a difference worth less than `min_order_notional`, for a symbol without a bar
of the newest session (its weight stays in cash), nor on any other day. A position in a symbol
without a weight is sold. Bars after the day of `scheduled_for` are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import ROUND_DOWN, Decimal

from torghut.domain.values import canonical_amount, parse_amount, parse_symbol
from torghut.ports import StrategyFacts


class MonthlyRebalance:
    """Target weights once a month.

    `weights` maps symbols to shares of the capital that add up to at most 1; without it every
    symbol that has a bar gets the same weight. `capital_share` of the equity is this
    strategy's; the default of 0.95 leaves room for prices that move before the orders fill.
    `min_order_notional` is in the account's currency. Raises ValueError.
    """

    bars_wanted = 2

    def __init__(
        self,
        *,
        weights: object = None,
        capital_share: object = "0.95",
        min_order_notional: object = "100",
    ) -> None:
        self.weights = None if weights is None else _weights(weights)
        self.capital_share = _at_least_zero("capital_share", capital_share)
        if not 0 < self.capital_share <= 1:
            raise ValueError(f"capital_share must be in (0, 1], not {self.capital_share}")
        self.min_order_notional = _at_least_zero("min_order_notional", min_order_notional)

    def decide(self, facts: StrategyFacts) -> Sequence[Mapping[str, object]]:
        """Market day orders that close the distance to the targets; none on most days."""
        today = facts.scheduled_for.date()
        closes = {
            (bar.session, symbol): bar.close
            for symbol, bars in facts.bars.items()
            for bar in bars
            if bar.session <= today and bar.close > 0
        }
        sessions = sorted({session for session, _ in closes})
        if len(sessions) < 2 or _month(sessions[-1]) == _month(sessions[-2]):
            return []
        prices = {symbol: px for (session, symbol), px in closes.items() if session == sessions[-1]}
        changes = self._changes(prices, facts)
        intent = f"rebalance-{_month(sessions[-1])}"
        sells = [_order(s, "sell", -qty, intent) for s, qty in changes.items() if qty < 0]
        buys = [_order(s, "buy", qty, intent) for s, qty in changes.items() if qty > 0]
        return sells + buys

    def _changes(
        self, prices: Mapping[str, Decimal], facts: StrategyFacts
    ) -> Mapping[str, Decimal]:
        """Signed quantities that are worth sending, by symbol in order."""
        capital = max(facts.equity, Decimal(0)) * self.capital_share
        weights = self.weights
        if weights is None:
            weights = {symbol: 1 / Decimal(len(prices)) for symbol in prices}
        changes: dict[str, Decimal] = {}
        for symbol in sorted(prices):
            money = weights.get(symbol, Decimal(0)) * capital
            target = (money / prices[symbol]).to_integral_value(rounding=ROUND_DOWN)
            change = target - facts.positions.get(symbol, Decimal(0))
            if abs(change) * prices[symbol] >= self.min_order_notional:
                changes[symbol] = change
        return changes


def _month(session: date) -> str:
    return session.isoformat()[:7]


def _weights(given: object) -> Mapping[str, Decimal]:
    if not isinstance(given, Mapping) or not given:
        raise ValueError('weights must be a table of symbols and shares, such as {"AAPL": 0.5}')
    weights: dict[str, Decimal] = {}
    for name, value in given.items():
        try:
            symbol = parse_symbol(name)
        except ValueError as error:
            raise ValueError(f"weights: {name!r} {error}") from None
        if symbol in weights:
            raise ValueError(f"weights names {symbol} twice")
        weights[symbol] = _at_least_zero(f"weights.{symbol}", value)
    total = sum(weights.values(), Decimal(0))
    if not 0 < total <= 1:
        raise ValueError(f"weights must add up to more than 0 and at most 1, not to {total}")
    return weights


def _at_least_zero(name: str, value: object) -> Decimal:
    try:
        amount = parse_amount(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    if amount < 0:
        raise ValueError(f"{name} must not be below 0, but is {amount}")
    return amount


def _order(symbol: str, side: str, qty: Decimal, intent: str) -> Mapping[str, object]:
    return {
        "symbol": symbol,
        "side": side,
        "qty": canonical_amount(qty),
        "type": "market",
        "time_in_force": "day",
        "intent": intent,
    }
