"""When and at what price orders fill.

An order that is taken waits `fill_delay_ms`, then becomes `new` and is tried against the quote;
a seeded share of orders fills in two parts. Resting orders are tried again on each sweep.

    step(elapsed_s)   what is due: acknowledgements, second parts, cancels
    sweep()           every open order: expiry, opening and closing auctions, resting orders
    trade_range(bars) replay: the day's high and low pass over resting orders

The draw of an order (partial fill, asynchronous rejection) depends on the seed and its
client_order_id only, so it does not depend on the order of arrival.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal

from torghut.simulator.bars import Bar
from torghut.simulator.book import TRAILED, Book
from torghut.simulator.market import EXTENDED, REGULAR, Quote, price_step
from torghut.simulator.numbers import ZERO, is_whole, truncate_qty
from torghut.simulator.orders import TAKE_PROFIT, WORKING, Order
from torghut.simulator.switches import Switches

ACKNOWLEDGE, MATCH, CANCEL, REPLACE = "acknowledge", "match", "cancel", "replace"
PASSING = frozenset({"pending_new", "accepted", "pending_cancel"})


def stop_is_hit(order: Order, high: Decimal, low: Decimal) -> bool:
    """Has a price between `low` and `high` triggered the stop?"""
    if order.stop_price is None:
        return False
    return high >= order.stop_price if order.is_buy else low <= order.stop_price


def quote_price(order: Order, quote: Quote) -> Decimal | None:
    """The price at which an order fills against a quote now, or None."""
    far_side = quote.ask if order.is_buy else quote.bid
    if order.stop_price is not None and not order.stop_triggered:
        return None
    if order.limit_price is None:
        return far_side
    marketable = far_side <= order.limit_price if order.is_buy else far_side >= order.limit_price
    return far_side if marketable else None


def _may_fill(order: Order, quote: Quote) -> bool:
    """Is it worth trying the order against the quote?"""
    return (
        order.time_in_force in ("ioc", "fok")
        or quote_price(order, quote) is not None
        or (not order.stop_triggered and stop_is_hit(order, quote.last, quote.last))
    )


def range_price(order: Order, bar: Bar) -> Decimal | None:
    """The price at which an order that rested from the open fills within a bar, or None.

    A gap beyond the limit or stop fills at the open.
    """
    best, worst = (min, max) if order.is_buy else (max, min)
    start = bar.open
    if order.stop_price is not None:
        if not order.stop_triggered and not stop_is_hit(order, bar.high, bar.low):
            return None
        if not order.stop_triggered:
            start = worst(bar.open, order.stop_price)
    if order.limit_price is None:
        return start
    reached = bar.low <= order.limit_price if order.is_buy else bar.high >= order.limit_price
    return best(start, order.limit_price) if reached else None


class Matcher:
    """Works the orders of a book."""

    def __init__(
        self, book: Book, switches: Switches, seed: int, elapsed_s: Callable[[], float]
    ) -> None:
        self.book = book
        self.replace: Callable[[Order, float], None] = lambda new, elapsed_s: None
        self._elapsed_s = elapsed_s
        self.switches = switches
        self._seed = seed
        self._due: list[tuple[float, int, str, str]] = []
        self._sequence = 0
        self._drawn: set[str] = set()
        self._session = book.market.session(book.market.now())

    # --- what is due

    @property
    def next_due_s(self) -> float | None:
        """When `step` has something to do, in elapsed seconds."""
        return self._due[0][0] if self._due else None

    def clear(self) -> None:
        """Forget what is due."""
        self._due.clear()
        self._drawn.clear()

    def accept(self, order: Order, elapsed_s: float) -> None:
        """Begin to work an order that was just taken."""
        if order.status == "pending_new":
            self.schedule(elapsed_s + self.switches.fill_delay_ms / 1000, ACKNOWLEDGE, order)

    def try_soon(self, order: Order) -> None:
        """Try a working order after the usual delay."""
        self.schedule(self._elapsed_s() + self.switches.fill_delay_ms / 1000, MATCH, order)

    def cancel(self, order: Order, elapsed_s: float, delay_s: float) -> None:
        """Mark an order pending_cancel, and cancel it after the delay."""
        self.book.change(order, "pending_cancel")
        if delay_s or self.switches.sticks("pending_cancel"):
            self.schedule(elapsed_s + delay_s, CANCEL, order)
        else:
            self.book.change(order, "canceled")

    def resume(self, elapsed_s: float) -> None:
        """Schedule what open orders of a restored book were waiting for."""
        for order in self.book.open.values():
            if order.status == "pending_cancel":
                self.schedule(elapsed_s, CANCEL, order)
            elif order.status == "pending_new" and not order.dormant:
                self.schedule(elapsed_s, ACKNOWLEDGE, order)

    def step(self, elapsed_s: float) -> int:
        """Do what is due; the number of actions done."""
        done = 0
        while self._due and self._due[0][0] <= elapsed_s:
            due_s, _, action, order_id = heapq.heappop(self._due)
            order = self.book.by_id.get(order_id)
            if order is not None and order.is_open:
                self._act(action, order, max(elapsed_s, due_s))
                done += 1
        return done

    def drain(self) -> None:
        """Do everything that is scheduled, whenever it is due."""
        while self._due:
            self.step(max(due_s for due_s, *_ in self._due))

    def schedule(self, due_s: float, action: str, order: Order) -> None:
        """Do something about an order at an instant of elapsed time."""
        self._sequence += 1
        heapq.heappush(self._due, (due_s, self._sequence, action, order.id))

    def _act(self, action: str, order: Order, elapsed_s: float) -> None:
        if self._sticks(order):
            return
        if action == CANCEL and order.status == "pending_cancel":
            self.book.change(order, "canceled")
        elif action == REPLACE:
            self.replace(order, elapsed_s)
        elif action == ACKNOWLEDGE and order.status in ("pending_new", "accepted"):
            draw = random.Random(f"{self._seed}:reject:{self._key(order)}").random()
            if draw < self.switches.async_reject_probability:
                self.book.change(order, "rejected")
                return
            self.book.change(order, "new")
            self.attempt(order, elapsed_s)
        elif action == MATCH:
            self.attempt(order, elapsed_s)

    def _sticks(self, order: Order) -> bool:
        """Does a switch keep the order, or the one that it is to replace, where it is?"""
        return self.switches.sticks((self.book.awaited(order) or order).status)

    def _key(self, order: Order) -> str:
        """What draws of an order depend on: an exit's client id depends on what came before it."""
        if not order.is_exit or order.group is None or order.group == order.id:
            return order.client_order_id
        return f"{self.book.by_id[order.group].client_order_id}:{order.role}"

    # --- matching

    def is_tradable_now(self, order: Order) -> bool:
        """Would the order be worked in the current session?"""
        if self.book.asset(order.symbol).is_crypto:
            return True
        session = self.book.market.session(self.book.market.now())
        return session == REGULAR or (session == EXTENDED and order.extended_hours)

    def attempt(self, order: Order, elapsed_s: float) -> None:
        """Try a working order against the quote."""
        if self.switches.hold_fills or not order.is_working:
            return
        auction_only = order.time_in_force in ("opg", "cls") and self.book.market.mode != "open"
        if auction_only or not self.is_tradable_now(order):
            return
        self._attempt_at_quote(order, elapsed_s)

    def _attempt_at_quote(self, order: Order, elapsed_s: float) -> None:
        market = self.book.market
        quote = market.quote(self.book.asset(order.symbol), market.now())
        self._follow(order, quote.last)
        self._watch(order, quote.last, quote.last)
        self._execute(order, quote_price(order, quote), elapsed_s)

    def _watch(self, order: Order, high: Decimal, low: Decimal) -> None:
        """Trigger a stop that the market has reached; one that was held works from then on."""
        if order.stop_triggered or not stop_is_hit(order, high, low):
            return
        self.book.restate(order, TRAILED, stop_triggered=True)
        if order.status == "held":
            self.book.change(order, "new")

    def _follow(self, order: Order, price: Decimal) -> None:
        """Let a trailing stop follow the market: its best price so far, and the stop behind it."""
        if order.hwm is None or order.stop_triggered:
            return
        best = min(order.hwm, price) if order.is_buy else max(order.hwm, price)
        if best != order.hwm:
            self.book.restate(order, TRAILED, hwm=best)
            self.book.restate(order, TRAILED, stop_price=self.trailing_stop(order))

    def trailing_stop(self, order: Order) -> Decimal:
        """The stop price of a trailing order: `trail` behind its best price, in whole ticks."""
        best = order.hwm or ZERO
        percent = (order.trail_percent or ZERO) / 100
        trail = order.trail_price if order.trail_price is not None else best * percent
        stop = best + trail if order.is_buy else best - trail
        return max(stop, ZERO).quantize(price_step(max(stop, ZERO)), ROUND_HALF_UP)

    def _execute(self, order: Order, price: Decimal | None, elapsed_s: float) -> None:
        immediate = order.time_in_force in ("ioc", "fok")
        if price is None:
            if immediate:
                self.book.change(order, "canceled")
            return
        qty = order.leaves_qty(price)
        if qty <= 0:
            self.book.change(order, "filled" if order.filled_qty else "canceled")
            return
        part = self._partial_qty(order, qty)
        self.book.fill(order, part or qty, price, self.switches.crypto_fee)
        if part and immediate:
            self.book.change(order, "canceled")
        elif part:
            self.schedule(elapsed_s + self.switches.fill_delay_ms / 1000, MATCH, order)

    def _partial_qty(self, order: Order, qty: Decimal) -> Decimal | None:
        """The first part of an order that is to fill in two, or None."""
        if order.id in self._drawn or order.filled_qty or order.time_in_force == "fok":
            return None
        self._drawn.add(order.id)
        rng = random.Random(f"{self._seed}:partial:{self._key(order)}")
        if rng.random() >= self.switches.partial_fill_probability:
            return None
        if is_whole(qty):
            return Decimal(rng.randrange(1, int(qty))) if qty > 1 else None
        return truncate_qty(qty * Decimal(str(round(rng.uniform(0.05, 0.95), 4)))) or None

    # --- sessions

    def sweep(self, elapsed_s: float) -> None:
        """Look at every open order once: session changes, expiry, resting orders."""
        market = self.book.market
        now = market.now()
        before, self._session = self._session, market.session(now)
        if before == REGULAR and self._session != REGULAR:
            self._auction("cls", elapsed_s)
        opened = before != REGULAR and self._session == REGULAR
        quotes: dict[str, Quote] = {}
        scheduled = {order_id for *_, order_id in self._due}
        for order in list(self.book.open.values()):
            if not order.is_open:
                continue
            if order.expires_at <= now:
                self.book.change(order, "expired")
            elif order.is_working:
                quote = quotes.get(order.symbol)
                if quote is None:
                    quote = market.quote(self.book.asset(order.symbol), now)
                    quotes[order.symbol] = quote
                if order.hwm is not None or _may_fill(order, quote):
                    self.attempt(order, elapsed_s)
            elif order.id not in scheduled and self._passes(order):
                self._act(self._next_step(order), order, elapsed_s)
        if opened:
            self._auction("opg", elapsed_s)

    def _passes(self, order: Order) -> bool:
        """Is the order in a status that it leaves by itself, now that nothing keeps it there?"""
        if order.status == "accepted" and not self.is_tradable_now(order):
            return False
        return order.status in PASSING or self.book.awaited(order) is not None

    def _next_step(self, order: Order) -> str:
        if order.status == "pending_cancel":
            return CANCEL
        return ACKNOWLEDGE if self.book.awaited(order) is None else REPLACE

    def trade_range(self, bars: Mapping[str, Bar], elapsed_s: float) -> None:
        """Let the range of the day's bars pass over the working orders."""
        working = [order for order in self.book.open.values() if order.is_working]
        for order in sorted(working, key=lambda order: order.role == TAKE_PROFIT):
            bar = bars.get(order.symbol)
            workable = order.is_working and order.time_in_force not in ("opg", "cls")
            if bar is None or not workable or self.switches.hold_fills:
                continue
            price = range_price(order, bar)
            self._watch(order, bar.high, bar.low)
            if price is not None:
                self._execute(order, price, elapsed_s)
            elif order.is_open:
                self._follow(order, bar.low if order.is_buy else bar.high)

    def _auction(self, time_in_force: str, elapsed_s: float) -> None:
        """Fill what can be filled of the orders for an auction; the rest expires."""
        if self.switches.hold_fills:
            return
        for order in list(self.book.open.values()):
            if order.time_in_force == time_in_force and order.status in WORKING:
                self._attempt_at_quote(order, elapsed_s)
                if order.is_open:
                    self.book.change(order, "expired")
