"""flattens: requests to cancel and close everything of an account, and where each one stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from torghut.domain.order_actions import FLATTEN_ENDED, FlattenStatus

_COLUMNS = """flatten_id, account, request_key, requested_by, reason, status, status_detail, rounds,
  created_at"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenRow:
    """One flattening; `rounds` is how many times closing decisions were planned."""

    flatten_id: int
    account: str
    request_key: str
    requested_by: str
    reason: str
    status: str
    status_detail: str | None
    rounds: int
    created_at: datetime

    @property
    def name(self) -> str:
        """What its actions' keys and its decisions' intents begin with."""
        return f"flatten-{self.flatten_id}"

    @property
    def ended(self) -> bool:
        return self.status in FLATTEN_ENDED


def request(
    tx: Connection, account: str, *, key: str, requested_by: str, reason: str, now: datetime
) -> tuple[FlattenRow, bool]:
    """The flattening of this key, else the one under way, else a new one; True if it is new."""
    for condition in ("request_key = :key", "finalized_at IS NULL"):
        row = _one(tx, f"account = :account AND {condition}", account=account, key=key)
        if row is not None:
            return row, False
    created = tx.execute(
        text("""
        INSERT INTO flattens (account, request_key, requested_by, reason, created_at, updated_at)
        VALUES (:account, :key, :by, :reason, :now, :now)
        ON CONFLICT DO NOTHING RETURNING flatten_id"""),
        {"account": account, "key": key, "by": requested_by, "reason": reason, "now": now},
    ).scalar_one_or_none()
    row = _one(tx, "account = :account AND finalized_at IS NULL", account=account)
    assert row is not None
    return row, created is not None


def under_way(tx: Connection, account: str, *, lock: bool = False) -> FlattenRow | None:
    """The account's flattening that has not ended."""
    where = "account = :account AND finalized_at IS NULL" + (" FOR UPDATE" if lock else "")
    return _one(tx, where, account=account)


def of_key(tx: Connection, account: str, key: str) -> FlattenRow | None:
    """The flattening that a key led to."""
    return _one(tx, "account = :account AND request_key = :key", account=account, key=key)


def advance(
    tx: Connection,
    row: FlattenRow,
    after: FlattenStatus,
    *,
    detail: str,
    rounds: int,
    token: int,
    now: datetime,
) -> bool:
    """Compare-and-set; False if another writer moved it, or nothing would change."""
    return (
        tx.execute(
            text("""
            UPDATE flattens SET status = :after, status_detail = :detail, rounds = :rounds,
              fencing_token = :token, updated_at = :now,
              finalized_at = CASE WHEN :ended THEN CAST(:now AS timestamptz) END
            WHERE flatten_id = :id AND status = :before AND rounds = :rounds_before
              AND fencing_token <= :token
              AND (status, coalesce(status_detail, ''), rounds) <> (:after, :detail, :rounds)
            RETURNING flatten_id"""),
            {
                "id": row.flatten_id,
                "before": row.status,
                "rounds_before": row.rounds,
                "after": after.value,
                "ended": after in FLATTEN_ENDED,
                "detail": detail[:500],
                "rounds": rounds,
                "token": token,
                "now": now,
            },
        ).one_or_none()
        is not None
    )


def closings(tx: Connection, row: FlattenRow, strategy: str) -> dict[str, int]:
    """Status → how many of the decisions that the flattening planned stand at it."""
    rows = tx.execute(
        text("""SELECT status, count(*) AS n FROM trade_decisions
        WHERE strategy = :strategy AND account = :account AND starts_with(intent, :prefix)
        GROUP BY status"""),
        {"strategy": strategy, "account": row.account, "prefix": f"{row.name}-"},
    )
    return {found.status: found.n for found in rows}


def cancels(tx: Connection, row: FlattenRow) -> tuple[int, set[str]]:
    """How many cancels the flattening has asked for, and the targets of all that have not ended."""
    count: int = tx.execute(
        text("""SELECT count(*) FROM order_actions
        WHERE account = :account AND starts_with(request_key, :prefix)"""),
        {"account": row.account, "prefix": f"{row.name}-"},
    ).scalar_one()
    open_ = tx.execute(
        text("""SELECT target FROM order_actions WHERE account = :account AND operation = 'cancel'
          AND status IN ('requested', 'sending', 'confirming', 'in_doubt')"""),
        {"account": row.account},
    )
    return count, set(open_.scalars())


def _one(tx: Connection, where: str, **values: object) -> FlattenRow | None:
    row = tx.execute(text(f"SELECT {_COLUMNS} FROM flattens WHERE {where}"), values).one_or_none()
    return None if row is None else FlattenRow(**row._mapping)
