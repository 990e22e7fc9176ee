"""Live updates: the broker's stream as a hint to look, never as the truth (P8).

```
stream ─▶ queue ─▶ fold the order's snapshot ─▶ fills missing? ─▶ read the FILL activities
            │        ├ an order we do not know: wait for its outcome, then ask for a pass
            │        └ it ended without being filled: a pass asks whether that is so
            └ full, unreadable, (re)connected: a gap ─▶ a reconciler pass
reconciler pass ─▶ taught something that the stream kept to itself? ─▶ mute: another connection
```

1. A message folds the snapshot of a known order into its execution, through the same path as REST;
   snapshots that are late, doubled or out of order teach nothing. Fills are booked from FILL
   activities only, so that no message can count one twice. An end is final, so it is believed of
   REST only: an order that was called canceled and is not would be lost sight of.
2. Whatever the stream did not tell is found by a pass, and after each gap one is made.
3. Quiet is not dead (story 10): a connection is given up when a pass has learned what the stream
   should have told, and nothing at all came from it within `late_s` after. The first pass after a
   gap proves nothing, nor one during which something came or was still to be folded.
4. What the stream asks for is spaced out so that it takes half of the background share of the
   rate budget at the most (services/rate_budget).
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.orders import Order
from torghut.domain.reconcile import Local, diff
from torghut.ports import OrderUpdate, OrderUpdates
from torghut.services.live_connection import LiveConnection, Pauses
from torghut.services.rate_budget import RateBudget
from torghut.services.reconciler import Reconciler
from torghut.services.recording import Found, book_own_orders, guarded
from torghut.storage import decisions, executions
from torghut.storage.database import Database
from torghut.storage.executions import Observation, execution_state
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import Lease

ACTOR = "live_updates"
STREAM_LATE_S = 10.0
QUEUE_MAX = 10_000
BATCH_MAX = 500
UNKNOWN_S = 3.0
RETRY_S = 5.0
FILLS_TRIES_MAX = 5
FILLS_REQUESTS = 1
PASS_REQUESTS = 5
STOP_S = 1.0

log = structlog.get_logger(__name__)

Counts = dict[str, int]


class LiveUpdates:
    """Live updates of one account. Each `run_…` is called by a loop of its own."""

    def __init__(
        self,
        account: str,
        database: Database,
        reconciler: Reconciler,
        stream: OrderUpdates,
        budget: RateBudget,
        *,
        owns: Callable[[], bool],
        clock: Clock,
        rng: random.Random,
        pauses: Pauses | None = None,
        late_s: float = STREAM_LATE_S,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self.connection = LiveConnection(
            account, stream, owns=owns, clock=clock, rng=rng, pauses=pauses or Pauses()
        )
        self._account = account
        self._database = database
        self._reconciler = reconciler
        self._budget = budget
        self._late_s = late_s
        self._queue: queue.Queue[Order] = queue.Queue(queue_max)
        self._unknown: list[tuple[float, Order]] = []
        self._ends: set[str] = set()  # orders whose end was told, to be asked for
        self._lock = threading.Lock()
        self._folding = False
        self._gaps = 0
        self._filled = 0
        self._pass_wanted = False
        self._pass_not_before = 0.0
        self._fills_due: float | None = None
        self._fills_not_before = 0.0
        self._fills_tries = 0
        self._suspect_since: float | None = None
        self._wake: Callable[[], None]
        self._wake_pass: Callable[[], None]
        self._wake_fills: Callable[[], None]

    def start(
        self,
        wake: Callable[[], None],
        wake_pass: Callable[[], None],
        wake_fills: Callable[[], None],
    ) -> None:
        """Begin to listen; the three wake the loops of `run_once`, `run_pass`, `run_fills`."""
        self._wake, self._wake_pass, self._wake_fills = wake, wake_pass, wake_fills
        self.connection.start(self._note_gap, self._take)

    def stop(self) -> bool:
        """End the connection; True if that was done within STOP_S."""
        return self.connection.stop(STOP_S)

    # ------------------------------------------------------------------ what comes

    def _take(self, update: OrderUpdate) -> None:
        if update.order is None:
            self._note_gap()
            return
        try:
            self._queue.put_nowait(update.order)
        except queue.Full:
            telemetry.STREAM_DROPPED.inc()
            self._note_gap()
            return
        self._wake()

    def _note_gap(self) -> None:
        """Something may have been missed: a pass finds out what."""
        with self._lock:
            self._gaps += 1
            self._suspect_since = None
        self._want_pass()

    def _want_pass(self) -> None:
        self._pass_wanted = True
        self._wake()

    # ------------------------------------------------------------------ fold

    def run_once(self, lease: Lease, now: datetime) -> Counts:
        """Fold what has come, ask for what is wanted, watch the stream."""
        counts = self._fold(lease, now)
        if self._pass_wanted and time.monotonic() >= self._pass_not_before:
            self._wake_pass()
        self._watch()
        return counts

    def _fold(self, lease: Lease, now: datetime) -> Counts:
        self._folding = True
        try:
            return self._fold_batch(lease, now)
        finally:
            self._folding = False

    def _fold_batch(self, lease: Lease, now: datetime) -> Counts:
        arrived = time.monotonic()
        batch, self._unknown = self._unknown, []
        while len(batch) < BATCH_MAX and not self._queue.empty():
            batch.append((arrived, self._queue.get_nowait()))
        if not batch:
            return {}
        if not self._queue.empty():
            self._wake()
        try:
            folded, behind, unknown = self._fold_known(lease, [order for _, order in batch], now)
        except BaseException:
            self._note_gap()  # what was in the batch is forgotten
            raise
        if behind:
            self._want_fills(fresh=True)
        waiting = [(at, order) for at, order in batch if order.broker_order_id in unknown]
        self._unknown = [(at, order) for at, order in waiting if arrived - at < UNKNOWN_S]
        if len(self._unknown) < len(waiting):
            self._note_gap()
        return {"folded": folded}

    def _fold_known(
        self, lease: Lease, orders: Sequence[Order], now: datetime
    ) -> tuple[int, bool, set[str]]:
        """Fold snapshots of orders that have an execution.

        Returns how many taught something, whether fills or ends are to be booked, and which orders
        are unknown: most often their POST is not answered yet.
        """
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            rows = executions.by_broker_ids(tx, [order.broker_order_id for order in orders])
            known = [order for order in orders if order.broker_order_id in rows]
            states = {id_: execution_state(row) for id_, row in rows.items()}
            ends = {
                order.broker_order_id
                for order in known
                if order.terminal
                and order.status != "filled"
                and not states[order.broker_order_id].terminal
            }
            corrections = diff(
                [o for o in known if o.broker_order_id not in ends], Local(states, {})
            )
            if corrections:
                fence(tx, lease)
            ours = [o.client_order_id for o in known if rows[o.broker_order_id].decision_id]
            owners = decisions.by_hashes(tx, ours) if corrections else {}
            for correction in corrections:
                order = correction.order
                owner = owners.get(order.client_order_id)
                if owner is not None:
                    # its execution is there: the origin would be that of a row made here
                    book_own_orders(tx, [Found(owner, order, "reconciled", "stream")], now=now)
                    continue
                guarded(
                    tx,
                    self._account,
                    order.broker_order_id,
                    partial(self._book_external, tx, order, now),
                    actor=ACTOR,
                    what="order",
                    now=now,
                )
        if ends:
            with self._lock:
                self._ends |= ends
            self._want_pass()
        behind = any(order.cum_qty > rows[order.broker_order_id].ledger_qty for order in known)
        ended = any(correction.order.terminal for correction in corrections)
        unknown = {order.broker_order_id for order in orders} - set(rows)
        return len(corrections), behind or ended, unknown

    def _book_external(self, tx: Connection, order: Order, now: datetime) -> None:
        seen = Observation(order, None, "external", "stream")
        executions.record(tx, self._account, [seen], now=now)

    # ------------------------------------------------------------------ fills

    def run_fills(self, lease: Lease, now: datetime) -> Counts:
        """Read the fills that the books lack, if an update said that there are some."""
        with self._lock:
            if self._fills_due is None or time.monotonic() < self._fills_due:
                return {}
            self._fills_due = None
        try:
            counts = self._reconciler.catch_up(lease, now)
        except BaseException:
            self._want_fills(fresh=False)
            raise
        self._fills_not_before = time.monotonic() + self._spacing_s(FILLS_REQUESTS)
        if self._reconciler.awaits_fills:
            self._want_fills(fresh=False)  # an activity can come later than the order says so
        return counts

    def _want_fills(self, *, fresh: bool) -> None:
        with self._lock:
            self._fills_tries = 0 if fresh else self._fills_tries + 1
            if self._fills_tries > FILLS_TRIES_MAX:
                return  # the next pass
            wait_s = 0.0 if fresh else 0.5 * 2**self._fills_tries
            due = max(time.monotonic() + wait_s, self._fills_not_before)
            self._fills_due = due if self._fills_due is None else min(due, self._fills_due)
        self._wake_fills()

    def _spacing_s(self, requests: int) -> float:
        return requests * 2 * self._budget.background_every_s

    # ------------------------------------------------------------------ passes

    def run_pass(self, lease: Lease, now: datetime) -> Counts:
        """A pass of the reconciler, and what it says about the stream."""
        began = time.monotonic()
        with self._lock:
            gaps, listening = self._gaps, self.connection.connected
            # in this order: what is taken from the queue is being folded, or is unknown, or booked
            behind = not self._queue.empty() or self._folding or bool(self._unknown)
            ends, self._ends = self._ends, set()  # told, though not folded
            in_step = listening and self._filled == gaps and not behind and not ends
            self._pass_wanted = False
            self._pass_not_before = began + self._spacing_s(PASS_REQUESTS)
        try:
            counts = self._reconciler.run_once(lease, now)
        except BaseException:
            self._try_again(gaps)
            raise
        if counts.get("more"):
            self._want_pass()  # goes on where this one stopped, spaced out to leave room for orders
        if counts.get("failed") or counts.get("unanswered"):
            self._try_again(gaps)
        else:
            self._filled = gaps
        if in_step and counts.get("unheard"):
            self._suspect(began, gaps)
        return counts

    def _try_again(self, gaps: int) -> None:
        if self._filled != gaps:
            self._pass_not_before = time.monotonic() + RETRY_S
            self._pass_wanted = True

    def _suspect(self, began: float, gaps: int) -> None:
        with self._lock:
            told = self.connection.heard_at >= began
            if not told and self._gaps == gaps and self._suspect_since is None:
                self._suspect_since = time.monotonic()

    def _watch(self) -> None:
        with self._lock:
            since = self._suspect_since
            if since is None:
                return
            if self.connection.heard_at >= since:
                self._suspect_since = None
                return
            if time.monotonic() - since < self._late_s:
                return
            self._suspect_since = None
        log.warning("trade updates are mute: REST knew more; connecting anew", late_s=self._late_s)
        self.connection.drop()
