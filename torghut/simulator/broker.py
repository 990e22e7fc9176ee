"""The broker: what a client can do with orders and positions, and what a test can force.

    submit / replace / cancel / close_position      the trading API
    force_fill / force_cancel / force_expire        the control API
    advance                                         replay, session by session

One thread owns a Broker; nothing here blocks or waits.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from torghut.simulator import checks, clock, errors
from torghut.simulator.assets import Asset
from torghut.simulator.book import Book
from torghut.simulator.market import PHASES, Market
from torghut.simulator.matching import Matcher
from torghut.simulator.numbers import ZERO, is_whole, read_decimal
from torghut.simulator.orders import Fill, Order, Ticket
from torghut.simulator.switches import Switches
from torghut.simulator.tickets import (
    TIMES_IN_FORCE,
    check_client_order_id,
    check_increment,
    is_fractional,
    read_ticket,
)

GTC_LIFE = timedelta(days=90)
REPLACEABLE = ("new", "partially_filled")
OPG_FORBIDDEN = ((9, 28), (19, 0))


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
        self.matcher = Matcher(self.book, switches, seed)
        self.elapsed_s = elapsed_s
        self._hidden_until_s: dict[str, float] = {}

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
        self._hidden_until_s.clear()

    # --- orders

    def submit(self, body: Any) -> Order:
        """Take an order. Raises ApiError, and then nothing has changed."""
        ticket, asset = read_ticket(body, self.market.assets, self.switches)
        return self._take(ticket, asset)

    def _take(self, ticket: Ticket, asset: Asset) -> Order:
        checks.check_account(self.book)
        checks.check_unique(self.book, ticket.client_order_id, self.switches)
        now = self.market.now()
        self._check_opg_window(ticket, now)
        if is_fractional(ticket) and not self.book.account.configuration["fractional_trading"]:
            raise errors.forbidden("fractional trading is not enabled for this account")
        quote = self.market.quote(asset, now)
        closing = checks.is_closing(self.book, ticket)
        checks.check_order(self.book, ticket, asset, quote, closing)
        order = self._new_order(ticket, asset, closing, checks.reserve_price(ticket, quote), now)
        self.book.add(order)
        self.matcher.accept(order, self.elapsed_s())
        return order

    def _new_order(
        self, ticket: Ticket, asset: Asset, closing: bool, reserve: Decimal, now: datetime
    ) -> Order:
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
            reserve_price=reserve,
        )
        if not self.matcher.is_tradable_now(order):
            order.status = "accepted"
        return order

    def _check_opg_window(self, ticket: Ticket, now: datetime) -> None:
        if self.market.mode != "real" or ticket.time_in_force != "opg":
            return
        local = now.astimezone(clock.NEW_YORK)
        if OPG_FORBIDDEN[0] <= (local.hour, local.minute) < OPG_FORBIDDEN[1]:
            raise errors.forbidden("opg orders must be submitted after 7:00pm and before 9:28am")

    def replace(self, order_id: str, body: Any) -> Order:
        """Replace an order by a new one. Raises ApiError, and then nothing has changed."""
        if not isinstance(body, dict):
            raise errors.bad_body()
        old = self.find(order_id)
        if not old.is_open:
            raise errors.unprocessable("order is not open")
        if old.status not in REPLACEABLE:
            raise errors.unprocessable(f"cannot replace order in {old.status} status")
        if old.notional is not None:
            raise errors.unprocessable("notional orders cannot be replaced")
        ticket = self._replacement(old, body)
        asset = self.book.asset(old.symbol)
        checks.check_account(self.book)
        checks.check_unique(self.book, ticket.client_order_id, self.switches)
        now = self.market.now()
        quote = self.market.quote(asset, now)
        with _SetAside(self.book, old):
            closing = checks.is_closing(self.book, ticket)
            checks.check_order(self.book, ticket, asset, quote, closing)
        new = self._new_order(ticket, asset, closing, checks.reserve_price(ticket, quote), now)
        new.replaces = old.id
        new.stop_triggered = old.stop_triggered
        self.book.change(old, "replaced", replaced_by=new.id)
        self.book.add(new)
        self.matcher.accept(new, self.elapsed_s())
        return new

    def _replacement(self, old: Order, body: dict[str, Any]) -> Ticket:
        changes: dict[str, Any] = {}
        for name in ("qty", "limit_price", "stop_price"):
            if body.get(name) is not None:
                try:
                    changes[name] = read_decimal(body[name])
                except ValueError as error:
                    raise errors.bad_body() from error
                if changes[name] <= 0:
                    raise errors.invalid(f"{name.replace('_', ' ')} must be > 0")
        if body.get("time_in_force") is not None:
            if body["time_in_force"] not in TIMES_IN_FORCE:
                raise errors.invalid("invalid time_in_force")
            changes["time_in_force"] = body["time_in_force"]
        for name in ("limit_price", "stop_price"):
            if name in changes and getattr(old, name) is None:
                raise errors.invalid(f"{old.type} orders require no {name.replace('_', ' ')}")
            check_increment(name, changes.get(name))
        if all(getattr(old, name) == value for name, value in changes.items()):
            raise errors.forbidden("order parameters are not changed")
        original = old.qty or ZERO
        if not is_whole(original) and changes.get("qty", original) != original:
            raise errors.unprocessable("qty of a fractional order cannot be changed")
        rest = original - old.filled_qty
        client_order_id = body.get("client_order_id")
        check_client_order_id(client_order_id, self.switches)
        return Ticket(
            symbol=old.symbol,
            side=old.side,
            type=old.type,
            time_in_force=changes.get("time_in_force", old.time_in_force),
            qty=changes.get("qty", original if self.switches.replace_qty == "original" else rest),
            notional=None,
            limit_price=changes.get("limit_price", old.limit_price),
            stop_price=changes.get("stop_price", old.stop_price),
            extended_hours=old.extended_hours,
            client_order_id=client_order_id,
        )

    def cancel(self, order_id: str) -> Order:
        """Ask for an order to be canceled. Raises ApiError."""
        order = self.find(order_id)
        if order.status == "canceled" and self.switches.repeat_cancel == "success":
            return order
        if not order.is_open:
            raise errors.unprocessable(f'order is already in "{order.status}" state')
        if order.status != "pending_cancel":
            self.matcher.cancel(order, self.elapsed_s())
        return order

    def cancel_all(self) -> list[Order]:
        """Ask for every open order to be canceled."""
        return [self.cancel(order.id) for order in list(self.book.open.values())]

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
        """Leave an order out of lookups by client id and of lists for some seconds."""
        self._hidden_until_s[order.id] = self.elapsed_s() + for_s

    def is_visible(self, order: Order) -> bool:
        """False while an order is hidden."""
        if not self._hidden_until_s:
            return True
        until_s = self._hidden_until_s.get(order.id)
        if until_s is None:
            return True
        if until_s <= self.elapsed_s():
            del self._hidden_until_s[order.id]
            return True
        return False

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


class _SetAside:
    """Check a replacement as if the order it replaces were not there."""

    def __init__(self, book: Book, order: Order) -> None:
        self._book = book
        self._order = order
        self._status = order.status

    def __enter__(self) -> None:
        self._book._release(self._order)
        self._book.open_by_symbol[self._order.symbol].pop(self._order.id, None)

    def __exit__(self, *exc: object) -> None:
        self._book._hold(self._order)
