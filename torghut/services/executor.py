"""The executor: approved decisions become broker orders, at most one each (P1, P3, P4).

One replica owns the account (a lease with a fencing token); this is its only submitting thread,
with a pool of callers. One pass:

```
1 sweep    submitting, and nobody works on it ──────────────▶ in_doubt     (its writer died)
2 claim    Tx: fence · lock due rows · expire · judge · verdicts · submitting + attempt · events
           commit ─ intent is durable ─────────────────────────────────────────────────────
3 place    no transaction: [lookup first, if not the first attempt]
           POST /orders with client_order_id = decision_hash
           [lookup after, if the answer was a refusal or "must be unique"]
4 record   Tx: fence · outcome · execution · advance · events; commit (many outcomes at once)
```

If power fails: before the commit of 2 — nothing happened, the rows are claimed again. Between 2
and 4 — the row stands `submitting`; the next owner's sweep moves it to in_doubt and the settler
asks the broker for its client_order_id. After 4 — done. A stalled process that posts after it
lost the lease can only post the same client_order_id, which the broker refuses if it is taken.

A database that fails at 4 keeps the outcomes in memory, and they are written when it is back. So
are those of a process that lost the lease and has it again: what its order then means to a decision
that others have moved on is `found_orders.follow`.
"""

from __future__ import annotations

import queue
import random
from collections.abc import Callable, Mapping
from concurrent.futures import Executor as Pool
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.config import Settings
from torghut.domain.errors import DatabaseUnavailable
from torghut.domain.exposure import TradingState
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.orders import Order
from torghut.domain.submission import Proof, Step, after_submit
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services import found_orders
from torghut.services.claiming import ACTOR, CLAIMED, Claimer
from torghut.services.late_orders import LateOrders
from torghut.services.outside_facts import OutsideFacts
from torghut.services.placing import Claim, Placed, Placer
from torghut.services.rate_budget import RateBudget
from torghut.services.recording import CANNOT_BE_BOOKED, Found, book_own_orders
from torghut.services.risk_engine import Outside
from torghut.services.session_gate import SessionGate, SessionPolicies
from torghut.services.transitions import Taking, take
from torghut.storage import attempts, control, decisions
from torghut.storage.database import Database, after_commit
from torghut.storage.leases import LeaseLost, fence, lock_books, lock_risk
from torghut.storage.rows import Lease

SWEEP_MAX = 500
EXPIRE_EVERY_S = 1.0
STARVED_LOG_S = 10.0
LOOK_MAX = 200
AHEAD_S = 0.05
CALL_S = 1.0  # before the first call
CALLS = 8  # that the time of a call is averaged over
QUOTED = ("price_collar_bps", "max_quote_age_s")
"""Limits that need a quote even where the order names its price."""

log = structlog.get_logger(__name__)


class Executor:
    """Submits for one account. `run_once` is called by one thread; `pool` makes the calls."""

    def __init__(
        self,
        account: str,
        database: Database,
        placer: Placer,
        outside: OutsideFacts,
        sessions: SessionPolicies,
        claimer: Claimer,
        budget: RateBudget,
        settings: Settings,
        *,
        pool: Pool,
        clock: Clock,
        rng: random.Random,
        on_placed: Callable[[], None],
    ) -> None:
        self._account = account
        self._database = database
        self._placer = placer
        self._outside = outside
        self._sessions = sessions
        self._claimer = claimer
        self._budget = budget
        self._settings = settings
        self._pool = pool
        self._clock = clock
        self._rng = rng
        self._on_placed = on_placed
        self._late_orders = LateOrders(account, cancel=settings.late_orders == "cancel")
        self._in_flight: dict[int, datetime] = {}  # decision_id → when it was claimed
        self._placed: queue.SimpleQueue[tuple[Placed, float]] = queue.SimpleQueue()
        self._unwritten: list[Placed] = []
        self._expired_at: datetime | None = None
        self._starved_at: datetime | None = None
        self._flooded = False
        self._call_s = CALL_S  # what a call took lately

    def run_once(self, lease: Lease, now: datetime, *, claiming: bool = True) -> dict[str, int]:
        """One pass; with `claiming` off only what is under way is finished (shutdown)."""
        recorded = self._record(lease)
        swept = self._sweep(lease, now)
        expired = self._expire_overdue(lease, now)
        claimed = self._claim_and_place(lease, now) if claiming else {}
        return {"recorded": recorded, "swept": swept, "expired": expired, **claimed}

    @property
    def in_flight(self) -> int:
        """Decisions whose call is under way or whose outcome is not written yet."""
        return len(self._in_flight)

    # ------------------------------------------------------------------ 1 sweep

    def _sweep(self, lease: Lease, now: datetime) -> int:
        with self._database.transaction() as tx:
            rows = decisions.orphans(tx, self._account, in_flight=self._in_flight, limit=SWEEP_MAX)
            if not rows:
                return 0
            fence(tx, lease)
            step = Step(DecisionStatus.IN_DOUBT, Reason.OWNER_LOST)
            takings = [Taking(row, step, "its writer is gone", row.attempts) for row in rows]
            self._take(tx, takings, lease, now)
            reached(RecoveryPoint.SWEEP_BEFORE_COMMIT)
        reached(RecoveryPoint.SWEEP_AFTER_COMMIT)
        return len(rows)

    def _expire_overdue(self, lease: Lease, now: datetime) -> int:
        """Expire what no claim takes up: approved decisions while halted or in shadow mode."""
        if self._expired_at and now - self._expired_at < timedelta(seconds=EXPIRE_EVERY_S):
            return 0
        self._expired_at = now
        with self._database.transaction() as tx:
            rows = decisions.overdue(tx, self._account, now=now, limit=SWEEP_MAX)
            if rows:
                fence(tx, lease)
                self._claimer.expire(tx, rows, lease, now)
        return len(rows)

    # ------------------------------------------------------------------ 2 claim

    def _claim_and_place(self, lease: Lease, now: datetime) -> dict[str, int]:
        free = self._room()
        if free <= 0:
            return {}
        # where nothing of a full look could be sent, what comes next is probably denied as well:
        # then many are judged at once, and still no more claimed than there are callers
        look = LOOK_MAX if self._flooded else free
        with self._database.transaction() as tx:
            resting = control.trading_states(tx, self._account).halted()
            symbols = decisions.due_symbols(
                tx, self._account, CLAIMED, resting=resting, now=now, limit=look
            )
        if not symbols:
            return {}
        tokens = self._budget.for_orders(free)
        if not tokens:
            self._say_starved(now)
        claims: list[Claim] = []
        counts: dict[str, int] = {}
        try:
            outside = self._look_outside(symbols, now)
            if tokens:
                limit = LOOK_MAX if self._flooded else tokens
                claims, counts = self._claim(lease, outside, limit=limit, room=tokens)
                self._flooded = not claims and counts["claimed"] >= limit
        finally:  # a claim that failed has used none
            self._budget.give_back(tokens - len(claims))
        self._call(claims)
        return counts

    def _room(self) -> int:
        """How many may be claimed now: what the callers send within AHEAD_S, and at least one for
        each. What waits for a caller is asked once more before it is sent (placing)."""
        rounds = max(1.0, AHEAD_S / max(self._call_s, 1e-4))
        ahead = min(int(self._settings.submit_threads * rounds), LOOK_MAX)
        return ahead - len(self._in_flight)

    def _look_outside(self, symbols: Mapping[str, bool], now: datetime) -> Outside:
        """What the limits that are on need to know; `symbols` says which need a quote."""
        wants = self._claimer.wants
        quoted = wants(*QUOTED)
        return Outside(
            quotes=self._outside.quotes(
                [s for s, quote in symbols.items() if quote or quoted], now
            ),
            assets=self._outside.assets(symbols, now) if wants("check_assets") else {},
            volumes=self._outside.volumes(symbols, now) if wants("max_adv_pct") else {},
            account=self._outside.account(now),
            sessions=SessionGate(
                self._sessions,
                now,
                self._outside.market_clock(now) if self._sessions.asks else None,
            ),
        )

    def _say_starved(self, now: datetime) -> None:
        if self._starved_at and now - self._starved_at < timedelta(seconds=STARVED_LOG_S):
            return
        self._starved_at = now
        log.warning("orders wait for the rate budget", left=round(self._budget.left))

    def _claim(
        self, lease: Lease, outside: Outside, *, limit: int, room: int
    ) -> tuple[list[Claim], dict[str, int]]:
        claims: list[Claim] = []
        try:
            with self._database.transaction() as tx:
                lock_risk(tx, self._account)
                fence(tx, lease, margin_s=self._settings.lease_ttl_s / 5)
                now = self._clock()
                claims, seen = self._claimer.claim(
                    tx, lease, outside, limit=limit, room=room, now=now
                )
                self._in_flight.update((claim.row.decision_id, now) for claim in claims)
                reached(RecoveryPoint.CLAIM_BEFORE_COMMIT)
        except BaseException:
            # committed or not, nothing was sent: what did get to `submitting` is swept
            for claim in claims:
                self._in_flight.pop(claim.row.decision_id, None)
            raise
        reached(RecoveryPoint.CLAIM_AFTER_COMMIT)
        return claims, {"claimed": seen, "submitting": len(claims)}

    # ------------------------------------------------------------------ 3 place

    def _call(self, claims: list[Claim]) -> None:
        for place, claim in enumerate(claims):
            try:
                self._pool.submit(self._place_one, claim)
            except RuntimeError:  # no thread to be had: the rest is nobody's, and swept
                for left in claims[place:]:
                    self._in_flight.pop(left.row.decision_id, None)
                raise

    def _place_one(self, claim: Claim) -> None:
        """On a pool thread; always leaves an outcome."""
        began = self._clock()
        placed = self._placer.place(claim)
        self._placed.put((placed, (self._clock() - began).total_seconds()))
        self._on_placed()

    # ------------------------------------------------------------------ 4 record

    def _record(self, lease: Lease) -> int:
        while not self._placed.empty():
            placed, took_s = self._placed.get()
            self._unwritten.append(placed)
            self._call_s += (took_s - self._call_s) / CALLS
        if not self._unwritten:
            return 0
        batch = self._unwritten
        try:
            self._write_outcomes(batch, lease)
        except LeaseLost:
            # the account has another owner, or will have: its sweep settles these by lookup
            log.warning("lease lost with outcomes unwritten", count=len(batch))
            self._forget(batch)
            raise
        except DatabaseUnavailable:
            raise  # kept, and written again: advance and set_outcomes change nothing twice
        self._forget(batch)
        return len(batch)

    def _forget(self, batch: list[Placed]) -> None:
        self._unwritten = []
        for placed in batch:
            self._in_flight.pop(placed.row.decision_id, None)

    def _write_outcomes(self, batch: list[Placed], lease: Lease) -> None:
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            takings = self._book(tx, batch, now)
            attempts.set_outcomes(
                tx,
                [(p.row.decision_id, p.attempt_no, p.proof, p.answer) for p in batch],
                now=now,
            )
            lookups = [asked for placed in batch for asked in placed.asked]
            attempts.add_lookups(tx, lookups, token=lease.fencing_token, now=now)
            moved = self._take(tx, takings, lease, now, before=DecisionStatus.SUBMITTING)
            self._follow(tx, batch, moved, lease, now)
            after_commit(tx, partial(_count, batch))
            reached(RecoveryPoint.OUTCOME_BEFORE_COMMIT)
        reached(RecoveryPoint.OUTCOME_AFTER_COMMIT)

    def _follow(
        self, tx: Connection, batch: list[Placed], moved: set[int], lease: Lease, now: datetime
    ) -> None:
        """The orders of decisions that had moved on while we did not own the account."""
        orders = {
            placed.row.decision_hash: placed.order
            for placed in batch
            if placed.order is not None and placed.row.decision_id not in moved
        }
        if orders:
            found_orders.follow(tx, orders, self._late_orders, actor=ACTOR, lease=lease, now=now)

    def _book(self, tx: Connection, batch: list[Placed], now: datetime) -> list[Taking]:
        """The orders that were found, the halts that are due, and the steps to take."""
        found = [_found(placed, placed.order) for placed in batch if placed.order is not None]
        stored = book_own_orders(tx, found, now=now)
        lost = {
            one.decision.decision_id for one, kept in zip(found, stored, strict=True) if not kept
        }
        takings: list[Taking] = []
        for placed in batch:
            if placed.proof is Proof.ACCOUNT_REFUSED:
                self._halt(tx, placed, now)
            number, wait_s = placed.attempt_no, self._rate_limit(placed, now)
            step = after_submit(
                placed.proof,
                placed.lookup,
                attempt_no=number,
                wait_s=wait_s,
                retries=self._settings.retries,
            )
            detail = _detail(placed)
            if placed.row.decision_id in lost:
                step, detail = CANNOT_BE_BOOKED, "the order exists but cannot be booked"
            since = self._in_flight.get(placed.row.decision_id)
            takings.append(Taking(placed.row, step, detail, number, since=since))
        return takings

    def _rate_limit(self, placed: Placed, now: datetime) -> float:
        if placed.proof is not Proof.RATE_LIMITED:
            return 0.0
        return self._budget.pause(placed.answer.retry_at, now=now)

    def _halt(self, tx: Connection, placed: Placed, now: datetime) -> None:
        answer = placed.answer
        control.tighten(
            tx,
            control.account_scope(self._account),
            TradingState.HALTED,
            actor=ACTOR,
            reason=f"the broker refused keys or account: {answer.http_status} {answer.message}",
            now=now,
        )

    def _take(
        self,
        tx: Connection,
        takings: list[Taking],
        lease: Lease,
        now: datetime,
        *,
        before: DecisionStatus | None = None,
    ) -> set[int]:
        return take(tx, takings, lease, before=before, actor=ACTOR, now=now, rng=self._rng)


def _count(batch: list[Placed]) -> None:
    for placed in batch:
        telemetry.ATTEMPTS.labels(placed.proof.value).inc()
        if placed.proof is Proof.EXISTS:
            telemetry.DUPLICATES.labels("broker").inc()
        elif placed.proof is Proof.NOT_SENT and placed.order is not None:
            telemetry.DUPLICATES.labels("lookup").inc()


def _found(placed: Placed, order: Order) -> Found:
    if placed.proof is Proof.ACCEPTED:
        return Found(placed.row, order, "submitted", "submit")
    return Found(placed.row, order, "recovered", "lookup")


def _detail(placed: Placed) -> str:
    answer = placed.answer
    parts = [str(answer.http_status or ""), answer.broker_code or "", answer.message]
    return " ".join(part for part in parts if part)[:500]
