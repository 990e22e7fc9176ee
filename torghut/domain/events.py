"""What is reported: the closed set of event kinds, and the record for the outbox (P9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    """Kinds of events; `<what>.<happened>`. Payloads: torghut.domain.event_schema."""

    DECISION_PLANNED = "decision.planned"
    DECISION_APPROVED = "decision.approved"
    DECISION_DENIED = "decision.denied"
    DECISION_EXPIRED = "decision.expired"
    DECISION_CANCELED = "decision.canceled"
    DECISION_CLOSED = "decision.closed"
    SUBMIT_STARTED = "order.submit_started"
    SUBMITTED = "order.submitted"
    REJECTED = "order.rejected"
    IN_DOUBT = "order.in_doubt"
    RECOVERED = "order.recovered"
    RETURNED = "order.returned"  # back to approved: surely not taken
    REPLACED = "order.replaced"
    CANCELED = "order.canceled"
    ADOPTED = "order.adopted"  # found at the broker without a decision of ours
    FILL_RECORDED = "fill.recorded"
    POSITION_CHANGED = "position.changed"
    ENTRY_RECORDED = "entry.recorded"  # positions or cash changed without a fill
    ACTION_REQUESTED = "order_action.requested"
    ACTION_STARTED = "order_action.started"
    ACTION_RETURNED = "order_action.returned"  # back to requested: surely not taken, or asked again
    ACTION_CONFIRMING = "order_action.confirming"  # the broker took it; the order has not ended
    ACTION_IN_DOUBT = "order_action.in_doubt"
    ACTION_DONE = "order_action.done"
    ACTION_REFUSED = "order_action.refused"
    ACTION_MOOT = "order_action.moot"  # there was nothing left to act on
    FLATTEN_CHANGED = "flatten.changed"
    PLAN_ACCEPTED = "plan.accepted"
    PLAN_ITEM_PLACED = "plan.item_placed"  # it has a decision
    PLAN_FUNDED = "plan.funded"  # the sells are settled, and the budget of the buys is known
    PLAN_ITEM_SETTLED = "plan.item_settled"
    PLAN_ENDED = "plan.ended"
    SAGA_STARTED = "saga.started"
    SAGA_STEP_DONE = "saga.step_done"
    SAGA_STEP_FAILED = "saga.step_failed"  # transiently: it will be tried again
    SAGA_COMPENSATING = "saga.compensating"  # a step failed for good
    SAGA_STEP_UNDONE = "saga.step_undone"
    SAGA_COMPLETED = "saga.completed"
    SAGA_COMPENSATED = "saga.compensated"
    TRADING_STATE_CHANGED = "trading_state.changed"
    LIMITS_RELOADED = "limits.reloaded"
    LIMITS_REFUSED = "limits.reload_refused"  # the old limits stay in force
    DISCREPANCY_OPENED = "discrepancy.opened"
    DISCREPANCY_CLOSED = "discrepancy.closed"
    DISCREPANCY_RESOLVED = "discrepancy.resolved"  # its name in older rows; not written any more
    LEASE_ACQUIRED = "lease.acquired"
    DEAD_LETTER_RETRIED = "dead_letter.retried"  # asked for by a person
    DEAD_LETTER_DROPPED = "dead_letter.dropped"
    SINK_FORGOTTEN = "sink.forgotten"
    INBOX_DISMISSED = "inbox.dismissed"  # a refused decision that a person has looked into
    TOKEN_CREATED = "token.created"  # noqa: S105 - no password
    TOKEN_REVOKED = "token.revoked"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Event:
    """One outbox entry; `actor` is who did it (executor, reconciler, cli:NAME …)."""

    kind: EventKind
    actor: str
    account: str | None = None
    decision_hash: str | None = None
    payload: Mapping[str, object] = field(default_factory=dict)
