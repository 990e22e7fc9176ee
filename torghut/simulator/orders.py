"""Orders and fills as the broker sees them, and their JSON form.

Status graph of a simulated order (statuses that the simulator never gives are left out):

    pending_new ─┐                        ┌─> filled
                 ├─> new ─> partially_filled ─┴─> pending_cancel ─> canceled
    accepted ────┘    └──> filled | pending_cancel | expired | rejected
                       └──> pending_replace ─> replaced

`accepted` is where an order waits for the market to open; `held` is where an exit of a group waits
for its entry, and where a stop stands while its take profit is working (see `groups`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from torghut.simulator.clock import NEW_YORK, rfc3339
from torghut.simulator.numbers import QTY_STEP, ZERO, is_whole, optional_text, text

TERMINAL = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})
WORKING = frozenset({"new", "partially_filled"})
PENDING = frozenset({"pending_cancel", "pending_replace"})
ENTRY, TAKE_PROFIT, STOP_LOSS = "entry", "take_profit", "stop_loss"
AVG_PRICE_STEP = Decimal("0.000001")


@dataclass(slots=True)
class Ticket:
    """A validated order request: what is asked for, before an order exists."""

    symbol: str
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    extended_hours: bool = False
    client_order_id: str | None = None
    position_intent: str | None = None
    order_class: str = ""
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    stop_loss_limit: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None

    @property
    def is_fractional(self) -> bool:
        """True for a notional amount or a quantity with decimals."""
        return self.notional is not None or (self.qty is not None and not is_whole(self.qty))


@dataclass(slots=True)
class Order:
    """One broker order. Quantities in shares or coins, prices in USD, instants UTC.

    `closing` orders reduce a position, others reserve buying power at `reserve_price` a share.
    Orders of one `group` (the id of its first order) have a `role` in it. A `dormant` order is not
    worked yet: an exit whose entry is not filled, or a replacement that has not taken effect.
    `armed` is a stop that is watched although it is `held`.
    """

    id: str
    client_order_id: str
    symbol: str
    asset_id: str
    asset_class: str
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    extended_hours: bool
    position_intent: str
    status: str
    created_at: datetime
    updated_at: datetime
    submitted_at: datetime
    expires_at: datetime
    filled_qty: Decimal = ZERO
    filled_cost: Decimal = ZERO
    filled_at: datetime | None = None
    expired_at: datetime | None = None
    canceled_at: datetime | None = None
    failed_at: datetime | None = None
    replaced_at: datetime | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    stop_triggered: bool = False
    closing: bool = False
    reserve_price: Decimal = ZERO
    order_class: str = ""
    group: str | None = None
    role: str = ""
    dormant: bool = False
    armed: bool = False
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    hwm: Decimal | None = None

    @property
    def is_open(self) -> bool:
        """True while the order may still fill."""
        return self.status not in TERMINAL

    @property
    def is_working(self) -> bool:
        """True while the order is tried against the market."""
        if self.dormant:
            return False
        return self.status in WORKING or (self.armed and self.status == "held")

    @property
    def is_exit(self) -> bool:
        """True for the orders of a group that close what its entry opened."""
        return self.role in (TAKE_PROFIT, STOP_LOSS)

    @property
    def is_buy(self) -> bool:
        """True for the buying side."""
        return self.side == "buy"

    def leaves_qty(self, price: Decimal) -> Decimal:
        """What is still to be filled; for a notional order, what its money buys at `price`."""
        if self.qty is not None:
            return self.qty - self.filled_qty
        if self.notional is None:
            return ZERO
        return ((self.notional - self.filled_cost) / price).quantize(QTY_STEP, "ROUND_DOWN")

    @property
    def reserved(self) -> Decimal:
        """Buying power this order holds back while it is open, USD."""
        if not self.is_open or self.closing or self.dormant:
            return ZERO
        if self.qty is None:
            return (self.notional or ZERO) - self.filled_cost
        return self.reserve_price * (self.qty - self.filled_qty)

    @property
    def held(self) -> Decimal:
        """Shares of the position this order holds back while it is open."""
        if not self.is_open or not self.closing or self.dormant:
            return ZERO
        if self.qty is None:
            return self.leaves_qty(self.reserve_price)
        return self.qty - self.filled_qty


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution of an order; `id` is its account activity's id. The fee on coins is taken out
    of what is received: `fee_qty` of bought coins, `fee_cash` of the proceeds, USD."""

    id: str
    order_id: str
    symbol: str
    side: str
    qty: Decimal
    price: Decimal
    cum_qty: Decimal
    leaves_qty: Decimal
    order_status: str
    at: datetime
    fee_qty: Decimal = ZERO
    fee_cash: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Entry:
    """A change of cash (USD) or of a position that is no fill; an activity row if it has a type."""

    id: str
    type: str
    at: datetime
    cash: Decimal = ZERO
    symbol: str | None = None
    qty: Decimal = ZERO
    price: Decimal | None = None


def fee_entry(fill: Fill) -> Entry | None:
    """The fee of a fill as an entry, None without one; its id follows from the fill's."""
    if not fill.fee_qty and not fill.fee_cash:
        return None
    own = uuid.uuid5(uuid.NAMESPACE_OID, f"fee of {fill.id}")
    return Entry(
        activity_id(fill.at, str(own)), "CFEE", fill.at, -fill.fee_cash, fill.symbol, -fill.fee_qty,
        fill.price,
    )  # fmt: skip


def entry_json(entry: Entry) -> dict[str, Any]:
    """The row of an activity that is no fill."""
    units = entry.symbol is not None
    return {
        "id": entry.id,
        "activity_type": entry.type,
        "date": f"{entry.at.astimezone(NEW_YORK):%Y-%m-%d}",
        "created_at": rfc3339(entry.at),
        "net_amount": text(entry.cash),
        "description": "",
        "status": "executed",
        **(
            {"symbol": (entry.symbol or "").replace("/", ""), "qty": text(entry.qty)}
            if units
            else {}
        ),
        **({"price": text(entry.price)} if entry.price is not None else {}),
    }


def activity_id(at: datetime, unique: str) -> str:
    """`yyyymmddHHMMSSmmm::uuid`, the prefix in New York local time."""
    local = at.astimezone(NEW_YORK)
    return f"{local:%Y%m%d%H%M%S}{local.microsecond // 1000:03d}::{unique}"


def order_json(order: Order, legs: Sequence[Order] = ()) -> dict[str, Any]:
    """The Order object of the trading API, with its legs where they are rolled up."""
    filled = order.filled_qty
    average = (order.filled_cost / filled).quantize(AVG_PRICE_STEP) if filled else None
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": rfc3339(order.created_at),
        "updated_at": rfc3339(order.updated_at),
        "submitted_at": rfc3339(order.submitted_at),
        "filled_at": rfc3339(order.filled_at),
        "expires_at": rfc3339(order.expires_at),
        "expired_at": rfc3339(order.expired_at),
        "canceled_at": rfc3339(order.canceled_at),
        "failed_at": rfc3339(order.failed_at),
        "replaced_at": rfc3339(order.replaced_at),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": order.asset_id,
        "symbol": order.symbol,
        "asset_class": order.asset_class,
        "notional": optional_text(order.notional),
        "qty": optional_text(order.qty),
        "filled_qty": text(filled),
        "filled_avg_price": optional_text(average),
        "order_class": order.order_class,
        "order_type": order.type,
        "type": order.type,
        "side": order.side,
        "position_intent": order.position_intent,
        "time_in_force": order.time_in_force,
        "limit_price": optional_text(order.limit_price),
        "stop_price": optional_text(order.stop_price),
        "status": order.status,
        "extended_hours": order.extended_hours,
        "legs": [order_json(leg) for leg in legs] or None,
        "trail_percent": optional_text(order.trail_percent),
        "trail_price": optional_text(order.trail_price),
        "hwm": optional_text(order.hwm),
        "subtag": None,
        "source": None,
    }


def activity_json(fill: Fill, order: Order) -> dict[str, Any]:
    """The FILL row of `/v2/account/activities`; a short sale has a side of its own there."""
    return {
        "id": fill.id,
        "activity_type": "FILL",
        "transaction_time": rfc3339(fill.at),
        "type": "fill" if fill.leaves_qty == 0 else "partial_fill",
        "price": text(fill.price),
        "qty": text(fill.qty),
        "side": "sell_short" if order.position_intent == "sell_to_open" else fill.side,
        "symbol": fill.symbol,
        "leaves_qty": text(fill.leaves_qty),
        "order_id": fill.order_id,
        "cum_qty": text(fill.cum_qty),
        "order_status": fill.order_status,
    }
