"""Orders that do not move on: pending_cancel, pending_new, pending_replace, or accepted while the
market is open, for longer than `TORGHUT_ORDER_STUCK_S` (story 32); and orders that say more is
filled than the broker lists fills for, as long.

Each becomes a discrepancy of the kind `order_stuck` or `fills_missing` with its event, which is
resolved when the order moves on; the metric `torghut_orders_stuck` counts the first kind. Nothing
else is done about it: what a stuck order needs is a person who asks the broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from torghut import telemetry
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.sessions import Phase, session_state
from torghut.domain.values import canonical_amount
from torghut.storage import discrepancies, stuck
from torghut.storage.database import Database
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import Lease
from torghut.storage.stuck import Waiting

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
            stuck = self._stuck(tx, now)
            opened, moved = self._follow(tx, DiscrepancyKind.ORDER_STUCK, stuck, now)
            unlisted = self._unlisted(tx, now)
            missing, listed = self._follow(tx, DiscrepancyKind.FILLS_MISSING, unlisted, now)
        telemetry.ORDERS_STUCK.labels(self._account).set(len(stuck))
        return {"stuck": opened + missing, "moved_on": moved + listed}

    def _stuck(self, tx: Connection, now: datetime) -> dict[str, Mapping[str, object]]:
        """Evidence by broker_order_id."""
        since = now - self._after
        waiting = stuck.waiting(tx, self._account, since=since, limit=STUCK_MAX)
        return {
            order.broker_order_id: {
                "status": order.status,
                "since": order.since.isoformat(),
                "client_order_id": order.client_order_id,
                "symbol": order.symbol,
            }
            for order in waiting
            if self._is_stuck(order, now)
        }

    def _unlisted(self, tx: Connection, now: datetime) -> dict[str, Mapping[str, object]]:
        """Evidence by broker_order_id."""
        before = now - self._after
        orders = stuck.unledgered(tx, self._account, before=before, limit=STUCK_MAX)
        return {
            order.broker_order_id: {
                "cum_qty": canonical_amount(order.cum_qty),
                "fills_qty": canonical_amount(order.ledger_qty),
                "client_order_id": order.client_order_id,
                "symbol": order.symbol,
            }
            for order in orders
        }

    def _follow(
        self,
        tx: Connection,
        kind: DiscrepancyKind,
        found: Mapping[str, Mapping[str, object]],
        now: datetime,
    ) -> tuple[int, int]:
        """Open what was found and stands not open; end what was not found; how many of each."""
        opened = sum(
            discrepancies.open_(tx, self._account, kind, subject, evidence, actor=ACTOR, now=now)
            for subject, evidence in found.items()
        )
        known = discrepancies.standing(tx, self._account, [kind])
        moved = [subject for _, subject in known if subject not in found]
        if moved:
            discrepancies.end(
                tx,
                self._account,
                [kind],
                moved,
                resolution="it moved on",
                actor=ACTOR,
                now=now,
            )
        return opened, len(moved)

    def _is_stuck(self, order: Waiting, now: datetime) -> bool:
        """`accepted` is where an order waits for the opening: only an open market's time counts."""
        if order.status != "accepted":
            return True
        moments = (now - self._after, now)
        return all(session_state(order.symbol, at).phase is Phase.OPEN for at in moments)
