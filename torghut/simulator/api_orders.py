"""Handlers of /v2/orders: take, list, look up, replace and cancel."""

from __future__ import annotations

import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from torghut.simulator import errors
from torghut.simulator.broker import Broker
from torghut.simulator.http import Reply, Request, Route, reply_json
from torghut.simulator.orders import Order, order_json

LIST_DEFAULT, LIST_MAX = 50, 500


class OrdersApi:
    """Handlers over one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def routes(self) -> list[Route]:
        """The routes, named as fault rules name them."""
        return [
            Route("submit", "POST", "/v2/orders", self.submit),
            Route("list_orders", "GET", "/v2/orders", self.list_orders),
            Route("cancel_all", "DELETE", "/v2/orders", self.cancel_all),
            Route("by_client_order_id", "GET", "/v2/orders:by_client_order_id", self.by_client_id),
            Route("get_order", "GET", "/v2/orders/{}", self.get_order),
            Route("replace", "PATCH", "/v2/orders/{}", self.replace),
            Route("cancel", "DELETE", "/v2/orders/{}", self.cancel),
        ]

    def submit(self, request: Request) -> Reply:
        """POST /v2/orders"""
        return self._shown(self._broker.submit(request.json), nested=True)

    def get_order(self, request: Request) -> Reply:
        """GET /v2/orders/{id}"""
        return self._shown(self._broker.find(_order_id(request)), nested=_nested(request))

    def by_client_id(self, request: Request) -> Reply:
        """GET /v2/orders:by_client_order_id"""
        client_order_id = request.query.get("client_order_id", "")
        if not client_order_id:
            raise errors.invalid("client_order_id is missing")
        return self._shown(self._broker.find_by_client_id(client_order_id))

    def replace(self, request: Request) -> Reply:
        """PATCH /v2/orders/{id}"""
        return self._shown(self._broker.replace(_order_id(request), request.json), nested=True)

    def cancel(self, request: Request) -> Reply:
        """DELETE /v2/orders/{id}"""
        return Reply(204, order=self._broker.cancel(_order_id(request)))

    def cancel_all(self, request: Request) -> Reply:
        """DELETE /v2/orders"""
        rows: list[dict[str, Any]] = []
        for order, refusal in self._broker.cancel_all():
            body = order_json(order) if refusal is None else refusal.body()
            rows.append({"id": order.id, "status": 200 if refusal is None else 500, "body": body})
        return reply_json(rows, 207)

    def list_orders(self, request: Request) -> Reply:
        """GET /v2/orders"""
        status = request.choice("status", "open", ("open", "closed", "all"))
        limit = request.number("limit", LIST_DEFAULT, 1, LIST_MAX)
        nested = _nested(request)
        book = self._broker.book
        wanted = self._filter(request, status)
        found: list[dict[str, Any]] = []
        for order in self._candidates(request, status):
            if nested and book.primary(order).role != order.role:
                continue  # under its primary order, or, as with Alpaca, nowhere
            if wanted(order) and self._broker.is_visible(order):
                found.append(order_json(order, book.legs(order) if nested else ()))
                if len(found) == limit:
                    break
        return reply_json(found)

    def _candidates(self, request: Request, status: str) -> Iterator[Order]:
        """Orders between the cursors, in the direction asked for."""
        book = self._broker.book
        ascending = request.choice("direction", "desc", ("asc", "desc")) == "asc"
        low, high = self._window(request)
        if status == "open" and (low, high) == (0, len(book.orders)):
            orders = list(book.open.values())
            orders.sort(key=lambda order: order.submitted_at)
            return iter(orders) if ascending else reversed(orders)
        span = range(low, high) if ascending else range(high - 1, low - 1, -1)
        return (book.orders[index] for index in span)

    def _window(self, request: Request) -> tuple[int, int]:
        """Indices of the orders after and before the cursors, which are exclusive."""
        orders = self._broker.book.orders
        before_id, after_id = (request.query.get(f"{n}_order_id") for n in ("before", "after"))
        after, until = request.instant("after"), request.instant("until")
        if before_id and after_id:
            raise errors.invalid("before_order_id and after_order_id are mutually exclusive")
        if (before_id or after_id) and (after or until):
            raise errors.invalid("order id cursors cannot be combined with after or until")
        if before_id or after_id:
            found = self._broker.find(before_id or after_id or "")
            index = _index_of(orders, found)
            return (0, index) if before_id else (index + 1, len(orders))
        low = bisect_right(orders, after, key=_submitted_at) if after else 0
        high = bisect_left(orders, until, key=_submitted_at) if until else len(orders)
        return low, high

    def _filter(self, request: Request, status: str) -> Callable[[Order], bool]:
        symbols = {name.upper() for name in request.names("symbols")}
        side = request.query.get("side")
        asset_class = request.query.get("asset_class")
        if side and side not in ("buy", "sell"):
            raise errors.invalid(f"invalid side: {side}")

        def wanted(order: Order) -> bool:
            return (
                (status == "all" or self._is_listed_open(order) == (status == "open"))
                and (not symbols or order.symbol in symbols)
                and (not side or order.side == side)
                and (not asset_class or asset_class in ("all", order.asset_class))
            )

        return wanted

    def _is_listed_open(self, order: Order) -> bool:
        held_closed = self._broker.switches.held_listed == "closed"
        return order.is_open and not (held_closed and order.status == "held")

    def _shown(self, order: Order, *, nested: bool = False) -> Reply:
        legs = self._broker.book.legs(order) if nested else ()
        return reply_json(order_json(order, legs), order=order)


def _submitted_at(order: Order) -> datetime:
    return order.submitted_at


def _index_of(orders: list[Order], order: Order) -> int:
    index = bisect_left(orders, order.submitted_at, key=_submitted_at)
    while orders[index] is not order:
        index += 1
    return index


def _order_id(request: Request) -> str:
    try:
        return str(uuid.UUID(request.params[0]))
    except ValueError as error:
        raise errors.invalid("order_id is missing") from error


def _nested(request: Request) -> bool:
    return request.query.get("nested", "").lower() == "true"
