"""Moving-average crossover: long while the fast average is above the slow one.

Per symbol, on the closes of daily bars, at the newest session:

- cross up (fast was not above slow, now is): buy up to the target in whole shares;
- cross down (fast was not below slow, now is): sell the strategy's own position;
- otherwise nothing. Only differences are sent: no order when the position is at its target.

Sells come before buys, then by symbol. A symbol without a bar of the newest session or with
fewer than `slow + 1` bars gives nothing. Bars after the day of `scheduled_for` are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import ROUND_DOWN, Decimal

from torghut.domain.values import canonical_amount, parse_amount
from torghut.ports import Bar, StrategyFacts

BARS_MAX = 1000


class MovingAverageCrossover:
    """Simple moving averages of `fast` and `slow` closes.

    The target of a cross up is `target_weight` of the equity (a share of 1) or `target_notional`
    in the account's currency; give one of them, 0.1 of the equity is the default. The last
    close is the price that turns it into shares, rounded down. Raises ValueError.
    """

    def __init__(
        self,
        *,
        fast: int = 20,
        slow: int = 50,
        target_weight: object = None,
        target_notional: object = None,
    ) -> None:
        for name, count in (("fast", fast), ("slow", slow)):
            if not isinstance(count, int) or isinstance(count, bool):
                raise ValueError(f"{name} must be a whole number of bars, not {count!r}")
        if not 1 <= fast < slow < BARS_MAX:
            raise ValueError(
                f"fast must be at least 1, below slow, and slow below {BARS_MAX}; "
                f"given: fast {fast}, slow {slow}"
            )
        if target_weight is not None and target_notional is not None:
            raise ValueError("target_weight and target_notional are both given; give one of them")
        self.fast = fast
        self.slow = slow
        self.target_notional = _above_zero("target_notional", target_notional)
        self.target_weight = _above_zero("target_weight", target_weight) or Decimal("0.1")
        if self.target_weight > 1:
            raise ValueError(f"target_weight must be at most 1, not {self.target_weight}")
        self.bars_wanted = slow + 1

    def decide(self, facts: StrategyFacts) -> Sequence[Mapping[str, object]]:
        """Market day orders of the symbols that crossed at the newest session."""
        today = facts.scheduled_for.date()
        bars = {s: [b for b in facts.bars[s] if b.session <= today] for s in sorted(facts.bars)}
        newest = max((rows[-1].session for rows in bars.values() if rows), default=None)
        sells: list[Mapping[str, object]] = []
        buys: list[Mapping[str, object]] = []
        for symbol, rows in bars.items():
            if len(rows) <= self.slow or rows[-1].session != newest:
                continue
            held = facts.positions.get(symbol, Decimal(0))
            before, now = self._spread(rows[:-1]), self._spread(rows)
            if before >= 0 > now and held > 0:
                sells.append(_order(symbol, "sell", held, "cross-down", rows[-1].session))
            missing = self._target_qty(facts.equity, rows[-1].close) - held
            if before <= 0 < now and missing > 0:
                buys.append(_order(symbol, "buy", missing, "cross-up", rows[-1].session))
        return sells + buys

    def _spread(self, rows: Sequence[Bar]) -> Decimal:
        """Fast minus slow average, times fast x slow: the same sign, and no division."""
        fast = sum((bar.close for bar in rows[-self.fast :]), Decimal(0))
        slow = sum((bar.close for bar in rows[-self.slow :]), Decimal(0))
        return fast * self.slow - slow * self.fast

    def _target_qty(self, equity: Decimal, price: Decimal) -> Decimal:
        target = self.target_notional or equity * self.target_weight
        if target <= 0 or price <= 0:
            return Decimal(0)
        return (target / price).to_integral_value(rounding=ROUND_DOWN)


def _above_zero(name: str, value: object) -> Decimal | None:
    if value is None:
        return None
    try:
        amount = parse_amount(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    if amount <= 0:
        raise ValueError(f"{name} must be greater than 0, not {amount}")
    return amount


def _order(symbol: str, side: str, qty: Decimal, why: str, session: date) -> Mapping[str, object]:
    return {
        "symbol": symbol,
        "side": side,
        "qty": canonical_amount(qty),
        "type": "market",
        "time_in_force": "day",
        "intent": f"{why}-{session.isoformat()}",
    }
