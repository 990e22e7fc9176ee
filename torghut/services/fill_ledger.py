"""The fill ledger: FILL activities of the broker, and nothing else, become fills (P8).

    cursor − overlap ─▶ GET activities, pages by token ─▶ see unknown orders first ─▶ Tx: fills,
                                                           positions, events, cursor

The overlap, and the creation of the oldest order whose fills are not all booked, decide where
reading begins: an activity that shows up late is still read. An order that told nothing new for
`AWAITED` is looked back for at the start and then every `LOOK_BACK_EVERY` only: the list between
may be long. An activity that is booked already changes nothing (its id is unique), so pages may be
read again and again.

A fill whose order cannot be read, however often it is asked for, is left out with a discrepancy,
and the others go on (story 28); it is booked when its order can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from torghut.clock import Clock
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.errors import BrokerUnavailable
from torghut.domain.events import Event, EventKind
from torghut.domain.orders import Order
from torghut.domain.tie_out import symbol_key
from torghut.ports import Broker, FillActivity, Page
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services.broker_lists import fill_pages, overlapped
from torghut.services.questions import Questions
from torghut.services.recording import guarded, note_taken, note_unreadable
from torghut.storage import control, cursors, decisions, discrepancies, executions, fills
from torghut.storage.database import Database
from torghut.storage.fills import Booking
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import ExecutionRow, Lease

ACTOR = "reconciler"
PAGES_MAX = 200
BUDGET_WAIT_S = 30.0
AWAITED = timedelta(minutes=10)
LOOK_BACK_EVERY = timedelta(hours=1)
ASKED_MAX = 3
FAILURES_MAX = 3

T = TypeVar("T")
Names = Mapping[int | None, tuple[str, str]]
"""Strategy and hash by decision id."""


class FillLedger:
    """Books the fills of one account; `see_orders` books orders that were not known."""

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        *,
        see_orders: Callable[[Lease, Sequence[Order]], object],
        clock: Clock,
        on_page: Callable[[str, int], None],
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._see_orders = see_orders
        self._clock = clock
        self._on_page = on_page
        self._goes_on: tuple[datetime | None, str | None] | None = None
        self._looked_back: datetime | None = None
        self._unanswered: dict[str, int] = {}  # orders of fills: how often they were not answered

    def run(self, lease: Lease, *, whole: bool = False) -> dict[str, int]:
        """Read from where it is needed, or the whole list, to the end, PAGES_MAX pages at the most;
        returns counts, with `more` if that was not the end. Raises BrokerUnavailable."""
        after, token = (None, None) if whole else self._goes_on or (self._start(), None)
        self._goes_on = None
        counts: dict[str, int] = {}
        pages = fill_pages(self._ask, after, token)
        for number, page in enumerate(pages, start=1):
            if page or page.unreadable:
                for what, count in self._book_page(lease, page).items():
                    counts[what] = counts.get(what, 0) + count
            self._on_page("fills", len(page))
            if number == PAGES_MAX and page.full and page.last_id is not None:
                self._goes_on = (after, page.last_id)
                return counts | {"more": 1}
        return counts

    def go_on_from(self, since: datetime) -> None:
        """The next run reads from there, wherever the cursor is."""
        self._goes_on = (since, None)

    @property
    def awaited(self) -> bool:
        """More fills of an order may be listed any moment."""
        with self._database.transaction() as tx:
            since = self._clock() - AWAITED
            found = executions.oldest_unledgered(tx, self._account, moved_since=since)
        return found is not None

    def _start(self) -> datetime | None:
        now = self._clock()
        far = self._looked_back is None or now - self._looked_back >= LOOK_BACK_EVERY
        if far:
            self._looked_back = now
        with self._database.transaction() as tx:
            position = cursors.position(tx, self._account, cursors.FILLS)
            missing = executions.oldest_unledgered(
                tx, self._account, moved_since=None if far else now - AWAITED
            )
        if position is not None and missing is not None:
            position = min(position, missing)
        return overlapped(position)

    def _book_page(self, lease: Lease, page: Page[FillActivity]) -> dict[str, int]:
        nowhere = self._see_unknown_orders(lease, page)
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            known = executions.by_broker_ids(tx, [fill.broker_order_id for fill in page])
            fresh = fills.unknown(tx, [fill.activity_id for fill in page])
            if fresh:
                fence(tx, lease)
            new = [fill for fill in page if fill.activity_id in fresh]
            owners = decisions.names(tx, [row.decision_id for row in known.values()])
            bookings = [
                _booking(fill, known[fill.broker_order_id], owners)
                for fill in new
                if fill.broker_order_id in known
            ]
            for fill in new:
                if why := nowhere.get(fill.broker_order_id):
                    self._note_orphan(tx, fill, why, now)
            counts = self._book(tx, bookings, owners, now)
            taken = {fill.activity_id for fill in page} - fills.unknown(tx, sorted(fresh))
            note_taken(tx, self._account, sorted(taken), actor=ACTOR, now=now)
            note_unreadable(tx, self._account, page, what="fill", actor=ACTOR, now=now)
            newest = cursors.newest((fill.transact_time for fill in page), now=now)
            if newest is not None:
                cursors.advance(tx, self._account, cursors.FILLS, newest, now=now)
            reached(RecoveryPoint.RECONCILE_BEFORE_COMMIT)
        reached(RecoveryPoint.RECONCILE_AFTER_COMMIT)
        return counts

    def _book(
        self, tx: Connection, bookings: Sequence[Booking], owners: Names, now: datetime
    ) -> dict[str, int]:
        """All in one go; if one of them cannot be stored, one by one."""
        try:
            with tx.begin_nested():
                self._write(tx, bookings, owners, now)
            return {"fills": len(bookings)} if bookings else {}
        except (DataError, IntegrityError, ArithmeticError, ValueError):
            pass  # which one it is, is found one by one
        counts = {"fills": 0, "poison": 0}
        for booking in bookings:
            write = partial(self._write, tx, [booking], owners, now)
            id_ = booking.fill.activity_id
            stored = guarded(tx, self._account, id_, write, actor=ACTOR, what="fill", now=now)
            counts["fills" if stored else "poison"] += 1
        return counts

    def _write(
        self, tx: Connection, bookings: Sequence[Booking], owners: Names, now: datetime
    ) -> None:
        events = [
            Event(
                EventKind.FILL_RECORDED,
                ACTOR,
                self._account,
                owners.get(booking.decision_id, ("", None))[1],
                {
                    "activity_id": booking.fill.activity_id,
                    "symbol": booking.fill.symbol,
                    "side": booking.fill.side,
                    "last_qty": str(booking.fill.last_qty),
                    "last_px": str(booking.fill.last_px),
                },
            )
            for booking in fills.append(tx, self._account, bookings, now=now)
        ]
        control.add_events(tx, events, now=now)

    def _note_orphan(self, tx: Connection, fill: FillActivity, why: str, now: datetime) -> None:
        """A fill whose order is not to be had: not booked, and said so (P12)."""
        evidence = {
            "what": "fill",
            "error": f"its order {fill.broker_order_id} {why}",
            "symbol": fill.symbol,
            "side": fill.side,
            "last_qty": str(fill.last_qty),
            "last_px": str(fill.last_px),
        }
        discrepancies.open_(
            tx,
            self._account,
            DiscrepancyKind.CANNOT_BE_BOOKED,
            fill.activity_id,
            evidence,
            actor=ACTOR,
            now=now,
        )

    def _see_unknown_orders(self, lease: Lease, page: Sequence[FillActivity]) -> dict[str, str]:
        """Book the orders that are new here; returns why others are not to be had, by their ids.

        Raises BrokerUnavailable until an order was asked for in vain ASKED_MAX times: most often
        the broker is away, and fills in order are worth the wait.
        """
        wanted = {fill.broker_order_id for fill in page}
        with self._database.transaction() as tx:
            known = executions.by_broker_ids(tx, sorted(wanted))
        orders: list[Order] = []
        missing: dict[str, str] = {}
        failures: list[BrokerUnavailable] = []
        for id_ in sorted(wanted - set(known)):
            if self._unanswered.get(id_, 0) >= ASKED_MAX:
                missing[id_] = "cannot be read"  # asked for with the open orders from now on
                continue
            try:
                order = self._questions.order(id_, budget_wait_s=BUDGET_WAIT_S)
            except BrokerUnavailable as error:
                self._unanswered[id_] = self._unanswered.get(id_, 0) + 1
                failures.append(error)
                if len(failures) == FAILURES_MAX:
                    break
                continue
            self._unanswered.pop(id_, None)
            if order is None:
                missing[id_] = "is unknown to the broker"
            else:
                orders.append(order)
        if orders:
            self._see_orders(lease, orders)
        if failures:
            raise failures[0]
        self._note_unread(missing)
        return missing

    def _note_unread(self, missing: Mapping[str, str]) -> None:
        unread = [
            f"{id_}: not answered {ASKED_MAX} times" for id_ in missing if id_ in self._unanswered
        ]
        if unread:
            page: Page[Order] = Page(unreadable=unread)
            with self._database.transaction() as tx:
                now = self._clock()
                note_unreadable(tx, self._account, page, what="order", actor=ACTOR, now=now)

    def _ask(self, question: Callable[[Broker], T]) -> T:
        return self._questions.ask(question, budget_wait_s=BUDGET_WAIT_S)


def _booking(fill: FillActivity, execution: ExecutionRow, owners: Names) -> Booking:
    if symbol_key(fill.symbol) == symbol_key(execution.symbol):
        fill = replace(fill, symbol=execution.symbol)  # activities may say BTCUSD (story 20)
    strategy, _ = owners.get(execution.decision_id, ("", None))
    return Booking(fill, execution.execution_id, execution.decision_id, strategy)
