"""Is what Postgres confirms really on disk? Without these settings an acknowledged decision is not
durable (P2); the daemon says so at start, `torghut doctor` too."""

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
