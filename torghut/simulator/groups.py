"""Groups: bracket, OCO and OTO orders, whose parts are orders of their own.

    bracket   entry ─ filled ─> take profit ⇄ stop loss      ⇄: one cancels the other
    oto       entry ─ filled ─> take profit | stop loss
    oco                         take profit ⇄ stop loss

1. Exits are `held`, and dormant, until the entry is completely filled.
2. Then the take profit is `new`; the stop is watched, and shown as `held` while it waits beside a
   take profit (switch `exit_stop`), as measured.
3. A fill of one exit reduces the other by its quantity; a complete one cancels it.
4. When one order of a group is canceled, expires or is rejected, the open rest is canceled.
5. Only the take profit holds shares of the position: a pair holds them once.
"""

from __future__ import annotations

from dataclasses import replace

from torghut.simulator import errors
from torghut.simulator.book import Book
from torghut.simulator.matching import Matcher
from torghut.simulator.numbers import ZERO
from torghut.simulator.orders import (
    ENTRY,
    STOP_LOSS,
    TAKE_PROFIT,
    TERMINAL,
    Fill,
    Order,
    Ticket,
)

ENDED = TERMINAL - {"filled", "replaced"}


class Groups:
    """Makes the exits of a book's orders, and keeps rules 1 to 5."""

    def __init__(self, book: Book, matcher: Matcher) -> None:
        self._book = book
        self._matcher = matcher

    def exits(self, first: Order, ticket: Ticket) -> list[Order]:
        """The orders that hang on the first of a group, which becomes the group's first."""
        if not ticket.order_class:
            return []
        first.order_class, first.group = ticket.order_class, first.id
        first.role = TAKE_PROFIT if ticket.order_class == "oco" else ENTRY
        made: list[Order] = []
        if ticket.take_profit is not None and first.role == ENTRY:
            made.append(self._exit(first, TAKE_PROFIT, "limit", limit_price=ticket.take_profit))
        if ticket.stop_loss is not None:
            kind = "stop" if ticket.stop_loss_limit is None else "stop_limit"
            prices = {"limit_price": ticket.stop_loss_limit, "stop_price": ticket.stop_loss}
            made.append(self._exit(first, STOP_LOSS, kind, **prices))
        return made

    def _exit(self, first: Order, role: str, kind: str, **prices: object) -> Order:
        closes = "buy" if (first.side == "sell") == (first.role == ENTRY) else "sell"
        values: dict[str, object] = {"limit_price": None, "stop_price": None, **prices}
        if first.role == TAKE_PROFIT:
            closes = first.side
        return replace(
            first,
            id=self._book.new_id(),
            client_order_id=self._book.new_id(),
            side=closes,
            type=kind,
            role=role,
            position_intent=f"{closes}_to_close",
            status="held",
            dormant=first.role == ENTRY,
            armed=first.role == TAKE_PROFIT,
            closing=role == TAKE_PROFIT,
            reserve_price=ZERO,
            **values,  # type: ignore[arg-type]
        )

    def taken(self, exits: list[Order]) -> None:
        """Begin to work exits that stand by themselves, as those of an OCO do."""
        for order in exits:
            if order.armed:
                self._arm(order)

    def react(self, order: Order, fill: Fill | None) -> None:
        """What a change or a fill of one order means for the rest of its group."""
        if order.group is None or self._book.awaited(order) is not None:
            return
        if order.status in ENDED:
            self._cancel(self._open_others(order))
        elif order.role == ENTRY:
            if order.status == "filled":
                for other in self._open_others(order):
                    self._activate(other)
        elif order.status == "filled":
            self._cancel(self._open_others(order))
        elif fill is not None:
            for other in self._open_others(order):
                if other.is_exit and other.qty is not None:
                    self._book.restate(other, qty=other.qty - fill.qty)

    def replaced(self, old: Order, new: Order) -> None:
        """An exit took the place of another: it waits, is watched, or works as that one did."""
        entries = [o for o in self._book.groups[new.group or ""] if o.role == ENTRY]
        if entries and not any(entry.status == "filled" for entry in entries):
            return
        if old.armed:
            self._arm(new)
            return
        if new.dormant:
            self._book.restate(new, dormant=False, closing=old.closing)
        self._matcher.try_soon(new)

    def _open_others(self, order: Order) -> list[Order]:
        members = self._book.groups[order.group or ""]
        return [other for other in members if other is not order and other.is_open]

    def _cancel(self, orders: list[Order]) -> None:
        for order in orders:
            if order.is_open:
                self._book.change(order, "canceled")

    def _activate(self, order: Order) -> None:
        if not order.is_exit or order.status != "held" or self._book.awaited(order) is not None:
            return
        pair = any(other.is_exit for other in self._open_others(order))
        if order.role == STOP_LOSS and pair:
            self._arm(order)
            return
        status = "new" if self._matcher.is_tradable_now(order) else "accepted"
        self._book.change(order, status, dormant=False, closing=True)
        self._matcher.try_soon(order)

    def _arm(self, order: Order) -> None:
        shown = self._matcher.switches.exit_stop
        self._book.change(order, shown, dormant=False, armed=True)
        self._matcher.try_soon(order)


def check_replaceable(order: Order, body: dict[str, object]) -> None:
    """Only prices of a bracket or an OCO can be replaced, nothing of an OTO. Raises ApiError."""
    if order.group is None:
        return
    if order.order_class == "oto":
        raise errors.unprocessable("oto orders cannot be replaced")
    if any(body.get(name) is not None for name in ("qty", "time_in_force", "trail")):
        raise errors.unprocessable(f"only prices of {order.order_class} orders can be replaced")
