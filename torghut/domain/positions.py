"""Positions and realised profit as folds of fills (P6), by the average-cost method.

```
fills (oldest first) ──fold──▶ Position(qty, cost_basis, realized_pl) ── avg_px, unrealized_pl(mark)
```

1. Money is conserved exactly: `realized_pl - cost_basis` is the cash the fills moved (sells
   minus buys), to the last digit, for every sequence of fills. Therefore
   `realized_pl + unrealized_pl(mark)` = that cash + qty x mark.
2. What is held is the cost of the open quantity, not its average price: `avg_px` is derived and
   rounded to 9 decimals for showing only, and nothing is computed from it.
3. The one rounding: when part of a position is closed, the cost that leaves with it is rounded
   half-even to 18 decimals. It moves value between realised and unrealised, never out of both.
4. A fill beyond zero closes the position and opens the rest on the other side at its own price.

Amounts with 9 decimals give products with 18: `cost_basis` and `realized_pl` need
numeric(38,18) where they are stored. Fees are no part of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from typing import Protocol

from torghut.domain.orders import Side

AVG_PX_STEP = Decimal("1e-9")
COST_STEP = Decimal("1e-18")

_ZERO = Decimal(0)
_EXACT = Context(prec=200, traps=[Inexact, InvalidOperation])  # rather an error than a lost digit
_ROUNDING = Context(prec=200, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])


@dataclass(frozen=True, slots=True)
class Position:
    """One symbol's position; `qty` and `cost_basis` are signed, below zero for a short one.

    `cost_basis` is qty x average price and `realized_pl` the profit of what was closed, both in
    the account's currency.
    """

    qty: Decimal = _ZERO
    cost_basis: Decimal = _ZERO
    realized_pl: Decimal = _ZERO

    @property
    def avg_px(self) -> Decimal:
        """Average price of the open quantity, rounded half-even to 9 decimals; 0 when flat."""
        if not self.qty:
            return _ZERO
        return _ROUNDING.quantize(_ROUNDING.divide(self.cost_basis, self.qty), AVG_PX_STEP)


FLAT = Position()


class FillFacts(Protocol):
    """What a fold needs of a fill: `side` is "buy" or "sell", `last_qty` is above zero."""

    @property
    def side(self) -> str: ...

    @property
    def last_qty(self) -> Decimal: ...

    @property
    def last_px(self) -> Decimal: ...


def apply_fill(position: Position, *, side: str, last_qty: Decimal, last_px: Decimal) -> Position:
    """The position after one fill.

    Raises ValueError for a side other than buy and sell, a quantity that is not above zero, or a
    price below zero.
    """
    if not (last_qty.is_finite() and last_qty > 0):
        raise ValueError(f"last_qty must be greater than 0, not {last_qty}")
    if not (last_px.is_finite() and last_px >= 0):
        raise ValueError(f"last_px must not be below 0, but is {last_px}")
    change = last_qty if Side(side) is Side.BUY else last_qty.copy_negate()
    if not position.qty or position.qty.is_signed() == change.is_signed():
        return _opened(position, change, last_px)
    closing = min(last_qty, position.qty.copy_abs())
    closed = _closed(position, closing.copy_sign(change), last_px)
    rest = _EXACT.subtract(last_qty, closing).copy_sign(change)
    return _opened(closed, rest, last_px) if rest else closed


def apply_entry(
    position: Position, qty: Decimal, px: Decimal | None, *, keeps_cost: bool = False
) -> Position:
    """The position after units came or went without a trade; `qty` is signed, `px` their worth.

    Without a price, what comes cost nothing, and what goes (a fee in coins) is lost at its cost.
    With `keeps_cost` (a split) the same cost stands for another number of units.
    """
    if keeps_cost and position.qty:
        changed = _EXACT.add(position.qty, qty)
        if changed and changed.is_signed() == position.qty.is_signed():
            return Position(changed, position.cost_basis, position.realized_pl)
    if not qty:
        return position
    side = Side.BUY if qty > 0 else Side.SELL
    return apply_fill(position, side=side.value, last_qty=qty.copy_abs(), last_px=px or _ZERO)


def cash_moved(position: Position) -> Decimal:
    """The cash that led to the position, by invariant 1: sells minus buys, exact."""
    return _EXACT.subtract(position.realized_pl, position.cost_basis)


def fold(fills: Iterable[FillFacts], start: Position = FLAT) -> Position:
    """The position after `fills`, given oldest first; raises ValueError like `apply_fill`."""
    position = start
    for fill in fills:
        position = apply_fill(
            position, side=fill.side, last_qty=fill.last_qty, last_px=fill.last_px
        )
    return position


def unrealized_pl(position: Position, mark: Decimal) -> Decimal:
    """Profit of the open quantity at the price `mark`, exact, in the account's currency."""
    return _EXACT.subtract(_EXACT.multiply(position.qty, mark), position.cost_basis)


def _opened(position: Position, change: Decimal, px: Decimal) -> Position:
    return Position(
        qty=_EXACT.add(position.qty, change),
        cost_basis=_EXACT.add(position.cost_basis, _EXACT.multiply(change, px)),
        realized_pl=position.realized_pl,
    )


def _closed(position: Position, change: Decimal, px: Decimal) -> Position:
    """`change` has the opposite sign of the position and at most its size."""
    qty = _EXACT.add(position.qty, change)
    cost = position.cost_basis if not qty else _cost_of(position, change.copy_negate())
    proceeds = _EXACT.multiply(change.copy_negate(), px)
    return Position(
        qty=qty,
        cost_basis=_EXACT.subtract(position.cost_basis, cost),
        realized_pl=_EXACT.add(position.realized_pl, _EXACT.subtract(proceeds, cost)),
    )


def _cost_of(position: Position, part: Decimal) -> Decimal:
    """The share of the cost basis that `part` of the quantity carries, to 18 decimals."""
    share = _ROUNDING.divide(_ROUNDING.multiply(position.cost_basis, part), position.qty)
    return _ROUNDING.quantize(share, COST_STEP)
