"""plans and plan_items: what is to be traded, and what became of each item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from torghut.domain.orders import Side
from torghut.domain.plans import ItemStatus, OnFailure, PlanItem, PlanStatus, Sizing

_COLUMNS = """plan_id, account, correlation_id, strategy, event_ts, expires_at, payload, digest,
  status, proceeds, budget"""
_ITEM = """position, phase, symbol, trade_amount, whole, status, reason, funded_amount, qty,
  decision_hash, filled_value"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """A plan as the services need it."""

    plan_id: int
    account: str
    correlation_id: str
    strategy: str
    event_ts: datetime
    expires_at: datetime
    payload: Mapping[str, Any]
    digest: str
    status: PlanStatus
    proceeds: Decimal | None
    budget: Decimal | None

    @property
    def sizing(self) -> Sizing:
        return Sizing(self.payload["sizing"])

    @property
    def on_failure(self) -> OnFailure:
        return OnFailure(self.payload["on_failure"])

    @property
    def minimum(self) -> Decimal:
        return Decimal(self.payload["min_trade_amount"])

    @property
    def targets(self) -> dict[str, Decimal]:
        """Symbol → weight; empty where the plan came with items."""
        return {s: Decimal(w) for s, w in self.payload.get("targets", {}).items()}

    @property
    def cash(self) -> Decimal | None:
        """What of the account's cash the buys may use, where the plan says so."""
        named = self.payload.get("cash")
        return None if named is None else Decimal(named)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """An item of a plan, duplicates left out."""

    position: int
    phase: Side
    symbol: str
    trade_amount: Decimal
    whole: bool
    status: ItemStatus
    reason: str | None
    funded_amount: Decimal | None
    qty: Decimal | None
    decision_hash: str | None
    filled_value: Decimal


def insert(
    tx: Connection,
    *,
    account: str,
    correlation_id: str,
    strategy: str,
    event_ts: datetime,
    expires_at: datetime,
    payload: Mapping[str, object],
    digest: str,
    source: str,
    now: datetime,
) -> tuple[PlanRow, bool]:
    """The plan of this correlation_id, and True if it is new."""
    values = {
        "account": account,
        "correlation_id": correlation_id,
        "strategy": strategy,
        "event_ts": event_ts,
        "expires_at": expires_at,
        "payload": json.dumps(payload),
        "digest": digest,
        "source": source,
        "now": now,
    }
    created = tx.execute(
        text(f"""
        INSERT INTO plans (account, correlation_id, strategy, event_ts, expires_at, payload, digest,
          source, created_at, updated_at)
        VALUES (:account, :correlation_id, :strategy, :event_ts, :expires_at,
          CAST(:payload AS jsonb), :digest, :source, :now, :now)
        ON CONFLICT (account, correlation_id) DO NOTHING RETURNING {_COLUMNS}"""),
        values,
    ).one_or_none()
    if created is not None:
        return _row(created._mapping), True
    known = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM plans
        WHERE account = :account AND correlation_id = :correlation_id"""),
        {"account": account, "correlation_id": correlation_id},
    ).one()
    return _row(known._mapping), False


def get(tx: Connection, plan_id: int) -> PlanRow:
    """A plan that is there."""
    row = tx.execute(
        text(f"SELECT {_COLUMNS} FROM plans WHERE plan_id = :id"), {"id": plan_id}
    ).one()
    return _row(row._mapping)


def add_items(tx: Connection, plan_id: int, items: Sequence[PlanItem]) -> None:
    """The items of a plan in their order; one that was there before is a duplicate of the first."""
    first: dict[tuple[str, str, Decimal], int] = {}
    rows = []
    for position, item in enumerate(items):
        key = (item.side.value, item.symbol, item.trade_amount)
        same = first.setdefault(key, position)
        rows.append((position, item, None if same == position else same))
    tx.execute(
        text("""
        INSERT INTO plan_items (plan_id, position, phase, symbol, trade_amount, whole, duplicate_of,
          status)
        SELECT :id, n.position, n.phase, n.symbol, n.trade_amount, n.whole, n.duplicate_of,
          CASE WHEN n.duplicate_of IS NULL THEN 'pending' ELSE 'duplicate' END
        FROM unnest(CAST(:position AS int[]), CAST(:phase AS text[]), CAST(:symbol AS text[]),
          CAST(:trade_amount AS numeric[]), CAST(:whole AS boolean[]),
          CAST(:duplicate_of AS int[]))
          AS n (position, phase, symbol, trade_amount, whole, duplicate_of)
        ORDER BY n.position"""),
        {
            "id": plan_id,
            "position": [position for position, _, _ in rows],
            "phase": [item.side.value for _, item, _ in rows],
            "symbol": [item.symbol for _, item, _ in rows],
            "trade_amount": [item.trade_amount for _, item, _ in rows],
            "whole": [item.whole for _, item, _ in rows],
            "duplicate_of": [same for _, _, same in rows],
        },
    )


def items(tx: Connection, plan_id: int, phase: Side | None = None) -> list[ItemRow]:
    """The items of a plan, or of a phase, in their order; duplicates left out."""
    rows = tx.execute(
        text(f"""SELECT {_ITEM} FROM plan_items
        WHERE plan_id = :id AND duplicate_of IS NULL
          AND (CAST(:phase AS text) IS NULL OR phase = :phase)
        ORDER BY position"""),
        {"id": plan_id, "phase": None if phase is None else phase.value},
    )
    return [
        ItemRow(**{**row._mapping, "phase": Side(row.phase), "status": ItemStatus(row.status)})
        for row in rows
    ]


def fund(
    tx: Connection,
    plan_id: int,
    *,
    proceeds: Decimal,
    budget: Decimal,
    parts: Mapping[int, Decimal],
    now: datetime,
) -> None:
    """The budget of the buys, and what of each of them (by position) it covers; once."""
    tx.execute(
        text("""UPDATE plans SET proceeds = :proceeds, budget = :budget, updated_at = :now
        WHERE plan_id = :id AND budget IS NULL"""),
        {"id": plan_id, "proceeds": proceeds, "budget": budget, "now": now},
    )
    tx.execute(
        text("""UPDATE plan_items i SET funded_amount = n.amount
        FROM unnest(CAST(:positions AS int[]), CAST(:amounts AS numeric[])) AS n (position, amount)
        WHERE i.plan_id = :id AND i.position = n.position AND i.funded_amount IS NULL"""),
        {"id": plan_id, "positions": list(parts), "amounts": list(parts.values())},
    )


def place(
    tx: Connection,
    plan_id: int,
    position: int,
    *,
    qty: Decimal,
    px: Decimal,
    decision_hash: str,
    now: datetime,
) -> None:
    """The item has a decision: in the transaction that stores the decision."""
    tx.execute(
        text("""UPDATE plan_items SET status = 'placed', qty = :qty, reference_px = :px,
          decision_hash = :hash, placed_at = :now
        WHERE plan_id = :id AND position = :position AND status = 'pending'"""),
        {
            "id": plan_id,
            "position": position,
            "qty": qty,
            "px": px,
            "hash": decision_hash,
            "now": now,
        },
    )


def settle(
    tx: Connection,
    plan_id: int,
    position: int,
    after: ItemStatus,
    *,
    reason: str | None = None,
    detail: str | None = None,
    filled_qty: Decimal = Decimal(0),
    filled_value: Decimal = Decimal(0),
    now: datetime,
) -> None:
    """What became of an item; it stays."""
    tx.execute(
        text("""UPDATE plan_items SET status = :after, reason = :reason, detail = :detail,
          filled_qty = :qty, filled_value = :worth, settled_at = :now
        WHERE plan_id = :id AND position = :position AND status IN ('pending', 'placed')"""),
        {
            "id": plan_id,
            "position": position,
            "after": after.value,
            "reason": reason,
            "detail": detail,
            "qty": filled_qty,
            "worth": filled_value,
            "now": now,
        },
    )


def finish(
    tx: Connection, plan_id: int, after: PlanStatus, *, detail: str | None, now: datetime
) -> bool:
    """The plan's end; False if it had ended before."""
    moved = tx.execute(
        text("""UPDATE plans SET status = :after, status_detail = :detail, updated_at = :now,
          finalized_at = :now
        WHERE plan_id = :id AND status = 'working' RETURNING plan_id"""),
        {"id": plan_id, "after": after.value, "detail": detail, "now": now},
    ).one_or_none()
    return moved is not None


def _row(mapping: Mapping[Any, Any]) -> PlanRow:
    return PlanRow(**{**mapping, "status": PlanStatus(mapping["status"])})
