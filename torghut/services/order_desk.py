"""The order desk: cancels and replacements, by the same protocol as a submission (P1, P3, P4).

One pass, by one thread; its calls run on a pool and are over when the pass is:

```
1 sweep    sending, and nobody works on it ──────────────────▶ in_doubt      (its writer died)
2 intent   Tx: books · judges · fence · requested → sending, attempt, client_order_id, events
           commit ─ intent is durable ─────────────────────────────────────────────────────
3 call     no transaction: DELETE, PATCH or a look                     (services/order_calls)
4 record   Tx: books · fence · orders seen · step · events; commit
```

If power fails: before the commit of 2 nothing happened. Between 2 and 4 the action stands
`sending`; the next pass, here or elsewhere, moves it to in_doubt and looks. A cancel that turns
out not to have been taken is asked for again; a replacement is sent again only when its
client_order_id is proven absent, and then with that very id at that very order. A stalled process
that sends late can therefore only cancel what was to be canceled, or be refused.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Executor as Pool
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from torghut.clock import Clock
from torghut.domain.events import Event, EventKind
from torghut.domain.order_actions import (
    ActionDoubt,
    ActionReason,
    ActionStatus,
    ActionStep,
    Operation,
    Seen,
    after_cancel,
    after_replace,
    graced,
    seen,
)
from torghut.domain.orders import Order
from torghut.domain.submission import LOOKUP_CAP_S, Proof
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services.order_calls import Acted, OrderCaller, Task
from torghut.services.order_intents import ACTOR, IntentWriter, ended
from torghut.services.outside_facts import OutsideFacts
from torghut.services.rate_budget import RateBudget
from torghut.services.recording import Found, book_own_orders
from torghut.services.risk_engine import Outside
from torghut.services.session_gate import ANY_SESSION
from torghut.services.transitions import JITTER
from torghut.storage import control, executions, order_actions, order_targets
from torghut.storage.database import Database
from torghut.storage.executions import Observation
from torghut.storage.leases import fence, lock_books, lock_risk
from torghut.storage.order_actions import ActionRow, Move
from torghut.storage.rows import Lease

BATCH_MAX = 32
_KINDS = {
    ActionStatus.REQUESTED: EventKind.ACTION_RETURNED,
    ActionStatus.CONFIRMING: EventKind.ACTION_CONFIRMING,
    ActionStatus.IN_DOUBT: EventKind.ACTION_IN_DOUBT,
    ActionStatus.DONE: EventKind.ACTION_DONE,
    ActionStatus.REFUSED: EventKind.ACTION_REFUSED,
    ActionStatus.MOOT: EventKind.ACTION_MOOT,
}


class OrderDesk:
    """Works off one account's actions. `run_once` is called by one thread; `pool` calls."""

    def __init__(
        self,
        account: str,
        database: Database,
        caller: OrderCaller,
        intents: IntentWriter,
        outside: OutsideFacts,
        budget: RateBudget,
        *,
        absence_grace_s: float,
        pool: Pool,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._account = account
        self._database = database
        self._caller = caller
        self._intents = intents
        self._outside = outside
        self._budget = budget
        self._absence_grace_s = absence_grace_s
        self._pool = pool
        self._clock = clock
        self._rng = rng

    def run_once(self, lease: Lease, now: datetime) -> dict[str, int]:
        """One pass over the due actions, at most BATCH_MAX; returns counts."""
        swept = self._sweep(lease, now)
        with self._database.transaction() as tx:
            rows = order_actions.due(tx, self._account, now=now, limit=BATCH_MAX)
        if not rows:
            return {"swept": swept} if swept else {}
        tasks, settled = self._take_up(rows, lease, now)
        acted = list(self._pool.map(self._caller.act, tasks)) if tasks else []
        if acted:
            settled += self._record(acted, lease)
        return {"swept": swept, "actions": len(rows), "called": len(acted), "settled": settled}

    # ------------------------------------------------------------------ 1 sweep

    def _sweep(self, lease: Lease, now: datetime) -> int:
        with self._database.transaction() as tx:
            rows = order_actions.orphans(tx, self._account, limit=BATCH_MAX)
            if not rows:
                return 0
            fence(tx, lease)
            step = ActionStep(ActionStatus.IN_DOUBT, ActionReason.OWNER_LOST)
            for row in rows:
                self._move(tx, Move(row=row, step=step, detail="its writer is gone"), lease, now)
            reached(RecoveryPoint.ACTION_BEFORE_SWEEP)
        reached(RecoveryPoint.ACTION_AFTER_SWEEP)
        return len(rows)

    # ------------------------------------------------------------------ 2 intent

    def _take_up(
        self, rows: Sequence[ActionRow], lease: Lease, now: datetime
    ) -> tuple[list[Task], int]:
        outside = self._facts(rows, now)
        tasks: list[Task] = []
        settled = 0
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            lock_risk(tx, self._account)
            fence(tx, lease)
            now = self._clock()
            for row in order_actions.locked(tx, [row.action_id for row in rows]):
                taken = self._taken_up(tx, row, outside, lease, now)
                if isinstance(taken, Task):
                    tasks.append(taken)
                elif taken is not None:
                    settled += self._move(tx, taken, lease, now)
            reached(RecoveryPoint.ACTION_BEFORE_COMMIT)
        reached(RecoveryPoint.ACTION_AFTER_COMMIT)
        return tasks, settled

    def _taken_up(
        self, tx: Connection, row: ActionRow, outside: Outside, lease: Lease, now: datetime
    ) -> Task | Move | None:
        if row.status is ActionStatus.REQUESTED:
            taken = self._intents.take_up(tx, row, outside, lease, now)
            return (
                taken if isinstance(taken, Task) else Move(row=row, step=taken[0], detail=taken[1])
            )
        if row.status not in (ActionStatus.CONFIRMING, ActionStatus.IN_DOUBT):
            return None  # it moved since it was listed
        if row.operation is Operation.CANCEL:
            assert row.broker_order_id is not None
            order = order_actions.standing_of_order(tx, row.broker_order_id)
            if order is not None and seen(order.status) in (Seen.CANCELED, Seen.ENDED):
                step, said = ended(order.status, order.cum_qty)
                return Move(row=row, step=step, detail=said)
        return Task(row, call=False)

    def _facts(self, rows: Sequence[ActionRow], now: datetime) -> Outside:
        replaces = [row for row in rows if row.operation is Operation.REPLACE]
        wanted = [row for row in replaces if row.status is ActionStatus.REQUESTED]
        if not wanted:
            return Outside(quotes={}, assets={}, volumes={}, account=None, sessions=ANY_SESSION)
        wants = self._intents.wants
        symbols = sorted({str(row.request["symbol"]) for row in wanted})
        return Outside(
            quotes=self._outside.quotes(symbols, now),
            assets=self._outside.assets(symbols, now) if wants("check_assets") else {},
            volumes=self._outside.volumes(symbols, now) if wants("max_adv_pct") else {},
            account=self._outside.account(now),
            sessions=ANY_SESSION,
        )

    # ------------------------------------------------------------------ 4 record

    def _record(self, acted: Sequence[Acted], lease: Lease) -> int:
        now = self._clock()
        settled = 0
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            for one in acted:
                booked = self._book(tx, one, now)
                settled += self._move(tx, self._next(one, booked, now), lease, now)
            reached(RecoveryPoint.ACTION_BEFORE_OUTCOME)
        reached(RecoveryPoint.ACTION_AFTER_OUTCOME)
        return settled

    def _book(self, tx: Connection, acted: Acted, now: datetime) -> bool:
        """Fold what was seen; False if one of the orders cannot be stored."""
        # a successor after its predecessor: it may be ours only because of that one
        orders = sorted(acted.orders, key=lambda order: order.created_at)
        stored = True
        for order in orders:
            owner = order_targets.owners(tx, [order]).get(order.client_order_id)
            answered = acted.answer is not None and order is acted.answer.order
            if owner is None:
                self._book_external(tx, order, now)
                continue
            origin, source = ("submitted", "submit") if answered else ("recovered", "lookup")
            stored &= all(book_own_orders(tx, [Found(owner, order, origin, source)], now=now))
        return stored

    def _book_external(self, tx: Connection, order: Order, now: datetime) -> None:
        seen_now = Observation(order, None, "external", "lookup")
        executions.record(tx, self._account, [seen_now], now=now)

    def _next(self, acted: Acted, booked: bool, now: datetime) -> Move:
        row = acted.row
        past = ActionDoubt(
            status=row.status,
            since=row.in_doubt_since,
            attempts=row.attempts,
            looks=row.looks,
            misses=row.misses,
            refused=row.outcome in (Proof.REFUSED.value, Proof.ACCOUNT_REFUSED.value),
        )
        wait_s = 0.0
        if acted.proof is Proof.RATE_LIMITED and acted.answer is not None:
            wait_s = self._budget.pause(acted.answer.retry_at, now=now)
        old = graced(past, now, absence_grace_s=self._absence_grace_s)
        if row.operation is Operation.CANCEL:
            step = after_cancel(acted.proof, acted.order, past, wait_s=wait_s, graced=old)
        else:
            step = after_replace(
                acted.proof, acted.successor, acted.order, past, wait_s=wait_s, graced=old
            )
        if not booked:
            step = ActionStep(ActionStatus.IN_DOUBT, ActionReason.NO_DEFINITE_ANSWER, LOOKUP_CAP_S)
        follow = None
        if step.reason is ActionReason.FOLLOWS_SUCCESSOR:
            follow = next((o.replaced_by for o in acted.orders if o.replaced_by), None)
        return Move(
            row=row,
            step=step,
            detail=acted.message or f"the order is {acted.order}",
            proof=acted.proof,
            answer=acted.answer,
            new_order_id=acted.new_order_id,
            follow=follow,
        )

    def _move(self, tx: Connection, move: Move, lease: Lease, now: datetime) -> int:
        """Take the step with its event; 1 if the action ended with it."""
        row, step = move.row, move.step
        wait_s = step.wait_s * self._rng.uniform(1.0, 1.0 + JITTER)
        move = replace(move, wait_s=wait_s)
        moved = order_actions.advance(
            tx, move, before=row.status, token=lease.fencing_token, now=now
        )
        if not moved or step.status is row.status:
            return 0
        payload = {
            "action_id": row.action_id,
            "operation": row.operation.value,
            "reason": step.reason.value,
            "detail": move.detail,
        }
        event = Event(_KINDS[step.status], ACTOR, self._account, row.decision_hash, payload)
        control.add_events(tx, [event], now=now)
        return int(step.status in (ActionStatus.DONE, ActionStatus.REFUSED, ActionStatus.MOOT))
