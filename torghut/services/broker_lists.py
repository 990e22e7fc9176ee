"""Reading the broker's lists of orders and fills, page after page; a full page is never the end.

A list is asked for from the cursor less `OVERLAP_S`: a page may come late, and `submitted_at`, by
which the broker sorts, may be stamped again. Only the ids of one page are kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

import structlog

from torghut.domain.orders import Order
from torghut.ports import Broker, FillActivity, Page
from torghut.services.order_ledger import listed_at

PAGE_MAX = 500
OVERLAP_S = 60

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Ask(Protocol):
    """Puts a question to the broker. Raises BrokerUnavailable, BrokerRefused."""

    def __call__(self, question: Callable[[Broker], T]) -> T: ...


def overlapped(position: datetime | None) -> datetime | None:
    """Where reading begins for a cursor."""
    return None if position is None else position - timedelta(seconds=OVERLAP_S)


def order_pages(ask: Ask, after: datetime | None) -> Iterator[Page[Order]]:
    """Pages of orders of any status, ascending, to the end of the list."""
    before: set[str] = set()
    while True:
        page = ask(partial(_orders, after))
        yield page
        newest = newest_of(page)
        if not page.full or newest is None:
            return
        ids = {*(order.broker_order_id for order in page), *page.unreadable}
        if ids <= before:
            log.warning("a full page of orders brought nothing new", after=str(after))
            return
        before = ids
        # an instant back: orders of the page's last instant may go on on the next page
        step_back = newest - timedelta(microseconds=1)
        after = step_back if after is None or step_back > after else newest


def newest_of(page: Page[Order]) -> datetime | None:
    """How far a page of orders goes, rows of it that could not be read included."""
    read = [] if page.last_at is None else [page.last_at]
    return max([*read, *map(listed_at, page)], default=None)


def fill_pages(
    ask: Ask, after: datetime | None, token: str | None = None
) -> Iterator[Page[FillActivity]]:
    """Pages of FILL activities, ascending, from the one after `token` to the end of the list."""
    tokens = {token}
    while True:
        page = ask(partial(_fills, token, after))
        yield page
        if not page.full or page.last_id is None or page.last_id in tokens:
            return
        token = page.last_id
        tokens.add(token)


def _orders(after: datetime | None, broker: Broker) -> Page[Order]:
    return broker.orders(after=after, limit=PAGE_MAX)


def _fills(token: str | None, after: datetime | None, broker: Broker) -> Page[FillActivity]:
    return broker.fills(page_token=token, after=after)
