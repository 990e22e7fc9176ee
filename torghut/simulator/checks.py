"""Refusals that depend on the account: flags, duplicate ids, quantities, wash trades, money.

`check_order` runs them in the order of this module. The duplicate check stands before those
that depend on money, so that a resent order is recognised even when its first copy has used up
the buying power.
"""

from __future__ import annotations

from decimal import Decimal

from torghut.simulator import errors
from torghut.simulator.assets import Asset
from torghut.simulator.book import Book
from torghut.simulator.errors import ApiError, forbidden
from torghut.simulator.market import Quote
from torghut.simulator.numbers import ZERO, text
from torghut.simulator.orders import Order, Ticket
from torghut.simulator.switches import Switches

SHORT_SALE_MARKUP = Decimal("1.03")
MIN_COST_EQUITY, MIN_COST_CRYPTO = Decimal(1), Decimal(10)
EXIT_DISTANCE = Decimal("0.01")


def check_account(book: Book) -> None:
    """Is the account allowed to trade at all?"""
    if book.account.configuration["suspend_trade"]:
        raise forbidden("new orders are rejected by user request")
    if book.account.trading_blocked or book.account.account_blocked:
        raise forbidden("account is not authorized to trade")


def check_unique(book: Book, client_order_id: str | None, switches: Switches) -> None:
    """Refuse a client_order_id that has been used."""
    if client_order_id is None or switches.uniqueness == "off":
        return
    priors = book.by_client_id.get(client_order_id, [])
    resting = any(order.is_open for order in priors)
    if not priors or (switches.uniqueness == "active" and not resting):
        return
    automatic = errors.UNPROCESSABLE if resting else errors.INVALID
    code = automatic if switches.duplicate_code == "auto" else int(switches.duplicate_code)
    raise ApiError(switches.duplicate_status, code, "client_order_id must be unique")


def is_closing(book: Book, ticket: Ticket) -> bool:
    """Does the order reduce a position (or try to)?"""
    position = book.account.qty(ticket.symbol)
    return position > 0 if ticket.side == "sell" else position < 0


def position_intent(ticket: Ticket, closing: bool) -> str:
    """The intent that is echoed: as asked, or derived from the position."""
    return ticket.position_intent or f"{ticket.side}_to_{'close' if closing else 'open'}"


def reserve_price(ticket: Ticket, quote: Quote) -> Decimal:
    """What one share is expected to cost: the limit, the stop, or the far side of the quote;
    a short sale at the higher of its limit and 103 % of the ask."""
    named = ticket.limit_price or ticket.stop_price
    if ticket.side == "sell":
        return max(named or ZERO, quote.ask * SHORT_SALE_MARKUP)
    return named or quote.ask


def check_order(book: Book, ticket: Ticket, asset: Asset, quote: Quote, closing: bool) -> None:
    """Class, quantity, shorting, wash trades, minimum cost, buying power. Raises ApiError."""
    if ticket.order_class:
        _check_class(ticket, quote, closing)
    price = ticket.limit_price or ticket.stop_price or quote.ask
    minimum = MIN_COST_CRYPTO if asset.is_crypto else MIN_COST_EQUITY
    if ticket.qty is not None and ticket.qty * price < minimum and not closing:
        raise forbidden(f"cost basis must be >= minimal amount of order {text(minimum)}")
    if closing:
        _check_held(book, ticket, quote)
    elif ticket.side == "sell":
        _check_short(book, ticket, asset)
    if not ticket.order_class and ticket.type != "trailing_stop":
        _check_wash(book, ticket)
    if not closing:
        _check_buying_power(book, ticket, asset, quote)


def _check_held(book: Book, ticket: Ticket, quote: Quote) -> None:
    existing = abs(book.account.qty(ticket.symbol))
    held = book.held[ticket.symbol]
    requested = ticket.qty if ticket.qty is not None else (ticket.notional or ZERO) / quote.bid
    if requested > existing - held:
        open_orders = book.open_by_symbol[ticket.symbol].values()
        related = [order.id for order in open_orders if order.closing]
        raise errors.insufficient_qty(ticket.symbol, requested, existing, held, related)


def _check_short(book: Book, ticket: Ticket, asset: Asset) -> None:
    if asset.is_crypto:
        coin = asset.symbol.split("/")[0]
        raise forbidden(
            f"insufficient balance for {coin} (requested: {text(ticket.qty or ZERO)}, available: 0)"
        )
    if ticket.is_fractional:
        raise errors.unprocessable("fractional orders cannot be sold short")
    if not asset.shortable:
        raise errors.unprocessable(f'asset "{asset.symbol}" cannot be sold short')
    if book.account.configuration["no_shorting"]:
        raise forbidden("account is not allowed to short")


def _check_class(ticket: Ticket, quote: Quote, closing: bool) -> None:
    """Does the group open or close as its class must, and are its exits beyond the base price?

    The base price is what the entry is expected to cost: its limit, its stop or the last trade.
    """
    if closing != (ticket.order_class == "oco"):
        must = "entry" if closing else "exit"
        raise errors.unprocessable(f"{ticket.order_class} orders must be {must} orders")
    named = None if closing else ticket.limit_price or ticket.stop_price
    base = named or quote.last
    long = (ticket.side == "sell") == closing
    if ticket.stop_loss is not None:
        _check_beyond("stop_loss.stop_price", ticket.stop_loss, base, above=not long)
    if ticket.take_profit is not None:
        _check_beyond("take_profit.limit_price", ticket.take_profit, base, above=long)


def _check_beyond(name: str, price: Decimal, base: Decimal, *, above: bool) -> None:
    kept = price >= base + EXIT_DISTANCE if above else price <= base - EXIT_DISTANCE
    if not kept:
        limit = f">= base_price + {EXIT_DISTANCE}" if above else f"<= base_price - {EXIT_DISTANCE}"
        raise ApiError(
            422, errors.UNPROCESSABLE, f"{name} must be {limit}", {"base_price": text(base)}
        )


def _check_wash(book: Book, ticket: Ticket) -> None:
    for order in book.open_by_symbol[ticket.symbol].values():
        if order.side == ticket.side or order.dormant or order.status == "held":
            continue
        kinds = {order.type, ticket.type}
        if kinds <= {"limit", "stop_limit"} and not _crosses(ticket, order):
            continue
        kind = "limit" if order.type == "stop_limit" else order.type
        raise forbidden(
            "potential wash trade detected. use complex orders",
            existing_order_id=order.id,
            reject_reason=f"opposite side {kind} order exists",
        )


def _crosses(ticket: Ticket, order: Order) -> bool:
    if ticket.limit_price is None or order.limit_price is None:
        return True
    if ticket.side == "buy":
        return ticket.limit_price >= order.limit_price
    return ticket.limit_price <= order.limit_price


def _check_buying_power(book: Book, ticket: Ticket, asset: Asset, quote: Quote) -> None:
    if ticket.notional is not None:
        cost = ticket.notional
    else:
        cost = (ticket.qty or ZERO) * reserve_price(ticket, quote)
    value = book.valuation()
    available = value.cash_buying_power if asset.is_crypto else value.buying_power
    if cost > available:
        raise forbidden(
            "insufficient buying power", buying_power=text(available), cost_basis=text(cost)
        )
