"""Handlers of account, configurations, activities, portfolio history and positions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from torghut.simulator import errors
from torghut.simulator.account import CONFIGURATION_CHOICES, account_json, position_json
from torghut.simulator.assets import Asset
from torghut.simulator.bars import day_start
from torghut.simulator.broker import Broker
from torghut.simulator.errors import ApiError
from torghut.simulator.http import Reply, Request, Route, reply_json
from torghut.simulator.numbers import read_decimal
from torghut.simulator.orders import Fill, Order, activity_json, entry_json, order_json

PAGE_MAX = 100
# fmt: off
ACTIVITY_TYPES = frozenset((
    "FILL", "TRANS", "MISC", "ACATC", "ACATS", "CFEE", "CSD", "CSR", "CSW", "CIL", "DIV",
    "DIVCGL", "DIVCGS", "DIVFEE", "DIVFT", "DIVNRA", "DIVROC", "DIVTW", "DIVTXEX", "FEE", "FOPT",
    "INT", "INTNRA", "INTTW", "JNL", "JNLC", "JNLS", "MA", "MEM", "NC", "OCT", "OPASN", "OPCA",
    "OPCSH", "OPEXC", "OPEXP", "OPTRD", "PTC", "PTR", "REORG", "SPIN", "SPLIT", "SWP", "VOF",
    "WH",
))
# fmt: on


class AccountApi:
    """Handlers over one broker. `note` saves a document in the journal."""

    def __init__(self, broker: Broker, note: Callable[[str, Any], None]) -> None:
        self._broker = broker
        self._note = note

    def routes(self) -> list[Route]:
        """The routes, named as fault rules name them."""
        return [
            Route("account", "GET", "/v2/account", self.account),
            Route("configurations", "GET", "/v2/account/configurations", self.configuration),
            Route("configurations", "PATCH", "/v2/account/configurations", self.configure),
            Route("activities", "GET", "/v2/account/activities", self.activities),
            Route("activities", "GET", "/v2/account/activities/{}", self.activities),
            Route("portfolio_history", "GET", "/v2/account/portfolio/history", self.history),
            Route("positions", "GET", "/v2/positions", self.positions),
            Route("close_all", "DELETE", "/v2/positions", self.close_all),
            Route("positions", "GET", "/v2/positions/{}", self.position),
            Route("close_position", "DELETE", "/v2/positions/{}", self.close_position),
        ]

    # --- account

    def account(self, request: Request) -> Reply:
        """GET /v2/account"""
        book = self._broker.book
        now = self._broker.market.now()
        return reply_json(account_json(book.account, book.valuation(), book.last_equity(), now))

    def configuration(self, request: Request) -> Reply:
        """GET /v2/account/configurations"""
        return reply_json(self._broker.book.account.configuration)

    def configure(self, request: Request) -> Reply:
        """PATCH /v2/account/configurations: nulls are ignored, other keys kept as sent."""
        if not isinstance(request.json, dict):
            raise errors.bad_body()
        changes = {name: value for name, value in request.json.items() if value is not None}
        configuration = self._broker.book.account.configuration
        for name, value in changes.items():
            if name not in configuration:
                raise errors.invalid(f"unknown configuration: {name}")
            if value not in CONFIGURATION_CHOICES.get(name, (value,)):
                raise errors.invalid(f"invalid {name}")
        configuration |= changes
        self._note("configuration", configuration)
        return reply_json(configuration)

    def history(self, request: Request) -> Reply:
        """GET /v2/account/portfolio/history: the equity at the start and now."""
        book = self._broker.book
        start = book.account.initial_cash
        equity = book.valuation().equity
        days = [book.account.created_at, self._broker.market.now()]
        profits = [Decimal(0), equity - start]
        return reply_json(
            {
                "timestamp": [int(day.timestamp()) for day in days],
                "equity": [float(start), float(equity)],
                "profit_loss": [float(profit) for profit in profits],
                "profit_loss_pct": [float(p / start) if start else None for p in profits],
                "base_value": float(start),
                "base_value_asof": days[0].date().isoformat(),
                "timeframe": request.query.get("timeframe") or "1D",
                "cashflow": {},
            }
        )

    # --- activities

    def activities(self, request: Request) -> Reply:
        """GET /v2/account/activities[/{type}]: fills, or what is no fill, where that is named."""
        names = list(request.params) or request.names("activity_types")
        for name in names:
            if name not in ACTIVITY_TYPES:
                raise errors.invalid(f"invalid activity type: {name}")
        category = request.query.get("category")
        if category not in (None, "", "trade_activity", "non_trade_activity"):
            raise errors.invalid(f"invalid category: {category}")
        if names and category:
            raise errors.invalid("activity_types and category are mutually exclusive")
        page_size = request.number("page_size", PAGE_MAX, 1, PAGE_MAX)
        ascending = request.choice("direction", "desc", ("asc", "desc")) == "asc"
        if category == "non_trade_activity" or (names and "FILL" not in names):
            return reply_json(self._entries(request, names, ascending)[:page_size])
        low, high = self._window(request, ascending)
        fills = self._broker.book.fills
        order_id = request.query.get("order_id")
        rows: list[Any] = []
        for index in range(low, high) if ascending else range(high - 1, low - 1, -1):
            if order_id and fills[index].order_id != order_id:
                continue
            if not self._broker.visibility.shows(fills[index].id):
                continue
            order = self._broker.book.by_id[fills[index].order_id]
            rows.append(activity_json(fills[index], order))
            if len(rows) == page_size and not request.query.get("date"):
                break
        return reply_json(rows)

    def _entries(self, request: Request, names: list[str], ascending: bool) -> list[Any]:
        """Rows of the activities that are no fills, beyond the page token."""
        after, until = request.instant("after"), request.instant("until")
        rows = [
            entry_json(entry)
            for entry in sorted(self._broker.book.entries, key=lambda e: (e.at, e.id))
            if (not names or entry.type in names)
            and (after is None or entry.at > after)
            and (until is None or entry.at < until)
        ]
        if not ascending:
            rows.reverse()
        token = request.query.get("page_token")
        ids = [row["id"] for row in rows]
        if token and token not in ids:
            raise errors.invalid("invalid page_token")
        return rows[ids.index(token) + 1 :] if token else rows

    def _window(self, request: Request, ascending: bool) -> tuple[int, int]:
        """Indices of the fills between the time limits, beyond the page token."""
        book = self._broker.book
        after, until = request.instant("after"), request.instant("until")
        if request.query.get("date"):
            if after or until:
                raise errors.invalid("date cannot be combined with after or until")
            day = _day(request.query["date"])
            low = bisect_left(book.fills, day_start(day), key=_at)
            high = bisect_left(book.fills, day_start(day + timedelta(days=1)), key=_at)
        else:
            low = bisect_right(book.fills, after, key=_at) if after else 0
            high = bisect_left(book.fills, until, key=_at) if until else len(book.fills)
        token = request.query.get("page_token")
        if token:
            if token not in book.fill_index:
                raise errors.invalid("invalid page_token")
            index = book.fill_index[token]
            low, high = (max(low, index + 1), high) if ascending else (low, min(high, index))
        return low, high

    # --- positions

    def positions(self, request: Request) -> Reply:
        """GET /v2/positions"""
        found = self._broker.book.account.positions
        return reply_json([self._position_json(self._broker.book.asset(s)) for s in found])

    def position(self, request: Request) -> Reply:
        """GET /v2/positions/{symbol or asset id}"""
        return reply_json(self._position_json(self._asset(request.params[0])))

    def _asset(self, key: str) -> Asset:
        asset = self._broker.market.assets.find(key)
        if asset is None or not self._broker.book.account.qty(asset.symbol):
            raise ApiError(404, errors.NOT_FOUND, "position does not exist")
        return asset

    def _position_json(self, asset: Asset) -> dict[str, Any]:
        broker = self._broker
        now = broker.market.now()
        return position_json(
            asset,
            broker.book.account.positions[asset.symbol],
            broker.market.quote(asset, now).last,
            broker.market.previous_close(asset, now),
            broker.book.held[asset.symbol],
        )

    def close_position(self, request: Request) -> Reply:
        """DELETE /v2/positions/{symbol or asset id}?qty|percentage"""
        qty, percentage = (_amount(request, name) for name in ("qty", "percentage"))
        if qty is not None and percentage is not None:
            raise errors.invalid("only one of qty or percentage is accepted")
        if percentage is not None and not 0 < percentage <= 100:
            raise errors.invalid("percentage must be > 0 and <= 100")
        order = self._broker.close_position(self._asset(request.params[0]), qty, percentage)
        return reply_json(order_json(order), order=order)

    def close_all(self, request: Request) -> Reply:
        """DELETE /v2/positions?cancel_orders"""
        cancel_orders = request.query.get("cancel_orders", "").lower() == "true"
        rows = []
        for asset, result in self._broker.close_all(cancel_orders):
            taken = isinstance(result, Order)
            rows.append(
                {
                    "symbol": asset.position_symbol,
                    "status": 200 if taken else result.status,
                    "body": order_json(result) if isinstance(result, Order) else result.body(),
                }
            )
        return reply_json(rows, 207)


def _at(fill: Fill) -> datetime:
    return fill.at


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise errors.invalid("date must be YYYY-MM-DD") from error


def _amount(request: Request, name: str) -> Decimal | None:
    raw = request.query.get(name)
    if not raw:
        return None
    try:
        return read_decimal(raw)
    except ValueError as error:
        raise errors.invalid(f"invalid {name}") from error
