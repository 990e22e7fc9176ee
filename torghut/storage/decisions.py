"""trade_decisions: idempotent intake, claims, and every step of the life cycle.

All steps go through `advance`, a compare-and-set on status and fencing token; it returns the ids
that it moved, and an id that is missing from them was moved by another writer (P5).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, text

from torghut.domain.decisions import Decision, differing_fields
from torghut.domain.lifecycle import TERMINAL, DecisionStatus, Reason
from torghut.domain.orders import order_from_payload
from torghut.storage.rows import DecisionRow, Intake, IntakeResult

INTAKE_BATCH_MAX = 1_000

_COLUMNS = """d.decision_id, d.decision_hash, d.account, d.strategy, d.symbol, d.side, d.payload,
  d.event_ts, d.expires_at, d.created_at, d.status, d.attempts, d.fencing_token,
  d.in_doubt_since, d.lookups, d.lookup_misses"""

# the anti-join keeps replays from using up ids; ON CONFLICT settles the race that is left
_INSERT = text("""
INSERT INTO trade_decisions (decision_hash, hash_version, payload_digest, account, strategy,
  symbol, side, event_ts, intent, payload, correlation_id, source, due_at, expires_at,
  created_at, updated_at)
SELECT n.decision_hash, n.hash_version, n.payload_digest, n.account, n.strategy,
  n.symbol, n.side, n.event_ts, n.intent, n.payload::jsonb, n.correlation_id, :source, :now,
  n.expires_at, :now, :now
FROM unnest(CAST(:decision_hash AS text[]), CAST(:hash_version AS smallint[]),
  CAST(:payload_digest AS text[]), CAST(:account AS text[]), CAST(:strategy AS text[]),
  CAST(:symbol AS text[]), CAST(:side AS text[]), CAST(:event_ts AS timestamptz[]),
  CAST(:intent AS text[]), CAST(:payload AS text[]), CAST(:correlation_id AS text[]),
  CAST(:expires_at AS timestamptz[])) WITH ORDINALITY
  AS n (decision_hash, hash_version, payload_digest, account, strategy, symbol, side, event_ts,
        intent, payload, correlation_id, expires_at, place)
WHERE NOT EXISTS (SELECT 1 FROM trade_decisions t WHERE t.decision_hash = n.decision_hash)
ORDER BY n.place
ON CONFLICT (decision_hash) DO NOTHING
RETURNING decision_hash
""")

_EXISTING = text("""
SELECT decision_hash, payload_digest, payload, status
FROM trade_decisions WHERE decision_hash = ANY(CAST(:hashes AS text[]))
""")

_CLAIM = text(f"""
SELECT {_COLUMNS} FROM trade_decisions d
WHERE d.account = :account AND d.due_at <= :now
  AND d.status IN ('planned', 'approved', 'submitting', 'in_doubt')
  AND d.status = ANY(CAST(:statuses AS text[]))
ORDER BY d.due_at, d.decision_id
LIMIT :limit FOR UPDATE SKIP LOCKED
""")

_PEEK = text("""
SELECT symbol, bool_or(limit_price IS NULL OR side = 'sell') AS quote FROM (
  SELECT d.symbol, d.side, d.limit_price FROM trade_decisions d
  WHERE d.account = :account AND d.due_at <= :now
    AND d.status IN ('planned', 'approved', 'submitting', 'in_doubt')
    AND d.status = ANY(CAST(:statuses AS text[]))
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
    later attempt, so a decision that has moved on to one is left alone.
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


def insert(
    tx: Connection, decisions: Sequence[Decision], *, source: str, now: datetime
) -> list[Intake]:
    """Store decisions; answers in their order: created, replayed or conflict.

    A second decision of the same hash within the batch is answered like a later one.
    At most INTAKE_BATCH_MAX at a time.
    """
    if len(decisions) > INTAKE_BATCH_MAX:
        raise ValueError(f"{len(decisions)} decisions in one batch, at most {INTAKE_BATCH_MAX}")
    first: dict[str, Decision] = {}
    for decision in decisions:
        first.setdefault(decision.decision_hash, decision)
    created = _insert(tx, list(first.values()), source=source, now=now)
    known = [d.decision_hash for d in decisions if d.decision_hash not in created]
    existing: Mapping[str, Row[tuple[str, str, dict[str, object], str]]] = {
        row.decision_hash: row for row in tx.execute(_EXISTING, {"hashes": known})
    }
    answers: list[Intake] = []
    unanswered = set(created)
    for decision in decisions:
        hash_ = decision.decision_hash
        if hash_ in created:
            created_now = hash_ in unanswered
            unanswered.discard(hash_)
            digest, payload = first[hash_].payload_digest, first[hash_].payload()
            status = DecisionStatus.PLANNED
        else:
            created_now = False
            row = existing[hash_]
            digest, payload, status = row.payload_digest, row.payload, DecisionStatus(row.status)
        if created_now:
            answers.append(Intake(hash_, IntakeResult.CREATED, status))
        elif digest == decision.payload_digest:
            answers.append(Intake(hash_, IntakeResult.REPLAYED, status))
        else:
            differing = differing_fields(payload, decision.payload())
            answers.append(Intake(hash_, IntakeResult.CONFLICT, status, differing))
    return answers


def _insert(
    tx: Connection, decisions: Sequence[Decision], *, source: str, now: datetime
) -> set[str]:
    rows = tx.execute(
        _INSERT,
        {
            "decision_hash": [d.decision_hash for d in decisions],
            "hash_version": [d.hash_version for d in decisions],
            "payload_digest": [d.payload_digest for d in decisions],
            "account": [d.account for d in decisions],
            "strategy": [d.strategy for d in decisions],
            "symbol": [d.order.symbol for d in decisions],
            "side": [d.order.side.value for d in decisions],
            "event_ts": [d.event_ts for d in decisions],
            "intent": [d.intent for d in decisions],
            "payload": [json.dumps(d.payload()) for d in decisions],
            "correlation_id": [d.correlation_id for d in decisions],
            "expires_at": [d.expires_at for d in decisions],
            "source": source,
            "now": now,
        },
    )
    return set(rows.scalars())


def claim(
    tx: Connection,
    account: str,
    statuses: Iterable[DecisionStatus],
    *,
    now: datetime,
    limit: int,
) -> list[DecisionRow]:
    """Lock up to `limit` due decisions, oldest first; rows another transaction holds are passed."""
    values = [status.value for status in statuses]
    rows = tx.execute(_CLAIM, {"account": account, "now": now, "statuses": values, "limit": limit})
    return [decision_row(row) for row in rows]


def due_symbols(
    tx: Connection,
    account: str,
    statuses: Iterable[DecisionStatus],
    *,
    now: datetime,
    limit: int,
) -> dict[str, bool]:
    """Symbols of the decisions that `claim` would take → True where one needs a quote."""
    values = [status.value for status in statuses]
    rows = tx.execute(_PEEK, {"account": account, "now": now, "statuses": values, "limit": limit})
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
    return set(rows.scalars())


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
    """Decisions whose time is over before anything was sent for them (locks them)."""
    rows = tx.execute(
        text(f"""
        SELECT {_COLUMNS} FROM trade_decisions d
        WHERE d.account = :account AND d.expires_at <= :now AND d.status IN ('planned', 'approved')
        ORDER BY d.decision_id LIMIT :limit FOR UPDATE SKIP LOCKED"""),
        {"account": account, "now": now, "limit": limit},
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
    """submitted → closed where the decision's order is terminal; returns the hashes.

    By client_order_id, the identity itself: an order that was adopted before its decision was
    known here (a restored database) keeps an execution without a decision_id.
    """
    rows = tx.execute(
        text("""
        UPDATE trade_decisions d SET status = 'closed', status_reason = :reason,
          status_detail = e.status, updated_at = :now, finalized_at = :now
        FROM (SELECT d.decision_id, e.status FROM trade_decisions d
              JOIN executions e ON e.client_order_id = d.decision_hash
                AND e.account = d.account
              WHERE d.account = :account AND d.status = 'submitted'
                AND e.terminal
              ORDER BY d.decision_id LIMIT :limit FOR UPDATE OF d SKIP LOCKED) e
        WHERE d.decision_id = e.decision_id AND d.status = 'submitted'
        RETURNING d.decision_hash"""),
        {
            "account": account,
            "now": now,
            "limit": limit,
            "reason": Reason.ORDER_TERMINAL.value,
        },
    )
    return list(rows.scalars())


def strategies(tx: Connection, decision_ids: Iterable[int | None]) -> dict[int, str]:
    """Strategy by decision id."""
    ids = sorted({id_ for id_ in decision_ids if id_ is not None})
    rows = tx.execute(
        text("""SELECT decision_id, strategy FROM trade_decisions
        WHERE decision_id = ANY(CAST(:ids AS bigint[]))"""),
        {"ids": ids},
    )
    return {row.decision_id: row.strategy for row in rows}


def hash_of(tx: Connection, decision_id: int) -> str:
    """The decision's hash."""
    hash_: str = tx.execute(
        text("SELECT decision_hash FROM trade_decisions WHERE decision_id = :id"),
        {"id": decision_id},
    ).scalar_one()
    return hash_


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
        attempts=row.attempts,
        fencing_token=row.fencing_token,
        in_doubt_since=row.in_doubt_since,
        lookups=row.lookups,
        lookup_misses=row.lookup_misses,
    )
