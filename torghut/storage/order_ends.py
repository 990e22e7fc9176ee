"""The events of orders of ours that were canceled, replaced, or rejected after they had been taken.

Whoever learns it, the executor, the settler, the reconciler or the stream, folds it into the
execution, and the fold notes it here. The event is written at the end of the same transaction: an
order may be seen canceled in the answer that says it was taken, and comes after `order.submitted`.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from sqlalchemy import Connection, text

from torghut.domain.events import Event, EventKind
from torghut.domain.lifecycle import Reason
from torghut.domain.values import canonical_amount
from torghut.storage import control
from torghut.storage.database import before_commit

ACTOR = "ledger"
_KINDS = {
    "canceled": EventKind.CANCELED,
    "replaced": EventKind.REPLACED,
    "rejected": EventKind.REJECTED,
}


def note(tx: Connection, broker_order_id: str, *, now: datetime) -> None:
    """The execution is new, a decision's from now on, or in another status than before: report it,
    once, if it is a decision's and in one of these statuses."""
    before_commit(tx, f"order_ends:{broker_order_id}", partial(_report, tx, broker_order_id, now))


def _report(tx: Connection, broker_order_id: str, now: datetime) -> None:
    row = tx.execute(
        text("""SELECT e.account, e.symbol, e.status, e.cum_qty, e.replaced_by, d.decision_hash
        FROM executions e JOIN trade_decisions d USING (decision_id)
        WHERE e.broker_order_id = :id AND e.status = ANY(CAST(:ends AS text[]))"""),
        {"id": broker_order_id, "ends": list(_KINDS)},
    ).one_or_none()
    if row is None:
        return
    payload: dict[str, object] = {"broker_order_id": broker_order_id}
    if row.status == "rejected":
        payload |= {"reason": Reason.REFUSED_BY_BROKER.value, "detail": "taken, rejected later"}
    else:
        payload |= {"symbol": row.symbol, "cum_qty": canonical_amount(row.cum_qty)}
    if row.status == "replaced":
        payload["replaced_by"] = row.replaced_by
    event = Event(_KINDS[row.status], ACTOR, row.account, row.decision_hash, payload)
    control.add_events(tx, [event], now=now)
