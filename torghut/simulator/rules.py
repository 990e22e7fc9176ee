"""Trading rules that tie the fields of an order together, whatever the account holds.

Increments, amounts, time in force by asset class, extended hours, fractions, order classes and
trailing stops. Each refusal is 422 with code 42210000 unless it says otherwise. What depends on
the account or on prices is in `checks`.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from torghut.simulator.assets import Asset
from torghut.simulator.clock import NEW_YORK
from torghut.simulator.errors import forbidden, invalid, unprocessable
from torghut.simulator.numbers import text
from torghut.simulator.orders import Ticket
from torghut.simulator.switches import Switches

MIN_NOTIONAL = Decimal(1)
MIN_TRAIL_PERCENT = Decimal("0.1")
CRYPTO_TYPES = ("market", "limit", "stop_limit")
NOT_TAKEN = {
    # time in force: New York time from and to which it is refused, and the words for it
    "opg": ((9, 28), (19, 0), "7:00pm and before 9:28am"),
    "cls": ((15, 50), (19, 0), "7:00pm and before 3:50pm"),
}


def check_rules(ticket: Ticket, asset: Asset, switches: Switches) -> None:
    """Refuse an order that breaks a rule. Raises ApiError."""
    if asset.is_crypto:
        _check_crypto(ticket)
    else:
        for name, price in _prices(ticket).items():
            check_increment(name, price)
    if ticket.notional is not None and ticket.notional < MIN_NOTIONAL:
        raise unprocessable("notional amount must be >= 1.00")
    if ticket.type == "trailing_stop":
        _check_trailing(ticket)
    if ticket.order_class:
        _check_class(ticket)
    if ticket.extended_hours:
        _check_extended_hours(ticket, switches)
    if ticket.is_fractional and not asset.is_crypto:
        if not asset.fractionable:
            raise forbidden(f'asset "{asset.symbol}" is not fractionable')
        if ticket.time_in_force != "day":
            raise unprocessable("fractional orders must be DAY orders")
        if ticket.order_class:
            raise unprocessable("fractional orders must be simple orders")


def check_increment(name: str, price: Decimal | None) -> None:
    """Two decimals from $1, four below."""
    if price is None:
        return
    exponent = price.normalize().as_tuple().exponent
    decimals = -exponent if isinstance(exponent, int) else 0
    if decimals > (2 if price >= 1 else 4):
        raise unprocessable(
            f"invalid {name} {text(price)}. "
            "sub-penny increment does not fulfill minimum pricing criteria"
        )


def check_window(time_in_force: str, now: datetime) -> None:
    """Refuse an order for an auction too late for it (403)."""
    if time_in_force not in NOT_TAKEN:
        return
    start, end, words = NOT_TAKEN[time_in_force]
    local = now.astimezone(NEW_YORK)
    if start <= (local.hour, local.minute) < end:
        raise forbidden(f"{time_in_force} orders must be submitted after {words}")


def _prices(ticket: Ticket) -> dict[str, Decimal | None]:
    return {
        "limit_price": ticket.limit_price,
        "stop_price": ticket.stop_price,
        "take_profit.limit_price": ticket.take_profit,
        "stop_loss.stop_price": ticket.stop_loss,
        "stop_loss.limit_price": ticket.stop_loss_limit,
    }


def _check_crypto(ticket: Ticket) -> None:
    if ticket.time_in_force not in ("gtc", "ioc"):
        raise unprocessable("invalid crypto time_in_force")
    if ticket.type not in CRYPTO_TYPES:
        raise unprocessable("invalid order type for crypto order")
    if ticket.order_class:
        raise unprocessable(
            f"crypto orders not allowed for advanced order_class: {ticket.order_class}"
        )


def _check_trailing(ticket: Ticket) -> None:
    if ticket.trail_percent is not None and ticket.trail_percent < MIN_TRAIL_PERCENT:
        raise unprocessable("trail_percent must be >= 0.1")
    if ticket.time_in_force not in ("day", "gtc"):
        raise unprocessable("trailing stop orders must be DAY or GTC orders")
    if ticket.order_class:
        raise unprocessable("trailing stop orders must be simple orders")


def _check_class(ticket: Ticket) -> None:
    kind = ticket.order_class
    if kind in ("bracket", "oco"):
        if ticket.take_profit is None:
            raise unprocessable(f"{kind} orders require take_profit.limit_price")
        if ticket.stop_loss is None:
            raise unprocessable(f"{kind} orders require stop_loss.stop_price")
    elif (ticket.take_profit is None) == (ticket.stop_loss is None):
        raise unprocessable("oto orders require either take_profit or stop_loss")
    if kind == "oco" and ticket.type != "limit":
        raise unprocessable("oco orders must be limit orders")
    if ticket.time_in_force not in ("day", "gtc"):
        raise unprocessable(f"{kind} orders must be DAY or GTC orders")
    if ticket.extended_hours:
        raise unprocessable(f"{kind} orders are not supported in extended hours")
    if ticket.take_profit is not None and ticket.stop_loss is not None:
        long = (ticket.side == "buy") == (kind == "bracket")
        if (ticket.take_profit <= ticket.stop_loss) == long or (
            ticket.take_profit == ticket.stop_loss
        ):
            side = ">" if long else "<"
            raise unprocessable(f"take_profit.limit_price must be {side} stop_loss.stop_price")


def _check_extended_hours(ticket: Ticket, switches: Switches) -> None:
    day_only = switches.extended_hours == "day"
    allowed = ("day",) if day_only else ("day", "gtc")
    if ticket.type != "limit" or ticket.time_in_force not in allowed:
        words = "DAY" if day_only else "DAY or GTC"
        raise unprocessable(f"extended hours order must be {words} limit orders")


def check_trail(ticket: Ticket) -> None:
    """A trailing stop has exactly one trail, other orders have none (422 40010001)."""
    trails = [trail for trail in (ticket.trail_price, ticket.trail_percent) if trail is not None]
    if ticket.type != "trailing_stop":
        if trails:
            raise invalid("trail_price and trail_percent are only for trailing_stop orders")
        return
    if len(trails) != 1:
        raise invalid("trailing stop orders require either trail_price or trail_percent")
    if trails[0] <= 0:
        raise invalid("trail must be > 0")
