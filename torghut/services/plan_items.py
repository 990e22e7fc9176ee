"""One item of a plan: it gets its decision, and what became of that is written down.

Each function is a part of the caller's transaction; the monitor and the metrics hear of it after
the commit.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import partial

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.events import Event, EventKind
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.plans import ZERO, ItemReason, ItemStatus, intent
from torghut.domain.values import canonical_amount
from torghut.ports import OrderMonitor, PlanItemChange
from torghut.services import intake
from torghut.services.saga_orders import Leg, market_decision
from torghut.storage import control, plans
from torghut.storage.database import after_commit
from torghut.storage.order_outcomes import OrderOutcome, outcomes
from torghut.storage.plans import ItemRow, PlanRow
from torghut.storage.rows import IntakeResult

ACTOR = "plans"

log = structlog.get_logger(__name__)


def leg_of(plan: PlanRow, item: ItemRow, filled_qty: Decimal = ZERO) -> Leg:
    """What the item's decision is told apart by, and what was filled of it."""
    return Leg(
        account=plan.account,
        strategy=plan.strategy,
        symbol=item.symbol,
        side=item.phase,
        event_ts=plan.event_ts,
        intent=intent(plan.correlation_id, item.phase, item.trade_amount),
        correlation_id=plan.correlation_id,
        filled_qty=filled_qty,
    )


def place_item(
    tx: Connection,
    plan: PlanRow,
    item: ItemRow,
    qty: Decimal,
    px: Decimal,
    *,
    monitor: OrderMonitor,
    clock: Clock,
) -> None:
    """Store the item's decision with the row that says so."""
    now = clock()
    decision = market_decision(leg_of(plan, item), qty, expires_at=plan.expires_at)
    answer = intake.store(tx, [decision], source=ACTOR, clock=clock)[0]
    if answer.result is IntakeResult.CONFLICT:
        end_item(tx, plan, item, ItemStatus.FAILED, ItemReason.IDENTITY_TAKEN, monitor, now=now)
        return
    plans.place(
        tx,
        plan.plan_id,
        item.position,
        qty=qty,
        px=px,
        decision_hash=decision.decision_hash,
        now=now,
    )
    told = _told(plan, item) | {
        "trade_amount": canonical_amount(item.trade_amount),
        "qty": canonical_amount(qty),
    }
    kind, hash_ = EventKind.PLAN_ITEM_PLACED, decision.decision_hash
    control.add_events(tx, [Event(kind, ACTOR, plan.account, hash_, told)], now=now)
    change = _change(plan, item, ItemStatus.PLACED, None, hash_, ZERO, ZERO)
    after_commit(tx, partial(_tell, monitor, change))


def settle_items(
    tx: Connection, plan: PlanRow, items: list[ItemRow], monitor: OrderMonitor, *, now: datetime
) -> list[OrderOutcome]:
    """Write down what has ended of the placed ones; returns those that have not."""
    placed = [item for item in items if item.status is ItemStatus.PLACED]
    found = outcomes(tx, [str(item.decision_hash) for item in placed])
    for item in placed:
        one = found[str(item.decision_hash)]
        if one.settled:
            status, reason = _came_to(item, one)
            end_item(tx, plan, item, status, reason, monitor, outcome=one, now=now)
    return [one for one in found.values() if not one.settled]


def end_item(
    tx: Connection,
    plan: PlanRow,
    item: ItemRow,
    status: ItemStatus,
    reason: str | None,
    monitor: OrderMonitor,
    *,
    outcome: OrderOutcome | None = None,
    now: datetime,
) -> None:
    """What became of the item; it stays."""
    qty = ZERO if outcome is None else outcome.filled_qty
    worth = ZERO if outcome is None else outcome.filled_value
    plans.settle(
        tx,
        plan.plan_id,
        item.position,
        status,
        reason=reason,
        detail=None if outcome is None else outcome.detail,
        filled_qty=qty,
        filled_value=worth,
        now=now,
    )
    told = _told(plan, item) | {
        "status": status.value,
        "filled_qty": canonical_amount(qty),
        "filled_value": canonical_amount(worth),
        **({} if reason is None else {"reason": str(reason)}),
    }
    event = Event(EventKind.PLAN_ITEM_SETTLED, ACTOR, plan.account, item.decision_hash, told)
    control.add_events(tx, [event], now=now)
    change = _change(plan, item, status, reason, item.decision_hash, qty, worth)
    after_commit(tx, partial(_tell, monitor, change))
    after_commit(tx, partial(_count, item, status))


def _came_to(item: ItemRow, one: OrderOutcome) -> tuple[ItemStatus, str | None]:
    if item.qty is not None and one.filled_qty >= item.qty:
        return ItemStatus.SUCCEEDED, None
    if one.filled_qty:
        return ItemStatus.FAILED, ItemReason.PARTLY_FILLED
    if one.status is DecisionStatus.CLOSED:
        return ItemStatus.FAILED, ItemReason.NOT_FILLED
    return ItemStatus.FAILED, one.reason or ItemReason.NOT_FILLED


def _told(plan: PlanRow, item: ItemRow) -> dict[str, object]:
    return {
        "plan_id": plan.plan_id,
        "correlation_id": plan.correlation_id,
        "position": item.position,
        "phase": item.phase.value,
        "symbol": item.symbol,
    }


def _change(
    plan: PlanRow,
    item: ItemRow,
    status: ItemStatus,
    reason: str | None,
    decision_hash: str | None,
    qty: Decimal,
    worth: Decimal,
) -> PlanItemChange:
    return PlanItemChange(
        plan_id=plan.plan_id,
        correlation_id=plan.correlation_id,
        position=item.position,
        phase=item.phase.value,
        symbol=item.symbol,
        status=status.value,
        reason=reason,
        decision_hash=decision_hash,
        filled_qty=qty,
        filled_value=worth,
    )


def _tell(monitor: OrderMonitor, change: PlanItemChange) -> None:
    try:
        monitor.item_changed(change)
    except Exception as error:  # noqa: BLE001 - somebody else's code, and no reason to stop
        log.warning("order monitor failed", error=f"{type(error).__name__}: {error}")


def _count(item: ItemRow, status: ItemStatus) -> None:
    telemetry.PLAN_ITEMS.labels(item.phase.value, status.value).inc()
