"""AlpacaBroker: the `Broker` port over the real alpaca-py client.

```
submit ── POST /v2/orders ─────────────────────▶ Answer, never an exception
cancel, replace ── DELETE, PATCH /v2/orders/… ─▶ Answer, never an exception
lookup ── GET /v2/orders:by_client_order_id ───▶ found | a definite 404
others ── GET /v2/… ───────────────────────────▶ what they name
                  └ failed question: BrokerUnavailable (ask again) | BrokerRefused (401, 403)
```

What an answer proves: torghut.brokers.alpaca_answers. How it is carried, the time limits and the
threads: torghut.brokers.alpaca_transport. Facts about the API: Alpaca's OpenAPI "Trading API
2.0.1" and measurements of the paper API.

Lists are flat: a leg of a bracket, OCO or OTO is a row of its own, also when its entry is long
filled. Which legs hang on an order (`Order.legs`) comes from the answer to its POST, and where that
was lost from a question with `nested`.

A row of a list that cannot be read is left out, logged (`broker_row_malformed`) and counted in
`malformed_total`: one poisoned row must not hide the others. Positions are the exception, because
a sum over some of them would understate the exposure: there it is BrokerUnavailable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import quote

import structlog
from alpaca.trading.client import TradingClient

from torghut.brokers import alpaca_answers as answers
from torghut.brokers import alpaca_mapping as mapping
from torghut.brokers.alpaca_answers import Reply
from torghut.brokers.alpaca_mapping import MalformedBody
from torghut.brokers.alpaca_transport import CallFailed, Transport
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.domain.exposure import AssetFacts
from torghut.domain.orders import Order, OrderRequest
from torghut.domain.sessions import MarketClock
from torghut.ports import (
    AccountEntry,
    Answer,
    BrokerAccount,
    BrokerPosition,
    FillActivity,
    Lookup,
    Outcome,
    Page,
    RateState,
)

ORDERS_PAGE_MAX = 500
ACTIVITIES_PAGE_MAX = 100
LOGGED_ROW_LENGTH_MAX = 500

T = TypeVar("T")
log = structlog.get_logger(__name__)


class AlpacaBroker:
    """One Alpaca account, or a simulator of it, at `base_url` (no trailing slash, no /v2).

    Safe to use from any number of threads; `pool_size` connections are kept open between them.
    `timeout_s` bounds every call: connecting by min(5, timeout_s), then the whole answer by
    timeout_s. Raises ConfigError for an unusable URL or key, or an alpaca-py whose retries cannot
    be switched off.
    """

    def __init__(
        self,
        *,
        key_id: str,
        secret_key: str,
        base_url: str,
        timeout_s: float,
        pool_size: int = 16,
    ) -> None:
        self._rate = RateState()
        self._malformed_total = 0
        self._counting = threading.Lock()
        self._transport = Transport(
            lambda: TradingClient(key_id, secret_key, raw_data=True, url_override=base_url),
            base_url=base_url,
            secrets=(key_id, secret_key),
            timeout_s=timeout_s,
            pool_size=pool_size,
            on_reply=self._note_rate,
        )

    @property
    def malformed_total(self) -> int:
        """Rows of lists left out since construction because they could not be read."""
        return self._malformed_total

    def submit(self, order: OrderRequest, client_order_id: str) -> Answer:
        """POST the order once; never raises for what broker or network do (P4)."""
        try:
            reply = self._transport.post("/orders", mapping.order_body(order, client_order_id))
        except CallFailed as failure:
            return _failed(failure)
        return answers.submission_answer(reply, client_order_id)

    def cancel(self, broker_order_id: str) -> Answer:
        """DELETE the order once; never raises for what broker or network do (P4)."""
        try:
            reply = self._transport.delete(_path(broker_order_id))
        except CallFailed as failure:
            return _failed(failure)
        return answers.cancel_answer(reply)

    def replace(
        self, broker_order_id: str, changes: Mapping[str, object], client_order_id: str
    ) -> Answer:
        """PATCH the order once; never raises for what broker or network do (P4)."""
        body = {**changes, "client_order_id": client_order_id}
        try:
            reply = self._transport.patch(_path(broker_order_id), body)
        except CallFailed as failure:
            return _failed(failure)
        return answers.submission_answer(reply, client_order_id)

    def lookup(self, client_order_id: str) -> Lookup:
        """The order of this id, or a definite "order not found" of the broker itself.

        Raises BrokerUnavailable, BrokerRefused. After a replace it is the original order.
        """
        question = "lookup by client_order_id"
        reply = self._get(
            question, "/orders:by_client_order_id", {"client_order_id": client_order_id}
        )
        try:
            found = answers.lookup_answer(reply, client_order_id)
        except MalformedBody as error:
            raise BrokerUnavailable(f"{question}: {error}") from error
        if found is None:
            raise _unusable(question, reply)
        return self._with_legs(found)

    def _with_legs(self, found: Lookup) -> Lookup:
        """The legs of an order found by its client id, which that answer does not name.

        Without them it is found all the same: they are orders of the lists, too.
        """
        order = found.order
        if order is None or order.legs or not mapping.has_legs(order):
            return found
        try:
            nested = self.get_order(order.broker_order_id)
        except (BrokerUnavailable, BrokerRefused) as error:
            log.info("legs not answered", broker_order_id=order.broker_order_id, error=str(error))
            return found
        return replace(found, order=replace(order, legs=nested.legs)) if nested else found

    def get_order(self, broker_order_id: str) -> Order | None:
        """The order with the broker's id and its legs, None if the broker says there is none.

        Raises BrokerUnavailable, BrokerRefused.
        """
        path = _path(broker_order_id)
        reply = self._get("order by id", path, {"nested": "true"})
        if answers.order_not_found(reply):
            return None
        order = self._read("order by id", reply, mapping.order_of)
        if order.broker_order_id != broker_order_id:
            raise BrokerUnavailable("order by id: another order came back")
        return order

    def account(self) -> BrokerAccount:
        """Raises BrokerUnavailable, BrokerRefused."""
        return self._read("account", self._get("account", "/account", {}), mapping.account_of)

    def positions(self) -> Sequence[BrokerPosition]:
        """All open positions, or BrokerUnavailable if one of them cannot be read; BrokerRefused."""
        reply = self._get("positions", "/positions", {})
        return self._read("positions", reply, lambda data: [*map(mapping.position_of, _rows(data))])

    def asset(self, symbol: str) -> AssetFacts:
        """What may be done with the asset; a broker without a list of assets leaves that open.

        Raises BrokerUnavailable, BrokerRefused.
        """
        reply = self._get("asset", f"/assets/{quote(symbol, safe='')}", {})
        if reply.status in (404, 405, 501):
            return AssetFacts(listed=False if answers.asset_not_found(reply) else None)
        return self._read("asset", reply, lambda data: mapping.asset_of(data, symbol))

    def market_clock(self) -> MarketClock:
        """The regular session of equities. Raises BrokerUnavailable, BrokerRefused."""
        return self._read("clock", self._get("clock", "/clock", {}), mapping.clock_of)

    def orders(self, *, after: datetime | None, limit: int) -> Page[Order]:
        """Orders of any status, ascending by submission, `after` exclusive, `limit` 1 to 500.

        Alpaca compares `after` with submission times that are finer than a microsecond, and can
        precede `created_at` by milliseconds: page with an overlap. A page that is one instant from
        end to end is followed to the end of that instant, and may be longer than `limit`.
        Raises BrokerUnavailable, BrokerRefused; ValueError for another limit.
        """
        if not 1 <= limit <= ORDERS_PAGE_MAX:
            raise ValueError(f"limit is {limit}, Alpaca takes 1 to {ORDERS_PAGE_MAX}")
        rows = self._orders_from("all", after, limit)
        page = self._page("order", rows, mapping.order_of, limit)
        page.last_at = mapping.last_instant(rows)
        if any(map(mapping.has_legs, page)):
            self._name_legs(page, after, limit)
        return page

    def _name_legs(self, page: Page[Order], after: datetime | None, limit: int) -> None:
        """Say of the orders of a page which hang on them, from the same list rolled up.

        Only that is taken from it: rolled up, orders whose first one is on another page are in
        no answer.
        """
        legs: dict[str, tuple[Order, ...]] = {}
        for row in self._orders_from("all", after, limit, nested=True):
            if isinstance(row, Mapping) and isinstance(id_ := row.get("id"), str):
                legs[id_] = mapping.legs_of(row)
        page[:] = [replace(o, legs=legs.get(o.broker_order_id, o.legs)) for o in page]

    def open_orders(self) -> Sequence[Order]:
        """Every open order, paged until a page is not full.

        Pages overlap, because `after` is exclusive and several orders can share an instant.
        Raises BrokerUnavailable, also when a page of 500 brings nothing new; BrokerRefused.
        """
        found: dict[object, object] = {}
        after: datetime | None = None
        while True:
            page = self._orders_from("open", after, ORDERS_PAGE_MAX)
            known = len(found)
            found.update((_row_key(row), row) for row in page)
            if len(page) < ORDERS_PAGE_MAX:
                return self._page("order", [*found.values()], mapping.order_of, 0)
            newest = mapping.last_instant(page)
            if newest is None or len(found) == known:
                raise BrokerUnavailable("open orders: a full page that cannot be paged past")
            after = newest - timedelta(microseconds=1)

    def fills(self, *, page_token: str | None, after: datetime | None) -> Page[FillActivity]:
        """One page (at most 100) of FILL activities, ascending; `page_token` is the last id seen.

        Raises BrokerUnavailable, BrokerRefused.
        """
        rows = self._activities("fills", "/account/activities/FILL", {}, page_token, after)
        return self._page("fill", rows, mapping.fill_of, ACTIVITIES_PAGE_MAX)

    def entries(self, *, page_token: str | None, after: datetime | None) -> Page[AccountEntry]:
        """One page (at most 100) of the activities that are no fills, ascending.

        Raises BrokerUnavailable, BrokerRefused.
        """
        kinds: dict[str, object] = {"category": "non_trade_activity"}
        rows = self._activities("entries", "/account/activities", kinds, page_token, after)
        return self._page("entry", rows, mapping.entry_of, ACTIVITIES_PAGE_MAX)

    def rate_state(self) -> RateState:
        """X-RateLimit-* of the newest answer of any thread."""
        return self._rate

    def close(self) -> None:
        """Close idle connections; calls after this answer NEVER_LEFT or raise BrokerUnavailable."""
        self._transport.close()

    def _orders_from(
        self, status: str, after: datetime | None, limit: int, *, nested: bool = False
    ) -> list[object]:
        """A page of orders, to the end of its instant where all of it is one.

        No `after` leads past such a page, and orders that waited for the open are stamped again
        all at once. Alpaca does not say whether `after_order_id` has an order within an instant.
        """
        rows = self._orders_page(
            status, {"after": after and mapping.instant_param(after)}, limit, nested
        )
        full, known = len(rows) >= limit, {_row_key(row) for row in rows}
        while full and len(rows) > 1 and mapping.one_instant(rows):
            more = self._orders_page(status, {"after_order_id": _row_key(rows[-1])}, limit, nested)
            new = [row for row in more if _row_key(row) not in known]
            if more and not new:
                raise BrokerUnavailable("orders: a full page that cannot be paged past")
            rows += new
            full, known = len(more) >= limit, known | {_row_key(row) for row in new}
        return rows

    def _orders_page(
        self, status: str, where: Mapping[str, object], limit: int, nested: bool
    ) -> list[object]:
        params: dict[str, object] = {
            "status": status,
            "direction": "asc",
            "limit": limit,
            "nested": "true" if nested else "false",
            **{name: value for name, value in where.items() if value is not None},
        }
        rows = self._read("orders", self._get("orders", "/orders", params), _rows)
        if len(rows) >= limit and mapping.descending(rows):
            # what lies between this page and the last one would never be read
            raise BrokerUnavailable("orders: not in the order that was asked for")
        return rows

    def _activities(
        self,
        question: str,
        path: str,
        kinds: Mapping[str, object],
        page_token: str | None,
        after: datetime | None,
    ) -> list[object]:
        params = {**kinds, "direction": "asc", "page_size": ACTIVITIES_PAGE_MAX}
        if page_token is not None:
            params["page_token"] = page_token
        if after is not None:
            params["after"] = mapping.instant_param(after)
        return self._read(question, self._get(question, path, params), _rows)

    def _get(self, question: str, path: str, params: Mapping[str, object]) -> Reply:
        """The complete answer to a question, unless there is none or the keys are refused."""
        try:
            reply = self._transport.get(path, params)
        except CallFailed as failure:
            raise BrokerUnavailable(f"{question}: {failure}") from failure
        if reply.status in (401, 403):
            message = answers.error_of(reply)[1]
            raise BrokerRefused(f"{question}: HTTP {reply.status} {message}".rstrip())
        return reply

    def _read(self, question: str, reply: Reply, read: Callable[[object], T]) -> T:
        if reply.status != 200:
            raise _unusable(question, reply)
        try:
            return read(mapping.load_json(reply.body))
        except MalformedBody as error:
            raise BrokerUnavailable(f"{question}: {error}") from error

    def _page(
        self, kind: str, rows: list[object], read: Callable[[object], T], asked: int
    ) -> Page[T]:
        good: list[T] = []
        unreadable: list[str] = []
        for row in rows:
            try:
                good.append(read(row))
            except MalformedBody as error:
                with self._counting:
                    self._malformed_total += 1
                raw = str(row)[:LOGGED_ROW_LENGTH_MAX]
                log.warning("broker_row_malformed", kind=kind, problem=str(error), raw=raw)
                unreadable.append(f"{_row_key(row)}: {error}"[:LOGGED_ROW_LENGTH_MAX])
        last = _row_key(rows[-1]) if rows else None
        return Page(
            good,
            full=len(rows) >= asked,
            last_id=last if isinstance(last, str) else None,
            unreadable=unreadable,
        )

    def _note_rate(self, reply: Reply) -> None:
        self._rate = answers.rate_of(reply)


def _path(broker_order_id: str) -> str:
    return f"/orders/{quote(broker_order_id, safe='')}"


def _failed(failure: CallFailed) -> Answer:
    outcome = Outcome.NEVER_LEFT if failure.never_left else Outcome.IN_DOUBT
    return Answer(outcome=outcome, message=str(failure))


def _unusable(question: str, reply: Reply) -> BrokerUnavailable:
    message = answers.error_of(reply)[1]
    return BrokerUnavailable(f"{question}: HTTP {reply.status} {message}".rstrip())


def _rows(data: object) -> list[object]:
    if not isinstance(data, list):
        raise MalformedBody(f"expected a list, got {type(data).__name__}")
    return data


def _row_key(row: object) -> object:
    """What makes two rows of overlapping pages one: the id, or the row itself without one."""
    key = row.get("id") if isinstance(row, Mapping) else None
    return key if isinstance(key, str) else repr(row)
