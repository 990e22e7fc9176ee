"""account_entries: what changed positions or cash without a fill; append-only, folded at once.

The caller holds `leases.lock_books`, as for fills. Ledger cash follows from the folds alone: what
fills moved is in `realized_pl - cost_basis` of the positions to the last digit
(torghut.domain.positions), and so is, without having moved any cash, the worth of entries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from torghut.storage.folds import SPLITS, entry_step, fold_positions

OPENING = "OPENING"
ADJUSTMENT = "ADJUSTMENT"

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change; `key` makes it one row however often it is seen. Without a `symbol` it is cash
    alone; `px` is what a unit is worth in the position's cost, and moves no cash."""

    key: str
    kind: str
    occurred_at: datetime
    actor: str
    reason: str
    symbol: str | None = None
    qty: Decimal = _ZERO
    px: Decimal | None = None
    cash: Decimal = _ZERO
    raw: Mapping[str, object] = field(default_factory=dict)


def append(tx: Connection, account: str, entry: Entry, *, now: datetime) -> bool:
    """Book an entry and fold it into the position of its symbol; False if it is booked already."""
    inserted = tx.execute(
        text("""
        INSERT INTO account_entries (account, entry_key, kind, symbol, qty, px, cash, occurred_at,
          recorded_at, actor, reason, raw)
        VALUES (:account, :key, :kind, :symbol, :qty, :px, :cash, :occurred_at, :now, :actor,
          :reason, CAST(:raw AS jsonb))
        ON CONFLICT (account, entry_key) DO NOTHING RETURNING entry_id"""),
        {
            "account": account,
            "key": entry.key,
            "kind": entry.kind,
            "symbol": entry.symbol,
            "qty": entry.qty,
            "px": entry.px,
            "cash": entry.cash,
            "occurred_at": entry.occurred_at,
            "now": now,
            "actor": entry.actor,
            "reason": entry.reason,
            "raw": json.dumps(dict(entry.raw), default=str),
        },
    ).one_or_none()
    if inserted is None:
        return False
    if entry.qty and entry.symbol:
        step = entry_step(entry.qty, entry.px, keeps_cost=entry.kind in SPLITS)
        fold_positions(tx, account, [("", entry.symbol, step)], now=now)
    return True


def unknown(tx: Connection, account: str, keys: Sequence[str]) -> set[str]:
    """Those of the entries that are not booked yet."""
    rows = tx.execute(
        text("""SELECT entry_key FROM account_entries
        WHERE account = :account AND entry_key = ANY(CAST(:keys AS text[]))"""),
        {"account": account, "keys": list(keys)},
    )
    return set(keys) - set(rows.scalars())


def newest(tx: Connection, account: str) -> datetime | None:
    """When the broker's newest entry that we booked happened."""
    found: datetime | None = tx.execute(
        text("""SELECT max(occurred_at) FROM account_entries
        WHERE account = :account AND kind NOT IN ('OPENING', 'ADJUSTMENT')"""),
        {"account": account},
    ).scalar_one()
    return found


def opened(tx: Connection, account: str) -> bool:
    """True once the opening is booked: from then on books and broker are compared."""
    found: bool = tx.execute(
        text("""SELECT EXISTS (SELECT 1 FROM account_entries
        WHERE account = :account AND kind = 'OPENING' AND symbol IS NULL)"""),
        {"account": account},
    ).scalar_one()
    return found


def cash(tx: Connection, account: str) -> Decimal:
    """The account's cash by our books, exact."""
    found: Decimal = tx.execute(
        text("""
        SELECT (SELECT coalesce(sum(realized_pl - cost_basis), 0) FROM positions
                WHERE account = :account)
             + (SELECT coalesce(sum(cash + CASE WHEN kind = ANY (CAST(:splits AS text[])) THEN 0
                                            ELSE qty * coalesce(px, 0) END), 0)
                FROM account_entries WHERE account = :account)"""),
        {"account": account, "splits": sorted(SPLITS)},
    ).scalar_one()
    return found
