"""decision_inbox: decisions that were inserted as rows, the answers to them, and what was refused.

What was refused of a stream is kept here, too (`keep`), so that there is one place to look.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from torghut.domain.streams import StreamAnswer
from torghut.storage.queries import plain

BODY_BYTES_MAX = 262_144


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A row that waits for its answer."""

    inbox_id: int
    account: str
    body: str


@dataclass(frozen=True, slots=True)
class InboxAnswer:
    """What became of a row; `decision_hash` is None for what is no decision."""

    inbox_id: int
    result: str
    decision_hash: str | None
    error: str | None


def take(tx: Connection, accounts: Collection[str], *, limit: int) -> list[InboxRow]:
    """Rows without an answer, oldest first, held until the transaction ends."""
    rows = tx.execute(
        text("""SELECT inbox_id, account, body FROM decision_inbox
        WHERE account = ANY (:accounts) AND result IS NULL
        ORDER BY inbox_id LIMIT :limit FOR UPDATE SKIP LOCKED"""),
        {"accounts": list(accounts), "limit": limit},
    )
    return [InboxRow(row.inbox_id, row.account, row.body) for row in rows]


def answer(tx: Connection, answers: Sequence[InboxAnswer], *, now: datetime) -> None:
    """Write the answers into the rows."""
    tx.execute(
        text("""
        UPDATE decision_inbox AS i SET result = n.result, decision_hash = n.decision_hash,
          error = n.error, answered_at = :now
        FROM unnest(CAST(:ids AS bigint[]), CAST(:results AS text[]), CAST(:hashes AS text[]),
          CAST(:errors AS text[])) AS n (inbox_id, result, decision_hash, error)
        WHERE i.inbox_id = n.inbox_id AND i.result IS NULL"""),
        {
            "ids": [one.inbox_id for one in answers],
            "results": [one.result for one in answers],
            "hashes": [one.decision_hash for one in answers],
            "errors": [one.error for one in answers],
            "now": now,
        },
    )


# ---------------------------------------------------------------------- what was refused


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that led to no decision, as it came, and what was answered."""

    message_id: str
    body: bytes
    answer: StreamAnswer


def keep(
    tx: Connection, account: str, source: str, refused: Sequence[Refused], *, now: datetime
) -> None:
    """Keep messages of a stream that were refused; one that came before is there already."""
    tx.execute(
        text("""
        INSERT INTO decision_inbox (account, source, message_id, body, result, decision_hash, error,
          inserted_at, answered_at)
        SELECT :account, :source, id, body, result, hash, error, :now, :now
        FROM unnest(CAST(:ids AS text[]), CAST(:bodies AS text[]), CAST(:results AS text[]),
          CAST(:hashes AS text[]), CAST(:errors AS text[])) AS n (id, body, result, hash, error)
        ON CONFLICT DO NOTHING"""),
        {
            "account": account,
            "source": source,
            "ids": [one.message_id for one in refused],
            "bodies": [_as_text(one.body) for one in refused],
            "results": [one.answer.result for one in refused],
            "hashes": [one.answer.decision_hash for one in refused],
            "errors": [one.answer.error for one in refused],
            "now": now,
        },
    )


def _as_text(body: bytes) -> str:
    """What Postgres takes as text: other bytes shown as \\x…, and cut where there is too much."""
    shown = body.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return shown.encode()[:BODY_BYTES_MAX].decode("utf-8", "ignore")


_WAITS = "result IN ('invalid', 'conflict') AND dismissed_at IS NULL"
_ROW = """inbox_id AS id, account, source, message_id, result, decision_hash, error, answered_at,
  dismissed_at, dismissed_by, dismissed_reason"""


def refused(
    tx: Connection, account: str, *, dismissed: bool, limit: int, length_max: int
) -> list[dict[str, Any]]:
    """What was refused, newest first, as plain JSON data; with `dismissed` what was looked into,
    too. Of `body` the first `length_max` characters.
    """
    waits = "result IN ('invalid', 'conflict')" if dismissed else _WAITS
    rows = tx.execute(
        text(f"""SELECT {_ROW}, left(body, :length) AS body FROM decision_inbox
        WHERE account = :account AND {waits} ORDER BY inbox_id DESC LIMIT :limit"""),
        {"account": account, "limit": limit, "length": length_max},
    )
    return [plain(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Dismissed:
    """A refused decision that a person has looked into."""

    inbox_id: int
    account: str
    source: str
    result: str
    decision_hash: str | None


def dismiss(
    tx: Connection, account: str, ids: Sequence[int] | None, *, actor: str, why: str, now: datetime
) -> list[Dismissed]:
    """Note that what was refused was looked into: the rows named, or all; returns those that were
    not before."""
    rows = tx.execute(
        text(f"""UPDATE decision_inbox SET dismissed_at = :now, dismissed_by = :actor,
          dismissed_reason = :why
        WHERE account = :account AND {_WAITS}
          AND (CAST(:ids AS bigint[]) IS NULL OR inbox_id = ANY(:ids))
        RETURNING inbox_id, account, source, result, decision_hash"""),
        {
            "account": account,
            "ids": None if ids is None else list(ids),
            "actor": actor,
            "why": why,
            "now": now,
        },
    )
    return sorted((Dismissed(*row) for row in rows), key=lambda one: one.inbox_id)
