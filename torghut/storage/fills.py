"""fills, positions and strategy_positions: the ledger and its folds.

`append` is the only writer; a fill that is already there (same activity id) changes nothing, so
pages may be read again and again. Positions are folded in the same transaction; the caller holds
`leases.lock_books`, because a fold must see the one before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from sqlalchemy import Connection, text

from torghut.domain.positions import Position, apply_fill
from torghut.ports import FillActivity


@dataclass(frozen=True, slots=True)
class Booking:
    """A fill with the execution it belongs to; `strategy` is empty for external orders."""

    fill: FillActivity
    execution_id: int
    decision_id: int | None
    strategy: str


def append(
    tx: Connection, account: str, bookings: Sequence[Booking], *, now: datetime
) -> list[Booking]:
    """Book fills, oldest first; returns those that were new."""
    if not bookings:
        return []
    fresh = [booking for booking in bookings if _insert(tx, account, booking, now=now)]
    for booking in fresh:
        fill = booking.fill
        tx.execute(
            text("UPDATE executions SET ledger_qty = ledger_qty + :qty WHERE execution_id = :id"),
            {"qty": fill.last_qty, "id": booking.execution_id},
        )
        step = partial(apply_fill, side=fill.side, last_qty=fill.last_qty, last_px=fill.last_px)
        fold_positions(tx, account, booking.strategy, fill.symbol, step, now=now)
    return fresh


def unknown(tx: Connection, activity_ids: Sequence[str]) -> set[str]:
    """Those of the activities that are not booked yet."""
    rows = tx.execute(
        text("SELECT activity_id FROM fills WHERE activity_id = ANY(CAST(:ids AS text[]))"),
        {"ids": list(activity_ids)},
    )
    return set(activity_ids) - set(rows.scalars())


def _insert(tx: Connection, account: str, booking: Booking, *, now: datetime) -> bool:
    fill = booking.fill
    return (
        tx.execute(
            text("""
            INSERT INTO fills (activity_id, execution_id, decision_id, account, strategy, symbol,
              side, last_qty, last_px, cum_qty, leaves_qty, transact_time, recorded_at, raw)
            VALUES (:activity, :execution, :decision, :account, :strategy, :symbol, :side,
              :last_qty, :last_px, :cum_qty, :leaves_qty, :transact_time, :now,
              CAST(:raw AS jsonb))
            ON CONFLICT (activity_id) DO NOTHING RETURNING fill_id"""),
            {
                "activity": fill.activity_id,
                "execution": booking.execution_id,
                "decision": booking.decision_id,
                "account": account,
                "strategy": booking.strategy,
                "symbol": fill.symbol,
                "side": fill.side,
                "last_qty": fill.last_qty,
                "last_px": fill.last_px,
                "cum_qty": fill.cum_qty,
                "leaves_qty": fill.leaves_qty,
                "transact_time": fill.transact_time,
                "now": now,
                "raw": json.dumps(dict(fill.raw), default=str),
            },
        ).one_or_none()
        is not None
    )


def fold_positions(
    tx: Connection,
    account: str,
    strategy: str,
    symbol: str,
    step: Callable[[Position], Position],
    *,
    now: datetime,
) -> None:
    """Take one step in the folds of the account and of the strategy; both end in the same sum."""
    _fold(tx, "positions", {"account": account, "symbol": symbol}, step, now=now)
    key = {"account": account, "strategy": strategy, "symbol": symbol}
    _fold(tx, "strategy_positions", key, step, now=now)


def _fold(
    tx: Connection,
    table: str,
    key: dict[str, str],
    step: Callable[[Position], Position],
    *,
    now: datetime,
) -> None:
    where = " AND ".join(f"{name} = :{name}" for name in key)
    row = tx.execute(
        text(f"SELECT qty, cost_basis, realized_pl FROM {table} WHERE {where} FOR UPDATE"), key
    ).one_or_none()
    after = step(Position() if row is None else Position(row.qty, row.cost_basis, row.realized_pl))
    names = ", ".join(key)
    values = ", ".join(f":{name}" for name in key)
    tx.execute(
        text(f"""
        INSERT INTO {table} ({names}, qty, cost_basis, avg_px, realized_pl, updated_at)
        VALUES ({values}, :qty, :cost_basis, :avg_px, :realized_pl, :now)
        ON CONFLICT ({names}) DO UPDATE SET qty = excluded.qty,
          cost_basis = excluded.cost_basis, avg_px = excluded.avg_px,
          realized_pl = excluded.realized_pl, updated_at = excluded.updated_at"""),
        {
            **key,
            "qty": after.qty,
            "cost_basis": after.cost_basis,
            "avg_px": after.avg_px,
            "realized_pl": after.realized_pl,
            "now": now,
        },
    )


def strategy_positions(tx: Connection, account: str, strategy: str) -> dict[str, Decimal]:
    """Signed position per symbol of one strategy."""
    rows = tx.execute(
        text("""SELECT symbol, qty FROM strategy_positions
        WHERE account = :account AND strategy = :strategy"""),
        {"account": account, "strategy": strategy},
    )
    return {row.symbol: row.qty for row in rows}
