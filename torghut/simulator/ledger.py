"""The simulator's second set of books: every order ever accepted, by client_order_id.

Append-only and separate from the order book. It learns from events alone and does not enforce
anything, so a client_order_id that was taken twice shows here as two broker orders. Positions and
cash are folded here a second time, so that they check the account's.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from torghut.simulator.book import BookEvent
from torghut.simulator.numbers import ZERO, optional_text, text
from torghut.simulator.orders import Entry, Fill, Order


@dataclass(slots=True)
class LedgerLine:
    """One accepted broker order."""

    order_id: str
    symbol: str
    side: str
    qty: Decimal | None
    notional: Decimal | None
    status: str
    replaces: str | None
    filled_qty: Decimal = ZERO
    filled_cost: Decimal = ZERO
    fills: int = 0

    def json(self) -> dict[str, Any]:
        """The line as the control API shows it; amounts are strings."""
        return {
            "order_id": self.order_id,
            "symbol": self.symbol,
            "side": self.side,
            "qty": optional_text(self.qty),
            "notional": optional_text(self.notional),
            "status": self.status,
            "replaces": self.replaces,
            "filled_qty": text(self.filled_qty),
            "filled_cost": text(self.filled_cost),
            "fills": self.fills,
        }


class Ledger:
    """Lines by client_order_id, in order of acceptance; positions and cash, exact."""

    def __init__(self, cash: Decimal) -> None:
        self._initial_cash = cash
        self._cash = cash
        self._positions: dict[str, Decimal] = {}
        self.by_client_id: dict[str, list[LedgerLine]] = {}
        self._by_order_id: dict[str, LedgerLine] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.by_client_id.clear()
        self._by_order_id.clear()
        self._positions.clear()
        self._cash = self._initial_cash

    def observe(self, event: BookEvent) -> None:
        """Take in one event of the book."""
        self.observe_order(event.order)
        if event.fill is not None:
            self.observe_fill(event.fill)

    def observe_order(self, order: Order) -> None:
        """Add the order if it is new, and note its status."""
        line = self._by_order_id.get(order.id)
        if line is None:
            line = LedgerLine(
                order.id, order.symbol, order.side, order.qty, order.notional, order.status,
                order.replaces,
            )  # fmt: skip
            self._by_order_id[order.id] = line
            self.by_client_id.setdefault(order.client_order_id, []).append(line)
        line.status = order.status
        line.qty = order.qty

    def observe_fill(self, fill: Fill) -> None:
        """Add one fill to its order's line, to the position and to cash."""
        signed = fill.qty if fill.side == "buy" else -fill.qty
        self._cash -= signed * fill.price + fill.fee_cash
        held = self._positions.get(fill.symbol, ZERO) + signed - fill.fee_qty
        self._positions[fill.symbol] = held
        line = self._by_order_id[fill.order_id]
        line.filled_qty += fill.qty
        line.filled_cost += fill.qty * fill.price
        line.fills += 1

    def observe_entry(self, entry: Entry) -> None:
        """Add a change that is no fill to cash and to the position."""
        self._cash += entry.cash
        if entry.symbol is not None:
            self._positions[entry.symbol] = self._positions.get(entry.symbol, ZERO) + entry.qty

    def json(self) -> dict[str, Any]:
        """`orders` by client_order_id, signed `positions` that are not flat, `cash`, `totals`."""
        lines = list(self._by_order_id.values())
        by_status: dict[str, int] = {}
        for line in lines:
            by_status[line.status] = by_status.get(line.status, 0) + 1
        duplicates = [key for key, found in self.by_client_id.items() if len(found) > 1]
        return {
            "orders": {
                key: [line.json() for line in found] for key, found in self.by_client_id.items()
            },
            "positions": {key: text(qty) for key, qty in self._positions.items() if qty},
            "cash": text(self._cash),
            "totals": {
                "client_order_ids": len(self.by_client_id),
                "orders": len(lines),
                "duplicate_client_order_ids": duplicates,
                "by_status": by_status,
                "fills": sum(line.fills for line in lines),
                "bought_usd": text(_cost(lines, "buy")),
                "sold_usd": text(_cost(lines, "sell")),
            },
        }


def _cost(lines: list[LedgerLine], side: str) -> Decimal:
    return sum((line.filled_cost for line in lines if line.side == side), ZERO)
