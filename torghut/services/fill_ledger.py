"""The fill ledger: FILL activities of the broker, and nothing else, become fills (P8).

    cursor − overlap ─▶ GET activities, pages by token ─▶ see unknown orders first ─▶ Tx: fills,
                                                           positions, events, cursor

The overlap, and the creation of the oldest order whose fills are not all booked, decide where
reading begins: an activity that shows up late is still read. An activity that is booked already
changes nothing (its id is unique), so pages may be read again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from torghut.clock import Clock
from torghut.domain.events import Event, EventKind
from torghut.domain.orders import Order
from torghut.domain.tie_out import symbol_key
from torghut.domain.values import canonical_instant, parse_instant
from torghut.ports import Broker, FillActivity, Page
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services.questions import Questions
from torghut.services.recording import guarded, note_taken, note_unreadable
from torghut.storage import control, decisions, executions, fills
from torghut.storage.database import Database
from torghut.storage.fills import Booking
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import ExecutionRow, Lease

ACTOR = "reconciler"
OVERLAP_S = 60
BUDGET_WAIT_S = 30.0

T = TypeVar("T")


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
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._see_orders = see_orders
        self._clock = clock

    def run(self, lease: Lease) -> dict[str, int]:
        """Read from where it is needed to the end; returns counts. Raises BrokerUnavailable."""
        after = self._start()
        counts: dict[str, int] = {}
        token: str | None = None
        while True:
            page = self._ask(partial(_page, token, after))
            if page or page.unreadable:
                for what, count in self._book_page(lease, page).items():
                    counts[what] = counts.get(what, 0) + count
            if not page.full or page.last_id is None or page.last_id == token:
                return counts
            token = page.last_id

    def _start(self) -> datetime | None:
        with self._database.transaction() as tx:
            position = control.cursor(tx, self._account, "fills")
            missing = executions.oldest_unledgered(tx, self._account)
        if position is None:
            return None
        start = parse_instant(position)
        if missing is not None:
            start = min(start, missing)
        return start - timedelta(seconds=OVERLAP_S)

    def _book_page(self, lease: Lease, page: Page[FillActivity]) -> dict[str, int]:
        self._see_unknown_orders(lease, page)
        now = self._clock()
        counts: dict[str, int] = {}
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            known = executions.by_broker_ids(tx, [fill.broker_order_id for fill in page])
            strategies = decisions.strategies(tx, [row.decision_id for row in known.values()])
            fresh = fills.unknown(tx, [fill.activity_id for fill in page])
            if fresh:
                fence(tx, lease)
            taken = [fill.activity_id for fill in page if fill.activity_id not in fresh]
            for fill in page:
                execution = known.get(fill.broker_order_id)
                if fill.activity_id not in fresh or execution is None:
                    continue
                key = self._book(tx, fill, execution, strategies, now)
                counts[key] = counts.get(key, 0) + 1
                taken += [fill.activity_id] if key == "fills" else []
            note_taken(tx, self._account, taken, actor=ACTOR, now=now)
            note_unreadable(tx, self._account, page, what="fill", actor=ACTOR, now=now)
            newest = max((fill.transact_time for fill in page), default=None)
            if newest is not None:
                control.set_cursor(tx, self._account, "fills", canonical_instant(newest), now=now)
            reached(RecoveryPoint.RECONCILE_BEFORE_COMMIT)
        reached(RecoveryPoint.RECONCILE_AFTER_COMMIT)
        return counts

    def _book(
        self,
        tx: Connection,
        fill: FillActivity,
        execution: ExecutionRow,
        strategies: dict[int, str],
        now: datetime,
    ) -> str:
        if symbol_key(fill.symbol) == symbol_key(execution.symbol):
            fill = replace(fill, symbol=execution.symbol)  # activities may say BTCUSD (story 20)
        strategy = strategies.get(execution.decision_id or 0, "")
        booking = Booking(fill, execution.execution_id, execution.decision_id, strategy)
        stored = guarded(
            tx,
            self._account,
            fill.activity_id,
            partial(self._write, tx, booking, now),
            actor=ACTOR,
            what="fill",
            now=now,
        )
        return "fills" if stored else "poison"

    def _write(self, tx: Connection, booking: Booking, now: datetime) -> None:
        fill = booking.fill
        if not fills.append(tx, self._account, [booking], now=now):
            return
        hash_ = decisions.hash_of(tx, booking.decision_id) if booking.decision_id else None
        payload = {
            "activity_id": fill.activity_id,
            "symbol": fill.symbol,
            "side": fill.side,
            "last_qty": str(fill.last_qty),
            "last_px": str(fill.last_px),
        }
        event = Event(EventKind.FILL_RECORDED, ACTOR, self._account, hash_, payload)
        control.add_events(tx, [event], now=now)

    def _see_unknown_orders(self, lease: Lease, page: Sequence[FillActivity]) -> None:
        wanted = {fill.broker_order_id for fill in page}
        with self._database.transaction() as tx:
            known = executions.by_broker_ids(tx, sorted(wanted))
        orders: list[Order] = []
        for broker_order_id in sorted(wanted - set(known)):
            order = self._questions.order(broker_order_id, budget_wait_s=BUDGET_WAIT_S)
            if order is not None:
                orders.append(order)
        if orders:
            self._see_orders(lease, orders)

    def _ask(self, question: Callable[[Broker], T]) -> T:
        return self._questions.ask(question, budget_wait_s=BUDGET_WAIT_S)


def _page(token: str | None, after: datetime | None, broker: Broker) -> Page[FillActivity]:
    return broker.fills(page_token=token, after=after)
