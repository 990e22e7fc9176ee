"""Orders that do not move on: pending_cancel, pending_new, pending_replace, or accepted while the
market is open, for longer than `TORGHUT_ORDER_STUCK_S` (story 32).

Each becomes a discrepancy of the kind `order_stuck` with its event, and is counted by the metric
`torghut_orders_stuck`; it is resolved when the order moves on. Nothing else is done about it: what
a stuck order needs is a person who asks the broker.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from torghut import telemetry
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.sessions import Phase, session_state
from torghut.storage import discrepancies, executions
from torghut.storage.database import Database
from torghut.storage.executions import Waiting
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import Lease

ACTOR = "stuck_orders"
STUCK_MAX = 500


class StuckOrders:
    """Looks for stuck orders of one account."""

    def __init__(self, account: str, database: Database, *, stuck_after_s: float) -> None:
        self._account = account
        self._database = database
        self._after = timedelta(seconds=stuck_after_s)

    def run_once(self, lease: Lease, now: datetime) -> dict[str, int]:
        """Open what is stuck, resolve what is not any more; returns counts."""
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            waiting = executions.waiting(
                tx, self._account, since=now - self._after, limit=STUCK_MAX
            )
            stuck = [order for order in waiting if self._is_stuck(order, now)]
            opened = 0
            for order in stuck:
                evidence = {
                    "status": order.status,
                    "since": order.since.isoformat(),
                    "client_order_id": order.client_order_id,
                    "symbol": order.symbol,
                }
                opened += discrepancies.open_(
                    tx,
                    self._account,
                    DiscrepancyKind.ORDER_STUCK,
                    order.broker_order_id,
                    evidence,
                    actor=ACTOR,
                    now=now,
                )
            still = {order.broker_order_id for order in stuck}
            known = discrepancies.standing(tx, self._account, [DiscrepancyKind.ORDER_STUCK])
            moved = [subject for _, subject in known if subject not in still]
            if moved:
                discrepancies.end(
                    tx,
                    self._account,
                    [DiscrepancyKind.ORDER_STUCK],
                    moved,
                    resolution="it moved on",
                    actor=ACTOR,
                    now=now,
                )
        telemetry.ORDERS_STUCK.labels(self._account).set(len(stuck))
        return {"stuck": opened, "moved_on": len(moved)}

    def _is_stuck(self, order: Waiting, now: datetime) -> bool:
        """`accepted` is where an order waits for the opening: only an open market's time counts."""
        if order.status != "accepted":
            return True
        moments = (now - self._after, now)
        return all(session_state(order.symbol, at).phase is Phase.OPEN for at in moments)
