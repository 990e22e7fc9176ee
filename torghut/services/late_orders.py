"""Orders that appear at the broker after their decision had ended without one (R4).

The signal is stale, so the order must not trade: its cancel is asked for in the transaction that
books it, by the recorded actions that an operator's cancels go through (`TORGHUT_LATE_ORDERS=keep`
only shows it). Whatever becomes of it, it is an open discrepancy until the order has ended without
a fill; one that was filled moved money, and stays open until a person resolves it.

If power fails before the booking is committed nothing was asked for, and the next pass finds the
order again; afterwards the order desk finds the request. Its key is the order's id: it is made
once.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.order_actions import Operation
from torghut.domain.orders import Order
from torghut.services.order_requests import Asker, record_actions
from torghut.storage import discrepancies
from torghut.storage.order_actions import NewAction
from torghut.storage.rows import DecisionRow

ACTOR = "reconciler"
SETTLED = "the order has ended without a fill"


class LateOrders:
    """What is done about late orders of one account."""

    def __init__(self, account: str, *, cancel: bool) -> None:
        self._account = account
        self._cancel = cancel

    def note(self, tx: Connection, decision: DecisionRow, order: Order, *, now: datetime) -> None:
        """Show a late order that was booked just now, and ask for its cancel."""
        cancel = self._cancel and not order.terminal
        evidence = {
            "broker_order_id": order.broker_order_id,
            "decision": decision.status.value,
            "cancel_asked_for": cancel,
        }
        kind, hash_ = DiscrepancyKind.ORDER_AFTER_END, decision.decision_hash
        discrepancies.open_(tx, self._account, kind, hash_, evidence, actor=ACTOR, now=now)
        if not cancel:
            return
        action = NewAction(
            operation=Operation.CANCEL, decision_id=decision.decision_id, target=hash_
        )
        request = {"operation": "cancel", "decision_hash": hash_, "symbol": order.symbol}
        asker = Asker(
            actor=ACTOR,
            reason=f"its decision had ended as {decision.status} before the order appeared",
            key=f"late-order:{order.broker_order_id}",
            now=now,
        )
        record_actions(tx, self._account, [action], request, asker)

    def end_settled(self, tx: Connection, *, now: datetime) -> int:
        """Close what is settled; how many."""
        return discrepancies.end_late_orders(
            tx, self._account, resolution=SETTLED, actor=ACTOR, now=now
        )
