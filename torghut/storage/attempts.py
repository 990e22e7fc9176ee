"""submission_attempts and order_counts: what was asked of the broker, and what came back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, text

from torghut.domain.submission import Proof
from torghut.ports import Answer
from torghut.storage.json_arrays import json_array, jsonb_array


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A submission about to be made, committed before the call (P3)."""

    decision_id: int
    attempt_no: int
    client_order_id: str
    order_sent: Mapping[str, object]
    strategy: str
    counted_today: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One lookup and what it came to."""

    decision_id: int
    attempt_no: int
    client_order_id: str
    proof: Proof
    message: str
    asked_at: datetime
    broker_order_id: str | None = None


def add_intents(
    tx: Connection,
    account: str,
    intents: Sequence[Intent],
    *,
    token: int,
    day: date,
    now: datetime,
) -> None:
    """Record submissions that are about to be made; those not counted yet count for `day`."""
    if not intents:
        return
    tx.execute(
        text(f"""
        WITH intents AS (
          INSERT INTO submission_attempts (decision_id, operation, attempt_no, client_order_id,
            fencing_token, order_sent, intended_at)
          SELECT decision_id, 'submit', attempt_no, client_order_id, :token, sent, :now
          FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS int[]), CAST(:coids AS text[]),
            {jsonb_array("sent")}) AS n (decision_id, attempt_no, client_order_id, sent))
        INSERT INTO order_counts AS c (account, strategy, day, orders)
        SELECT :account, strategy, :day, count(*)
        FROM unnest(CAST(:strategies AS text[]), CAST(:counted AS boolean[]))
          AS n (strategy, counted)
        WHERE NOT counted GROUP BY strategy ORDER BY strategy
        ON CONFLICT (account, day, strategy) DO UPDATE SET orders = c.orders + excluded.orders"""),
        {
            "account": account,
            "day": day,
            "strategies": [i.strategy for i in intents],
            "counted": [i.counted_today for i in intents],
            "ids": [i.decision_id for i in intents],
            "numbers": [i.attempt_no for i in intents],
            "coids": [i.client_order_id for i in intents],
            "sent": json_array(json.dumps(i.order_sent) for i in intents),
            "token": token,
            "now": now,
        },
    )


def set_outcomes(
    tx: Connection,
    outcomes: Sequence[tuple[int, int, Proof, Answer]],
    *,
    now: datetime,
) -> None:
    """Write what came back to (decision id, attempt number); a second writing changes nothing."""
    if not outcomes:
        return
    answers = [answer for _, _, _, answer in outcomes]
    tx.execute(
        text("""
        UPDATE submission_attempts a SET outcome = n.outcome, http_status = n.http_status,
          broker_code = n.code, message = n.message, body = n.body, request_id = n.request_id,
          broker_order_id = n.broker_order_id, answered_at = :now
        FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS int[]), CAST(:outcome AS text[]),
          CAST(:http AS int[]), CAST(:code AS text[]), CAST(:message AS text[]),
          CAST(:body AS text[]), CAST(:request AS text[]), CAST(:order_id AS text[]))
          AS n (decision_id, attempt_no, outcome, http_status, code, message, body, request_id,
                broker_order_id)
        WHERE a.decision_id = n.decision_id AND a.attempt_no = n.attempt_no
          AND a.operation = 'submit' AND a.outcome IS NULL"""),
        {
            "ids": [id_ for id_, _, _, _ in outcomes],
            "numbers": [number for _, number, _, _ in outcomes],
            "outcome": [proof.value for _, _, proof, _ in outcomes],
            "http": [a.http_status for a in answers],
            "code": [a.broker_code for a in answers],
            "message": [_storable(a.message) for a in answers],
            "body": [_storable(a.body) for a in answers],
            "request": [_storable(a.request_id) for a in answers],
            "order_id": [a.order.broker_order_id if a.order else None for a in answers],
            "now": now,
        },
    )


def add_lookups(tx: Connection, lookups: Sequence[Asked], *, token: int, now: datetime) -> None:
    """Record lookups with their answers."""
    if not lookups:
        return
    tx.execute(
        text("""
        INSERT INTO submission_attempts (decision_id, operation, attempt_no, client_order_id,
          fencing_token, intended_at, outcome, message, broker_order_id, answered_at)
        SELECT decision_id, 'lookup', attempt_no, client_order_id, :token, asked_at, outcome,
          message, broker_order_id, :now
        FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS int[]), CAST(:coids AS text[]),
          CAST(:asked AS timestamptz[]), CAST(:outcome AS text[]), CAST(:message AS text[]),
          CAST(:order_id AS text[]))
          AS n (decision_id, attempt_no, client_order_id, asked_at, outcome, message,
                broker_order_id)"""),
        {
            "ids": [a.decision_id for a in lookups],
            "numbers": [a.attempt_no for a in lookups],
            "coids": [a.client_order_id for a in lookups],
            "asked": [a.asked_at for a in lookups],
            "outcome": [a.proof.value for a in lookups],
            "message": [_storable(a.message) for a in lookups],
            "order_id": [a.broker_order_id for a in lookups],
            "token": token,
            "now": now,
        },
    )


def submitted_since(tx: Connection, decision_ids: Sequence[int], *, since: datetime) -> set[int]:
    """Those of the decisions that were submitted, with whatever success, at `since` or later."""
    rows = tx.execute(
        text("""
        SELECT DISTINCT decision_id FROM submission_attempts
        WHERE decision_id = ANY(CAST(:ids AS bigint[])) AND operation = 'submit'
          AND intended_at >= :since"""),
        {"ids": list(decision_ids), "since": since},
    )
    return set(rows.scalars())


def last_proofs(tx: Connection, decision_ids: Sequence[int]) -> dict[int, Proof]:
    """What the newest submission of each decision came to, where that is known."""
    rows = tx.execute(
        text("""
        SELECT DISTINCT ON (decision_id) decision_id, outcome FROM submission_attempts
        WHERE decision_id = ANY(CAST(:ids AS bigint[])) AND operation = 'submit'
        ORDER BY decision_id, attempt_no DESC"""),
        {"ids": list(decision_ids)},
    )
    return {row.decision_id: Proof(row.outcome) for row in rows if row.outcome is not None}


def _storable(value: str | None) -> str | None:
    """Text as Postgres can hold it: without NUL and lone surrogates, which a body may contain."""
    if value is None:
        return None
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
