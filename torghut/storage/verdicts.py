"""risk_verdicts and risk_policies: what was judged, on what, under which policy.

A verdict's row holds everything that it was made from, so that it can be judged again
(services/replay): facts and reservations in `facts`, the policy in risk_policies by its version.
`facts_id` is a hash of the facts; what an older version stored without one cannot be replayed.
What is read back may have been changed by somebody: it is not trusted to have any form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Connection, text

from torghut.domain.exposure import Facts, Reservations, amount_text
from torghut.domain.orders import OrderRequest, order_from_payload
from torghut.domain.risk_case import Verdict

_FACTS = TypeAdapter(Facts)
_RESERVATIONS = TypeAdapter(Reservations)
_PAGE = 1_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict to be stored, with what it was made from."""

    decision_id: int
    verdict: Verdict
    facts: Facts
    reservations: Reservations
    action_id: int | None = None  # the replacement that was judged, and the order it asks for
    order: OrderRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVerdict:
    """A verdict as stored.

    `order`, `facts` and `reservations` are None if they cannot be read; `older`: they were never
    kept whole, because a version before them stored the verdict.
    """

    verdict_id: int
    decision_hash: str
    strategy: str
    symbol: str
    order: OrderRequest | None
    event_ts: datetime
    judged_at: datetime
    deny_reason: str | None
    policy_version: str
    checks: Sequence[Mapping[str, Any]]
    reference_px: Decimal | None
    notional: Decimal | None
    older: bool
    facts_id: str | None
    facts: Facts | None
    reservations: Reservations | None


def add_policy(tx: Connection, version: str, policy: str, *, now: datetime) -> None:
    """Keep the policy behind a version, as JSON text; once is enough."""
    tx.execute(
        text("""INSERT INTO risk_policies (policy_version, policy, first_used_at)
        VALUES (:version, CAST(:policy AS jsonb), :now) ON CONFLICT DO NOTHING"""),
        {"version": version, "policy": policy, "now": now},
    )


def has_policy(tx: Connection, version: str) -> bool:
    """True if the policy behind a version is kept."""
    query = text("SELECT 1 FROM risk_policies WHERE policy_version = :version")
    return tx.execute(query, {"version": version}).scalar_one_or_none() is not None


def policies(tx: Connection) -> dict[str, dict[str, Any]]:
    """Every policy that was used, by version."""
    rows = tx.execute(text("SELECT policy_version, policy FROM risk_policies"))
    return {row.policy_version: row.policy for row in rows}


def add(tx: Connection, judgements: Sequence[Judgement], *, now: datetime) -> None:
    """Store verdicts with the facts that they were made from."""
    if not judgements:
        return
    # one JSON document: as arrays of text, the driver would escape every quotation mark by itself,
    # which took longer than everything else about a denial
    tx.execute(
        text("""
        INSERT INTO risk_verdicts (decision_id, outcome, deny_reason, policy_version, checks,
          facts, facts_id, reference_px, notional, judged_at, action_id, wanted)
        SELECT decision_id, CASE WHEN deny_reason IS NULL THEN 'approved' ELSE 'denied' END,
          deny_reason, policy_version, checks, facts, facts_id, reference_px, notional, :now,
          action_id, wanted
        FROM json_to_recordset(CAST(:rows AS json)) AS n (decision_id bigint, deny_reason text,
          policy_version text, checks jsonb, facts jsonb, facts_id text, reference_px numeric,
          notional numeric, action_id bigint, wanted jsonb)"""),
        {"rows": "[" + ",".join(map(_row_json, judgements)) + "]", "now": now},
    )


def _row_json(item: Judgement) -> str:
    verdict, facts = item.verdict, _facts_json(item.facts, item.reservations)
    row = {
        "decision_id": item.decision_id,
        "deny_reason": verdict.deny_reason,
        "policy_version": verdict.policy_version,
        "checks": [check.as_json() for check in verdict.checks],
        "facts_id": _id(facts),
        "reference_px": amount_text(verdict.reference_px),
        "notional": amount_text(verdict.notional),
        "action_id": item.action_id,
        "wanted": item.order.payload() if item.order else None,
    }
    return f'{json.dumps(row)[:-1]}, "facts": {facts.decode()}}}'


def stored(
    tx: Connection, account: str, *, since: datetime | None
) -> Iterator[Sequence[StoredVerdict]]:
    """Verdicts of an account, oldest first, in pages; `since` is on `judged_at`, inclusive."""
    last = 0
    while True:
        rows = tx.execute(
            text("""
            SELECT v.verdict_id, d.decision_hash, d.strategy, d.symbol, d.side,
              coalesce(v.wanted, d.payload) AS payload,
              CASE WHEN v.action_id IS NULL THEN d.event_ts ELSE v.judged_at END AS event_ts,
              v.judged_at, v.deny_reason, v.policy_version, v.checks, v.facts, v.facts_id,
              v.reference_px, v.notional
            FROM risk_verdicts v JOIN trade_decisions d USING (decision_id)
            WHERE d.account = :account AND v.verdict_id > :last
              AND (CAST(:since AS timestamptz) IS NULL OR v.judged_at >= :since)
            ORDER BY v.verdict_id LIMIT :limit"""),
            {"account": account, "last": last, "since": since, "limit": _PAGE},
        ).all()
        if not rows:
            return
        yield [_stored(row) for row in rows]
        last = rows[-1].verdict_id


def unjudged(
    tx: Connection, account: str, *, since: datetime | None, limit: int
) -> list[StoredVerdict]:
    """Decisions that risk has let pass or denied, and that have no verdict, as if they had one."""
    rows = tx.execute(
        text("""
        SELECT 0 AS verdict_id, d.decision_hash, d.strategy, d.symbol, d.side, d.payload,
          d.event_ts, d.updated_at AS judged_at, NULL AS deny_reason, '' AS policy_version,
          CAST('[]' AS jsonb) AS checks, CAST('{}' AS jsonb) AS facts, NULL AS facts_id,
          NULL AS reference_px, NULL AS notional
        FROM trade_decisions d
        WHERE d.account = :account
          AND (d.attempts > 0 OR d.status IN ('approved', 'denied', 'submitted', 'closed'))
          AND (CAST(:since AS timestamptz) IS NULL OR d.created_at >= :since)
          AND NOT EXISTS (SELECT 1 FROM risk_verdicts v WHERE v.decision_id = d.decision_id)
          -- its order was found before anybody judged it (services/found_orders): none is missing
          AND (d.status NOT IN ('submitted', 'closed')
            OR EXISTS (SELECT 1 FROM submission_attempts a WHERE a.decision_id = d.decision_id)
            OR EXISTS (SELECT 1 FROM events e WHERE e.decision_hash = d.decision_hash
                       AND e.kind = 'decision.approved'))
        ORDER BY d.decision_id LIMIT :limit"""),
        {"account": account, "since": since, "limit": limit},
    )
    return [_stored(row) for row in rows]


def facts_id(facts: Facts, reservations: Reservations) -> str:
    """The id of what a verdict was made from: a hash of all of it."""
    return _id(_facts_json(facts, reservations))


def _facts_json(facts: Facts, reservations: Reservations) -> bytes:
    first = _FACTS.dump_json(facts, exclude_defaults=True)
    second = _RESERVATIONS.dump_json(reservations, exclude_defaults=True)
    return b'{"facts":' + first + b',"reservations":' + second + b"}"


def _id(data: bytes) -> str:
    return sha256(data).hexdigest()[:32]


def _stored(row: Any) -> StoredVerdict:
    found = row.facts if isinstance(row.facts, dict) else {}
    facts = _or_none(lambda: _FACTS.validate_python(found["facts"]))
    return StoredVerdict(
        verdict_id=row.verdict_id,
        decision_hash=row.decision_hash,
        strategy=row.strategy,
        symbol=row.symbol,
        order=_or_none(lambda: order_from_payload(row.symbol, row.side, row.payload)),
        event_ts=row.event_ts,
        judged_at=row.judged_at,
        deny_reason=row.deny_reason,
        policy_version=row.policy_version,
        checks=row.checks,
        reference_px=row.reference_px,
        notional=row.notional,
        older=row.facts_id is None and "reservations" not in found,
        facts_id=row.facts_id,
        facts=facts,
        reservations=_or_none(lambda: _RESERVATIONS.validate_python(found["reservations"])),
    )


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
