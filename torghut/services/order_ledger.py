"""Orders into the books: what `diff` finds about the orders of one page becomes rows.

```
page ─▶ Tx: books locked · diff ─▶ ours: execution, decision settled   (services/recording)
                                 ─▶ nobody's: adopted, many at once
                                 ─▶ cannot be stored: a discrepancy, the rest goes on (story 28)
            cursor · commit
```

If power fails before the commit the page is read again; what is booked already teaches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from torghut import telemetry
from torghut.clock import Clock
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
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services import found_orders
from torghut.services.late_orders import LateOrders
from torghut.services.recording import (
    Found,
    guarded,
    note_duplicate,
    note_taken,
    write_own_orders,
)
from torghut.storage import (
    control,
    cursors,
    decisions,
    executions,
    order_targets,
)
from torghut.storage.database import Database, after_commit
from torghut.storage.executions import Observation, execution_state
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import DecisionRow, Lease

ACTOR = "reconciler"
CHUNK_MAX = 100

Counts = dict[str, int]


class OrderLedger:
    """Books the orders of one account."""

    def __init__(
        self, account: str, database: Database, late_orders: LateOrders, clock: Clock
    ) -> None:
        self._account = account
        self._database = database
        self._late_orders = late_orders
        self._clock = clock

    def book(
        self,
        lease: Lease,
        orders: Sequence[Order],
        *,
        cursor: bool = False,
        restoring: bool = False,
    ) -> Counts:
        """Book orders as the broker shows them, whosever they are; returns counts.

        With `cursor` they are a page of the list, and the cursor goes with it. `restoring` stores
        observations again that are gone, though they teach nothing.
        """
        counts: Counts = {}
        for start in range(0, len(orders), CHUNK_MAX):
            chunk = orders[start : start + CHUNK_MAX]
            for what, count in self._book(lease, chunk, cursor, restoring).items():
                counts[what] = counts.get(what, 0) + count
        return counts

    def corrections(
        self, tx: Connection, orders: Sequence[Order], *, restoring: bool = False
    ) -> tuple[list[Correction], dict[str, DecisionRow], int]:
        """Corrections, the decisions concerned, and how many of them an update would have told."""
        known = executions.by_broker_ids(tx, [order.broker_order_id for order in orders])
        adopted = frozenset(id_ for id_, row in known.items() if row.decision_id is None)
        attached = known.keys() - adopted
        owners = self._owners(tx, orders, [o for o in orders if o.broker_order_id not in attached])
        local = Local(
            executions={id_: execution_state(row) for id_, row in known.items()},
            decisions={id_: row.status for id_, row in owners.items()},
            adopted=adopted,
            unobserved=executions.unobserved(tx, orders) if restoring else frozenset(),
        )
        corrections = diff(orders, local)
        folded = [c.order for c in corrections if c.kind is CorrectionKind.FOLD]
        unheard = sum(would_be_told(correction, local) for correction in corrections)
        return corrections, owners | self._owners(tx, orders, folded), unheard

    def _book(self, lease: Lease, chunk: Sequence[Order], cursor: bool, restoring: bool) -> Counts:
        now = self._clock()
        counts: Counts = {}
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            corrections, owners, unheard = self.corrections(tx, chunk, restoring=restoring)
            if corrections:
                fence(tx, lease)
            counts["unheard"] = unheard
            taken = {order.broker_order_id for order in chunk}
            adopted = self._adopt(tx, corrections, owners, now)
            for correction in corrections:
                order = correction.order
                stored = order.broker_order_id in adopted or guarded(
                    tx,
                    self._account,
                    order.broker_order_id,
                    partial(
                        self._apply, tx, correction, owners.get(order.client_order_id), lease, now
                    ),
                    actor=ACTOR,
                    what="order",
                    now=now,
                )
                if not stored:
                    taken.discard(order.broker_order_id)
                key = correction.kind.value if stored else "poison"
                counts[key] = counts.get(key, 0) + 1
                if stored:
                    after_commit(tx, telemetry.CORRECTIONS.labels(key).inc)
            note_taken(tx, self._account, sorted(taken), actor=ACTOR, now=now)
            newest = cursors.newest(map(listed_at, chunk), now=now)
            if cursor and newest is not None:
                cursors.advance(tx, self._account, cursors.ORDERS, newest, now=now)
            reached(RecoveryPoint.RECONCILE_BEFORE_COMMIT)
        reached(RecoveryPoint.RECONCILE_AFTER_COMMIT)
        return counts

    def _adopt(
        self,
        tx: Connection,
        corrections: Sequence[Correction],
        owners: Mapping[str, DecisionRow],
        now: datetime,
    ) -> set[str]:
        """Strangers' orders that are new here, in one go; the rest is looked at one by one."""
        strangers = [
            c.order
            for c in corrections
            if c.kind is CorrectionKind.ADOPT and c.order.client_order_id not in owners
        ]
        if len(strangers) < 2:
            return set()
        try:
            with tx.begin_nested():
                created = executions.adopt(tx, self._account, strangers, now=now)
        except (DataError, IntegrityError, ArithmeticError, ValueError):
            return set()  # one of them cannot be stored: which one is found one by one
        adopted = [order for order in strangers if order.broker_order_id in created]
        control.add_events(tx, [self._adopted(order) for order in adopted], now=now)
        return set(created)

    def _adopted(self, order: Order) -> Event:
        payload = {"broker_order_id": order.broker_order_id, "symbol": order.symbol}
        return Event(EventKind.ADOPTED, ACTOR, self._account, None, payload)

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
            [recorded] = executions.record(tx, self._account, [observation], now=now)
            note_duplicate(tx, self._account, order, recorded, actor=ACTOR, now=now)
            if recorded.created:
                control.add_events(tx, [self._adopted(order)], now=now)
            return
        write_own_orders(tx, [Found(owner, order, "reconciled", "rest")], now=now)
        if correction.kind is CorrectionKind.LATE:
            self._late_orders.note(tx, owner, order, now=now)
        found_orders.settle(tx, owner, order.broker_order_id, actor=ACTOR, lease=lease, now=now)


def listed_at(order: Order) -> datetime:
    """What the broker's list is sorted by."""
    return order.submitted_at or order.created_at
