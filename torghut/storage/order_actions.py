"""order_actions: what is to be done to standing orders, and the orders it is done to.

`insert` is idempotent under (account, request_key, target). All steps go through `begin` (the
intent before a call) and `advance`, compare-and-set on status, attempt and fencing token; what
they do not move was moved by another writer, which is no error (P5).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Row, text

from torghut.domain.order_actions import ACTION_ENDED, ActionStatus, ActionStep, Operation
from torghut.domain.submission import Proof
from torghut.ports import Answer

_COLUMNS = """a.action_id, a.account, a.operation, a.decision_id, d.decision_hash, a.target,
  a.request_key, a.request, a.changes, a.requested_by, a.reason, a.status, a.status_reason,
  a.status_detail, a.broker_order_id, a.client_order_id, a.open_qty, a.new_order_id, a.attempts,
  a.looks, a.misses, a.fencing_token, a.in_doubt_since, a.outcome, a.created_at"""
_FROM = "order_actions a LEFT JOIN trade_decisions d USING (decision_id)"
_STANDING = """execution_id, decision_id, broker_order_id, client_order_id, symbol, side, status,
  terminal, time_in_force, qty, limit_price, stop_price, cum_qty, leaves_qty, replaced_by"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAction:
    """An action to record; `target` is a decision_hash, or the broker's id of an external order."""

    operation: Operation
    decision_id: int | None
    target: str
    broker_order_id: str | None = None
    changes: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRow:
    """An action as the services need it; `decision_hash` is None for orders that are not ours."""

    action_id: int
    account: str
    operation: Operation
    decision_id: int | None
    decision_hash: str | None
    target: str
    request_key: str
    request: Mapping[str, object]
    changes: Mapping[str, object] | None
    requested_by: str
    reason: str
    status: ActionStatus
    status_reason: str | None
    status_detail: str | None
    broker_order_id: str | None
    client_order_id: str | None
    open_qty: Decimal | None
    new_order_id: str | None
    attempts: int
    looks: int
    misses: int
    fencing_token: int
    in_doubt_since: datetime | None
    outcome: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A broker order with its prices, as far as we know it."""

    execution_id: int
    decision_id: int | None
    broker_order_id: str
    client_order_id: str
    symbol: str
    side: str
    status: str
    terminal: bool
    time_in_force: str
    qty: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    cum_qty: Decimal
    leaves_qty: Decimal
    replaced_by: str | None
    exit: bool = False  # an exit of a bracket, OCO or OTO, or what replaced one


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One compare-and-set step of an action, with what came back from its call, if it was called.

    `follow` is the order to act on from now on.
    """

    row: ActionRow
    step: ActionStep
    detail: str
    wait_s: float = 0.0
    proof: Proof | None = None
    answer: Answer | None = None
    new_order_id: str | None = None
    follow: str | None = None


def insert(
    tx: Connection,
    account: str,
    actions: Sequence[NewAction],
    *,
    request_key: str,
    request: Mapping[str, object],
    requested_by: str,
    reason: str,
    now: datetime,
) -> list[int]:
    """Record actions; returns the ids of the new ones, those of the key's earlier rows are not."""
    created: list[int] = []
    for action in actions:
        id_ = tx.execute(
            text("""
            INSERT INTO order_actions (account, operation, decision_id, target, request_key,
              request, changes, requested_by, reason, broker_order_id, due_at, created_at,
              updated_at)
            VALUES (:account, :operation, :decision, :target, :key, CAST(:request AS jsonb),
              CAST(:changes AS jsonb), :by, :reason, :order, :now, :now, :now)
            ON CONFLICT (account, request_key, target) DO NOTHING RETURNING action_id"""),
            {
                "account": account,
                "operation": action.operation.value,
                "decision": action.decision_id,
                "target": action.target,
                "key": request_key,
                "request": json.dumps(dict(request)),
                "changes": None if action.changes is None else json.dumps(dict(action.changes)),
                "by": requested_by,
                "reason": reason,
                "order": action.broker_order_id,
                "now": now,
            },
        ).scalar_one_or_none()
        if id_ is not None:
            created.append(id_)
    return created


def of_key(tx: Connection, account: str, request_key: str) -> list[ActionRow]:
    """The actions that a request led to, oldest first."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM {_FROM}
        WHERE a.account = :account AND a.request_key = :key ORDER BY a.action_id"""),
        {"account": account, "key": request_key},
    )
    return [_row(row) for row in rows]


def lock_key(tx: Connection, account: str, request_key: str) -> None:
    """Make requests of one key one after the other; taken first in the transaction."""
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 1))"),
        {"key": f"torghut.request.{account}.{request_key}"},
    )


def due(tx: Connection, account: str, *, now: datetime, limit: int) -> list[ActionRow]:
    """Due actions that have not ended, longest due first, not locked."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM {_FROM}
        WHERE a.account = :account AND a.due_at <= :now
          AND a.status IN ('requested', 'confirming', 'in_doubt')
        ORDER BY a.due_at, a.action_id LIMIT :limit"""),
        {"account": account, "now": now, "limit": limit},
    )
    return [_row(row) for row in rows]


def locked(tx: Connection, action_ids: Iterable[int]) -> list[ActionRow]:
    """The actions as they stand now, locked, in the order of their ids."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM {_FROM}
        WHERE a.action_id = ANY(CAST(:ids AS bigint[])) ORDER BY a.action_id FOR UPDATE OF a"""),
        {"ids": list(action_ids)},
    )
    return [_row(row) for row in rows]


def orphans(tx: Connection, account: str, *, limit: int) -> list[ActionRow]:
    """Actions `sending` whose writer is gone (locks them): called while nothing is under way."""
    rows = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM {_FROM}
        WHERE a.account = :account AND a.status = 'sending'
        ORDER BY a.action_id LIMIT :limit FOR UPDATE OF a SKIP LOCKED"""),
        {"account": account, "limit": limit},
    )
    return [_row(row) for row in rows]


def begin(
    tx: Connection,
    row: ActionRow,
    *,
    broker_order_id: str,
    client_order_id: str | None,
    open_qty: Decimal | None,
    token: int,
    now: datetime,
) -> bool:
    """The intent of a call: requested → sending, one attempt more. False if it moved meanwhile."""
    return (
        tx.execute(
            text("""
            UPDATE order_actions SET status = 'sending', status_reason = NULL,
              status_detail = NULL, attempts = attempts + 1, looks = 0, misses = 0,
              broker_order_id = :order, client_order_id = :coid, open_qty = :open_qty,
              fencing_token = :token, sent_at = :now, updated_at = :now, outcome = NULL,
              http_status = NULL, broker_code = NULL, message = NULL, answered_at = NULL
            WHERE action_id = :id AND status = 'requested' AND attempts = :attempts
              AND fencing_token <= :token
            RETURNING action_id"""),
            {
                "id": row.action_id,
                "attempts": row.attempts,
                "order": broker_order_id,
                "coid": client_order_id,
                "open_qty": open_qty,
                "token": token,
                "now": now,
            },
        ).one_or_none()
        is not None
    )


_ADVANCE = text("""
UPDATE order_actions SET status = :after, status_reason = :reason, status_detail = :detail,
  due_at = :due_at, updated_at = :now, fencing_token = :token,
  looks = CASE WHEN status = :after AND :after IN ('confirming', 'in_doubt')
               THEN looks + 1 ELSE 0 END,
  misses = CASE WHEN :after IN ('confirming', 'in_doubt') AND status = :after
                THEN misses + :missed ELSE 0 END,
  in_doubt_since = CASE WHEN :after = 'in_doubt'
                        THEN coalesce(in_doubt_since, CAST(:now AS timestamptz)) END,
  finalized_at = CASE WHEN :ended THEN CAST(:now AS timestamptz) END,
  broker_order_id = coalesce(:follow, broker_order_id),
  new_order_id = coalesce(:new_order, new_order_id),
  outcome = coalesce(:outcome, outcome), http_status = coalesce(:http, http_status),
  broker_code = coalesce(:code, broker_code), message = coalesce(:message, message),
  answered_at = CASE WHEN CAST(:outcome AS text) IS NULL THEN answered_at
                     ELSE CAST(:now AS timestamptz) END
WHERE action_id = :id AND status = :before AND attempts = :attempts AND fencing_token <= :token
RETURNING action_id
""")


def advance(tx: Connection, move: Move, *, before: ActionStatus, token: int, now: datetime) -> bool:
    """Take one step if the action still stands at `before` in the attempt that `move` is about."""
    answer, step = move.answer, move.step
    return (
        tx.execute(
            _ADVANCE,
            {
                "id": move.row.action_id,
                "before": before.value,
                "attempts": move.row.attempts,
                "after": step.status.value,
                "ended": step.status in ACTION_ENDED,
                "reason": step.reason.value,
                "detail": _storable(move.detail)[:500],
                "due_at": now + timedelta(seconds=move.wait_s),
                "missed": int(step.missed),
                "follow": move.follow,
                "new_order": move.new_order_id,
                "outcome": move.proof.value if move.proof else None,
                "http": answer.http_status if answer else None,
                "code": answer.broker_code if answer else None,
                "message": _storable(answer.message) if answer else None,
                "token": token,
                "now": now,
            },
        ).one_or_none()
        is not None
    )


def replaces_recorded(tx: Connection, decision_id: int) -> int:
    """How many replacements of a decision's order have a client_order_id."""
    count: int = tx.execute(
        text("""SELECT count(*) FROM order_actions
        WHERE decision_id = :id AND client_order_id IS NOT NULL"""),
        {"id": decision_id},
    ).scalar_one()
    return count


def replacing(tx: Connection, decision_id: int) -> bool:
    """True while a replacement of the decision's order may be under way."""
    return bool(
        tx.execute(
            text("""SELECT EXISTS (SELECT 1 FROM order_actions WHERE decision_id = :id
              AND operation = 'replace' AND status IN ('sending', 'in_doubt'))"""),
            {"id": decision_id},
        ).scalar_one()
    )


def changes_of(tx: Connection, client_order_id: str) -> Mapping[str, object] | None:
    """What a recorded replacement asked for, None if there is none of this client_order_id."""
    row = tx.execute(
        text("SELECT changes, open_qty FROM order_actions WHERE client_order_id = :id"),
        {"id": client_order_id},
    ).one_or_none()
    return None if row is None else {**row.changes, "qty": str(row.open_qty)}


def standing_of_decision(tx: Connection, decision_id: int) -> list[Standing]:
    """The broker orders of a decision: exits of a group first, which have ids of the broker's
    making, then the decision's own line, oldest first: each but the last was replaced."""
    rows = tx.execute(
        text(f"""
        WITH RECURSIVE line AS (
          SELECT e.execution_id, e.broker_order_id, e.replaced_by
          FROM executions e JOIN trade_decisions d
            ON d.decision_id = e.decision_id AND d.decision_hash = e.client_order_id
          WHERE e.decision_id = :id
          UNION
          SELECT e.execution_id, e.broker_order_id, e.replaced_by
          FROM line JOIN executions e
            ON e.replaces = line.broker_order_id OR e.broker_order_id = line.replaced_by
          WHERE e.decision_id = :id)
        SELECT {_STANDING}, execution_id NOT IN (SELECT execution_id FROM line) AS exit
        FROM executions WHERE decision_id = :id ORDER BY exit DESC, execution_id"""),
        {"id": decision_id},
    )
    return [Standing(**row._mapping) for row in rows]


def standing_of_order(tx: Connection, broker_order_id: str) -> Standing | None:
    """One broker order, None if it is not in our books."""
    row = tx.execute(
        text(f"SELECT {_STANDING} FROM executions WHERE broker_order_id = :id"),
        {"id": broker_order_id},
    ).one_or_none()
    return None if row is None else Standing(**row._mapping)


def _row(row: Row[tuple[object, ...]]) -> ActionRow:
    values = dict(row._mapping)
    return ActionRow(
        **{
            **values,
            "operation": Operation(values["operation"]),
            "status": ActionStatus(values["status"]),
        }
    )


def _storable(value: str) -> str:
    """Text as Postgres can hold it: without NUL and lone surrogates, which a body may contain."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
