"""The one door for rebalance plans, from the CLI and over HTTP: stored once, answered again.

    parse ─▶ Tx: plan, items, saga, event ─▶ commit ─▶ answer

One plan per account and correlation_id: the same again is answered with what became of it, another
one under the correlation_id is a conflict that names the difference. Who gets no answer sends the
same again. The saga is in torghut.services.plan_saga.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from torghut.domain.errors import DatabaseUnavailable, Fault
from torghut.domain.events import Event, EventKind
from torghut.domain.plans import PLAN_SAGA, PLAN_STEPS, InvalidPlan, PlanRequest, differing_parts
from torghut.idempotency import payload_digest
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services import sagas
from torghut.storage import control, durability, plan_reads, plans
from torghut.storage.database import Database
from torghut.storage.rows import IntakeResult

TRIES = 3


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """The answer to a plan: how it stands, and what differs where it is in conflict."""

    plan_id: int
    correlation_id: str
    result: IntakeResult
    plan: dict[str, Any]
    differing: tuple[str, ...] = ()


def accept(
    database: Database, request: PlanRequest, *, source: str, ttl: timedelta, now: datetime
) -> PlanAnswer:
    """Store a plan durably, or answer for the one that stands.

    `now` is its event_ts where the sender gave none, stored with it; `ttl` from event_ts on is its
    life where it names no end. Raises InvalidPlan, DatabaseUnavailable.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return _accept(database, request, source=source, ttl=ttl, now=now)
        except DatabaseUnavailable:
            if attempt == TRIES:
                raise
    raise AssertionError("unreachable")


def _accept(
    database: Database, request: PlanRequest, *, source: str, ttl: timedelta, now: datetime
) -> PlanAnswer:
    payload = request.payload()
    event_ts = request.event_ts or now
    try:
        expires_at = request.expires_at or event_ts + ttl
    except OverflowError:
        raise InvalidPlan([Fault("event_ts", "is too far in the future")]) from None
    with database.transaction() as tx:
        row, created = plans.insert(
            tx,
            account=request.account,
            correlation_id=request.correlation_id,
            strategy=request.strategy,
            event_ts=event_ts,
            expires_at=expires_at,
            payload=payload,
            digest=payload_digest(payload),
            source=source,
            now=now,
        )
        if created:
            if request.items is not None:
                plans.add_items(tx, row.plan_id, request.items)
            sagas.start(
                tx,
                PLAN_SAGA,
                PLAN_STEPS,
                account=request.account,
                key=str(row.plan_id),
                payload={"plan_id": row.plan_id},
                actor=source,
                now=now,
            )
            told: dict[str, object] = {
                "plan_id": row.plan_id,
                "correlation_id": request.correlation_id,
                "strategy": request.strategy,
                "items": None if request.items is None else len(request.items),
            }
            event = Event(EventKind.PLAN_ACCEPTED, source, request.account, None, told)
            control.add_events(tx, [event], now=now)
        else:
            durability.confirm(tx)
        stands = plan_reads.plan(tx, row.plan_id)
        assert stands is not None
        reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
    reached(RecoveryPoint.PLAN_AFTER_COMMIT)
    differing: tuple[str, ...] = ()
    result = IntakeResult.CREATED if created else IntakeResult.REPLAYED
    if not created and row.digest != payload_digest(payload):
        result, differing = IntakeResult.CONFLICT, differing_parts(row.payload, payload)
    return PlanAnswer(row.plan_id, request.correlation_id, result, stands, differing)
