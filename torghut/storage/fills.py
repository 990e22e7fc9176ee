"""fills: the ledger. `append` is its only writer.

A fill that is already there (same activity id) changes nothing, so pages may be read again and
again. Positions are folded in the same transaction (torghut.storage.folds); the caller holds
`leases.lock_books`, because a fold must see the one before it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from sqlalchemy import Connection, text

from torghut.domain.positions import apply_fill
from torghut.ports import FillActivity
from torghut.storage.folds import Step, fold_positions


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
    once = list({booking.fill.activity_id: booking for booking in bookings}.values())
    added = _insert(tx, account, once, now=now)
    fresh = [booking for booking in once if booking.fill.activity_id in added]
    if not fresh:
        return []
    filled: dict[int, Decimal] = defaultdict(Decimal)
    steps: list[tuple[str, str, Step]] = []
    for booking in fresh:
        fill = booking.fill
        filled[booking.execution_id] += fill.last_qty
        step = partial(apply_fill, side=fill.side, last_qty=fill.last_qty, last_px=fill.last_px)
        steps.append((booking.strategy, fill.symbol, step))
    tx.execute(
        text("""
        UPDATE executions e SET ledger_qty = e.ledger_qty + n.qty
        FROM unnest(CAST(:ids AS bigint[]), CAST(:qtys AS numeric[])) AS n (id, qty)
        WHERE e.execution_id = n.id"""),
        {"ids": list(filled), "qtys": list(filled.values())},
    )
    fold_positions(tx, account, steps, now=now)
    return fresh


def unknown(tx: Connection, activity_ids: Sequence[str]) -> set[str]:
    """Those of the activities that are not booked yet."""
    rows = tx.execute(
        text("SELECT activity_id FROM fills WHERE activity_id = ANY(CAST(:ids AS text[]))"),
        {"ids": list(activity_ids)},
    )
    return set(activity_ids) - set(rows.scalars())


def _insert(
    tx: Connection, account: str, bookings: Sequence[Booking], *, now: datetime
) -> set[str]:
    """Activity ids of the rows that were added, in the order given."""
    rows = tx.execute(
        text("""
        INSERT INTO fills (activity_id, execution_id, decision_id, account, strategy, symbol,
          side, last_qty, last_px, cum_qty, leaves_qty, transact_time, recorded_at, raw)
        SELECT n.activity, n.execution, n.decision, :account, n.strategy, n.symbol, n.side,
          n.last_qty, n.last_px, n.cum_qty, n.leaves_qty, n.transact_time, :now, n.raw::jsonb
        FROM unnest(CAST(:activity AS text[]), CAST(:execution AS bigint[]),
          CAST(:decision AS bigint[]), CAST(:strategy AS text[]), CAST(:symbol AS text[]),
          CAST(:side AS text[]), CAST(:last_qty AS numeric[]), CAST(:last_px AS numeric[]),
          CAST(:cum_qty AS numeric[]), CAST(:leaves_qty AS numeric[]),
          CAST(:transact_time AS timestamptz[]), CAST(:raw AS text[])) WITH ORDINALITY
          AS n (activity, execution, decision, strategy, symbol, side, last_qty, last_px, cum_qty,
            leaves_qty, transact_time, raw, place)
        ORDER BY n.place
        ON CONFLICT (activity_id) DO NOTHING RETURNING activity_id"""),
        {
            "account": account,
            "now": now,
            "activity": [b.fill.activity_id for b in bookings],
            "execution": [b.execution_id for b in bookings],
            "decision": [b.decision_id for b in bookings],
            "strategy": [b.strategy for b in bookings],
            "symbol": [b.fill.symbol for b in bookings],
            "side": [b.fill.side for b in bookings],
            "last_qty": [b.fill.last_qty for b in bookings],
            "last_px": [b.fill.last_px for b in bookings],
            "cum_qty": [b.fill.cum_qty for b in bookings],
            "leaves_qty": [b.fill.leaves_qty for b in bookings],
            "transact_time": [b.fill.transact_time for b in bookings],
            "raw": [json.dumps(dict(b.fill.raw), default=str) for b in bookings],
        },
    )
    return set(rows.scalars())
