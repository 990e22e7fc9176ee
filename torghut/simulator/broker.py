"""The broker: what a client can do with orders and positions, and what a test can force.

    submit / replace / cancel / close_position      the trading API
    force_fill / force_cancel / force_expire        the control API
    advance                                         replay, session by session

One thread owns a Broker; nothing here blocks or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

from torghut.simulator import checks, clock, errors
from torghut.simulator.assets import Asset
from torghut.simulator.book import Book
from torghut.simulator.groups import Groups
from torghut.simulator.market import PHASES, Market
from torghut.simulator.matching import Matcher
from torghut.simulator.numbers import is_whole, truncate_qty
from torghut.simulator.orders import Fill, Order, Ticket
from torghut.simulator.replacing import Replacer
from torghut.simulator.rules import check_window
from torghut.simulator.switches import Switches
from torghut.simulator.tickets import read_ticket
from torghut.simulator.visibility import Visibility

GTC_LIFE = timedelta(days=90)


class Broker:
    """Book, matcher and switches of one account."""

    def __init__(
        self,
        market: Market,
        switches: Switches,
        seed: int,
        cash: Decimal,
        elapsed_s: Callable[[], float] = clock.elapsed_s,
    ) -> None:
        self.market = market
        self.seed = seed
        self.book = Book(market, seed, cash)
        self.elapsed_s = elapsed_s
        self.matcher = Matcher(self.book, switches, seed, elapsed_s)
        self.visibility = Visibility(elapsed_s, lambda: self.switches)
        self._groups = Groups(self.book, self.matcher)
        self._replacer = Replacer(self.book, self.matcher, self._groups, self._new_order)
        self._least_delay_s = 0.0
        self.book.react = self._react
        self.book.fill_instant = self._fill_instant
        self.book.listeners.append(self.visibility.observe)

    @property
    def switches(self) -> Switches:
        """The behaviour switches in force."""
        return self.matcher.switches

    @switches.setter
    def switches(self, switches: Switches) -> None:
        self.matcher.switches = switches

    def reset(self) -> None:
        """A fresh account: no orders, no positions, the initial cash; a replay starts anew."""
        if self.market.mode == "replay":
            self.market.enter(self.market.replay_bars.days[0], "open")
        self.book.clear()
        self.matcher.clear()
        self.visibility.clear()
        self._replacer.clear()

    def resume(self) -> None:
        """Go on with the orders of a restored book."""
        self.matcher.resume(self.elapsed_s())
        self._replacer.resume(self.elapsed_s())

    def _react(self, order: Order, fill: Fill | None) -> None:
        self._replacer.react(order)
        self._groups.react(order, fill)

    def _fill_instant(self, now: datetime) -> datetime:
        step_ms = self.switches.fill_clock_ms
        if not step_ms:
            return now
        return now - timedelta(microseconds=int(now.timestamp() * 1_000_000) % (step_ms * 1000))

    # --- orders

    def submit(self, body: Any) -> Order:
        """Take an order. Raises ApiError, and then nothing has changed."""
        ticket, asset = read_ticket(body, self.market.assets, self.switches)
        return self._take(ticket, asset)

    def _take(self, ticket: Ticket, asset: Asset) -> Order:
        checks.check_account(self.book)
        checks.check_unique(self.book, ticket.client_order_id, self.switches)
        now = self.market.now()
        if self.market.mode == "real":
            check_window(ticket.time_in_force, now)
        if ticket.is_fractional and not self.book.account.configuration["fractional_trading"]:
            raise errors.forbidden("fractional trading is not enabled for this account")
        quote = self.market.quote(asset, now)
        closing = checks.is_closing(self.book, ticket)
        checks.check_order(self.book, ticket, asset, quote, closing)
        order = self._new_order(ticket, asset)
        exits = self._groups.exits(order, ticket)
        self.book.add(order)
        for leg in exits:
            self.book.add(leg)
        self.matcher.accept(order, self.elapsed_s())
        self._groups.taken(exits)
        return order

    def _new_order(self, ticket: Ticket, asset: Asset) -> Order:
        now = self.market.now()
        quote = self.market.quote(asset, now)
        closing = checks.is_closing(self.book, ticket)
        until = self.market.next_close(now)
        if ticket.time_in_force == "gtc":
            until += GTC_LIFE
        order = Order(
            id=self.book.new_id(),
            client_order_id=ticket.client_order_id or self.book.new_id(),
            symbol=asset.symbol,
            asset_id=asset.id,
            asset_class=asset.asset_class,
            side=ticket.side,
            type=ticket.type,
            time_in_force=ticket.time_in_force,
            qty=ticket.qty,
            notional=ticket.notional,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
            extended_hours=ticket.extended_hours,
            position_intent=checks.position_intent(ticket, closing),
            status="pending_new",
            created_at=now,
            updated_at=now,
            submitted_at=now,
            expires_at=until,
            closing=closing,
            reserve_price=checks.reserve_price(ticket, quote),
            trail_price=ticket.trail_price,
            trail_percent=ticket.trail_percent,
        )
        if ticket.type == "trailing_stop":
            order.hwm = quote.last
            order.stop_price = self.matcher.trailing_stop(order)
        if self.switches.sticks("accepted") or not self.matcher.is_tradable_now(order):
            order.status = "accepted"
        return order

    def replace(self, order_id: str, body: Any) -> Order:
        """Replace an order by a new one. Raises ApiError, and then nothing has changed."""
        delay_s = max(self.switches.replace_delay_ms / 1000, self._least_delay_s)
        return self._replacer.replace(self.find(order_id), body, self.elapsed_s(), delay_s)

    @contextmanager
    def delayed(self, at_least_s: float) -> Iterator[None]:
        """What is canceled or replaced within takes effect this much later."""
        self._least_delay_s = at_least_s
        try:
            yield
        finally:
            self._least_delay_s = 0.0

    def cancel(self, order_id: str) -> Order:
        """Ask for an order to be canceled. Raises ApiError."""
        order = self.find(order_id)
        if order.status == "canceled" and self.switches.repeat_cancel == "success":
            return order
        if not order.is_open:
            raise errors.unprocessable(f'order is already in "{order.status}" state')
        if order.status != "pending_cancel":
            delay_s = max(self.switches.cancel_delay_ms / 1000, self._least_delay_s)
            self.matcher.cancel(order, self.elapsed_s(), delay_s)
        return order

    def cancel_all(self) -> list[tuple[Order, errors.ApiError | None]]:
        """Ask for every open order to be canceled; with the refusal of those that are not."""
        results: list[tuple[Order, errors.ApiError | None]] = []
        for order in list(self.book.open.values()):
            try:
                results.append((self.cancel(order.id), None))
            except errors.ApiError as error:
                results.append((order, error))
        return results

    def close_position(
        self, asset: Asset, qty: Decimal | None = None, percentage: Decimal | None = None
    ) -> Order:
        """Close a position, or a part of it, by a market order. Raises ApiError."""
        position = self.book.account.qty(asset.symbol)
        if not position:
            raise errors.ApiError(404, errors.NOT_FOUND, "position does not exist")
        size = abs(position)
        if percentage is not None:
            size = size * percentage / 100
        body = {
            "symbol": asset.symbol,
            "side": "sell" if position > 0 else "buy",
            "type": "market",
            "time_in_force": "gtc" if asset.is_crypto else "day",
            "qty": qty if qty is not None else size,
        }
        return self.submit(body)

    def close_all(self, cancel_orders: bool) -> list[tuple[Asset, Order | errors.ApiError]]:
        """Close every position; with `cancel_orders` open orders are canceled first."""
        if cancel_orders:
            for order in list(self.book.open.values()):
                if order.is_open:
                    self.book.change(order, "canceled")
        results: list[tuple[Asset, Order | errors.ApiError]] = []
        for symbol in list(self.book.account.positions):
            asset = self.book.asset(symbol)
            try:
                results.append((asset, self.close_position(asset)))
            except errors.ApiError as error:
                results.append((asset, error))
        return results

    # --- lookups

    def find(self, order_id: str) -> Order:
        """An order by broker id. Raises ApiError 404."""
        order = self.book.by_id.get(order_id.lower())
        if order is None:
            raise errors.order_not_found(order_id)
        return order

    def find_by_client_id(self, client_order_id: str) -> Order:
        """The first order ever taken with a client id. Raises ApiError 404."""
        orders = [o for o in self.book.by_client_id.get(client_order_id, ()) if self.is_visible(o)]
        if not orders:
            raise errors.order_not_found(client_order_id)
        return orders[0]

    def hide(self, order: Order, for_s: float) -> None:
        """Leave an order and its legs out of lookups by client id and of lists for a while."""
        self.visibility.hide([order, *self.book.legs(order)], for_s)

    def is_visible(self, order: Order) -> bool:
        """False while an order is hidden."""
        return self.visibility.shows(order.id)

    # --- control

    def any_order(self, reference: str) -> Order:
        """An order by broker id or client id. Raises ApiError 404."""
        by_client_id = self.book.by_client_id.get(reference)
        return by_client_id[0] if by_client_id else self.find(reference)

    def force_fill(
        self, order: Order, qty: Decimal | None, price: Decimal | None, late: bool
    ) -> Fill:
        """Fill an order now; `late` allows it on an order that is closed, as late facts do."""
        if not order.is_open and not late:
            raise errors.unprocessable(f'order is already in "{order.status}" state')
        if order.is_open and order.dormant:
            raise errors.unprocessable("order waits for another order")
        asset = self.book.asset(order.symbol)
        if price is None:
            quote = self.market.quote(asset, self.market.now())
            price = quote.ask if order.is_buy else quote.bid
        leaves = order.leaves_qty(price)
        size = leaves if qty is None else qty
        if size <= 0 or (size > leaves and not late):
            raise errors.invalid(f"qty must be > 0 and at most {leaves}")
        return self.book.fill(
            order, size, price, self.switches.crypto_fee, late=late and not order.is_open
        )

    def fill_part(self, order: Order, part: Decimal | None) -> None:
        """Fill a share of what is open (None: all of it) at the quote; whole shares stay whole."""
        quote = self.market.quote(self.book.asset(order.symbol), self.market.now())
        leaves = order.leaves_qty(quote.ask if order.is_buy else quote.bid)
        size = leaves if part is None else truncate_qty(leaves * part)
        if is_whole(leaves):
            size = size.to_integral_value(ROUND_DOWN)
        if size > 0:
            self.force_fill(order, size, None, late=False)

    def force_status(self, order: Order, status: str) -> None:
        """Cancel, expire or reject an open order from outside."""
        if not order.is_open:
            raise errors.unprocessable(f'order is already in "{order.status}" state')
        self.book.change(order, status)

    def advance(self, to: date | None = None, phase: str = "before_close") -> date | None:
        """Replay: go on to a phase of a session; without a date, of the next session.

        Returns the day reached, or None when the file has no such session left. Sessions in
        between are traded in full. Raises ValueError for a date that is not ahead.
        """
        days = self.market.replay_bars.days
        today = self.market.today()
        if phase not in PHASES:
            raise ValueError(f"phase must be one of {', '.join(PHASES)}, not {phase!r}")
        target = to or next((day for day in days if day > today), None)
        if target is None or target not in self.market.replay_bars.by_day:
            return None
        if (target, PHASES.index(phase)) < (today, PHASES.index(self.market.phase)):
            raise ValueError(f"{target} {phase} lies before {today} {self.market.phase}")
        for day in days[days.index(today) : days.index(target) + 1]:
            for step in PHASES:
                passed = day == today and PHASES.index(step) <= PHASES.index(self.market.phase)
                beyond = day == target and PHASES.index(step) > PHASES.index(phase)
                if not passed and not beyond:
                    self._enter(day, step)
        return target

    def _enter(self, day: date, phase: str) -> None:
        self.matcher.drain()
        self.market.enter(day, phase)
        elapsed_s = self.elapsed_s()
        if phase == "before_close":
            self.matcher.trade_range(self.market.replay_bars.by_day[day], elapsed_s)
        self.matcher.sweep(elapsed_s)
        self.matcher.drain()
