"""PATCH /v2/orders/{id}: a new order takes the place of an old one.

    old: new ─> pending_replace ─────────────> replaced      new: pending_new ─> new ─> …
                     └ filled or canceled first ─> stays                └──────> rejected

Without `replace_delay_ms` the step is taken at once, and `pending_replace` never shows. Until it is
taken the new order is dormant: nothing of the account is reserved for it, and it cannot fill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from torghut.simulator import checks, errors
from torghut.simulator.assets import Asset
from torghut.simulator.book import Book
from torghut.simulator.groups import Groups, check_replaceable
from torghut.simulator.matching import REPLACE, Matcher
from torghut.simulator.numbers import ZERO, is_whole, read_decimal
from torghut.simulator.orders import Order, Ticket
from torghut.simulator.rules import check_rules
from torghut.simulator.tickets import TIMES_IN_FORCE, check_client_order_id

REPLACEABLE = ("new", "partially_filled", "held")
AMOUNTS = ("qty", "limit_price", "stop_price", "trail")
NewOrder = Callable[[Ticket, Asset], Order]


class Replacer:
    """Replaces orders of one book; `new_order` makes an order of a ticket that was checked."""

    def __init__(self, book: Book, matcher: Matcher, groups: Groups, new_order: NewOrder) -> None:
        self._book = book
        self._matcher = matcher
        self._groups = groups
        self._new_order = new_order
        self._waiting: dict[str, str] = {}
        matcher.replace = self.take_effect

    def clear(self) -> None:
        """Forget replacements that wait."""
        self._waiting.clear()

    def replace(self, old: Order, body: Any, elapsed_s: float, delay_s: float) -> Order:
        """Replace an order by a new one. Raises ApiError, and then nothing has changed."""
        if not isinstance(body, dict):
            raise errors.bad_body()
        _check_status(old)
        check_replaceable(old, body)
        ticket = self._ticket(old, body)
        asset = self._book.asset(old.symbol)
        check_rules(ticket, asset, self._matcher.switches)
        checks.check_account(self._book)
        checks.check_unique(self._book, ticket.client_order_id, self._matcher.switches)
        new = self._exit(old, ticket) if old.is_exit else self._order(old, ticket, asset)
        new.replaces = old.id
        new.stop_triggered = old.stop_triggered
        if delay_s or self._matcher.switches.sticks("pending_replace"):
            new.dormant = True
            self._waiting[old.id] = new.id
            self._book.change(old, "pending_replace")
            self._book.add(new)
            self._matcher.schedule(elapsed_s + delay_s, REPLACE, new)
        else:
            self._book.change(old, "replaced", replaced_by=new.id)
            self._book.add(new)
            self._begin(old, new, elapsed_s)
        return new

    def take_effect(self, new: Order, elapsed_s: float) -> None:
        """The replacement's time has come; it is rejected if the old order is no longer there."""
        old = self._book.by_id[new.replaces or ""]
        if old.status != "pending_replace" or not new.is_open:
            return
        self._waiting.pop(old.id, None)
        if new.closing and not new.is_exit and self._exceeds(old, new):
            self._book.change(new, "rejected")
            self._book.change(old, "partially_filled" if old.filled_qty else "new")
            return
        self._book.change(old, "replaced", replaced_by=new.id)
        self._begin(old, new, elapsed_s)

    def _begin(self, old: Order, new: Order, elapsed_s: float) -> None:
        if new.is_exit:
            self._groups.replaced(old, new)
        else:
            if new.dormant:
                self._book.restate(new, dormant=False)
            self._matcher.accept(new, elapsed_s)

    def react(self, old: Order) -> None:
        """Reject the replacement of an order that ended before it took effect."""
        if old.is_open or old.id not in self._waiting:
            return
        new = self._book.by_id[self._waiting.pop(old.id)]
        if new.is_open:
            self._book.change(new, "rejected")

    def is_waiting(self, order: Order) -> bool:
        """Has this replacement not taken effect?"""
        return order.replaces is not None and self._waiting.get(order.replaces) == order.id

    def resume(self, elapsed_s: float) -> None:
        """Go on with the replacements of a restored book."""
        for new in list(self._book.open.values()):
            old = self._book.by_id.get(new.replaces or "")
            if old is not None and old.status == "pending_replace":
                self._waiting[old.id] = new.id
                self._matcher.schedule(elapsed_s, REPLACE, new)

    def _exceeds(self, old: Order, new: Order) -> bool:
        free = abs(self._book.account.qty(new.symbol)) - self._book.held[new.symbol] + old.held
        return new.qty is not None and new.qty > free

    def _order(self, old: Order, ticket: Ticket, asset: Asset) -> Order:
        market = self._book.market
        quote = market.quote(asset, market.now())
        simple = replace(ticket, order_class="")  # exits were checked when the group was made
        with _SetAside(self._book, old):
            closing = checks.is_closing(self._book, ticket)
            checks.check_order(self._book, simple, asset, quote, closing)
        new = self._new_order(ticket, asset)
        new.order_class, new.group, new.role = old.order_class, old.group, old.role
        if old.type == "trailing_stop" and old.hwm is not None:
            new.hwm = old.hwm
            new.stop_price = self._matcher.trailing_stop(new)
        return new

    def _exit(self, old: Order, ticket: Ticket) -> Order:
        now = self._book.market.now()
        return replace(
            old,
            id=self._book.new_id(),
            client_order_id=ticket.client_order_id or self._book.new_id(),
            qty=ticket.qty,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
            created_at=now,
            updated_at=now,
            submitted_at=now,
            filled_qty=ZERO,
            filled_cost=ZERO,
            filled_at=None,
            status="held" if old.status == "held" else "new",
        )

    def _ticket(self, old: Order, body: dict[str, Any]) -> Ticket:
        changes = _changes(old, body)
        original = old.qty or ZERO
        if not is_whole(original) and changes.get("qty", original) != original:
            raise errors.unprocessable("qty of a fractional order cannot be changed")
        keeps = self._matcher.switches.replace_qty == "original" and old.group is None
        client_order_id = body.get("client_order_id")
        if client_order_id is not None and not isinstance(client_order_id, str):
            raise errors.bad_body()
        check_client_order_id(client_order_id, self._matcher.switches)
        values: dict[str, Any] = {
            "qty": original if keeps else original - old.filled_qty,
            "time_in_force": old.time_in_force,
            "limit_price": old.limit_price,
            "stop_price": None if old.type == "trailing_stop" else old.stop_price,
            "trail_price": old.trail_price,
            "trail_percent": old.trail_percent,
        } | changes
        return Ticket(
            symbol=old.symbol,
            side=old.side,
            type=old.type,
            notional=None,
            extended_hours=old.extended_hours,
            client_order_id=client_order_id or None,
            **values,
        )


def _check_status(old: Order) -> None:
    if not old.is_open:
        raise errors.unprocessable("order is not open")
    if old.status not in REPLACEABLE:
        raise errors.unprocessable(f"cannot replace order in {old.status} status")
    if old.notional is not None:
        raise errors.unprocessable("notional orders cannot be replaced")


def _changes(old: Order, body: dict[str, Any]) -> dict[str, Any]:
    """The values to be changed, by the names that a ticket has for them."""
    changes: dict[str, Any] = {}
    for name in AMOUNTS:
        if body.get(name) is not None:
            changes[_field(old, name)] = _amount(name, body[name])
    if body.get("time_in_force") is not None:
        if body["time_in_force"] not in TIMES_IN_FORCE:
            raise errors.invalid("invalid time_in_force")
        changes["time_in_force"] = body["time_in_force"]
    if all(getattr(old, name) == value for name, value in changes.items()):
        raise errors.forbidden("order parameters are not changed")
    return changes


def _field(old: Order, name: str) -> str:
    trailing = old.type == "trailing_stop"
    if name == "trail" and trailing:
        return "trail_price" if old.trail_price is not None else "trail_percent"
    absent = name != "qty" and (name == "trail" or trailing or getattr(old, name) is None)
    if absent:
        words = old.type.replace("_", " ")
        raise errors.invalid(f"{words} orders require no {name.replace('_', ' ')}")
    return name


def _amount(name: str, value: Any) -> Decimal:
    try:
        amount = read_decimal(value)
    except ValueError as error:
        raise errors.bad_body() from error
    if amount <= 0:
        raise errors.invalid(f"{name.replace('_', ' ')} must be > 0")
    return amount


class _SetAside:
    """Check a replacement as if the order it replaces were not there."""

    def __init__(self, book: Book, order: Order) -> None:
        self._book = book
        self._order = order

    def __enter__(self) -> None:
        self._book._release(self._order)
        self._book.open_by_symbol[self._order.symbol].pop(self._order.id, None)

    def __exit__(self, *exc: object) -> None:
        self._book._hold(self._order)
