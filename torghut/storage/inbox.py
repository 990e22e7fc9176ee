"""decision_inbox: decisions that were inserted as rows, and the answers to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


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
