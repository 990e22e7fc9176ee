"""A broker and a market inside the process: each order is taken at once, and over unfilled.

What is timed with it is Torghut alone. It answers what the services ask of a broker, keeps nothing
but the count of what was sent, and knows no order afterwards: for benches only, never for a book.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from torghut.clock import utc_now
from torghut.domain.exposure import AssetFacts
from torghut.domain.orders import Order, OrderRequest
from torghut.domain.sessions import MarketClock
from torghut.ports import (
    AccountEntry,
    Answer,
    Bar,
    BrokerAccount,
    BrokerPosition,
    FillActivity,
    Lookup,
    Outcome,
    Page,
    Quote,
    RateState,
)

PRICE = Decimal("100.00")
CASH = Decimal(10) ** 15
ASSET = AssetFacts(listed=True, tradable=True, fractionable=True, shortable=True)


class NullBroker:
    """Accepts everything. `left_at` says when the order of a client_order_id came, by
    time.perf_counter; `repeated` which of them came again."""

    def __init__(self) -> None:
        self.left_at: dict[str, float] = {}
        self.repeated: list[str] = []
        self._numbers = itertools.count(1)

    def submit(self, order: OrderRequest, client_order_id: str) -> Answer:
        came_at = time.perf_counter()
        if self.left_at.setdefault(client_order_id, came_at) != came_at:
            self.repeated.append(client_order_id)
        now = utc_now()
        number = f"{next(self._numbers):012x}"
        snapshot = Order(
            broker_order_id=f"{client_order_id[:8]}-0000-4000-8000-{number}",
            client_order_id=client_order_id,
            symbol=order.symbol,
            side=order.side.value,
            order_type=order.order_type.value,
            time_in_force=order.time_in_force.value,
            status="canceled",
            qty=order.qty,
            notional=order.notional,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
            cum_qty=Decimal(0),
            avg_px=None,
            created_at=now,
            updated_at=now,
            submitted_at=now,
            replaces=None,
            replaced_by=None,
            raw={"id": number, "client_order_id": client_order_id, "status": "canceled"},
        )
        return Answer(outcome=Outcome.ACCEPTED, order=snapshot, http_status=200)

    def cancel(self, broker_order_id: str) -> Answer:
        return Answer(outcome=Outcome.REFUSED, http_status=404, message="order not found")

    def replace(
        self, broker_order_id: str, changes: Mapping[str, object], client_order_id: str
    ) -> Answer:
        return Answer(outcome=Outcome.REFUSED, http_status=404, message="order not found")

    def lookup(self, client_order_id: str) -> Lookup:
        return Lookup(order=None)

    def get_order(self, broker_order_id: str) -> Order | None:
        return None

    def account(self) -> BrokerAccount:
        raw = {"last_equity": str(CASH), "shorting_enabled": True}
        return BrokerAccount(
            account_number="NULL",
            status="ACTIVE",
            currency="USD",
            cash=CASH,
            equity=CASH,
            buying_power=CASH,
            blocked=False,
            raw=raw,
        )

    def positions(self) -> Sequence[BrokerPosition]:
        return ()

    def asset(self, symbol: str) -> AssetFacts:
        return ASSET

    def market_clock(self) -> MarketClock:
        now = utc_now()
        return MarketClock(
            is_open=True,
            told_at=now,
            next_open=now + timedelta(days=1),
            next_close=now + timedelta(hours=6),
        )

    def orders(self, *, after: datetime | None, limit: int) -> Page[Order]:
        return Page()

    def open_orders(self) -> Sequence[Order]:
        return ()

    def fills(self, *, page_token: str | None, after: datetime | None) -> Page[FillActivity]:
        return Page()

    def entries(self, *, page_token: str | None, after: datetime | None) -> Page[AccountEntry]:
        return Page()

    def rate_state(self) -> RateState:
        return RateState()

    def close(self) -> None:
        """Nothing is held."""


class NullMarket:
    """One price for every symbol, always of now."""

    def quotes(self, symbols: Iterable[str]) -> Mapping[str, Quote]:
        now = utc_now()
        return {s: Quote(symbol=s, bid_px=PRICE, ask_px=PRICE, quoted_at=now) for s in symbols}

    def daily_bars(
        self, symbols: Iterable[str], *, end: date, count: int
    ) -> Mapping[str, Sequence[Bar]]:
        bar = {"open": PRICE, "high": PRICE, "low": PRICE, "close": PRICE, "volume": CASH}
        days = [end - timedelta(days=back) for back in range(count)][::-1]
        return {s: [Bar(symbol=s, session=day, **bar) for day in days] for s in symbols}

    def close(self) -> None:
        """Nothing is held."""
