"""executions and execution_events: every broker order we know, and what was seen of it.

`record` appends the observation and stores the fold; `adopt` does so for many orders at once that
are new here and nobody's. Seeing the same thing again writes nothing, so a repeated reconciliation
changes no row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, text

from torghut.domain.executions import ExecutionState, event_key, observe
from torghut.domain.orders import Order
from torghut.storage import order_ends
from torghut.storage.json_arrays import json_array, jsonb_array
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


def record(
    tx: Connection, account: str, seen: Sequence[Observation], *, now: datetime
) -> list[Recorded]:
    """Append observations of broker orders, in order, and fold each into its execution."""
    if not seen:
        return []
    created = _create(tx, account, seen, now=now)
    by_broker_id, by_client_id = _by_either_id(tx, [one.order for one in seen])
    recorded: list[Recorded] = []
    appended: list[tuple[int, Order, str]] = []
    folds: dict[int, tuple[ExecutionState, ExecutionState]] = {}
    for one in seen:
        order = one.order
        current = by_broker_id.get(order.broker_order_id) or by_client_id[order.client_order_id]
        id_ = current.execution_id
        if (current.broker_order_id, current.client_order_id) != (
            order.broker_order_id,
            order.client_order_id,
        ):
            recorded.append(Recorded(id_, duplicate_of=current.broker_order_id))
            continue
        attached = one.decision_id is not None and current.decision_id is None
        if attached:
            attached = attach(
                tx, order.broker_order_id, one.decision_id, origin=one.origin, now=now
            )
        appended.append((id_, order, one.source))
        first, last = folds.get(id_) or (execution_state(current),) * 2
        folds[id_] = (first, observe(last, order))
        new = created.pop(order.broker_order_id, None) is not None
        recorded.append(Recorded(id_, created=new, attached=attached))
        if new or folds[id_][1].status != first.status:
            order_ends.note(tx, order.broker_order_id, now=now)
    _observe(tx, appended, now=now)
    moved = {id_: after for id_, (before, after) in folds.items() if after != before}
    _store(tx, moved, now=now)
    return recorded


def _by_either_id(
    tx: Connection, orders: Sequence[Order]
) -> tuple[dict[str, ExecutionRow], dict[str, ExecutionRow]]:
    """The executions, locked, that have the broker's id or the client_order_id of an order; by
    the one and by the other."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM executions WHERE execution_id IN (
          SELECT execution_id FROM executions
          WHERE broker_order_id = ANY(CAST(:ids AS text[]))
          UNION SELECT execution_id FROM executions
          WHERE client_order_id = ANY(CAST(:coids AS text[])))
        ORDER BY execution_id FOR UPDATE"""),
        {
            "ids": [order.broker_order_id for order in orders],
            "coids": [order.client_order_id for order in orders],
        },
    )
    found = [execution_row(row) for row in rows]
    return (
        {row.broker_order_id: row for row in found},
        {row.client_order_id: row for row in found},
    )


def adopt(
    tx: Connection, account: str, orders: Sequence[Order], *, now: datetime
) -> dict[str, int]:
    """Executions of strangers' orders, with what was seen: broker_order_id → execution_id.

    Left out is what shares an id with another order; `record` says with which.
    """
    created = _create(
        tx, account, [Observation(order, None, "external", "rest") for order in orders], now=now
    )
    seen = [(created[o.broker_order_id], o, "rest") for o in orders if o.broker_order_id in created]
    _observe(tx, seen, now=now)
    return created


def unobserved(tx: Connection, orders: Sequence[Order]) -> frozenset[str]:
    """Broker ids of the orders of which this very observation is not stored."""
    keys = {event_key(order): order.broker_order_id for order in orders}
    stored = tx.execute(
        text("SELECT event_key FROM execution_events WHERE event_key = ANY(CAST(:k AS text[]))"),
        {"k": list(keys)},
    ).scalars()
    return frozenset(keys[key] for key in keys.keys() - set(stored))


def _observe(tx: Connection, seen: Sequence[tuple[int, Order, str]], *, now: datetime) -> None:
    """Append observations of (execution, order, source); what was seen before is one row."""
    if not seen:
        return
    tx.execute(
        text(f"""
        INSERT INTO execution_events (execution_id, event_key, source, status, cum_qty, avg_px,
          broker_updated_at, observed_at, raw)
        SELECT n.execution, n.key, n.source, n.status, n.cum_qty, n.avg_px, n.updated, :now, n.raw
        FROM unnest(CAST(:execution AS bigint[]), CAST(:key AS text[]), CAST(:source AS text[]),
          CAST(:status AS text[]), CAST(:cum_qty AS numeric[]), CAST(:avg_px AS numeric[]),
          CAST(:updated AS timestamptz[]), {jsonb_array("raw")})
          AS n (execution, key, source, status, cum_qty, avg_px, updated, raw)
        ON CONFLICT (event_key) DO NOTHING"""),
        {
            "now": now,
            "execution": [execution_id for execution_id, _, _ in seen],
            "key": [event_key(order) for _, order, _ in seen],
            "source": [source for _, _, source in seen],
            "status": [order.status for _, order, _ in seen],
            "cum_qty": [order.cum_qty for _, order, _ in seen],
            "avg_px": [order.avg_px for _, order, _ in seen],
            "updated": [order.updated_at for _, order, _ in seen],
            "raw": json_array(_raw(order) for _, order, _ in seen),
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


def _store(tx: Connection, states: Mapping[int, ExecutionState], *, now: datetime) -> None:
    """Write folds, by execution_id."""
    if not states:
        return
    tx.execute(
        text("""
        UPDATE executions e SET status = n.status, terminal = n.terminal, cum_qty = n.cum_qty,
          leaves_qty = n.leaves_qty, avg_px = n.avg_px, replaced_by = n.replaced_by,
          broker_updated_at = n.updated, updated_at = :now
        FROM unnest(CAST(:id AS bigint[]), CAST(:status AS text[]), CAST(:terminal AS boolean[]),
          CAST(:cum_qty AS numeric[]), CAST(:leaves_qty AS numeric[]), CAST(:avg_px AS numeric[]),
          CAST(:replaced_by AS text[]), CAST(:updated AS timestamptz[]))
          AS n (id, status, terminal, cum_qty, leaves_qty, avg_px, replaced_by, updated)
        WHERE e.execution_id = n.id"""),
        {
            "now": now,
            "id": list(states),
            "status": [state.status for state in states.values()],
            "terminal": [state.terminal for state in states.values()],
            "cum_qty": [state.cum_qty for state in states.values()],
            "leaves_qty": [state.leaves_qty for state in states.values()],
            "avg_px": [state.avg_px for state in states.values()],
            "replaced_by": [state.replaced_by for state in states.values()],
            "updated": [state.updated_at for state in states.values()],
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
