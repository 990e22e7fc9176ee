"""What a reconciliation would write: the same questions and comparison, and nothing written.

Positions and cash are left to a real pass: their difference is told by two looks, one after another
(torghut.services.tie_out), and the second would be of books that are about to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from torghut.clock import Clock
from torghut.domain.orders import Order
from torghut.ports import Broker
from torghut.services.broker_lists import fill_pages, order_pages, overlapped
from torghut.services.late_orders import LateOrders
from torghut.services.open_orders import OpenOrders
from torghut.services.order_ledger import OrderLedger
from torghut.services.questions import Questions
from torghut.storage import book_audit, cursors, executions, fills
from torghut.storage.database import Database

BUDGET_WAIT_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that reconciliation would write. `what` is a CorrectionKind, `fill`, or `missing`
    with a number of rows as its `detail`."""

    what: str
    broker_id: str
    symbol: str
    detail: str


class Preview:
    """Compares one account without writing; `on_page` hears list and rows of each page read."""

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        *,
        clock: Clock,
        on_page: Callable[[str, int], None],
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._on_page = on_page
        self._clock = clock
        self._ledger = OrderLedger(account, database, LateOrders(account, cancel=False), clock)

    def run(self, since: datetime | None) -> Iterator[Wanted]:
        """Everything that would be written, orders first. Raises BrokerUnavailable, Refused."""
        with self._database.transaction() as tx:
            wanted, found = book_audit.count(tx, self._account)
            ordered = _earlier(cursors.position(tx, self._account, cursors.ORDERS), since)
            filled = _earlier(cursors.position(tx, self._account, cursors.FILLS), since)
            unbooked = executions.oldest_unledgered(tx, self._account)
        gone = {what: wanted[what] - found[what] for what in wanted}
        if any(count > 0 for count in gone.values()):
            ordered = filled = None  # a pass would read everything again
        for what, count in gone.items():
            if count > 0:
                yield Wanted("missing", what, "", f"{count} rows are gone from our books")
        yield from self._orders(ordered)
        yield from self._fills(_earlier(filled, unbooked))

    def _orders(self, position: datetime | None) -> Iterator[Wanted]:
        seen: set[str] = set()
        for page in order_pages(self._ask, overlapped(position)):
            found = self._compare([o for o in page if o.broker_order_id not in seen])
            seen |= {one.broker_id for one in found}
            yield from found
            self._on_page("orders", len(page))
        looks = OpenOrders(
            self._account,
            self._database,
            self._questions,
            ask=self._ask,
            budget_wait_s=BUDGET_WAIT_S,
            clock=self._clock,
        )
        orders, _ = looks.look()
        yield from self._compare([o for o in orders if o.broker_order_id not in seen])

    def _compare(self, orders: list[Order]) -> list[Wanted]:
        with self._database.transaction() as tx:
            corrections, _, _ = self._ledger.corrections(tx, orders)
        return [
            Wanted(
                one.kind.value,
                one.order.broker_order_id,
                one.order.symbol,
                f"{one.order.status}, {one.order.cum_qty} filled",
            )
            for one in corrections
        ]

    def _fills(self, position: datetime | None) -> Iterator[Wanted]:
        for page in fill_pages(self._ask, overlapped(position)):
            with self._database.transaction() as tx:
                fresh = fills.unknown(tx, [fill.activity_id for fill in page])
            for fill in page:
                if fill.activity_id in fresh:
                    detail = f"{fill.side} {fill.last_qty} at {fill.last_px}"
                    yield Wanted("fill", fill.activity_id, fill.symbol, detail)
            self._on_page("fills", len(page))

    def _ask(self, question: Callable[[Broker], T]) -> T:
        return self._questions.ask(question, budget_wait_s=BUDGET_WAIT_S)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier of where a list was read to (None: from its beginning) and another instant."""
    return one if one is None or other is None else min(one, other)
