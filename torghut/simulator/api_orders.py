"""Handlers of /v2/orders: take, list, look up, replace and cancel."""

from __future__ import annotations

import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
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
        return _shown(self._broker.submit(request.json))

    def get_order(self, request: Request) -> Reply:
        """GET /v2/orders/{id}"""
        return _shown(self._broker.find(_order_id(request)))

    def by_client_id(self, request: Request) -> Reply:
        """GET /v2/orders:by_client_order_id"""
        client_order_id = request.query.get("client_order_id", "")
        if not client_order_id:
            raise errors.invalid("client_order_id is missing")
        return _shown(self._broker.find_by_client_id(client_order_id))

    def replace(self, request: Request) -> Reply:
        """PATCH /v2/orders/{id}"""
        return _shown(self._broker.replace(_order_id(request), request.json))

    def cancel(self, request: Request) -> Reply:
        """DELETE /v2/orders/{id}"""
        self._broker.cancel(_order_id(request))
        return Reply(204)

    def cancel_all(self, request: Request) -> Reply:
        """DELETE /v2/orders"""
        canceled = self._broker.cancel_all()
        rows = [{"id": o.id, "status": 200, "body": order_json(o)} for o in canceled]
        return reply_json(rows, 207)

    def list_orders(self, request: Request) -> Reply:
        """GET /v2/orders"""
        status = request.choice("status", "open", ("open", "closed", "all"))
        limit = request.number("limit", LIST_DEFAULT, 1, LIST_MAX)
        wanted = _filter(request, status)
        found: list[dict[str, Any]] = []
        for order in self._candidates(request, status):
            if wanted(order) and self._broker.is_visible(order):
                found.append(order_json(order))
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


def _submitted_at(order: Order) -> datetime:
    return order.submitted_at


def _index_of(orders: list[Order], order: Order) -> int:
    index = bisect_left(orders, order.submitted_at, key=_submitted_at)
    while orders[index] is not order:
        index += 1
    return index


def _shown(order: Order) -> Reply:
    return reply_json(order_json(order), order=order)


def _order_id(request: Request) -> str:
    try:
        return str(uuid.UUID(request.params[0]))
    except ValueError as error:
        raise errors.invalid("order_id is missing") from error


def _filter(request: Request, status: str) -> Any:
    symbols = {name.upper() for name in request.names("symbols")}
    side = request.query.get("side")
    asset_class = request.query.get("asset_class")
    if side and side not in ("buy", "sell"):
        raise errors.invalid(f"invalid side: {side}")

    def wanted(order: Order) -> bool:
        return (
            (status == "all" or order.is_open == (status == "open"))
            and (not symbols or order.symbol in symbols)
            and (not side or order.side == side)
            and (not asset_class or asset_class in ("all", order.asset_class))
        )

    return wanted
