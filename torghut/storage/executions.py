"""executions and execution_events: every broker order we know, and what was seen of it.

`record` is the only writer: it appends the observation and stores the fold. Seeing the same
thing again writes nothing, so a repeated reconciliation changes no row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, text

from torghut.domain.executions import ExecutionState, event_key, observe
from torghut.domain.orders import Order
from torghut.storage.rows import ExecutionRow

_COLUMNS = """execution_id, decision_id, client_order_id, broker_order_id, symbol, side, status,
  terminal, cum_qty, leaves_qty, avg_px, ledger_qty, replaced_by, broker_created_at,
  broker_updated_at"""


@dataclass(frozen=True, slots=True)
class Observation:
    """A broker order as seen; `decision_id` is None for orders that are not ours."""

    order: Order
    decision_id: int | None
    origin: str
    source: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `record` did: whether it `created` the execution.

    `duplicate_of`: the order shares one of its ids with another order, which the broker must not
    allow; it was not booked, and the caller makes it visible.
    """

    execution_id: int
    created: bool = False
    attached: bool = False  # adopted before, and now known to be a decision's own
    duplicate_of: str | None = None


def record(tx: Connection, account: str, seen: Observation, *, now: datetime) -> Recorded:
    """Append an observation of one broker order and fold it into its execution."""
    order = seen.order
    created_id = _create(tx, account, seen, now=now)
    row = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM executions
        WHERE broker_order_id = :id OR client_order_id = :coid
        ORDER BY broker_order_id = :id DESC LIMIT 1 FOR UPDATE"""),
        {"id": order.broker_order_id, "coid": order.client_order_id},
    ).one()
    current = execution_row(row)
    if (current.broker_order_id, current.client_order_id) != (
        order.broker_order_id,
        order.client_order_id,
    ):
        return Recorded(current.execution_id, duplicate_of=current.broker_order_id)
    attached = seen.decision_id is not None and current.decision_id is None
    if attached:
        attach(tx, order.broker_order_id, seen.decision_id, origin=seen.origin)
    tx.execute(
        text("""
        INSERT INTO execution_events (execution_id, event_key, source, status, cum_qty, avg_px,
          broker_updated_at, observed_at, raw)
        VALUES (:execution, :key, :source, :status, :cum_qty, :avg_px, :updated, :now,
          CAST(:raw AS jsonb))
        ON CONFLICT (event_key) DO NOTHING"""),
        {
            "execution": current.execution_id,
            "key": event_key(order),
            "source": seen.source,
            "status": order.status,
            "cum_qty": order.cum_qty,
            "avg_px": order.avg_px,
            "updated": order.updated_at,
            "now": now,
            "raw": json.dumps(dict(order.raw), default=str).replace("\\u0000", "\\ufffd"),
        },
    )
    before = execution_state(current)
    after = observe(before, order)
    if after != before:
        _store(tx, current.execution_id, after, now=now)
    return Recorded(current.execution_id, created=created_id is not None, attached=attached)


def _create(tx: Connection, account: str, seen: Observation, *, now: datetime) -> int | None:
    order = seen.order
    state = observe(None, order)
    return tx.execute(
        text("""
        INSERT INTO executions (decision_id, account, client_order_id, broker_order_id, origin,
          symbol, side, order_type, time_in_force, qty, notional, limit_price, stop_price, status,
          terminal, cum_qty, leaves_qty, avg_px, replaces, replaced_by, broker_created_at,
          broker_updated_at, created_at, updated_at)
        VALUES (:decision, :account, :coid, :id, :origin, :symbol, :side, :type, :tif, :qty,
          :notional, :limit_price, :stop_price, :status, :terminal, :cum_qty, :leaves_qty, :avg_px,
          :replaces, :replaced_by, :created, :updated, :now, :now)
        ON CONFLICT DO NOTHING RETURNING execution_id"""),
        {
            "decision": seen.decision_id,
            "account": account,
            "coid": order.client_order_id,
            "id": order.broker_order_id,
            "origin": seen.origin,
            "symbol": order.symbol,
            "side": order.side,
            "type": order.order_type,
            "tif": order.time_in_force,
            "qty": order.qty,
            "notional": order.notional,
            "limit_price": order.limit_price,
            "stop_price": order.stop_price,
            "status": state.status,
            "terminal": state.terminal,
            "cum_qty": state.cum_qty,
            "leaves_qty": state.leaves_qty,
            "avg_px": state.avg_px,
            "replaces": order.replaces,
            "replaced_by": order.replaced_by,
            "created": order.created_at,
            "updated": order.updated_at,
            "now": now,
        },
    ).scalar_one_or_none()


def attach(tx: Connection, broker_order_id: str, decision_id: int | None, *, origin: str) -> bool:
    """Give a decision the order adopted before it came, as after a restored backup; False if the
    order is a decision's already."""
    result = tx.execute(
        text("""UPDATE executions SET decision_id = :decision, origin = :origin
        WHERE broker_order_id = :id AND decision_id IS NULL"""),
        {"decision": decision_id, "origin": origin, "id": broker_order_id},
    )
    return result.rowcount > 0


def _store(tx: Connection, execution_id: int, state: ExecutionState, *, now: datetime) -> None:
    tx.execute(
        text("""
        UPDATE executions SET status = :status, terminal = :terminal, cum_qty = :cum_qty,
          leaves_qty = :leaves_qty, avg_px = :avg_px, replaced_by = :replaced_by,
          broker_updated_at = :updated, updated_at = :now
        WHERE execution_id = :id"""),
        {
            "id": execution_id,
            "status": state.status,
            "terminal": state.terminal,
            "cum_qty": state.cum_qty,
            "leaves_qty": state.leaves_qty,
            "avg_px": state.avg_px,
            "replaced_by": state.replaced_by,
            "updated": state.updated_at,
            "now": now,
        },
    )


def existing(tx: Connection, client_order_ids: Sequence[str]) -> dict[str, ExecutionRow]:
    """Executions by client_order_id: the `execution_exists` check of the submission protocol."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM executions
        WHERE client_order_id = ANY(CAST(:ids AS text[]))"""),
        {"ids": list(client_order_ids)},
    )
    return {row.client_order_id: execution_row(row) for row in rows}


def booked(tx: Connection, client_order_id: str) -> Order:
    """The order with this id as our books have it; without what the broker said word for word."""
    row = tx.execute(
        text("""SELECT broker_order_id, client_order_id, symbol, side, order_type, time_in_force,
          status, qty, notional, limit_price, stop_price, cum_qty, avg_px, replaces, replaced_by,
          broker_created_at AS created_at, broker_updated_at AS updated_at,
          CAST(NULL AS timestamptz) AS submitted_at, CAST('{}' AS jsonb) AS raw
        FROM executions WHERE client_order_id = :id"""),
        {"id": client_order_id},
    ).one()
    return Order(**row._mapping)


def by_broker_ids(tx: Connection, broker_order_ids: Sequence[str]) -> dict[str, ExecutionRow]:
    """Executions by the broker's order id."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM executions
        WHERE broker_order_id = ANY(CAST(:ids AS text[]))"""),
        {"ids": list(broker_order_ids)},
    )
    return {row.broker_order_id: execution_row(row) for row in rows}


def unfinished(tx: Connection, account: str, *, limit: int) -> list[ExecutionRow]:
    """Executions that are not terminal, least recently changed first; none skipped for age."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM executions
        WHERE account = :account AND NOT terminal
        ORDER BY updated_at, execution_id LIMIT :limit"""),
        {"account": account, "limit": limit},
    )
    return [execution_row(row) for row in rows]


def oldest_unledgered(tx: Connection, account: str) -> datetime | None:
    """When the oldest order was created whose fills are not all booked; None if there is none."""
    return tx.execute(
        text("""SELECT min(broker_created_at) FROM executions
        WHERE account = :account AND cum_qty > ledger_qty"""),
        {"account": account},
    ).scalar_one_or_none()


def execution_row(row: Row[tuple[object, ...]]) -> ExecutionRow:
    """An ExecutionRow from a result with `_COLUMNS`."""
    return ExecutionRow(**row._mapping)


def execution_state(row: ExecutionRow) -> ExecutionState:
    """The fold that a row holds."""
    return ExecutionState(
        status=row.status,
        terminal=row.terminal,
        cum_qty=row.cum_qty,
        leaves_qty=row.leaves_qty,
        avg_px=row.avg_px,
        replaced_by=row.replaced_by,
        updated_at=row.broker_updated_at,
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order in a status that should pass, and since when we have seen it there."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    status: str
    since: datetime


def waiting(tx: Connection, account: str, *, since: datetime, limit: int) -> list[Waiting]:
    """Orders seen in a passing status (pending_*, accepted) since `since` or before."""
    rows = tx.execute(
        text("""
        SELECT e.broker_order_id, e.client_order_id, e.symbol, e.status, v.since FROM executions e
        CROSS JOIN LATERAL (SELECT coalesce(min(o.observed_at), e.created_at) AS since
          FROM execution_events o
          WHERE o.execution_id = e.execution_id AND o.status = e.status) v
        WHERE e.account = :account AND NOT e.terminal AND v.since <= :since
          AND e.status IN ('pending_new', 'pending_cancel', 'pending_replace', 'accepted')
        ORDER BY e.execution_id LIMIT :limit"""),
        {"account": account, "since": since, "limit": limit},
    )
    return [Waiting(**row._mapping) for row in rows]
