"""trade_decisions: the idempotent insert. A decision is created, replayed, or in conflict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, Row, text

from torghut.domain.decisions import Decision, differing_fields
from torghut.domain.lifecycle import DecisionStatus
from torghut.storage.json_arrays import json_array, jsonb_array
from torghut.storage.rows import Intake, IntakeResult

INTAKE_BATCH_MAX = 1_000

# the anti-join keeps replays from using up ids; ON CONFLICT settles the race that is left
_INSERT = text(f"""
INSERT INTO trade_decisions (decision_hash, hash_version, payload_digest, account, strategy,
  symbol, side, event_ts, intent, payload, correlation_id, source, due_at, expires_at,
  created_at, updated_at)
SELECT n.decision_hash, n.hash_version, n.payload_digest, n.account, n.strategy,
  n.symbol, n.side, n.event_ts, n.intent, n.payload, n.correlation_id, :source, :now,
  n.expires_at, :now, :now
FROM unnest(CAST(:decision_hash AS text[]), CAST(:hash_version AS smallint[]),
  CAST(:payload_digest AS text[]), CAST(:account AS text[]), CAST(:strategy AS text[]),
  CAST(:symbol AS text[]), CAST(:side AS text[]), CAST(:event_ts AS timestamptz[]),
  CAST(:intent AS text[]), {jsonb_array("payload")}, CAST(:correlation_id AS text[]),
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
            "payload": json_array(json.dumps(d.payload()) for d in decisions),
            "correlation_id": [d.correlation_id for d in decisions],
            "expires_at": [d.expires_at for d in decisions],
            "source": source,
            "now": now,
        },
    )
    return set(rows.scalars())
