"""dead_letters: events that a sink refused for good, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from torghut.domain.outbox import OutboxEvent
from torghut.storage.outbox import EVENT_COLUMNS, event_of


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that a sink refused for good, and what it said."""

    event: OutboxEvent
    error: str


def bury(tx: Connection, sink: str, refusal: Refusal, *, now: datetime) -> None:
    """Keep a refused event; one that was dropped stays so."""
    event = refusal.event
    tx.execute(
        text("""
        INSERT INTO dead_letters AS d (sink, event_seq, event_id, kind, decision_hash, error,
          died_at, tried_at)
        VALUES (:sink, :seq, :id, :kind, :hash, :error, :now, :now)
        ON CONFLICT (sink, event_seq) DO UPDATE SET error = excluded.error, status = 'dead',
          refusals = d.refusals + 1, tried_at = excluded.tried_at, settled_at = NULL
        WHERE d.status <> 'dropped'"""),
        {
            "sink": sink,
            "seq": event.seq,
            "id": event.event_id,
            "kind": event.kind,
            "hash": event.decision_hash,
            "error": refusal.error,
            "now": now,
        },
    )


def retrying(tx: Connection, sink: str, *, limit: int) -> list[OutboxEvent]:
    """Dead letters that a person wants tried again, oldest event first."""
    rows = tx.execute(
        text(f"""SELECT {EVENT_COLUMNS} FROM dead_letters d JOIN events e USING (event_seq)
        WHERE d.sink = :sink AND d.status = 'retrying' ORDER BY d.event_seq LIMIT :limit"""),
        {"sink": sink, "limit": limit},
    )
    return [event_of(row) for row in rows]


def revived(tx: Connection, sink: str, events: Sequence[OutboxEvent], *, now: datetime) -> None:
    """These dead letters were taken by the sink after all."""
    tx.execute(
        text("""UPDATE dead_letters SET status = 'delivered', tried_at = :now, settled_at = :now
        WHERE sink = :sink AND event_seq = ANY(:seqs) AND status = 'retrying'"""),
        {"sink": sink, "seqs": [event.seq for event in events], "now": now},
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One row of dead_letters."""

    dead_letter_id: int
    sink: str
    event_id: str
    kind: str
    decision_hash: str | None
    status: str
    error: str
    refusals: int
    died_at: datetime
    tried_at: datetime
    settled_at: datetime | None


_LETTER = """dead_letter_id, sink, event_id::text, kind, decision_hash, status, error, refusals,
  died_at, tried_at, settled_at"""


def listed(tx: Connection, *, sink: str | None, settled: bool, limit: int) -> list[DeadLetter]:
    """Dead letters, newest first; with `settled` also those that were delivered or dropped."""
    rows = tx.execute(
        text(f"""SELECT {_LETTER} FROM dead_letters
        WHERE (CAST(:sink AS text) IS NULL OR sink = :sink)
          AND (:settled OR status IN ('dead', 'retrying'))
        ORDER BY dead_letter_id DESC LIMIT :limit"""),
        {"sink": sink, "settled": settled, "limit": limit},
    )
    return [DeadLetter(*row) for row in rows]


def settle(
    tx: Connection, ids: Sequence[int] | None, *, sink: str | None, after: str, now: datetime
) -> list[DeadLetter]:
    """Move dead letters to `retrying` or `dropped`: those named, or all of a sink, or all."""
    rows = tx.execute(
        text(f"""UPDATE dead_letters SET status = :after,
          settled_at = CASE WHEN :after = 'dropped' THEN CAST(:now AS timestamptz) END
        WHERE status IN ('dead', 'retrying') AND status <> :after
          AND (CAST(:ids AS bigint[]) IS NULL OR dead_letter_id = ANY(:ids))
          AND (CAST(:sink AS text) IS NULL OR sink = :sink)
        RETURNING {_LETTER}"""),
        {"ids": None if ids is None else list(ids), "sink": sink, "after": after, "now": now},
    )
    return sorted((DeadLetter(*row) for row in rows), key=lambda one: one.dead_letter_id)
