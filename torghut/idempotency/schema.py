"""The one table, and its making in a database of somebody else's.

Torghut's own database gets the same from its migration 0007_idempotency; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, text

_LOCK_KEY = 0x6964656D6B657973  # "idemkeys"

DDL = Path(__file__).with_name("schema.sql")


def create_schema(engine: Engine) -> bool:
    """Make table, sequence and trigger in the first schema of the search path, if they are missing.

    True if they were. Safe when several processes try at once.
    """
    with engine.begin() as tx:
        tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        if tx.execute(text("SELECT to_regclass('idempotency_keys')")).scalar_one() is not None:
            return False
        tx.exec_driver_sql(DDL.read_text(encoding="utf-8"))
        return True
