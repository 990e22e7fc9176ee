"""broker_cursors: how far the broker's lists were read: orders and fills by the reconciler, orders
by the knight guard."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from torghut.domain.values import canonical_instant, parse_instant

ORDERS = "orders"
FILLS = "fills"
GUARD = "guard"

AHEAD_MAX = timedelta(minutes=5)
"""How far ahead of ours the broker's clock may be."""


def position(tx: Connection, account: str, name: str) -> datetime | None:
    """How far a list was read; None: from its beginning."""
    found = tx.execute(
        text("SELECT position FROM broker_cursors WHERE account = :account AND name = :name"),
        {"account": account, "name": name},
    ).scalar_one_or_none()
    return None if found is None else parse_instant(found)


def newest(instants: Iterable[datetime], *, now: datetime) -> datetime | None:
    """How far a list was read with rows of these instants. One in the future does not count: a
    cursor that followed it would leave out, for good, what the broker lists until then."""
    return max((at for at in instants if at <= now + AHEAD_MAX), default=None)


def advance(tx: Connection, account: str, name: str, to: datetime, *, now: datetime) -> None:
    """Move a cursor on. It never goes back here, so that a pass over the overlap writes nothing."""
    tx.execute(
        text("""
        INSERT INTO broker_cursors AS c (account, name, position, updated_at)
        VALUES (:account, :name, :position, :now)
        ON CONFLICT (account, name) DO UPDATE SET position = excluded.position,
          updated_at = excluded.updated_at
        WHERE c.position COLLATE "C" < excluded.position"""),
        {"account": account, "name": name, "position": canonical_instant(to), "now": now},
    )


def rewind(tx: Connection, account: str, *, to: datetime | None, now: datetime) -> None:
    """Let the reconciler read both lists again from `to`, or from their beginning."""
    if to is None:
        tx.execute(
            text("""DELETE FROM broker_cursors
            WHERE account = :account AND name IN ('orders', 'fills')"""),
            {"account": account},
        )
        return
    tx.execute(
        text("""
        UPDATE broker_cursors SET position = :position, updated_at = :now
        WHERE account = :account AND name IN ('orders', 'fills')
          AND position COLLATE "C" > :position"""),
        {"account": account, "position": canonical_instant(to), "now": now},
    )
