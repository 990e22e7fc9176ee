"""The simulated broker's book: the orders that it took, and what can be seen of them.

It stands for Alpaca, as far as `torghut.ports.Broker` and docs/divergences.md know it; that what
it shows is what any broker of ours must show is tested by the conformance suite
(`test_conformance.py`). It takes a `client_order_id` once, for good. When an order can be looked
up (`visible_at`) and when lists show it (`listed_at`) are apart, because at brokers they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from torghut.domain.orders import Order, OrderClass, OrderRequest, OrderStatus, OrderType, Side
from torghut.ports import BrokerAccount, BrokerPosition, FillActivity

PX = Decimal(10)
CASH = Decimal(1_000_000)
SYMBOLS = frozenset({"AAPL", "MSFT", "TSLA"})
COID_MAX = 128
_STEP = timedelta(microseconds=1)


@dataclass
class Booked:
    """One order of the book. `arrived` and `ended` are stamps of the world's own count."""

    broker_order_id: str
    client_order_id: str
    request: OrderRequest
    created_at: datetime
    visible_at: datetime
    listed_at: datetime
    arrived: int
    order_type: str
    limit_price: Decimal | None
    stop_price: Decimal | None
    side: Side
    updated_at: datetime
    status: str = "new"
    cum_qty: Decimal = Decimal(0)
    ended: int | None = None
    external: bool = False
    legs: list[Booked] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return not OrderStatus.is_terminal(self.status)

    @property
    def qty(self) -> Decimal:
        if self.request.qty is not None:
            return self.request.qty
        assert self.request.notional is not None
        return self.request.notional / PX

    def snapshot(self) -> Order:
        """The order as the broker shows it now."""
        return Order(
            broker_order_id=self.broker_order_id,
            client_order_id=self.client_order_id,
            symbol=self.request.symbol,
            side=self.side.value,
            order_type=self.order_type,
            time_in_force=self.request.time_in_force.value,
            status=self.status,
            qty=self.request.qty,
            notional=self.request.notional,
            limit_price=self.limit_price,
            stop_price=self.stop_price,
            cum_qty=self.cum_qty,
            avg_px=PX if self.cum_qty else None,
            created_at=self.created_at,
            updated_at=self.updated_at,
            submitted_at=self.created_at,
            replaces=None,
            replaced_by=None,
            raw={"submitted_at": self.created_at.isoformat(timespec="microseconds")},
            legs=tuple(leg.snapshot() for leg in self.legs),
        )


@dataclass(frozen=True)
class Trade:
    """One fill and from when on the activities show it."""

    activity: FillActivity
    listed_at: datetime
    stamp: int


class Refused(Exception):
    """The order breaks a rule of the broker's: (HTTP status, code, message)."""


class Book:
    """One account. `prefix` makes its ids; `stamp` counts what happens in the world."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        prefix: str,
        stamp: Callable[[], int],
        *,
        fills_at_once: bool = False,
    ) -> None:
        self.clock = clock
        self.orders: list[Booked] = []
        self.by_client_id: dict[str, Booked] = {}
        self.trades: list[Trade] = []
        self.changed = 0  # stamp of the last change
        self._prefix = prefix
        self._stamp = stamp
        self._fills_at_once = fills_at_once
        self._lock = threading.Lock()
        self._last = datetime.min.replace(tzinfo=clock().tzinfo)

    def take(
        self,
        request: OrderRequest,
        client_order_id: str,
        *,
        hidden_s: float = 0.0,
        unlisted_s: float = 0.0,
        external: bool = False,
    ) -> Booked | None:
        """Take an order; None if its id is taken. Raises Refused."""
        _check(request, client_order_id)
        with self._lock:
            if client_order_id in self.by_client_id:
                return None
            now = self._instant()
            visible_at = now + timedelta(seconds=hidden_s)
            listed_at = visible_at + timedelta(seconds=unlisted_s)
            order = self._book(
                client_order_id, request, now, visible_at, listed_at, request.order_type
            )
            order.external = external
            if request.order_class is OrderClass.BRACKET:
                order.legs = self._legs(order, now)
            if self._fills_at_once and request.order_type is OrderType.MARKET:
                self.fill(order, order.qty)
            return order

    def shown(self) -> datetime:
        """Until when what was to be seen by then is seen."""
        return max(self.clock(), self._last)

    def fill(self, order: Booked, qty: Decimal, *, unlisted_s: float = 0.0) -> None:
        """Fill a part or the rest of a live order."""
        now = self._instant()
        order.cum_qty += qty
        leaves = order.qty - order.cum_qty
        activity = FillActivity(
            activity_id=f"{self._prefix}-f{len(self.trades):06d}",
            broker_order_id=order.broker_order_id,
            symbol=order.request.symbol,
            side=order.side.value,
            last_qty=qty,
            last_px=PX,
            cum_qty=order.cum_qty,
            leaves_qty=leaves,
            transact_time=now,
            raw={},
        )
        stamp = self._stamp()
        self.trades.append(Trade(activity, now + timedelta(seconds=unlisted_s), stamp))
        self._turn(order, "partially_filled" if leaves else "filled", now, stamp)

    def end(self, order: Booked, status: str) -> None:
        """A live order ends without a further fill."""
        self._turn(order, status, self._instant(), self._stamp())

    def position(self, symbol: str) -> Decimal:
        """Shares held, short is negative."""
        signed = (
            (1 if one.activity.side == "buy" else -1) * one.activity.last_qty
            for one in self.trades
            if one.activity.symbol == symbol
        )
        return sum(signed, Decimal(0))

    def positions(self) -> list[BrokerPosition]:
        held = ((symbol, self.position(symbol)) for symbol in sorted(SYMBOLS))
        return [
            BrokerPosition(symbol=symbol, qty=qty, avg_px=PX, current_price=PX)
            for symbol, qty in held
            if qty
        ]

    def account(self) -> BrokerAccount:
        worth = sum((self.position(symbol) for symbol in SYMBOLS), Decimal(0)) * PX
        return BrokerAccount(
            account_number=self._prefix,
            status="ACTIVE",
            currency="USD",
            cash=CASH - worth,
            equity=CASH,
            buying_power=CASH * 4,
            blocked=False,
            raw={},
        )

    def _turn(self, order: Booked, status: str, now: datetime, stamp: int) -> None:
        order.status, order.updated_at = status, now
        self.changed = stamp
        if not order.live:
            order.ended = stamp

    def _book(
        self,
        client_order_id: str,
        request: OrderRequest,
        now: datetime,
        visible_at: datetime,
        listed_at: datetime,
        order_type: OrderType,
    ) -> Booked:
        order = Booked(
            broker_order_id=f"{self._prefix}-o{len(self.orders):06d}",
            client_order_id=client_order_id,
            request=request,
            created_at=now,
            visible_at=visible_at,
            listed_at=listed_at,
            arrived=self._stamp(),
            order_type=order_type.value,
            limit_price=request.limit_price,
            stop_price=request.stop_price,
            side=request.side,
            updated_at=now,
        )
        self.orders.append(order)
        self.changed = order.arrived
        self.by_client_id[client_order_id] = order
        return order

    def _legs(self, entry: Booked, now: datetime) -> list[Booked]:
        """The exits of a bracket: orders of their own, held until the entry is filled."""
        legs = []
        for kind in (OrderType.LIMIT, OrderType.STOP):
            client_order_id = f"{entry.broker_order_id}-{kind}"
            leg = self._book(client_order_id, entry.request, now, now, now, kind)
            leg.status = "held"
            leg.side = Side.SELL if entry.side is Side.BUY else Side.BUY
            legs.append(leg)
        return legs

    def _instant(self) -> datetime:
        """Now, and never the same twice: the lists are sorted by it."""
        self._last = max(self.clock(), self._last + _STEP)
        return self._last


def _check(request: OrderRequest, client_order_id: str) -> None:
    if len(client_order_id) > COID_MAX:
        raise Refused(
            422, "40010001", f"client_order_id must be no more than {COID_MAX} characters"
        )
    if request.symbol not in SYMBOLS:
        raise Refused(422, "42210000", f'asset "{request.symbol}" not found')
