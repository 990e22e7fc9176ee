"""Settle doubt: ask the broker for every in_doubt decision's client_order_id until it is definite.

    due in_doubt rows ─▶ lookups, no transaction open ─▶ Tx: fence · advance · execution · events

Found is submitted. Absent counts only after `absence_grace_s` and three misses; then the decision
may be sent again, or is rejected or expired. No answer proves nothing: asked again with backoff,
for ever if need be, and an operator sees the row (P2, P4). If power fails anywhere in here, the
row still stands in_doubt and is asked for again.
"""

from __future__ import annotations

import random
from concurrent.futures import Executor as Pool
from datetime import datetime

from sqlalchemy import Connection

from torghut.clock import Clock
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.orders import Order
from torghut.domain.submission import (
    UNTIL_EXPIRED,
    Doubt,
    Proof,
    Retries,
    Step,
    after_lookup,
)
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services.placing import Placer
from torghut.services.recording import CANNOT_BE_BOOKED, Found, book_own_orders
from torghut.services.transitions import Taking, take
from torghut.storage import attempts, decisions
from torghut.storage.attempts import Asked
from torghut.storage.database import Database
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import DecisionRow, Lease

ACTOR = "settler"
BATCH_MAX = 16


class Settler:
    """Settles one account's doubts. `run_once` is called by one thread."""

    def __init__(
        self,
        account: str,
        database: Database,
        placer: Placer,
        *,
        absence_grace_s: float,
        retries: Retries = UNTIL_EXPIRED,
        pool: Pool,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._account = account
        self._database = database
        self._placer = placer
        self._absence_grace_s = absence_grace_s
        self._retries = retries
        self._pool = pool
        self._clock = clock
        self._rng = rng

    def run_once(self, lease: Lease, now: datetime) -> dict[str, int]:
        """Ask for the due doubts, oldest first, at most BATCH_MAX; returns counts."""
        with self._database.transaction() as tx:
            rows = decisions.due(
                tx, self._account, DecisionStatus.IN_DOUBT, now=now, limit=BATCH_MAX
            )
            if not rows:
                return {}
            proofs = attempts.last_proofs(tx, [row.decision_id for row in rows])
        reached(RecoveryPoint.SETTLE_BEFORE_CALL)
        answers = list(self._pool.map(self._ask, rows))
        reached(RecoveryPoint.SETTLE_AFTER_CALL)
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            settled = self._write(tx, answers, proofs, lease, now)
            reached(RecoveryPoint.SETTLE_BEFORE_COMMIT)
        reached(RecoveryPoint.SETTLE_AFTER_COMMIT)
        return {"asked": len(rows), "settled": settled}

    def _ask(self, row: DecisionRow) -> tuple[DecisionRow, Asked, Order | None]:
        asked, order = self._placer.ask(row, row.attempts)
        return row, asked, order

    def _write(
        self,
        tx: Connection,
        answers: list[tuple[DecisionRow, Asked, Order | None]],
        proofs: dict[int, Proof],
        lease: Lease,
        now: datetime,
    ) -> int:
        attempts.add_lookups(
            tx, [asked for _, asked, _ in answers], token=lease.fencing_token, now=now
        )
        found = [
            Found(row, order, "recovered", "lookup")
            for row, _, order in answers
            if order is not None
        ]
        stored = book_own_orders(tx, found, now=now)
        lost = {
            one.decision.decision_id for one, kept in zip(found, stored, strict=True) if not kept
        }
        takings: list[Taking] = []
        for row, asked, _ in answers:
            step = self._step(row, asked, proofs.get(row.decision_id))
            detail = asked.message or f"lookup: {asked.proof}"
            if row.decision_id in lost:
                step, detail = CANNOT_BE_BOOKED, "the order exists but cannot be booked"
            missed = asked.proof is Proof.ABSENT
            takings.append(Taking(row, step, detail, row.attempts, asked=True, missed=missed))
        moved = take(tx, takings, lease, actor=ACTOR, now=now, rng=self._rng)
        return sum(
            taking.row.decision_id in moved and taking.step.status is not DecisionStatus.IN_DOUBT
            for taking in takings
        )

    def _step(self, row: DecisionRow, asked: Asked, last: Proof | None) -> Step:
        assert row.in_doubt_since is not None
        doubt = Doubt(
            since=row.in_doubt_since,
            lookups=row.lookups,
            misses=row.lookup_misses,
            refused=last is Proof.REFUSED,
            exists=last is Proof.EXISTS,
            spent=self._retries.spent(row.attempts),
            expires_at=row.expires_at,
        )
        # judged at the instant of the question: the answer cannot be newer evidence than that
        return after_lookup(
            asked.proof, doubt, asked.asked_at, absence_grace_s=self._absence_grace_s
        )
