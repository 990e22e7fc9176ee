"""trade_decisions: idempotent intake, claims, and every step of the life cycle.

All steps go through `advance`, a compare-and-set on status and fencing token; it returns the ids
that it moved, and an id that is missing from them was moved by another writer (P5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from sqlalchemy import Connection, Row, text

from torghut import telemetry
from torghut.domain.lifecycle import TERMINAL, DecisionStatus, Reason
from torghut.domain.orders import order_from_payload
from torghut.storage.database import after_commit
from torghut.storage.rows import DecisionRow, Intake, IntakeResult

_COLUMNS = """d.decision_id, d.decision_hash, d.account, d.strategy, d.symbol, d.side, d.payload,
  d.event_ts, d.expires_at, d.created_at, d.status, d.due_at, d.updated_at, d.attempts,
  d.fencing_token,
  d.in_doubt_since, d.lookups, d.lookup_misses"""

_CLAIM = text(f"""
SELECT {_COLUMNS} FROM trade_decisions d
WHERE d.account = :account AND d.due_at <= :now
  AND d.status IN ('planned', 'approved', 'submitting', 'in_doubt')
  AND d.status = ANY(CAST(:statuses AS text[]))
  AND NOT (d.status = 'approved' AND d.strategy = ANY(CAST(:resting AS text[])))
ORDER BY d.due_at, d.decision_id
LIMIT :limit FOR UPDATE SKIP LOCKED
""")

_PEEK = text("""
SELECT symbol, bool_or(limit_price IS NULL OR side = 'sell') AS quote FROM (
  SELECT d.symbol, d.side, d.limit_price FROM trade_decisions d
  WHERE d.account = :account AND d.due_at <= :now
    AND d.status IN ('planned', 'approved', 'submitting', 'in_doubt')
    AND d.status = ANY(CAST(:statuses AS text[]))
    AND NOT (d.status = 'approved' AND d.strategy = ANY(CAST(:resting AS text[])))
  ORDER BY d.due_at, d.decision_id LIMIT :limit) due
GROUP BY symbol
""")

_ADVANCE = text("""
UPDATE trade_decisions d SET
  status = n.after, status_reason = n.reason, status_detail = n.detail,
  fencing_token = :token, due_at = n.due_at, updated_at = :now,
  attempts = d.attempts + CASE WHEN n.after = 'submitting' THEN 1 ELSE 0 END,
  in_doubt_since = CASE WHEN n.after = 'in_doubt' THEN coalesce(d.in_doubt_since, :now) END,
  lookups = CASE WHEN n.after = 'in_doubt' AND d.status = 'in_doubt'
                 THEN d.lookups + n.asked ELSE 0 END,
  lookup_misses = CASE WHEN n.after = 'in_doubt' AND d.status = 'in_doubt'
                       THEN d.lookup_misses + n.missed ELSE 0 END,
  finalized_at = CASE WHEN n.after = ANY(CAST(:terminal AS text[]))
                      THEN CAST(:now AS timestamptz) END
FROM unnest(CAST(:ids AS bigint[]), CAST(:before AS text[]), CAST(:after AS text[]),
  CAST(:reason AS text[]), CAST(:detail AS text[]), CAST(:due_at AS timestamptz[]),
  CAST(:asked AS int[]), CAST(:missed AS int[]), CAST(:attempt_no AS int[]))
  AS n (decision_id, before, after, reason, detail, due_at, asked, missed, attempt_no)
WHERE d.decision_id = n.decision_id AND d.status = n.before AND d.fencing_token <= :token
  AND (n.attempt_no IS NULL OR d.attempts = n.attempt_no)
RETURNING d.decision_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """One compare-and-set step. `reason` is a Reason or a DenyReason; `asked`, `missed` count
    a lookup of an in_doubt decision that stays in_doubt.

    `attempt_no` is the attempt that the evidence is about: what came of it says nothing about a
    later attempt, so a decision that has moved on to one is left alone. `since` is when it came to
    `before`, where that is known: for the metrics.
    """

    decision_id: int
    before: DecisionStatus
    after: DecisionStatus
    reason: str | None
    detail: str | None = None
    due_at: datetime
    asked: int = 0
    missed: int = 0
    attempt_no: int | None = None
    since: datetime | None = None


def claim(
    tx: Connection,
    account: str,
    statuses: Iterable[DecisionStatus],
    *,
    resting: Sequence[str] = (),
    now: datetime,
    limit: int,
) -> list[DecisionRow]:
    """Lock up to `limit` due decisions, oldest first; rows another transaction holds are passed.

    What is approved of the strategies in `resting` is left out, so that it takes no place.
    """
    rows = tx.execute(_CLAIM, _claim_values(account, statuses, resting, now, limit))
    return [decision_row(row) for row in rows]


def _claim_values(
    account: str,
    statuses: Iterable[DecisionStatus],
    resting: Sequence[str],
    now: datetime,
    limit: int,
) -> dict[str, object]:
    return {
        "account": account,
        "now": now,
        "statuses": [status.value for status in statuses],
        "resting": list(resting),
        "limit": limit,
    }


def due_symbols(
    tx: Connection,
    account: str,
    statuses: Iterable[DecisionStatus],
    *,
    resting: Sequence[str] = (),
    now: datetime,
    limit: int,
) -> dict[str, bool]:
    """Symbols of the decisions that `claim` would take → True where one needs a quote."""
    rows = tx.execute(_PEEK, _claim_values(account, statuses, resting, now, limit))
    return {row.symbol: row.quote for row in rows}


def advance(tx: Connection, steps: Sequence[Advance], *, token: int, now: datetime) -> set[int]:
    """Take the steps whose decision still stands at `before`, in the attempt that was named, under
    a token not newer than ours.

    Returns the ids that were moved; the others were moved by another writer, which is no error.
    """
    if not steps:
        return set()
    rows = tx.execute(
        _ADVANCE,
        {
            "ids": [s.decision_id for s in steps],
            "before": [s.before.value for s in steps],
            "after": [s.after.value for s in steps],
            "reason": [s.reason for s in steps],
            "detail": [s.detail for s in steps],
            "due_at": [s.due_at for s in steps],
            "asked": [s.asked for s in steps],
            "missed": [s.missed for s in steps],
            "attempt_no": [s.attempt_no for s in steps],
            "terminal": [status.value for status in TERMINAL],
            "token": token,
            "now": now,
        },
    )
    moved = set(rows.scalars())
    after_commit(tx, partial(_count, steps, moved, now))
    return moved


def _count(steps: Sequence[Advance], moved: set[int], now: datetime) -> None:
    for step in steps:
        if step.decision_id not in moved or step.before is step.after:
            continue
        telemetry.DECISION_STEPS.labels(step.after.value, step.reason or "").inc()
        if step.since is not None:
            stood_s = (now - step.since).total_seconds()
            telemetry.STAGE_SECONDS.labels(step.before.value).observe(max(stood_s, 0.0))


def orphans(
    tx: Connection, account: str, *, in_flight: Iterable[int], limit: int
) -> list[DecisionRow]:
    """Decisions `submitting` that nobody is working on: their writer is gone (locks them).

    `in_flight` are the decisions whose call the owner of the account has under way.
    """
    rows = tx.execute(
        text(f"""
        SELECT {_COLUMNS} FROM trade_decisions d
        WHERE d.account = :account AND d.status = 'submitting'
          AND d.decision_id <> ALL (CAST(:in_flight AS bigint[]))
        ORDER BY d.decision_id LIMIT :limit FOR UPDATE SKIP LOCKED"""),
        {"account": account, "in_flight": list(in_flight), "limit": limit},
    )
    return [decision_row(row) for row in rows]


def overdue(tx: Connection, account: str, *, now: datetime, limit: int) -> list[DecisionRow]:
    """Decisions whose time is over before anything was sent for them (locks them).

    Not those whose order is known all the same: the reconciler settles them.
    """
    rows = tx.execute(
        text(f"""
        SELECT {_COLUMNS} FROM trade_decisions d
        WHERE d.account = :account AND d.expires_at <= :now AND d.status IN ('planned', 'approved')
          AND NOT EXISTS
            (SELECT 1 FROM executions e WHERE e.client_order_id = d.decision_hash)
        ORDER BY d.due_at, d.decision_id LIMIT :limit FOR UPDATE SKIP LOCKED"""),
        {"account": account, "now": now, "limit": limit},
    )
    return [decision_row(row) for row in rows]


def ordered(tx: Connection, account: str, *, limit: int) -> list[DecisionRow]:
    """Decisions that wait for something though their order is in the books (locks them)."""
    rows = tx.execute(
        text(f"""
        SELECT {_COLUMNS} FROM trade_decisions d
        WHERE d.account = :account AND d.status IN ('planned', 'approved', 'submitting', 'in_doubt')
          AND EXISTS (SELECT 1 FROM executions e WHERE e.client_order_id = d.decision_hash)
        ORDER BY d.due_at, d.decision_id LIMIT :limit FOR UPDATE SKIP LOCKED"""),
        {"account": account, "limit": limit},
    )
    return [decision_row(row) for row in rows]


def due(
    tx: Connection, account: str, status: DecisionStatus, *, now: datetime, limit: int
) -> list[DecisionRow]:
    """Due decisions of one status, oldest first, not locked."""
    rows = tx.execute(
        text(f"""
        SELECT {_COLUMNS} FROM trade_decisions d
        WHERE d.account = :account AND d.due_at <= :now AND d.status = :status
          AND d.status IN ('planned', 'approved', 'submitting', 'in_doubt')
        ORDER BY d.due_at, d.decision_id LIMIT :limit"""),
        {"account": account, "now": now, "status": status.value, "limit": limit},
    )
    return [decision_row(row) for row in rows]


def by_hashes(tx: Connection, hashes: Sequence[str]) -> dict[str, DecisionRow]:
    """Decisions by hash, locked; the reconciler finds the owners of broker orders with it."""
    rows = tx.execute(
        text(f"""
        SELECT {_COLUMNS} FROM trade_decisions d
        WHERE d.decision_hash = ANY(CAST(:hashes AS text[]))
        ORDER BY d.decision_id FOR UPDATE"""),
        {"hashes": list(hashes)},
    )
    return {row.decision_hash: decision_row(row) for row in rows}


def close_finished(tx: Connection, account: str, *, now: datetime, limit: int) -> list[str]:
    """submitted → closed where every order of the decision is terminal; returns the hashes.

    It stays submitted while the successor of a replaced order is not in the books, and while a
    replacement may be under way: another order of the decision's may come to light.
    """
    rows = tx.execute(
        text("""
        UPDATE trade_decisions d SET status = 'closed', status_reason = :reason,
          status_detail = e.status, updated_at = :now, finalized_at = :now
        FROM (SELECT d.decision_id, d.updated_at AS since, last.status FROM trade_decisions d
              CROSS JOIN LATERAL (SELECT e.status FROM executions e
                WHERE e.decision_id = d.decision_id AND e.account = d.account
                ORDER BY e.status = 'replaced', e.execution_id DESC LIMIT 1) last
              WHERE d.account = :account AND d.status = 'submitted'
                AND NOT EXISTS (SELECT 1 FROM executions e
                  WHERE e.decision_id = d.decision_id AND NOT e.terminal)
                AND NOT EXISTS (SELECT 1 FROM executions e
                  WHERE e.decision_id = d.decision_id AND e.status = 'replaced' AND NOT EXISTS
                    (SELECT 1 FROM executions s WHERE s.broker_order_id = e.replaced_by
                       OR s.replaces = e.broker_order_id))
                AND NOT EXISTS (SELECT 1 FROM order_actions a
                  WHERE a.decision_id = d.decision_id AND a.operation = 'replace'
                    AND a.status IN ('sending', 'in_doubt'))
              ORDER BY d.decision_id LIMIT :limit FOR UPDATE OF d SKIP LOCKED) e
        WHERE d.decision_id = e.decision_id AND d.status = 'submitted'
        RETURNING d.decision_hash, e.since"""),
        {
            "account": account,
            "now": now,
            "limit": limit,
            "reason": Reason.ORDER_TERMINAL.value,
        },
    ).all()
    after_commit(tx, partial(_count_closed, [row.since for row in rows], now))
    return [row.decision_hash for row in rows]


def _count_closed(since: Sequence[datetime], now: datetime) -> None:
    closed, reason = DecisionStatus.CLOSED.value, Reason.ORDER_TERMINAL.value
    telemetry.DECISION_STEPS.labels(closed, reason).inc(len(since))
    for begun in since:
        stood_s = (now - begun).total_seconds()
        telemetry.STAGE_SECONDS.labels(DecisionStatus.SUBMITTED.value).observe(max(stood_s, 0.0))


def of_intent(
    tx: Connection, account: str, strategy: str, intent: str
) -> tuple[Intake, str, Decimal | None] | None:
    """The newest decision of a strategy with this intent, answered as replayed, its symbol and
    quantity."""
    row = tx.execute(
        text("""SELECT decision_hash, status, symbol, qty FROM trade_decisions
        WHERE strategy = :strategy AND account = :account AND intent = :intent
        ORDER BY decision_id DESC LIMIT 1"""),
        {"account": account, "strategy": strategy, "intent": intent},
    ).one_or_none()
    if row is None:
        return None
    status = DecisionStatus(row.status)
    return Intake(row.decision_hash, IntakeResult.REPLAYED, status), row.symbol, row.qty


def names(tx: Connection, decision_ids: Iterable[int | None]) -> dict[int | None, tuple[str, str]]:
    """Strategy and decision_hash by decision id."""
    ids = sorted({id_ for id_ in decision_ids if id_ is not None})
    rows = tx.execute(
        text("""SELECT decision_id, strategy, decision_hash FROM trade_decisions
        WHERE decision_id = ANY(CAST(:ids AS bigint[]))"""),
        {"ids": ids},
    )
    return {row.decision_id: (row.strategy, row.decision_hash) for row in rows}


def doubts(tx: Connection, account: str) -> tuple[int, datetime | None]:
    """How many decisions are in doubt, and since when the oldest."""
    row = tx.execute(
        text("""SELECT count(*) AS n, min(in_doubt_since) AS oldest FROM trade_decisions
        WHERE account = :account AND status = 'in_doubt'"""),
        {"account": account},
    ).one()
    return row.n, row.oldest


def decision_row(row: Row[tuple[object, ...]]) -> DecisionRow:
    """A DecisionRow from a result with `_COLUMNS`."""
    return DecisionRow(
        decision_id=row.decision_id,
        decision_hash=row.decision_hash,
        account=row.account,
        strategy=row.strategy,
        order=order_from_payload(row.symbol, row.side, row.payload),
        event_ts=row.event_ts,
        expires_at=row.expires_at,
        created_at=row.created_at,
        status=DecisionStatus(row.status),
        due_at=row.due_at,
        updated_at=row.updated_at,
        attempts=row.attempts,
        fencing_token=row.fencing_token,
        in_doubt_since=row.in_doubt_since,
        lookups=row.lookups,
        lookup_misses=row.lookup_misses,
    )
