"""Book a broker order that was found to be a decision's own; the same for every way it was found.

Called inside the transaction that advances the decision, by the executor (the answer to a POST),
the settler (a lookup) and the reconciler (the broker's lists).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from torghut.domain.executions import order_differences
from torghut.domain.orders import Order
from torghut.storage import control, executions
from torghut.storage.executions import Observation, Recorded
from torghut.storage.rows import DecisionRow

ORDER_DIFFERS = "order_differs"
ORDER_AFTER_END = "order_after_end"
DUPLICATE_ORDER = "duplicate_order"


def book_own_order(
    tx: Connection,
    decision: DecisionRow,
    order: Order,
    *,
    origin: str,
    source: str,
    now: datetime,
) -> Recorded:
    """Append the observation and fold it; an order unlike the one asked for is a discrepancy."""
    recorded = executions.record(
        tx, decision.account, Observation(order, decision.decision_id, origin, source), now=now
    )
    differences = order_differences(decision.order, order) if recorded.created else {}
    if differences:
        evidence: dict[str, object] = {
            "broker_order_id": order.broker_order_id,
            "differences": differences,
        }
        control.open_discrepancy(
            tx,
            decision.account,
            ORDER_DIFFERS,
            decision.decision_hash,
            evidence,
            actor=origin,
            now=now,
        )
    note_duplicate(tx, decision.account, order, recorded, actor=origin, now=now)
    return recorded


def note_duplicate(
    tx: Connection, account: str, order: Order, recorded: Recorded, *, actor: str, now: datetime
) -> None:
    """Two orders with one client_order_id: the assumption that P1 rests on is broken. Say so."""
    if recorded.duplicate_of is None:
        return
    evidence = {
        "client_order_id": order.client_order_id,
        "booked": recorded.duplicate_of,
        "second": order.broker_order_id,
        "status": order.status,
        "cum_qty": str(order.cum_qty),
    }
    control.open_discrepancy(
        tx, account, DUPLICATE_ORDER, order.broker_order_id, evidence, actor=actor, now=now
    )
