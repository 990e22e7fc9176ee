"""Take steps of the life cycle with the events that report them, in the caller's transaction.

The executor and the settler decide *which* step (torghut.domain.submission); this is how any step
is written: compare-and-set, backoff with jitter, an event for each decision that moved. What
another writer moved first gets neither.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from torghut import telemetry
from torghut.domain.events import Event, EventKind
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.submission import Step
from torghut.storage import control, decisions
from torghut.storage.database import after_commit
from torghut.storage.decisions import Advance
from torghut.storage.rows import DecisionRow, Lease

JITTER = 0.25

_KINDS = {
    DecisionStatus.SUBMITTED: EventKind.SUBMITTED,
    DecisionStatus.REJECTED: EventKind.REJECTED,
    DecisionStatus.IN_DOUBT: EventKind.IN_DOUBT,
    DecisionStatus.APPROVED: EventKind.RETURNED,
    DecisionStatus.EXPIRED: EventKind.DECISION_EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Taking:
    """One step to take, on evidence about one attempt.

    `missed` counts a definite "no such order", `asked` any lookup. `since` is when the decision
    came to the status that it leaves, where the row was read in an earlier one.
    """

    row: DecisionRow
    step: Step
    detail: str
    attempt_no: int
    asked: bool = False
    missed: bool = False
    since: datetime | None = None


def take(
    tx: Connection,
    takings: Sequence[Taking],
    lease: Lease,
    *,
    before: DecisionStatus | None = None,
    actor: str,
    now: datetime,
    rng: random.Random,
) -> set[int]:
    """Take the steps; returns the ids of the decisions that moved.

    `before` is the status to move from where it is not the one the row was read with.
    """
    advances = [
        Advance(
            decision_id=taking.row.decision_id,
            before=before or taking.row.status,
            after=taking.step.status,
            reason=taking.step.reason.value,
            detail=taking.detail,
            due_at=now + timedelta(seconds=taking.step.wait_s * rng.uniform(1.0, 1.0 + JITTER)),
            asked=int(taking.asked),
            missed=int(taking.missed),
            attempt_no=taking.attempt_no,
            since=taking.since or taking.row.stage_began,
        )
        for taking in takings
    ]
    moved = decisions.advance(tx, advances, token=lease.fencing_token, now=now)
    events = [
        _event(taking, actor)
        for taking, advance in zip(takings, advances, strict=True)
        if taking.row.decision_id in moved and advance.before is not advance.after
    ]
    control.add_events(tx, events, now=now)
    placed = [
        taking.row
        for taking in takings
        if taking.row.decision_id in moved and taking.step.status is DecisionStatus.SUBMITTED
    ]
    after_commit(tx, partial(_time, placed, now))
    return moved


def _time(placed: Sequence[DecisionRow], now: datetime) -> None:
    for row in placed:
        took_s = (now - row.sendable_from).total_seconds()
        telemetry.ORDER_SECONDS.labels(row.account).observe(max(took_s, 0.0))


def _event(taking: Taking, actor: str) -> Event:
    recovered = taking.step.reason is Reason.RECOVERED
    kind = EventKind.RECOVERED if recovered else _KINDS[taking.step.status]
    payload = {"reason": taking.step.reason.value, "detail": taking.detail}
    return Event(kind, actor, taking.row.account, taking.row.decision_hash, payload)
