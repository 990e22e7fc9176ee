"""Is what Postgres confirms really on disk? Without these settings an acknowledged decision is not
durable (P2); the daemon says so at start, `torghut doctor` too.

With a synchronous stand-by a row can be seen before it is there as well: its writer's wait was
canceled, or its connection broke. Whoever answers for such a row waits in its stead (`confirm`).
"""

from __future__ import annotations

from sqlalchemy import Connection, text

_DURABLE = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "local", "remote_write", "remote_apply"),
}


def settings(tx: Connection) -> dict[str, tuple[str, bool]]:
    """name → (value in force, is it durable) for every setting that durability rests on."""
    rows = tx.execute(
        text("""SELECT name, setting FROM pg_settings
        WHERE name = ANY(CAST(:names AS text[])) ORDER BY name"""),
        {"names": list(_DURABLE)},
    )
    return {row.name: (row.setting, row.setting in _DURABLE[row.name]) for row in rows}


def confirm(tx: Connection) -> None:
    """Make this transaction's COMMIT wait for the synchronous stand-by, if there is one.

    For a transaction that only reads: Postgres lets a COMMIT without a record of its own pass. The
    record follows those of all rows that this transaction saw, so it is confirmed after them.
    """
    tx.execute(
        text("""SELECT pg_logical_emit_message(true, 'torghut', '')
        WHERE current_setting('synchronous_standby_names') <> ''""")
    )
