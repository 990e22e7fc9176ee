"""Order requests: from the body of POST /v2/orders to a `Ticket`, or a refusal.

Checks run in this order, and the first that fails answers:

1. types (400), 2. presence and ranges of fields (422 40010001), 3. the asset, 4. the trading
rules of `rules`, which tie fields together.
What depends on the account is checked afterwards by the book.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from torghut.simulator.assets import Asset, AssetList
from torghut.simulator.errors import bad_body, invalid, unprocessable
from torghut.simulator.numbers import read_decimal, truncate_qty
from torghut.simulator.orders import Ticket
from torghut.simulator.rules import check_rules, check_trail
from torghut.simulator.switches import Switches

SIDES = ("buy", "sell")
TYPES = ("market", "limit", "stop", "stop_limit", "trailing_stop")
TIMES_IN_FORCE = ("day", "gtc", "opg", "cls", "ioc", "fok")
INTENTS = ("buy_to_open", "buy_to_close", "sell_to_open", "sell_to_close")
CLASSES = ("bracket", "oco", "oto")


def read_ticket(body: Any, assets: AssetList, switches: Switches) -> tuple[Ticket, Asset]:
    """Validate a request body. Raises ApiError."""
    if not isinstance(body, dict):
        raise bad_body()
    take_profit, stop_loss = (_part(body, name) for name in ("take_profit", "stop_loss"))
    order_class = _text(body, "order_class")
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
        order_class="" if order_class == "simple" else order_class,
        take_profit=_amount(take_profit, "limit_price"),
        stop_loss=_amount(stop_loss, "stop_price"),
        stop_loss_limit=_amount(stop_loss, "limit_price"),
        trail_price=_amount(body, "trail_price"),
        trail_percent=_amount(body, "trail_percent"),
    )
    _check_words(ticket)
    _check_exits(ticket)
    _check_amounts(ticket)
    _check_prices(ticket)
    check_trail(ticket)
    check_client_order_id(ticket.client_order_id, switches)
    asset = find_asset(ticket.symbol, assets)
    ticket.symbol = asset.symbol
    check_rules(ticket, asset, switches)
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


def _part(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_body()
    return value


def _check_words(ticket: Ticket) -> None:
    if ticket.order_class == "mleg":
        raise unprocessable("the simulator does not support mleg orders")
    if ticket.order_class not in ("", *CLASSES):
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


def _check_exits(ticket: Ticket) -> None:
    """Prices of exits, and where they belong; an OCO's take profit is its limit price."""
    exits = (ticket.take_profit, ticket.stop_loss, ticket.stop_loss_limit)
    if any(price is not None and price <= 0 for price in exits):
        raise invalid("prices of take_profit and stop_loss must be > 0")
    if not ticket.order_class:
        if any(price is not None for price in exits):
            raise invalid("take_profit and stop_loss need an order_class")
        return
    if ticket.stop_loss is None and ticket.stop_loss_limit is not None:
        raise unprocessable(f"{ticket.order_class} orders require stop_loss.stop_price")
    if (ticket.order_class, ticket.type) == ("oco", "limit") and ticket.take_profit is not None:
        if ticket.limit_price not in (None, ticket.take_profit):
            raise unprocessable("limit_price must be take_profit.limit_price")
        ticket.limit_price = ticket.take_profit


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
