"""Order requests: from the body of POST /v2/orders to a `Ticket`, or a refusal.

Checks run in this order, and the first that fails answers:

1. types (400), 2. presence and ranges of fields (422 40010001), 3. the asset, 4. rules which
tie fields together: increments, notional, fractions, extended hours, coin pairs (422 42210000).
What depends on the account is checked afterwards by the book.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from torghut.simulator.assets import Asset, AssetList
from torghut.simulator.errors import bad_body, forbidden, invalid, unprocessable
from torghut.simulator.numbers import is_whole, read_decimal, text, truncate_qty
from torghut.simulator.orders import Ticket
from torghut.simulator.switches import Switches

SIDES = ("buy", "sell")
TYPES = ("market", "limit", "stop", "stop_limit")
TIMES_IN_FORCE = ("day", "gtc", "opg", "cls", "ioc", "fok")
INTENTS = ("buy_to_open", "buy_to_close", "sell_to_open", "sell_to_close")
CLASSES_TO_COME = ("bracket", "oco", "oto", "mleg")
MIN_NOTIONAL = Decimal(1)


def read_ticket(body: Any, assets: AssetList, switches: Switches) -> tuple[Ticket, Asset]:
    """Validate a request body. Raises ApiError."""
    if not isinstance(body, dict):
        raise bad_body()
    ticket = Ticket(
        symbol=_text(body, "symbol").upper(),
        side=_text(body, "side"),
        type=_text(body, "type"),
        time_in_force=_text(body, "time_in_force"),
        qty=_amount(body, "qty"),
        notional=_amount(body, "notional"),
        limit_price=_amount(body, "limit_price"),
        stop_price=_amount(body, "stop_price"),
        extended_hours=_flag(body, "extended_hours"),
        client_order_id=_text(body, "client_order_id") or None,
        position_intent=_text(body, "position_intent") or None,
    )
    _check_words(ticket, body)
    _check_amounts(ticket)
    _check_prices(ticket)
    check_client_order_id(ticket.client_order_id, switches)
    asset = find_asset(ticket.symbol, assets)
    ticket.symbol = asset.symbol
    _check_rules(ticket, asset, switches)
    if ticket.qty is not None:
        ticket.qty = truncate_qty(ticket.qty)
    return ticket, asset


def find_asset(symbol: str, assets: AssetList) -> Asset:
    """The asset an order names, when it can be traded. Raises ApiError."""
    asset = assets.find(symbol)
    if asset is None:
        raise unprocessable(f'asset "{symbol}" not found')
    if not asset.active:
        raise invalid(f"asset {asset.symbol} is not active")
    if not asset.tradable:
        raise unprocessable(f'asset "{asset.symbol}" is not tradable')
    return asset


def check_client_order_id(client_order_id: str | None, switches: Switches) -> None:
    """Refuse an id that is too long."""
    if client_order_id and len(client_order_id) > switches.client_order_id_max:
        raise invalid(
            f"client_order_id must be no more than {switches.client_order_id_max} characters"
        )


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


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad_body()
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise bad_body()
    return value


def _amount(body: dict[str, Any], name: str) -> Decimal | None:
    value = body.get(name)
    if value is None:
        return None
    try:
        return read_decimal(value)
    except ValueError as error:
        raise bad_body() from error


def _check_words(ticket: Ticket, body: dict[str, Any]) -> None:
    order_class = _text(body, "order_class")
    if order_class in CLASSES_TO_COME or ticket.type == "trailing_stop":
        wanted = order_class if order_class in CLASSES_TO_COME else ticket.type
        raise unprocessable(f"the simulator does not support {wanted} orders yet")
    if order_class not in ("", "simple"):
        raise invalid("invalid order_class")
    if not ticket.symbol:
        raise invalid("symbol is required")
    if ticket.side not in SIDES:
        raise invalid("invalid side")
    if ticket.type not in TYPES:
        raise invalid("invalid order type")
    if ticket.time_in_force not in TIMES_IN_FORCE:
        raise invalid("invalid time_in_force")
    if ticket.position_intent not in (None, *INTENTS):
        raise invalid("invalid position_intent")
    if body.get("trail_price") is not None or body.get("trail_percent") is not None:
        raise invalid("trail_price and trail_percent are only for trailing_stop orders")


def _check_amounts(ticket: Ticket) -> None:
    if ticket.qty is None and ticket.notional is None:
        raise invalid("qty or notional is required")
    if ticket.qty is not None and ticket.notional is not None:
        raise invalid("only one of qty or notional is accepted")
    if ticket.qty is not None and truncate_qty(ticket.qty) <= 0:
        raise invalid("qty must be > 0")
    if ticket.notional is not None and ticket.notional <= 0:
        raise invalid("notional must be > 0")


def _check_prices(ticket: Ticket) -> None:
    needs_limit = ticket.type in ("limit", "stop_limit")
    needs_stop = ticket.type in ("stop", "stop_limit")
    if ticket.type == "market" and (ticket.limit_price or ticket.stop_price) is not None:
        raise invalid("market orders require no stop or limit price")
    if ticket.type == "stop_limit" and (ticket.limit_price is None or ticket.stop_price is None):
        raise invalid("stop limit orders require both stop and limit price")
    if needs_limit and ticket.limit_price is None:
        raise invalid("limit orders require a limit price")
    if needs_stop and ticket.stop_price is None:
        raise invalid("stop orders require a stop price")
    if not needs_limit and ticket.limit_price is not None:
        raise invalid("stop orders require no limit price")
    if not needs_stop and ticket.stop_price is not None:
        raise invalid("limit orders require no stop price")
    if ticket.limit_price is not None and ticket.limit_price <= 0:
        raise invalid("limit price must be > 0")
    if ticket.stop_price is not None and ticket.stop_price <= 0:
        raise invalid("stop price must be > 0")


def _check_rules(ticket: Ticket, asset: Asset, switches: Switches) -> None:
    if asset.is_crypto:
        if ticket.time_in_force not in ("gtc", "ioc"):
            raise unprocessable("invalid crypto time_in_force")
        if ticket.type == "stop":
            raise unprocessable("invalid order type for crypto order")
    else:
        check_increment("limit_price", ticket.limit_price)
        check_increment("stop_price", ticket.stop_price)
    if ticket.notional is not None and ticket.notional < MIN_NOTIONAL:
        raise unprocessable("notional amount must be >= 1.00")
    if ticket.extended_hours:
        _check_extended_hours(ticket, switches)
    fractional = ticket.notional is not None or not is_whole(ticket.qty or Decimal(0))
    if fractional and not asset.is_crypto:
        if not asset.fractionable:
            raise forbidden(f'asset "{asset.symbol}" is not fractionable')
        if ticket.time_in_force != "day":
            raise unprocessable("fractional orders must be DAY orders")


def _check_extended_hours(ticket: Ticket, switches: Switches) -> None:
    day_only = switches.extended_hours == "day"
    allowed = ("day",) if day_only else ("day", "gtc")
    if ticket.type != "limit" or ticket.time_in_force not in allowed:
        words = "DAY" if day_only else "DAY or GTC"
        raise unprocessable(f"extended hours order must be {words} limit orders")


def is_fractional(ticket: Ticket) -> bool:
    """True for a notional amount or a quantity with decimals."""
    return ticket.notional is not None or (ticket.qty is not None and not is_whole(ticket.qty))
