"""The Knight guard: orders leaving against approved decisions, from the broker's side (story 40).

```
broker's orders since the cursor ─▶ ours by form? ─▶ approved decision, one order, not larger?
                                     │ no: not our business      │ no
                                     ▼                           ▼
                                   (adopted by the reconciler)   halted · discrepancy · metric
```

1. It believes the broker's list and the approvals, and nothing that the executor counts or writes
   about its sending: a sender that is broken cannot hide from it.
2. It trips at the first order too many, in one transaction with the discrepancy that names it. An
   order trips once: whoever resumes has seen it.
3. It starts where nothing can be said of what went before: at the present, or at the beginning if
   the broker has no order yet. An intent is committed before its order leaves, so an order without
   a decision is never one whose decision is only on its way.

If the broker does not answer, the pass fails and the next one reads from the same cursor. If power
fails between two pages, likewise: an overlap is read again, and what was judged is known by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.excess import excess, hash_of
from torghut.domain.exposure import TradingState
from torghut.domain.orders import Order
from torghut.ports import Page
from torghut.services.broker_lists import newest_of
from torghut.services.questions import Questions
from torghut.storage import approvals, control, cursors, discrepancies
from torghut.storage.database import Database
from torghut.storage.leases import fence
from torghut.storage.rows import Lease

ACTOR = "knight-guard"
PAGE_MAX = 500
PAGES_MAX = 4
OVERLAP = timedelta(seconds=30)
BUSY_S = 5.0
IDLE_S = 30.0
RECENT = timedelta(seconds=60)
RATE_SHARE = 0.075  # of all requests; a quarter of what the background may use
BUDGET_WAIT_S = 2.0
REMEMBERED_MAX = 20_000

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


class KnightGuard:
    """Guards one account. `run_once` is called by one thread, as often as it likes."""

    def __init__(
        self, account: str, database: Database, questions: Questions, *, rate_per_min: int
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._busy = timedelta(seconds=max(BUSY_S, 60 / (rate_per_min * RATE_SHARE)))
        self._idle = max(self._busy, timedelta(seconds=IDLE_S))
        self._looked_at: datetime | None = None
        self._first: dict[str, str] = {}  # client_order_id → the broker's id seen first under it
        self._judged: dict[str, None] = {}  # broker ids, oldest first

    def run_once(self, lease: Lease, now: datetime) -> dict[str, int]:
        """Compare, if it is time to; counts of orders judged and of those too many."""
        if not self._due(now):
            return {}
        self._looked_at = now
        with self._database.transaction() as tx:
            position = cursors.position(tx, self._account, cursors.GUARD)
        if position is None:
            self._begin(lease, now)
            return {}
        after = position - OVERLAP
        counts = {"judged": 0, "excess": 0}
        for _ in range(PAGES_MAX):
            page = self._page(after)
            newest = newest_of(page)
            if newest is None:
                break
            # a cursor that followed an instant in the future would leave out what comes until then
            read_to = cursors.newest([newest], now=now)
            self._judge(lease, page, read_to, now, counts)
            if not page.full:
                break
            # an instant back: orders of the page's last instant may go on on the next page
            step_back = newest - timedelta(microseconds=1)
            after = step_back if step_back > after else newest
        return counts

    def _due(self, now: datetime) -> bool:
        if self._looked_at is None or now - self._looked_at >= self._idle:
            return True
        if now - self._looked_at < self._busy:
            return False
        with self._database.transaction() as tx:
            judged_at = approvals.newest_verdict_at(tx)
        return judged_at is not None and now - judged_at < RECENT

    def _begin(self, lease: Lease, now: datetime) -> None:
        """The first cursor of this database; an overlap ahead, so that nothing before it counts."""
        there_are = self._page(None, limit=1).full
        start = (now if there_are else _BEGINNING) + OVERLAP
        with self._database.transaction() as tx:
            fence(tx, lease)
            cursors.advance(tx, self._account, cursors.GUARD, start, now=now)

    def _page(self, after: datetime | None, limit: int = PAGE_MAX) -> Page[Order]:
        return self._questions.ask(
            lambda broker: broker.orders(after=after, limit=limit), budget_wait_s=BUDGET_WAIT_S
        )

    def _judge(
        self,
        lease: Lease,
        page: Sequence[Order],
        read_to: datetime | None,
        now: datetime,
        counts: dict[str, int],
    ) -> None:
        new = [order for order in page if order.broker_order_id not in self._judged]
        ours = [order for order in new if hash_of(order.client_order_id)]
        found: list[tuple[Order, str]] = []
        with self._database.transaction() as tx:
            fence(tx, lease)
            hashes = {hash_of(order.client_order_id) or "" for order in ours}
            known = approvals.by_hash(tx, self._account, sorted(hashes))
            for order in ours:
                id_ = order.client_order_id
                first = self._first.setdefault(id_, order.broker_order_id)
                problem = excess(order, known.get(hash_of(id_) or ""), first)
                if problem is not None and self._trip(tx, order, problem, now):
                    found.append((order, problem))
            if read_to is not None:
                cursors.advance(tx, self._account, cursors.GUARD, read_to, now=now)
        telemetry.ORDERS_LEAVING.labels(self._account).inc(len(ours))
        self._remember(new)
        counts["judged"] += len(ours)
        counts["excess"] += len(found)
        for order, problem in found:
            telemetry.ORDER_EXCESS.labels(self._account).inc()
            log.error(
                "an order that no approved decision covers; the account is halted",
                client_order_id=order.client_order_id,
                broker_order_id=order.broker_order_id,
                problem=problem,
            )

    def _trip(self, tx: Connection, order: Order, problem: str, now: datetime) -> bool:
        """Make the order visible and halt the account; False if it did so before."""
        evidence = {
            "problem": problem,
            "client_order_id": order.client_order_id,
            "symbol": order.symbol,
            "side": order.side,
            "qty": None if order.qty is None else str(order.qty),
            "notional": None if order.notional is None else str(order.notional),
            "created_at": order.created_at.isoformat(),
        }
        subject, kind = order.broker_order_id, DiscrepancyKind.ORDER_EXCESS
        # resolved ones too: the overlap is read again by whoever starts or takes over
        if discrepancies.seen(tx, self._account, kind, subject):
            return False
        discrepancies.open_(tx, self._account, kind, subject, evidence, actor=ACTOR, now=now)
        control.tighten(
            tx,
            control.account_scope(self._account),
            TradingState.HALTED,
            actor=ACTOR,
            reason=f"order {subject} ({order.client_order_id[:12]}…) is too many: {problem}",
            now=now,
        )
        return True

    def _remember(self, orders: Sequence[Order]) -> None:
        self._judged |= dict.fromkeys(order.broker_order_id for order in orders)
        for memory in (self._judged, self._first):
            while len(memory) > REMEMBERED_MAX:
                del memory[next(iter(memory))]
