"""Plans and sagas as the CLI, HTTP and the console show them: plain JSON, newest first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from torghut.domain.orders import Side
from torghut.storage.queries import Filters, page, plain

_PLAN = """p.plan_id AS id, p.account, p.correlation_id, p.strategy, p.status, p.status_detail,
  p.event_ts, p.expires_at, p.proceeds, p.budget, p.created_at, p.updated_at, p.finalized_at"""
_SAGA = """s.saga_id AS id, s.kind, s.account, s.saga_key, s.status, s.failure, s.owner, s.due_at,
  s.created_at, s.updated_at, s.finalized_at,
  (SELECT max(t.name || CASE WHEN t.error IS NULL THEN '' ELSE ': ' || t.error END)
   FROM saga_steps t WHERE t.saga_id = s.saga_id AND t.status IN ('running', 'undoing')) AS at,
  (SELECT coalesce(sum(t.undo_failures), 0) FROM saga_steps t
   WHERE t.saga_id = s.saga_id)::integer AS undo_failures"""

# an item's fills by the ledger of now: one may be booked after the item's end (P6)
_BOOKED = """LEFT JOIN LATERAL (
    SELECT sum(l.last_qty) AS qty, sum(l.last_qty * l.last_px) AS worth FROM trade_decisions d
    JOIN executions e USING (decision_id) JOIN fills l USING (execution_id)
    WHERE d.decision_hash = i.decision_hash) booked ON true"""


def plans(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Plans, newest first; of the filters status, strategy, account, since, limit, before."""
    where = {
        "status": "p.status = :status",
        "strategy": "p.strategy = :strategy",
        "account": "p.account = :account",
        "since": "p.created_at >= :since",
        "before": "p.plan_id < :before",
    }
    return page(tx, f"SELECT {_PLAN} FROM plans p", where, "p.plan_id", filters)


def plan(tx: Connection, plan_id: int) -> dict[str, Any] | None:
    """One plan with its items, its statistics and its saga; None if it is not known."""
    row = tx.execute(
        text(f"SELECT {_PLAN}, p.payload FROM plans p WHERE p.plan_id = :id"), {"id": plan_id}
    ).one_or_none()
    if row is None:
        return None
    found = tx.execute(
        text("""SELECT saga_id FROM sagas
        WHERE kind = 'plan' AND account = :account AND saga_key = :key"""),
        {"account": row.account, "key": str(plan_id)},
    ).scalar_one_or_none()
    return {
        **plain(row),
        "statistics": statistics(tx, plan_id),
        "items": _items(tx, plan_id),
        "saga": None if found is None else saga(tx, found),
    }


def statistics(tx: Connection, plan_id: int) -> dict[str, dict[str, Any]]:
    """Phase → placed, succeeded, skipped, failed, duplicates (counts), trade_value (what its
    booked fills came to, those that came after an item's end included). A fold of the items and
    of the fill ledger, and so the same after any crash."""
    rows = tx.execute(
        text(f"""SELECT n.phase,
          count(i.decision_hash) AS placed,
          count(*) FILTER (WHERE i.status = 'succeeded') AS succeeded,
          count(*) FILTER (WHERE i.status = 'skipped') AS skipped,
          count(*) FILTER (WHERE i.status = 'failed') AS failed,
          count(*) FILTER (WHERE i.status = 'duplicate') AS duplicates,
          coalesce(sum(booked.worth), 0) AS trade_value
        FROM unnest(CAST(:phases AS text[])) AS n (phase)
        LEFT JOIN plan_items i ON i.plan_id = :id AND i.phase = n.phase
        {_BOOKED}
        GROUP BY n.phase"""),
        {"id": plan_id, "phases": [side.value for side in Side]},
    )
    found = {row.phase: plain(row) for row in rows}
    return {
        phase: {name: value for name, value in found[phase].items() if name != "phase"}
        for phase in (Side.SELL.value, Side.BUY.value)
    }


def sagas(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Sagas, newest first; the status `open` is that of all that have not ended; of the filters
    status, account, since, limit, before. `at` is the step it is at, with its last error."""
    open_ = filters.status == "open"
    where = {
        "status": "s.finalized_at IS NULL" if open_ else "s.status = :status",
        "account": "s.account = :account",
        "since": "s.created_at >= :since",
        "before": "s.saga_id < :before",
    }
    return page(tx, f"SELECT {_SAGA} FROM sagas s", where, "s.saga_id", filters)


def saga(tx: Connection, saga_id: int) -> dict[str, Any] | None:
    """One saga with its steps; None if it is not known."""
    row = tx.execute(
        text(f"SELECT {_SAGA}, s.payload FROM sagas s WHERE s.saga_id = :id"), {"id": saga_id}
    ).one_or_none()
    if row is None:
        return None
    steps = tx.execute(
        text("""SELECT position, name, status, failures, undo_failures, result, waits_for, error,
          started_at, ended_at, undone_at
        FROM saga_steps WHERE saga_id = :id ORDER BY position"""),
        {"id": saga_id},
    )
    return {**plain(row), "steps": [plain(step) for step in steps]}


def _items(tx: Connection, plan_id: int) -> list[dict[str, Any]]:
    """In their order; a duplicate shows what became of the first."""
    rows = tx.execute(
        text(f"""SELECT i.position, i.phase AS action, i.symbol, i.trade_amount, i.duplicate_of,
          i.status, coalesce(f.reason, i.reason) AS reason, coalesce(f.detail, i.detail) AS detail,
          coalesce(f.funded_amount, i.funded_amount) AS funded_amount,
          coalesce(f.reference_px, i.reference_px) AS reference_px, coalesce(f.qty, i.qty) AS qty,
          coalesce(f.decision_hash, i.decision_hash) AS decision_hash,
          coalesce(booked.qty, 0) AS filled_qty, coalesce(booked.worth, 0) AS filled_value,
          f.status AS first_status,
          coalesce(f.settled_at, i.settled_at) AS settled_at
        FROM plan_items i
        LEFT JOIN plan_items f ON f.plan_id = i.plan_id AND f.position = i.duplicate_of
        {_BOOKED}
        WHERE i.plan_id = :id ORDER BY i.position"""),
        {"id": plan_id},
    )
    return [plain(row) for row in rows]
