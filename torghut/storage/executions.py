"""executions and execution_events: every broker order we know, and what was seen of it.

`record` appends the observation and stores the fold; `adopt` does so for many orders at once that
are new here and nobody's. Seeing the same thing again writes nothing, so a repeated reconciliation
changes no row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, Row, text

from torghut.domain.executions import ExecutionState, event_key, observe
from torghut.domain.orders import Order
from torghut.storage import order_ends
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
    created = _create(tx, account, [seen], now=now)
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
        attach(tx, order.broker_order_id, seen.decision_id, origin=seen.origin, now=now)
    _observe(tx, [(current.execution_id, order)], seen.source, now=now)
    before = execution_state(current)
    after = observe(before, order)
    if after != before:
        _store(tx, current.execution_id, after, now=now)
    if created or after.status != before.status:
        order_ends.note(tx, order.broker_order_id, now=now)
    return Recorded(current.execution_id, created=bool(created), attached=attached)


def adopt(
    tx: Connection, account: str, orders: Sequence[Order], *, now: datetime
) -> dict[str, int]:
    """Executions of strangers' orders, with what was seen: broker_order_id → execution_id.

    Left out is what shares an id with another order; `record` says with which.
    """
    created = _create(
        tx, account, [Observation(order, None, "external", "rest") for order in orders], now=now
    )
    seen = [(created[o.broker_order_id], o) for o in orders if o.broker_order_id in created]
    _observe(tx, seen, "rest", now=now)
    return created


def unobserved(tx: Connection, orders: Sequence[Order]) -> frozenset[str]:
    """Broker ids of the orders of which this very observation is not stored."""
    keys = {event_key(order): order.broker_order_id for order in orders}
    stored = tx.execute(
        text("SELECT event_key FROM execution_events WHERE event_key = ANY(CAST(:k AS text[]))"),
        {"k": list(keys)},
    ).scalars()
    return frozenset(keys[key] for key in keys.keys() - set(stored))


def _observe(
    tx: Connection, seen: Sequence[tuple[int, Order]], source: str, *, now: datetime
) -> None:
    """Append observations of (execution, order); what was seen before is one row."""
    if not seen:
        return
    tx.execute(
        text("""
        INSERT INTO execution_events (execution_id, event_key, source, status, cum_qty, avg_px,
          broker_updated_at, observed_at, raw)
        SELECT n.execution, n.key, :source, n.status, n.cum_qty, n.avg_px, n.updated, :now,
          n.raw::jsonb
        FROM unnest(CAST(:execution AS bigint[]), CAST(:key AS text[]), CAST(:status AS text[]),
          CAST(:cum_qty AS numeric[]), CAST(:avg_px AS numeric[]),
          CAST(:updated AS timestamptz[]), CAST(:raw AS text[]))
          AS n (execution, key, status, cum_qty, avg_px, updated, raw)
        ON CONFLICT (event_key) DO NOTHING"""),
        {
            "source": source,
            "now": now,
            "execution": [execution_id for execution_id, _ in seen],
            "key": [event_key(order) for _, order in seen],
            "status": [order.status for _, order in seen],
            "cum_qty": [order.cum_qty for _, order in seen],
            "avg_px": [order.avg_px for _, order in seen],
            "updated": [order.updated_at for _, order in seen],
            "raw": [_raw(order) for _, order in seen],
        },
    )


def _raw(order: Order) -> str:
    return json.dumps(dict(order.raw), default=str).replace("\\u0000", "\\ufffd")


_CREATE = text("""
INSERT INTO executions (execution_id, decision_id, account, client_order_id, broker_order_id,
  origin, symbol, side, order_type, time_in_force, qty, notional, limit_price, stop_price, status,
  terminal, cum_qty, leaves_qty, avg_px, ledger_qty, replaces, replaced_by, broker_created_at,
  broker_updated_at, created_at, updated_at)
OVERRIDING SYSTEM VALUE
SELECT coalesce(l.execution_id, nextval(pg_get_serial_sequence('executions', 'execution_id'))),
  n.decision, :account, n.coid, n.id, n.origin, n.symbol, n.side, n.type, n.tif, n.qty, n.notional,
  n.limit_price, n.stop_price, n.status, n.terminal, n.cum_qty, n.leaves_qty, n.avg_px,
  coalesce((SELECT sum(f.last_qty) FROM fills f WHERE f.execution_id = l.execution_id), 0),
  n.replaces, n.replaced_by, n.created, n.updated, :now, :now
FROM unnest(CAST(:decision AS bigint[]), CAST(:coid AS text[]), CAST(:id AS text[]),
  CAST(:origin AS text[]), CAST(:symbol AS text[]), CAST(:side AS text[]), CAST(:type AS text[]),
  CAST(:tif AS text[]), CAST(:qty AS numeric[]), CAST(:notional AS numeric[]),
  CAST(:limit_price AS numeric[]), CAST(:stop_price AS numeric[]), CAST(:status AS text[]),
  CAST(:terminal AS boolean[]), CAST(:cum_qty AS numeric[]), CAST(:leaves_qty AS numeric[]),
  CAST(:avg_px AS numeric[]), CAST(:replaces AS text[]), CAST(:replaced_by AS text[]),
  CAST(:created AS timestamptz[]), CAST(:updated AS timestamptz[])) WITH ORDINALITY
  AS n (decision, coid, id, origin, symbol, side, type, tif, qty, notional, limit_price, stop_price,
    status, terminal, cum_qty, leaves_qty, avg_px, replaces, replaced_by, created, updated, place)
-- an execution that was deleted comes back under the id that its fills and observations name
LEFT JOIN lost_executions l ON l.broker_order_id = n.id
ORDER BY n.place
ON CONFLICT DO NOTHING RETURNING broker_order_id, execution_id""")


def _create(
    tx: Connection, account: str, seen: Sequence[Observation], *, now: datetime
) -> dict[str, int]:
    """Rows for orders that are new here: broker_order_id → execution_id of those that were."""
    orders = [one.order for one in seen]
    states = [observe(None, order) for order in orders]
    rows = tx.execute(
        _CREATE,
        {
            "account": account,
            "now": now,
            "decision": [one.decision_id for one in seen],
            "coid": [order.client_order_id for order in orders],
            "id": [order.broker_order_id for order in orders],
            "origin": [one.origin for one in seen],
            "symbol": [order.symbol for order in orders],
            "side": [order.side for order in orders],
            "type": [order.order_type for order in orders],
            "tif": [order.time_in_force for order in orders],
            "qty": [order.qty for order in orders],
            "notional": [order.notional for order in orders],
            "limit_price": [order.limit_price for order in orders],
            "stop_price": [order.stop_price for order in orders],
            "status": [state.status for state in states],
            "terminal": [state.terminal for state in states],
            "cum_qty": [state.cum_qty for state in states],
            "leaves_qty": [state.leaves_qty for state in states],
            "avg_px": [state.avg_px for state in states],
            "replaces": [order.replaces for order in orders],
            "replaced_by": [order.replaced_by for order in orders],
            "created": [order.created_at for order in orders],
            "updated": [order.updated_at for order in orders],
        },
    )
    return {row.broker_order_id: row.execution_id for row in rows}


def attach(
    tx: Connection, broker_order_id: str, decision_id: int | None, *, origin: str, now: datetime
) -> bool:
    """Give a decision the order adopted before it came, as after a restored backup; False if the
    order is a decision's already."""
    result = tx.execute(
        text("""UPDATE executions SET decision_id = :decision, origin = :origin
        WHERE broker_order_id = :id AND decision_id IS NULL"""),
        {"decision": decision_id, "origin": origin, "id": broker_order_id},
    )
    if result.rowcount:
        order_ends.note(tx, broker_order_id, now=now)
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


def unfinished(tx: Connection, account: str, *, after: int, limit: int) -> list[ExecutionRow]:
    """Executions that are not terminal, in turn: those beyond `after`, then from the first."""
    rows = tx.execute(
        text(f"""
        (SELECT {_COLUMNS} FROM executions
         WHERE account = :account AND NOT terminal AND execution_id > :after
         ORDER BY execution_id LIMIT :limit)
        UNION ALL
        (SELECT {_COLUMNS} FROM executions
         WHERE account = :account AND NOT terminal AND execution_id <= :after
         ORDER BY execution_id LIMIT :limit)
        LIMIT :limit"""),
        {"account": account, "after": after, "limit": limit},
    )
    return [execution_row(row) for row in rows]


def oldest_unledgered(
    tx: Connection, account: str, *, moved_since: datetime | None = None
) -> datetime | None:
    """When the oldest order was created whose fills are not all booked; None if there is none.

    With `moved_since` only of those of which we heard something new since then.
    """
    return tx.execute(
        text("""SELECT min(broker_created_at) FROM executions
        WHERE account = :account AND cum_qty > ledger_qty
          AND updated_at >= coalesce(:since, '-infinity'::timestamptz)"""),
        {"account": account, "since": moved_since},
    ).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class Unledgered:
    """An order that says more is filled than fills of it are booked."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    cum_qty: Decimal
    ledger_qty: Decimal


def unledgered(tx: Connection, account: str, *, before: datetime, limit: int) -> list[Unledgered]:
    """Orders whose fills are not all booked, and of which we heard nothing new since `before`."""
    rows = tx.execute(
        text("""SELECT broker_order_id, client_order_id, symbol, cum_qty, ledger_qty
        FROM executions
        WHERE account = :account AND cum_qty > ledger_qty AND updated_at < :before
        ORDER BY execution_id LIMIT :limit"""),
        {"account": account, "before": before, "limit": limit},
    )
    return [Unledgered(**row._mapping) for row in rows]


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
