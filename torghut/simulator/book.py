"""The order book: orders, fills, their indices, and the account folded from the fills.

The only writer of orders. Every change goes through `add`, `change`, `restate` or `fill`, and each
of them tells the listeners (journal, ledger, trade-update stream) in the order they were added.
`react` is called after a change or a fill, for what follows for other orders (`groups`).
"""

from __future__ import annotations

import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from torghut.simulator.account import Account, Valuation
from torghut.simulator.assets import Asset
from torghut.simulator.market import Market
from torghut.simulator.numbers import QTY_STEP, ZERO
from torghut.simulator.orders import PENDING, Entry, Fill, Order, activity_id, fee_entry

RESTATED, TRAILED = "restated", "trailed"
STATUS_INSTANT = {
    "filled": "filled_at",
    "canceled": "canceled_at",
    "expired": "expired_at",
    "rejected": "failed_at",
    "replaced": "replaced_at",
}


@dataclass(frozen=True, slots=True)
class BookEvent:
    """What happened to an order; `kind` is the name trade_updates use. `order` is a copy."""

    kind: str
    order: Order
    at: datetime
    fill: Fill | None = None


Listener = Callable[[BookEvent], None]
Reaction = Callable[[Order, Fill | None], None]


def _no_reaction(order: Order, fill: Fill | None) -> None:
    """What a book does about other orders until somebody links them."""


class Book:
    """Orders and fills of one account."""

    def __init__(self, market: Market, seed: int, cash: Decimal) -> None:
        self.market = market
        self.listeners: list[Listener] = []
        self.react: Reaction = _no_reaction
        self.fill_instant: Callable[[datetime], datetime] = lambda now: now
        self._seed = seed
        self._cash = cash
        self.clear()

    def clear(self) -> None:
        """Forget everything; a fresh account with the initial cash."""
        # the starting instant is part of it: a fresh book must not hand out an old book's ids
        self._ids = random.Random(f"{self._seed}:ids:{self.market.now().isoformat()}")
        self.orders: list[Order] = []
        self.by_id: dict[str, Order] = {}
        self.by_client_id: dict[str, list[Order]] = defaultdict(list)
        self.open: dict[str, Order] = {}
        self.open_by_symbol: dict[str, dict[str, Order]] = defaultdict(dict)
        self.groups: dict[str, list[Order]] = defaultdict(list)
        self.fills: list[Fill] = []
        self.fill_index: dict[str, int] = {}
        self.entries: list[Entry] = []
        self.reserved = ZERO
        self.held: dict[str, Decimal] = defaultdict(lambda: ZERO)
        number = random.Random(f"{self._seed}:account").randrange(10**7)
        self.account = Account(
            id=self.new_id(),
            account_number=f"PASIM{number:07d}",
            created_at=self.market.now(),
            initial_cash=self._cash,
            cash=self._cash,
        )

    def new_id(self) -> str:
        """The next UUID of the seeded sequence."""
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    # --- changes

    def add(self, order: Order) -> None:
        """Take an order in."""
        self._index(order)
        self._tell(order.status, order)

    def change(self, order: Order, status: str, **values: Any) -> None:
        """Give an order another status, and stamp the instant that belongs to it."""
        self._change(order, status, status, values)
        self.react(order, None)

    def restate(self, order: Order, kind: str = RESTATED, **values: Any) -> None:
        """Set values of an order; its status stays."""
        self._change(order, kind, order.status, values)

    def _change(self, order: Order, kind: str, status: str, values: dict[str, Any]) -> None:
        now = self.market.now()
        self._release(order)
        order.status = status
        order.updated_at = now
        if kind in STATUS_INSTANT:
            setattr(order, STATUS_INSTANT[kind], now)
        for name, value in values.items():
            setattr(order, name, value)
        self._hold(order)
        self._tell(kind, order)

    def fill(
        self, order: Order, qty: Decimal, price: Decimal, fee: Decimal = ZERO, late: bool = False
    ) -> Fill:
        """Execute part of an order. `late` keeps the status of an order that is closed."""
        now = self.market.now()
        at = self.fill_instant(now)
        self._release(order)
        order.filled_qty += qty
        order.filled_cost += qty * price
        order.updated_at = now
        leaves = max(order.leaves_qty(price), ZERO)
        if not late:
            if not leaves:
                order.status = "filled"
            elif order.status not in PENDING:
                order.status = "partially_filled"
            order.filled_at = now
        self._hold(order)
        asset = self.asset(order.symbol)
        rate = fee if asset.is_crypto else ZERO
        fill = Fill(
            id=activity_id(at, self.new_id()),
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            qty=qty,
            price=price,
            cum_qty=order.filled_qty,
            leaves_qty=leaves,
            order_status=order.status,
            at=at,
            fee_qty=(qty * rate).quantize(QTY_STEP) if order.is_buy else ZERO,
            fee_cash=ZERO if order.is_buy else (qty * price * rate).quantize(QTY_STEP),
        )
        self._record(fill)
        self._tell("partial_fill" if leaves else "fill", order, fill)
        if not late:
            self.react(order, fill)
        return fill

    def restore(self, orders: Iterable[Order], fills: Iterable[Fill], epoch: int) -> None:
        """Take back saved orders and fills without telling anybody; `epoch` is the number of
        records read, which keeps new ids apart from the saved ones."""
        for order in orders:
            self._index(order)
        for fill in fills:
            self._record(fill)
        self._ids = random.Random(f"{self._seed}:ids:{epoch}")

    def _index(self, order: Order) -> None:
        self.orders.append(order)
        self.by_id[order.id] = order
        self.by_client_id[order.client_order_id].append(order)
        if order.group is not None:
            self.groups[order.group].append(order)
        self._hold(order)

    def _record(self, fill: Fill) -> None:
        self.fill_index[fill.id] = len(self.fills)
        self.fills.append(fill)
        self.account.apply(fill)
        fee = fee_entry(fill)
        if fee is not None:
            self.entries.append(fee)

    def adjust(self, entry: Entry) -> None:
        """Change cash or a position without a fill; without a type no activity tells of it."""
        self.account.adjust(entry)
        if entry.type:
            self.entries.append(entry)

    def _release(self, order: Order) -> None:
        self.reserved -= order.reserved
        self.held[order.symbol] -= order.held

    def _hold(self, order: Order) -> None:
        self.reserved += order.reserved
        self.held[order.symbol] += order.held
        if order.is_open:
            self.open[order.id] = order
            self.open_by_symbol[order.symbol][order.id] = order
        else:
            self.open.pop(order.id, None)
            self.open_by_symbol[order.symbol].pop(order.id, None)

    def _tell(self, kind: str, order: Order, fill: Fill | None = None) -> None:
        if self.listeners:
            event = BookEvent(kind, replace(order), order.updated_at, fill)
            for listener in self.listeners:
                listener(event)

    # --- readings

    def awaited(self, order: Order) -> Order | None:
        """The order that this one is to replace, while it has not done so."""
        old = self.by_id.get(order.replaces or "")
        return old if old is not None and old.replaced_by != order.id else None

    def primary(self, order: Order) -> Order:
        """The order under which a group is shown: its newest entry, or take profit without one."""
        members = self.groups.get(order.group or "", [order])
        first = members[0].role
        return next(member for member in reversed(members) if member.role == first)

    def legs(self, order: Order) -> list[Order]:
        """The other orders of a group under its primary order, replaced ones left out."""
        if order.group is None or self.primary(order) is not order:
            return []
        members = self.groups[order.group]
        return [leg for leg in members if leg.role != order.role and leg.status != "replaced"]

    def asset(self, symbol: str) -> Asset:
        """The asset of an order or position."""
        asset = self.market.assets.find(symbol)
        if asset is None:
            raise KeyError(f"asset {symbol!r} has an order but is not in the list of assets")
        return asset

    def valuation(self) -> Valuation:
        """The account at current prices."""
        now = self.market.now()
        long_value = short_value = ZERO
        for symbol, position in self.account.positions.items():
            value = position.qty * self.market.quote(self.asset(symbol), now).last
            if value > 0:
                long_value += value
            else:
                short_value += value
        return Valuation(
            self.account.cash, long_value, short_value, self.reserved, self.account.multiplier
        )

    def last_equity(self) -> Decimal:
        """Equity of today's positions at the previous close."""
        now = self.market.now()
        value = self.account.cash
        for symbol, position in self.account.positions.items():
            value += position.qty * self.market.previous_close(self.asset(symbol), now)
        return value
