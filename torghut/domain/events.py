"""What is reported: the closed set of event kinds, and the record for the outbox (P9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    """Kinds of events; `<what>.<happened>`. Payloads: docs/architecture.md."""

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
    ADOPTED = "order.adopted"  # found at the broker without a decision of ours
    FILL_RECORDED = "fill.recorded"
    TRADING_STATE_CHANGED = "trading_state.changed"
    DISCREPANCY_OPENED = "discrepancy.opened"
    LEASE_ACQUIRED = "lease.acquired"


@dataclass(frozen=True, slots=True)
class Event:
    """One outbox entry; `actor` is who did it (executor, reconciler, cli:NAME …)."""

    kind: EventKind
    actor: str
    account: str | None = None
    decision_hash: str | None = None
    payload: Mapping[str, object] = field(default_factory=dict)
