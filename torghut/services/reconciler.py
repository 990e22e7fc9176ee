"""The reconciler: our books against the broker's, both directions (P6, P8, P12).

One pass, each step on its own, so that one that fails does not keep the others from their work:

```
account   GET account, positions ───────────▶ snapshot for risk
orders    GET orders since cursor − overlap ─▶ diff ─▶ executions, decisions, discrepancies
open      our executions that are not terminal and were not in that list, successors of replaced
          orders that we do not know ─▶ GET each
fills     GET FILL activities since cursor ──▶ fills, positions       (services/fill_ledger)
settle    decisions that wait though their order is in the books      (services/found_orders)
close     decisions whose order is terminal
```

After an update of the broker's stream only `fills` and `close` are run (services/live_updates).

Pages are processed one transaction each; if power fails between them the next pass reads them
again and finds nothing to do. Each broker order is written in a savepoint of its own: a row that
cannot be stored becomes a discrepancy and the rest goes on (story 28).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.domain.events import Event, EventKind
from torghut.domain.orders import Order
from torghut.domain.reconcile import (
    Correction,
    CorrectionKind,
    Local,
    claims,
    diff,
    would_be_told,
)
from torghut.domain.values import canonical_instant, parse_instant
from torghut.ports import Broker, Page
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services import found_orders
from torghut.services.fill_ledger import FillLedger
from torghut.services.outside_facts import OutsideFacts
from torghut.services.questions import Questions
from torghut.services.recording import (
    ORDER_AFTER_END,
    book_own_order,
    guarded,
    note_duplicate,
    note_unreadable,
)
from torghut.storage import control, decisions, executions, order_targets
from torghut.storage.database import Database
from torghut.storage.executions import Observation, execution_state
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import DecisionRow, Lease

ACTOR = "reconciler"
PAGE_MAX = 500
CHUNK_MAX = 100
OVERLAP_S = 60
OPEN_MAX = 5_000
ASK_SINGLY_MAX = 20
ASK_FAILURES_MAX = 3
LIST_PAGES_MAX = 20
CLOSE_MAX = 1_000
SETTLE_MAX = 1_000
BUDGET_WAIT_S = 30.0

log = structlog.get_logger(__name__)

Counts = dict[str, int]
T = TypeVar("T")


class Reconciler:
    """Reconciles one account; passes asked for at the same time run one after the other."""

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        outside: OutsideFacts,
        *,
        clock: Clock,
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._outside = outside
        self._clock = clock
        self._pass = threading.Lock()
        self._fills = FillLedger(
            account,
            database,
            questions,
            see_orders=partial(self._book_orders, newest=None),
            clock=clock,
        )

    def run_once(self, lease: Lease, now: datetime) -> Counts:
        """One pass; returns how much each step wrote. Steps that failed count under `failed`."""
        with self._pass:
            return self._run(lease)

    def catch_up(self, lease: Lease, now: datetime) -> Counts:
        """Only what a fill or an end just heard of needs: missing fills, finished decisions.

        Asks the broker nothing where no fill is missing. Raises BrokerUnavailable.
        """
        with self._pass:
            with self._database.transaction() as tx:
                missing = executions.oldest_unledgered(tx, self._account)
            counts = self._fills.run(lease) if missing is not None else {}
            return counts | self._close_step(lease)

    def _run(self, lease: Lease) -> Counts:
        counts: Counts = {}
        steps: Sequence[tuple[str, Callable[[Lease], Counts]]] = (
            ("account", self._account_step),
            ("orders", self._orders_step),
            ("open", self._open_step),
            ("fills", self._fills.run),
            ("settle", self._settle_step),
            ("close", self._close_step),
        )
        for name, step in steps:
            try:
                for key, count in step(lease).items():
                    counts[key] = counts.get(key, 0) + count
            except (BrokerUnavailable, BrokerRefused) as error:
                counts["failed"] = counts.get("failed", 0) + 1
                log.warning("reconciliation step failed", step=name, error=str(error))
        if not counts.get("failed"):
            telemetry.RECONCILED_AT.labels(self._account).set(self._clock().timestamp())
        return counts

    # ------------------------------------------------------------------ steps

    def _account_step(self, _lease: Lease) -> Counts:
        if not self._outside.keep_fresh():
            raise BrokerUnavailable("account and positions were not answered")
        return {}

    def _orders_step(self, lease: Lease) -> Counts:
        """broker → local: pages ascending from the cursor, a full page never taken for the end."""
        with self._database.transaction() as tx:
            position = control.cursor(tx, self._account, "orders")
        after = _before(position)
        counts: Counts = {}
        seen: set[str] = set()
        while True:
            page = self._ask(partial(_page, after))
            newest = _newest(page)
            if page.unreadable:
                with self._database.transaction() as tx:
                    now = self._clock()
                    note_unreadable(tx, self._account, page, what="order", actor=ACTOR, now=now)
            for start in range(0, len(page), CHUNK_MAX):
                chunk = page[start : start + CHUNK_MAX]
                _add(counts, self._book_orders(lease, chunk, _newest(chunk)))
            fresh = {order.broker_order_id for order in page} - seen
            seen |= fresh
            if newest is None or not page.full:
                return counts
            if not fresh:
                log.warning("a full page of orders brought nothing new", after=str(after))
                return counts
            # an instant back: orders of the page's last instant may go on on the next page
            step_back = newest - timedelta(microseconds=1)
            after = step_back if after is None or step_back > after else newest

    def _open_step(self, lease: Lease) -> Counts:
        """local → broker: executions still open here; by list where that saves requests."""
        with self._database.transaction() as tx:
            rows = executions.unfinished(tx, self._account, limit=OPEN_MAX)
            lost = order_targets.lost_successors(tx, self._account, limit=ASK_SINGLY_MAX)
        if not rows and not lost:
            return {}
        listed = self._ask(lambda broker: broker.open_orders())
        seen = {order.broker_order_id: order for order in listed}
        missing = {r.broker_order_id: r for r in rows if r.broker_order_id not in seen}
        if len(missing) > ASK_SINGLY_MAX:
            oldest = min(row.broker_created_at for row in missing.values())
            seen |= self._listed(oldest - timedelta(seconds=OVERLAP_S))
        asked, failures = self._asked_singly(
            [*(id_ for id_ in lost if id_ not in seen), *(i for i in missing if i not in seen)]
        )
        ours = {row.broker_order_id for row in rows} | set(lost)
        found = [order for id_, order in (seen | asked).items() if id_ in ours]
        counts: Counts = {"unanswered": failures}
        for start in range(0, len(found), CHUNK_MAX):
            _add(counts, self._book_orders(lease, found[start : start + CHUNK_MAX], None))
        return counts

    def _listed(self, after: datetime) -> dict[str, Order]:
        """Orders of any status from `after` on, LIST_PAGES_MAX pages at the most."""
        seen: dict[str, Order] = {}
        for _ in range(LIST_PAGES_MAX):
            page = self._ask(partial(_page, after))
            seen |= {order.broker_order_id: order for order in page}
            newest = _newest(page)
            if not page.full or newest is None or newest <= after:
                break
            after = newest
        return seen

    def _asked_singly(self, broker_order_ids: Sequence[str]) -> tuple[dict[str, Order], int]:
        """Each order by its id; one question that fails does not keep the others from theirs."""
        seen: dict[str, Order] = {}
        failures = 0
        for id_ in broker_order_ids[:ASK_SINGLY_MAX]:
            try:
                order = self._questions.order(id_, budget_wait_s=BUDGET_WAIT_S)
            except BrokerUnavailable as error:
                failures += 1
                log.info("order not answered", broker_order_id=id_, error=str(error))
                if failures == ASK_FAILURES_MAX:
                    break
                continue
            if order is None:
                log.warning("an open order is unknown to the broker", broker_order_id=id_)
            else:
                seen[id_] = order
        return seen, failures

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
            count, oldest = decisions.doubts(tx, self._account)
        telemetry.IN_DOUBT.labels(self._account).set(count)
        age_s = (now - oldest).total_seconds() if oldest else 0.0
        telemetry.IN_DOUBT_AGE.labels(self._account).set(age_s)
        return {"closed": len(closed)}

    # ------------------------------------------------------------------ orders

    def see_orders(self, lease: Lease, orders: Sequence[Order]) -> Counts:
        """Book orders as the broker shows them, whosever they are."""
        return self._book_orders(lease, orders, None)

    def _book_orders(self, lease: Lease, page: Sequence[Order], newest: datetime | None) -> Counts:
        now = self._clock()
        counts: Counts = {}
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            corrections, owners, unheard = self._diff(tx, page)
            if corrections:
                fence(tx, lease)
            counts["unheard"] = unheard
            for correction in corrections:
                owner = owners.get(correction.order.client_order_id)
                order = correction.order
                stored = guarded(
                    tx,
                    self._account,
                    order.broker_order_id,
                    partial(self._apply, tx, correction, owner, lease, now),
                    actor=ACTOR,
                    what="order",
                    now=now,
                )
                key = correction.kind.value if stored else "poison"
                counts[key] = counts.get(key, 0) + 1
            if newest is not None:
                control.set_cursor(tx, self._account, "orders", canonical_instant(newest), now=now)
            reached(RecoveryPoint.RECONCILE_BEFORE_COMMIT)
        reached(RecoveryPoint.RECONCILE_AFTER_COMMIT)
        return counts

    def _diff(
        self, tx: Connection, page: Sequence[Order]
    ) -> tuple[list[Correction], dict[str, DecisionRow], int]:
        """Corrections, the decisions concerned, and how many of them an update would have told."""
        known = executions.by_broker_ids(tx, [order.broker_order_id for order in page])
        adopted = frozenset(id_ for id_, row in known.items() if row.decision_id is None)
        attached = known.keys() - adopted
        owners = self._owners(tx, page, [o for o in page if o.broker_order_id not in attached])
        local = Local(
            executions={id_: execution_state(row) for id_, row in known.items()},
            decisions={id_: row.status for id_, row in owners.items()},
            adopted=adopted,
        )
        corrections = diff(page, local)
        folded = [c.order for c in corrections if c.kind is CorrectionKind.FOLD]
        unheard = sum(would_be_told(correction, local) for correction in corrections)
        return corrections, owners | self._owners(tx, page, folded), unheard

    def _owners(
        self, tx: Connection, page: Sequence[Order], orders: Sequence[Order]
    ) -> dict[str, DecisionRow]:
        """client_order_id → the decision whose order, successor or leg it is, locked."""
        owners = order_targets.owners(tx, orders)
        hashes = claims(page)
        hanging = {
            order.client_order_id: hashes[order.client_order_id]
            for order in orders
            if order.client_order_id not in owners
            and hashes[order.client_order_id] != order.client_order_id
        }
        if not hanging:
            return owners
        found = owners | decisions.by_hashes(tx, sorted(set(hanging.values())))
        return owners | {id_: found[hash_] for id_, hash_ in hanging.items() if hash_ in found}

    def _apply(
        self,
        tx: Connection,
        correction: Correction,
        owner: DecisionRow | None,
        lease: Lease,
        now: datetime,
    ) -> None:
        order = correction.order
        if owner is None:
            observation = Observation(order, None, "external", "rest")
            recorded = executions.record(tx, self._account, observation, now=now)
            note_duplicate(tx, self._account, order, recorded, actor=ACTOR, now=now)
            if recorded.created:
                payload = {"broker_order_id": order.broker_order_id, "symbol": order.symbol}
                event = Event(EventKind.ADOPTED, ACTOR, self._account, None, payload)
                control.add_events(tx, [event], now=now)
            return
        if not book_own_order(tx, owner, order, origin="reconciled", source="rest", now=now):
            return
        if correction.kind is CorrectionKind.LATE:
            evidence = {"broker_order_id": order.broker_order_id, "decision": owner.status.value}
            control.open_discrepancy(
                tx,
                self._account,
                ORDER_AFTER_END,
                owner.decision_hash,
                evidence,
                actor=ACTOR,
                now=now,
            )
        found_orders.settle(tx, owner, order.broker_order_id, actor=ACTOR, lease=lease, now=now)

    def _ask(self, question: Callable[[Broker], T]) -> T:
        return self._questions.ask(question, budget_wait_s=BUDGET_WAIT_S)


def _page(after: datetime | None, broker: Broker) -> Page[Order]:
    return broker.orders(after=after, limit=PAGE_MAX)


def _before(position: str | None) -> datetime | None:
    if position is None:
        return None
    return parse_instant(position) - timedelta(seconds=OVERLAP_S)


def _newest(page: Sequence[Order]) -> datetime | None:
    return max((_listed_at(order) for order in page), default=None)


def _listed_at(order: Order) -> datetime:
    """What the broker's list is sorted by."""
    return order.submitted_at or order.created_at


def _add(counts: Counts, more: Counts) -> None:
    for key, count in more.items():
        counts[key] = counts.get(key, 0) + count
