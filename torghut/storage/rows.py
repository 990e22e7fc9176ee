"""What storage hands out: frozen rows with aware UTC instants and Decimal amounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

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
    attempts: int
    fencing_token: int
    in_doubt_since: datetime | None
    lookups: int
    lookup_misses: int


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


@dataclass(frozen=True, slots=True)
class SymbolExposure:
    """Signed position by our books (fills not booked included) and open shares by side."""

    ledger_qty: Decimal
    buy_qty: Decimal
    sell_qty: Decimal


@dataclass(frozen=True, slots=True)
class Exposure:
    """All that may be live in an account (P7); `notional` is what the snapshot knows nothing of."""

    by_symbol: Mapping[str, SymbolExposure]
    notional: Decimal
    open_orders: int
    orders_last_minute: int
    orders_today: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSnapshot:
    """Newest answer of the broker about the account; `positions` maps symbol → signed qty."""

    account_number: str
    equity: Decimal | None
    last_equity: Decimal | None
    cash: Decimal | None
    buying_power: Decimal | None
    blocked: bool
    positions: Mapping[str, Decimal]
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease held: writes are fenced by `fencing_token`."""

    account: str
    owner: str
    fencing_token: int
    expires_at: datetime
