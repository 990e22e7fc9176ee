"""broker_cursors: how far the broker's lists were read: orders and fills by the reconciler, orders
by the knight guard."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from torghut.domain.values import canonical_instant, parse_instant

ORDERS = "orders"
FILLS = "fills"
GUARD = "guard"


def position(tx: Connection, account: str, name: str) -> datetime | None:
    """How far a list was read; None: from its beginning."""
    found = tx.execute(
        text("SELECT position FROM broker_cursors WHERE account = :account AND name = :name"),
        {"account": account, "name": name},
    ).scalar_one_or_none()
    return None if found is None else parse_instant(found)


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
