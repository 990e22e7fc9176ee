"""A decision whose order exists is `submitted`, whatever it waited for (R3 of domain/reconcile).

    planned ─▶ approved ─▶ submitting ─▶ submitted       in_doubt ─▶ submitted

The steps are those of the life cycle, taken in one transaction: nobody sees the ones between, and
nothing is judged, expired or sent for a decision whose order stands at the broker already. An order
may be known before its decision, as after a restored backup: it was adopted then, and becomes the
decision's own here.

It may also become known after the decision has moved on: the process that sent it lost the account,
came back, and had kept the answer (`follow`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection

from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.events import Event, EventKind
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.orders import Order
from torghut.domain.reconcile import ENDED_WITHOUT_ORDER
from torghut.services.late_orders import LateOrders
from torghut.services.recording import note_differences
from torghut.storage import control, decisions, discrepancies, executions
from torghut.storage.decisions import Advance
from torghut.storage.rows import DecisionRow, Lease

S = DecisionStatus

_PATHS: dict[DecisionStatus, tuple[DecisionStatus, ...]] = {
    S.PLANNED: (S.APPROVED, S.SUBMITTING, S.SUBMITTED),
    S.APPROVED: (S.SUBMITTING, S.SUBMITTED),
    S.SUBMITTING: (S.SUBMITTED,),
    S.IN_DOUBT: (S.SUBMITTED,),
}


def settle(
    tx: Connection,
    decision: DecisionRow,
    broker_order_id: str,
    *,
    actor: str,
    lease: Lease,
    now: datetime,
) -> bool:
    """Take a decision to `submitted`, with its event; False if it needs no step or has moved."""
    before = decision.status
    if before not in _PATHS:
        return False
    for after in _PATHS[before]:
        step = Advance(
            decision_id=decision.decision_id,
            before=before,
            after=after,
            reason=Reason.RECOVERED.value,
            detail=f"found at the broker as {broker_order_id}",
            due_at=now,
            since=decision.stage_began if before is decision.status else None,
        )
        if not decisions.advance(tx, [step], token=lease.fencing_token, now=now):
            return False
        before = after
    payload = {"broker_order_id": broker_order_id}
    event = Event(EventKind.RECOVERED, actor, decision.account, decision.decision_hash, payload)
    control.add_events(tx, [event], now=now)
    return True


def settle_booked(
    tx: Connection, decision: DecisionRow, *, actor: str, lease: Lease, now: datetime
) -> bool:
    """The same for a locked decision whose order is in our books, attached to it or adopted."""
    order = executions.booked(tx, decision.decision_hash)
    if executions.attach(
        tx, order.broker_order_id, decision.decision_id, origin="reconciled", now=now
    ):
        note_differences(tx, decision, order, actor=actor, now=now)
    return settle(tx, decision, order.broker_order_id, actor=actor, lease=lease, now=now)


def follow(
    tx: Connection,
    orders: Mapping[str, Order],
    late_orders: LateOrders,
    *,
    actor: str,
    lease: Lease,
    now: datetime,
) -> None:
    """What follows from orders, by decision_hash, that were booked after their decisions had moved
    on: they are submitted, or the order is a late one. The reconciler takes it for known already.
    """
    booked = executions.existing(tx, sorted(orders))
    for hash_, decision in decisions.by_hashes(tx, sorted(booked)).items():
        order, late = orders[hash_], DiscrepancyKind.ORDER_AFTER_END
        if decision.status not in ENDED_WITHOUT_ORDER:
            settle(tx, decision, order.broker_order_id, actor=actor, lease=lease, now=now)
        elif not discrepancies.seen(tx, decision.account, late, hash_):
            late_orders.note(tx, decision, order, now=now)
