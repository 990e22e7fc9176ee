"""The reconciler: our books against the broker's, both directions (P6, P8, P12).

One pass, each step on its own, so that one that fails does not keep the others from their work:

```
account   GET account, positions ───────────▶ snapshot for risk
audit     are rows of our books gone? ───────▶ read everything again    (services/book_audit)
orders    GET orders since cursor − overlap ─▶ diff ─▶ executions, decisions, discrepancies
open      our executions that are not terminal ─▶ GET them               (services/open_orders)
fills     GET FILL activities since cursor ──▶ fills, positions         (services/fill_ledger)
restore   the audit's end, once orders and fills are read to their ends
settle    decisions that wait though their order is in the books        (services/found_orders)
close     decisions whose order is terminal
tie-out   positions and cash against that snapshot ─▶ discrepancies     (services/tie_out)
```

A pass reads `PAGES_MAX` pages of a list at the most; the cursor, moved with each page's commit,
says where the next one goes on. If power fails between pages the next pass reads the last ones
again and finds nothing to do. After an update of the broker's stream only `fills` and `close` are
run (services/live_updates).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.domain.events import Event, EventKind
from torghut.domain.orders import Order
from torghut.ports import Broker
from torghut.services import book_gauges, found_orders
from torghut.services.book_audit import BookAudit
from torghut.services.broker_lists import newest_of, order_pages, overlapped
from torghut.services.fill_ledger import FillLedger
from torghut.services.late_orders import LateOrders
from torghut.services.open_orders import OpenOrders
from torghut.services.order_ledger import OrderLedger
from torghut.services.outside_facts import OutsideFacts
from torghut.services.questions import Questions
from torghut.services.recording import note_unreadable
from torghut.services.tie_out import TieOut
from torghut.storage import control, cursors, decisions
from torghut.storage.database import Database
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import Lease

ACTOR = "reconciler"
PAGES_MAX = 40
CLOSE_MAX = 1_000
SETTLE_MAX = 1_000
BUDGET_WAIT_S = 30.0

log = structlog.get_logger(__name__)

Counts = dict[str, int]
OnPage = Callable[[str, int], None]
T = TypeVar("T")


class Reconciler:
    """Reconciles one account; passes asked for at the same time run one after the other.

    `reconciled_at` is when the last whole pass of this process ended.
    `on_page` hears the name of a list and how many rows of it were read with each page.
    """

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        outside: OutsideFacts,
        tie_out: TieOut,
        late_orders: LateOrders,
        *,
        clock: Clock,
        on_page: OnPage = lambda _list, _rows: None,
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._outside = outside
        self._tie_out = tie_out
        self._late_orders = late_orders
        self._clock = clock
        self._on_page = on_page
        self._pass = threading.Lock()
        self.reconciled_at: datetime | None = None
        self._orders_go_on: datetime | None = None
        self._orders_end: datetime | None = None
        self._audit = BookAudit(account, database, clock)
        self._orders = OrderLedger(account, database, late_orders, clock)
        self._open = OpenOrders(
            account,
            database,
            questions,
            ask=self._ask,
            budget_wait_s=BUDGET_WAIT_S,
            clock=clock,
        )
        self._fills = FillLedger(
            account,
            database,
            questions,
            see_orders=self.see_orders,
            clock=clock,
            on_page=on_page,
        )

    def run_once(self, lease: Lease, now: datetime) -> Counts:
        """One pass; returns how much each step wrote. Steps that failed count under `failed`, and
        `more` says that there is more to read than one pass does."""
        with self._pass:
            return self._run(lease)

    def read_again(self, lease: Lease, since: datetime | None) -> None:
        """The next passes read orders and fills again from `since`, or from their beginning."""
        with self._pass, self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            cursors.rewind(tx, self._account, to=since, now=self._clock())
            # … in this process from there whoever moves the cursors meanwhile
            self._orders_go_on = since
            if since is not None:
                self._fills.go_on_from(since)

    def catch_up(self, lease: Lease, now: datetime) -> Counts:
        """Only what a fill or an end just heard of needs: missing fills, finished decisions.

        Asks the broker nothing where no fill is missing. Raises BrokerUnavailable.
        """
        with self._pass:
            counts = self._fills.run(lease) if self.awaits_fills else {}
            return counts | self._close_step(lease)

    @property
    def awaits_fills(self) -> bool:
        """An order said lately that more of it is filled than fills of it are booked."""
        return self._fills.awaited

    def see_orders(self, lease: Lease, orders: Sequence[Order]) -> Counts:
        """Book orders as the broker shows them, whosever they are."""
        return self._orders.book(lease, orders, restoring=self._audit.restoring)

    def _run(self, lease: Lease) -> Counts:
        counts: Counts = {}
        steps: Sequence[tuple[str, Callable[[Lease], Counts]]] = (
            ("account", self._account_step),
            ("audit", self._audit.begin),
            ("orders", self._orders_step),
            ("open", self._open_step),
            ("fills", self._fills_step),
            ("restore", self._audit.finish),
            ("settle", self._settle_step),
            ("close", self._close_step),
            ("tie_out", self._tie_out.run),
        )
        for name, step in steps:
            behind = counts.get("failed") or counts.get("more")
            if behind and name in ("restore", "tie_out"):
                continue  # books that are behind would differ
            if counts.get("more") and name == "fills":
                continue  # the orders of fills that are ahead would be asked for one by one
            if name in ("close", "tie_out") and self._audit.restoring:
                continue  # … and so would those that lack rows
            try:
                _add(counts, step(lease))
            except (BrokerUnavailable, BrokerRefused) as error:
                counts["failed"] = counts.get("failed", 0) + 1
                log.warning("reconciliation step failed", step=name, error=str(error))
        with self._database.transaction() as tx:
            book_gauges.show(tx, self._account)
        if not counts.get("failed"):
            self.reconciled_at = self._clock()
            telemetry.RECONCILED_AT.labels(self._account).set(self.reconciled_at.timestamp())
        return counts

    # ------------------------------------------------------------------ steps

    def _account_step(self, _lease: Lease) -> Counts:
        if not self._outside.keep_fresh():
            raise BrokerUnavailable("account and positions were not answered")
        self._tie_out.begin()
        return {}

    def _orders_step(self, lease: Lease) -> Counts:
        """broker → local: pages ascending from the cursor."""
        restoring = self._audit.restoring
        with self._database.transaction() as tx:
            position = cursors.position(tx, self._account, cursors.ORDERS)
        # where the last pass stopped, the overlap lies behind: it may be longer than a pass
        after, self._orders_go_on = self._orders_go_on or overlapped(position), None
        if restoring:
            after = self._audit.orders_read_to
        counts: Counts = {}
        self._orders_end = None
        pages = order_pages(self._ask, after)
        for number, page in enumerate(pages, start=1):
            if page.unreadable:
                with self._database.transaction() as tx:
                    now = self._clock()
                    note_unreadable(tx, self._account, page, what="order", actor=ACTOR, now=now)
            booked = self._orders.book(lease, page, cursor=True, restoring=self._audit.restoring)
            _add(counts, booked)
            newest = newest_of(page)
            # orders of the page's last instant may go on on the next one
            until = newest and newest - timedelta(microseconds=1)
            if restoring and until:
                self._audit.orders_read_to = until
            self._orders_end = until or self._orders_end
            self._on_page("orders", len(page))
            if number == PAGES_MAX and page.full and until:
                self._orders_go_on = until
                return counts | {"more": 1}
        return counts

    def _open_step(self, lease: Lease) -> Counts:
        """local → broker."""
        found, failures = self._open.look()
        return {"unanswered": failures, **self.see_orders(lease, found)}

    def _fills_step(self, lease: Lease) -> Counts:
        whole = self._audit.restoring and not self._audit.fills_begun
        counts = self._fills.run(lease, whole=whole)
        self._audit.fills_begun = True
        if counts.get("more"):  # the next pass follows at once: the overlap was read in this one
            self._orders_go_on = self._orders_end
        return counts

    def _settle_step(self, lease: Lease) -> Counts:
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            waiting = decisions.ordered(tx, self._account, limit=SETTLE_MAX)
            if waiting:
                fence(tx, lease)
            for row in waiting:
                found_orders.settle_booked(tx, row, actor=ACTOR, lease=lease, now=now)
        return {"settled": len(waiting)}

    def _close_step(self, lease: Lease) -> Counts:
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            closed = decisions.close_finished(tx, self._account, now=now, limit=CLOSE_MAX)
            events = [
                Event(EventKind.DECISION_CLOSED, ACTOR, self._account, hash_) for hash_ in closed
            ]
            control.add_events(tx, events, now=now)
            self._late_orders.end_settled(tx, now=now)
            count, oldest = decisions.doubts(tx, self._account)
        telemetry.IN_DOUBT.labels(self._account).set(count)
        age_s = (now - oldest).total_seconds() if oldest else 0.0
        telemetry.IN_DOUBT_AGE.labels(self._account).set(age_s)
        return {"closed": len(closed)}

    def _ask(self, question: Callable[[Broker], T]) -> T:
        return self._questions.ask(question, budget_wait_s=BUDGET_WAIT_S)


def _add(counts: Counts, more: Counts) -> None:
    for key, count in more.items():
        counts[key] = counts.get(key, 0) + count
