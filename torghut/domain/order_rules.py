"""The broker's own rules about one order, judged before it is sent: `broken_rules(order, now, …)`.

An order that breaks one of them is refused by Alpaca whatever the account holds, so it would only
use up a request. The rules are those of Alpaca's documents and of measured refusals of its paper
environment; what is not known there is left to the broker:

- notional orders other than market orders: the API's specification names market orders only, its
  changelog announces stop and stop-limit orders as well, and nobody has measured it;
- increments of a trail, and prices of coin pairs, whose increments differ by pair;
- which order types may be `opg`, `cls`, `ioc` or `fok`: enabled per account.

Rules that need a fact which is not given (the position, a price) are not judged: they must never
keep an order back that would reduce a position. What depends on the asset is a check of its own
(torghut.domain.risk_checks). The simulator has the same rules of its
own, and a test that both agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from enum import StrEnum

from torghut.domain.orders import OrderClass, OrderRequest, OrderType, Side, TimeInForce
from torghut.domain.sessions import NEW_YORK, is_crypto
from torghut.domain.values import canonical_amount

NOTIONAL_MIN = Decimal(1)
COST_MIN, COST_MIN_CRYPTO = Decimal(1), Decimal(10)
TRAIL_PERCENT_MIN = Decimal("0.1")
EXIT_DISTANCE = Decimal("0.01")
DECIMALS, DECIMALS_BELOW_ONE = 2, 4
RESTING = (TimeInForce.DAY, TimeInForce.GTC)
CRYPTO_TIMES_IN_FORCE = (TimeInForce.GTC, TimeInForce.IOC)
CRYPTO_TYPES = (OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT)
AUCTION_CLOSED = {
    # time in force: New York time from and to which such an order is refused
    TimeInForce.OPG: (time(9, 28), time(19, 0)),
    TimeInForce.CLS: (time(15, 50), time(19, 0)),
}


class OrderRule(StrEnum):
    """The rules, closed, in the order in which they are judged."""

    CRYPTO_TIME_IN_FORCE = "crypto_time_in_force"
    CRYPTO_ORDER_TYPE = "crypto_order_type"
    CRYPTO_ORDER_CLASS = "crypto_order_class"
    PRICE_INCREMENT = "price_increment"
    NOTIONAL_MINIMUM = "notional_minimum"
    COST_MINIMUM = "cost_minimum"
    FRACTIONAL_TIME_IN_FORCE = "fractional_time_in_force"
    FRACTIONAL_ORDER_CLASS = "fractional_order_class"
    FRACTIONAL_SHORT = "fractional_short"
    EXTENDED_HOURS_ORDER = "extended_hours_order"
    EXTENDED_HOURS_CLASS = "extended_hours_class"
    TRAIL_PERCENT_MINIMUM = "trail_percent_minimum"
    TRAIL_TIME_IN_FORCE = "trail_time_in_force"
    TRAIL_ORDER_CLASS = "trail_order_class"
    CLASS_TIME_IN_FORCE = "class_time_in_force"
    OCO_ORDER_TYPE = "oco_order_type"
    OCO_LIMIT_PRICE = "oco_limit_price"
    ENTRY_OR_EXIT = "entry_or_exit"
    TAKE_PROFIT_BEYOND_STOP = "take_profit_beyond_stop"
    EXIT_DISTANCE = "exit_distance"
    AUCTION_WINDOW = "auction_window"


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """One rule that the order breaks: what it has, and what the rule allows, in plain words."""

    code: OrderRule
    measured: str
    limit: str


@dataclass(slots=True)  # not frozen: it is made for every verdict, and never leaves here
class _Case:
    """One order and the facts it is judged on; None is a fact that is not known."""

    order: OrderRequest
    now: datetime
    position_qty: Decimal | None
    reference_px: Decimal | None

    @property
    def crypto(self) -> bool:
        return is_crypto(self.order.symbol)

    @property
    def fractional(self) -> bool:
        qty = self.order.qty
        return qty is None or qty != qty.to_integral_value()

    @property
    def closes(self) -> bool | None:
        """Would it reduce the position? None if the position is not known."""
        if self.position_qty is None:
            return None
        return self.position_qty * self.order.side.sign < 0

    @property
    def long(self) -> bool:
        """Do the exits of the group close a long position?"""
        enters = self.order.order_class is not OrderClass.OCO
        return (self.order.side is Side.BUY) == enters


def broken_rules(
    order: OrderRequest,
    now: datetime,
    *,
    position_qty: Decimal | None = None,
    reference_px: Decimal | None = None,
) -> tuple[BrokenRule, ...]:
    """Every rule of the broker's that the order breaks at `now`; empty if none is known to.

    `position_qty` is the account's signed position in the symbol, `reference_px` the price at which
    a market order is expected to fill.
    """
    case = _Case(
        order=order,
        now=now,
        position_qty=position_qty,
        reference_px=reference_px,
    )
    judges = _JUDGES if _special(order) else _PLAIN
    return tuple(rule for judge in judges for rule in judge(case))


def _special(order: OrderRequest) -> bool:
    """Is there more to it than a size and a price? Most orders are plain, and judged quickly."""
    return (
        order.order_class is not OrderClass.SIMPLE
        or order.order_type is OrderType.TRAILING_STOP
        or order.extended_hours
        or order.time_in_force not in RESTING
        or is_crypto(order.symbol)
    )


def _crypto(case: _Case) -> Iterator[BrokenRule]:
    if not case.crypto:
        return
    order = case.order
    if order.time_in_force not in CRYPTO_TIMES_IN_FORCE:
        yield _not_one_of(
            OrderRule.CRYPTO_TIME_IN_FORCE, order.time_in_force, CRYPTO_TIMES_IN_FORCE
        )
    if order.order_type not in CRYPTO_TYPES:
        yield _not_one_of(OrderRule.CRYPTO_ORDER_TYPE, order.order_type, CRYPTO_TYPES)
    if order.order_class is not OrderClass.SIMPLE:
        yield _not_one_of(OrderRule.CRYPTO_ORDER_CLASS, order.order_class, (OrderClass.SIMPLE,))


def _increments(case: _Case) -> Iterator[BrokenRule]:
    if case.crypto:
        return
    for name, price in _prices(case.order).items():
        if price is None:
            continue
        allowed = DECIMALS if price >= 1 else DECIMALS_BELOW_ONE
        if price != round(price, allowed):
            limit = f"{DECIMALS} decimals from 1, {DECIMALS_BELOW_ONE} below"
            measured = f"{name} {canonical_amount(price)}"
            yield BrokenRule(OrderRule.PRICE_INCREMENT, measured, limit)


def _sizes(case: _Case) -> Iterator[BrokenRule]:
    order = case.order
    if order.notional is not None and order.notional < NOTIONAL_MIN:
        yield _below(OrderRule.NOTIONAL_MINIMUM, order.notional, NOTIONAL_MIN)
    price = order.limit_price or order.stop_price or case.reference_px
    if order.qty is None or price is None or case.closes is not False:
        return
    least = COST_MIN_CRYPTO if case.crypto else COST_MIN
    if order.qty * price < least:
        yield _below(OrderRule.COST_MINIMUM, order.qty * price, least)


def _fractions(case: _Case) -> Iterator[BrokenRule]:
    order = case.order
    if not case.fractional or case.crypto:
        return
    size = "a notional amount" if order.qty is None else f"qty {canonical_amount(order.qty)}"
    if order.time_in_force is not TimeInForce.DAY:
        measured = f"{size}, {order.time_in_force}"
        yield BrokenRule(OrderRule.FRACTIONAL_TIME_IN_FORCE, measured, "day, or whole shares")
    if order.order_class is not OrderClass.SIMPLE:
        measured = f"{size}, {order.order_class}"
        yield BrokenRule(OrderRule.FRACTIONAL_ORDER_CLASS, measured, "simple, or whole shares")
    if _sells_short(case):
        yield BrokenRule(OrderRule.FRACTIONAL_SHORT, size, "whole shares, to sell short")


def _extended_hours(case: _Case) -> Iterator[BrokenRule]:
    order = case.order
    if not order.extended_hours:
        return
    if order.order_type is not OrderType.LIMIT or order.time_in_force not in RESTING:
        measured = f"{order.order_type}, {order.time_in_force}"
        yield BrokenRule(OrderRule.EXTENDED_HOURS_ORDER, measured, "limit, day or gtc")
    if order.order_class is not OrderClass.SIMPLE:
        yield _not_one_of(OrderRule.EXTENDED_HOURS_CLASS, order.order_class, (OrderClass.SIMPLE,))


def _trails(case: _Case) -> Iterator[BrokenRule]:
    order = case.order
    if order.order_type is not OrderType.TRAILING_STOP:
        return
    if order.trail_percent is not None and order.trail_percent < TRAIL_PERCENT_MIN:
        yield _below(OrderRule.TRAIL_PERCENT_MINIMUM, order.trail_percent, TRAIL_PERCENT_MIN)
    if order.time_in_force not in RESTING:
        yield _not_one_of(OrderRule.TRAIL_TIME_IN_FORCE, order.time_in_force, RESTING)
    if order.order_class is not OrderClass.SIMPLE:
        yield _not_one_of(OrderRule.TRAIL_ORDER_CLASS, order.order_class, (OrderClass.SIMPLE,))


def _classes(case: _Case) -> Iterator[BrokenRule]:
    order = case.order
    kind = order.order_class
    if kind is OrderClass.SIMPLE:
        return
    if order.time_in_force not in RESTING:
        yield _not_one_of(OrderRule.CLASS_TIME_IN_FORCE, order.time_in_force, RESTING)
    if kind is OrderClass.OCO:
        if order.order_type is not OrderType.LIMIT:
            yield _not_one_of(OrderRule.OCO_ORDER_TYPE, order.order_type, (OrderType.LIMIT,))
        profit = order.take_profit.limit_price if order.take_profit else None
        if order.limit_price not in (None, profit):
            measured = f"limit_price {canonical_amount(order.limit_price or Decimal(0))}"
            limit = "none, or that of take_profit"
            yield BrokenRule(OrderRule.OCO_LIMIT_PRICE, measured, limit)
    if case.closes is not None and case.closes != (kind is OrderClass.OCO):
        measured = f"{kind} with a position of {canonical_amount(case.position_qty or Decimal(0))}"
        limit = "reduces a position" if kind is OrderClass.OCO else "opens or adds to a position"
        yield BrokenRule(OrderRule.ENTRY_OR_EXIT, measured, limit)
    yield from _exits(case)


def _exits(case: _Case) -> Iterator[BrokenRule]:
    order = case.order
    profit = order.take_profit.limit_price if order.take_profit else None
    stop = order.stop_loss.stop_price if order.stop_loss else None
    side = 1 if case.long else -1
    if profit is not None and stop is not None and (profit - stop) * side <= 0:
        measured = f"take profit {canonical_amount(profit)}, stop {canonical_amount(stop)}"
        limit = f"take profit {'above' if case.long else 'below'} the stop"
        yield BrokenRule(OrderRule.TAKE_PROFIT_BEYOND_STOP, measured, limit)
    named = None if order.order_class is OrderClass.OCO else order.limit_price or order.stop_price
    base = named or case.reference_px
    if base is None:
        return
    for name, price, towards in (("take profit", profit, side), ("stop", stop, -side)):
        if price is not None and (price - base) * towards < EXIT_DISTANCE:
            nearest = canonical_amount(base + EXIT_DISTANCE * towards)
            limit = f"at {'least' if towards > 0 else 'most'} {nearest}"
            measured = f"{name} {canonical_amount(price)}"
            yield BrokenRule(OrderRule.EXIT_DISTANCE, measured, limit)


def _auctions(case: _Case) -> Iterator[BrokenRule]:
    window = AUCTION_CLOSED.get(case.order.time_in_force)
    if window is None:
        return
    local = case.now.astimezone(NEW_YORK).time()
    start, end = window
    if start <= local < end:
        measured = f"{case.order.time_in_force} at {local:%H:%M} in New York"
        limit = f"before {start:%H:%M}, or from {end:%H:%M} on"
        yield BrokenRule(OrderRule.AUCTION_WINDOW, measured, limit)


_JUDGES = (_crypto, _increments, _sizes, _fractions, _extended_hours, _trails, _classes, _auctions)
_PLAIN = (_increments, _sizes, _fractions)


def _prices(order: OrderRequest) -> dict[str, Decimal | None]:
    profit, loss = order.take_profit, order.stop_loss
    return {
        "limit_price": order.limit_price,
        "stop_price": order.stop_price,
        "take_profit.limit_price": profit.limit_price if profit else None,
        "stop_loss.stop_price": loss.stop_price if loss else None,
        "stop_loss.limit_price": loss.limit_price if loss else None,
    }


def _sells_short(case: _Case) -> bool:
    return case.order.side is Side.SELL and case.closes is False


def _below(code: OrderRule, amount: Decimal, least: Decimal) -> BrokenRule:
    return BrokenRule(code, canonical_amount(amount), f"at least {canonical_amount(least)}")


def _not_one_of(code: OrderRule, found: StrEnum, allowed: tuple[StrEnum, ...]) -> BrokenRule:
    return BrokenRule(code, found.value, " or ".join(choice.value for choice in allowed))
