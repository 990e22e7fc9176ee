"""What storage hands out: frozen rows with aware UTC instants and Decimal amounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from torghut.domain.exposure import AccountFacts
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.orders import OrderRequest


class IntakeResult(StrEnum):
    """How an idempotent insert answers."""

    CREATED = "created"
    REPLAYED = "replayed"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Intake:
    """The answer for one decision; `status` is where it stands now, `differing` for conflicts."""

    decision_hash: str
    result: IntakeResult
    status: DecisionStatus
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """A decision as the services need it to act on it."""

    decision_id: int
    decision_hash: str
    account: str
    strategy: str
    order: OrderRequest
    event_ts: datetime
    expires_at: datetime
    created_at: datetime
    status: DecisionStatus
    due_at: datetime
    updated_at: datetime
    attempts: int
    fencing_token: int
    in_doubt_since: datetime | None
    lookups: int
    lookup_misses: int

    @property
    def stage_began(self) -> datetime:
        """When it came to its status; for a decision that was approved and then held back for
        the market's hours, since when it is held."""
        if self.status is DecisionStatus.PLANNED:
            return self.created_at
        return self.in_doubt_since or self.updated_at

    @property
    def sendable_from(self) -> datetime:
        """From when its order could have been at the broker: a decision that was put off, as for
        the market's hours, is due later than it came."""
        return self.created_at if self.attempts else max(self.created_at, self.due_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRow:
    """One broker order, as far as we know."""

    execution_id: int
    decision_id: int | None
    client_order_id: str
    broker_order_id: str
    symbol: str
    side: str
    status: str
    terminal: bool
    cum_qty: Decimal
    leaves_qty: Decimal
    avg_px: Decimal | None
    ledger_qty: Decimal
    replaced_by: str | None
    broker_created_at: datetime
    broker_updated_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSnapshot:
    """Newest answer of the broker about the account; by symbol: signed `positions`, `marks`
    (current prices) and `entry_pxs` (average entry prices)."""

    account_number: str
    equity: Decimal | None
    peak_equity: Decimal | None  # since the last resume by a person
    last_equity: Decimal | None
    cash: Decimal | None
    buying_power: Decimal | None
    blocked: bool
    shorting_enabled: bool | None
    positions: Mapping[str, Decimal]
    marks: Mapping[str, Decimal]
    entry_pxs: Mapping[str, Decimal]
    observed_at: datetime

    def facts(self) -> AccountFacts:
        """The account as risk looks at it."""
        return AccountFacts(
            equity=self.equity,
            last_equity=self.last_equity,
            buying_power=self.buying_power,
            blocked=self.blocked,
            observed_at=self.observed_at,
            shorting_enabled=self.shorting_enabled,
            peak_equity=self.peak_equity,
            account_number=self.account_number,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease held: writes are fenced by `fencing_token`."""

    account: str
    owner: str
    fencing_token: int
    expires_at: datetime
