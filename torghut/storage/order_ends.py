"""The events of orders of ours that were canceled, replaced, or rejected after they had been taken.

Whoever learns it, the executor, the settler, the reconciler or the stream, folds it into the
execution, and the fold notes it here. The event is written at the end of the same transaction: an
order may be seen canceled in the answer that says it was taken, and comes after `order.submitted`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

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
    before_commit(tx, _report, [(broker_order_id, now)])


def _report(tx: Connection, noted: list[tuple[str, datetime]]) -> None:
    rows = tx.execute(
        text("""SELECT e.broker_order_id, e.account, e.symbol, e.status, e.cum_qty, e.replaced_by,
          d.decision_hash
        FROM executions e JOIN trade_decisions d USING (decision_id)
        WHERE e.broker_order_id = ANY(CAST(:ids AS text[]))
          AND e.status = ANY(CAST(:ends AS text[])) ORDER BY e.execution_id"""),
        {"ids": [id_ for id_, _ in noted], "ends": list(_KINDS)},
    )
    control.add_events(tx, [_event(row) for row in rows], now=max(at for _, at in noted))


def _event(row: Row[Any]) -> Event:
    payload: dict[str, object] = {"broker_order_id": row.broker_order_id}
    if row.status == "rejected":
        payload |= {"reason": Reason.REFUSED_BY_BROKER.value, "detail": "taken, rejected later"}
    else:
        payload |= {"symbol": row.symbol, "cum_qty": canonical_amount(row.cum_qty)}
    if row.status == "replaced":
        payload["replaced_by"] = row.replaced_by
    return Event(_KINDS[row.status], ACTOR, row.account, row.decision_hash, payload)
