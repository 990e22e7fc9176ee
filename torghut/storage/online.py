"""Schema changes beside a daemon that trades: what migrations use where a table may be large.

1. No lock that writers wait for is held while rows are read. An index is built CONCURRENTLY, and
   before the transaction of its migration, so that this one stays short; a foreign key on a table
   that has rows is added NOT VALID and validated by a later migration.
2. A lock that is not to be had within LOCK_TIMEOUT_MS is given up, and the migration is tried
   again: whoever waits for a table makes everybody behind it wait as well.
3. What runs outside of a transaction can be repeated: a build that was interrupted leaves an
   invalid index, which is dropped first.
"""

from __future__ import annotations

from collections.abc import Mapping

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

LOCK_TIMEOUT_MS = 500


def limit_lock_waits(connection: Connection) -> None:
    """From now on this session gives up a lock that it does not get in time."""
    connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_MS}"))


def build_indexes(context: MigrationContext, indexes: Mapping[str, str]) -> None:
    """Build indexes by name, `TABLE [USING …] (…) [WHERE …]`, while others write; may be repeated.

    The first thing in a migration: it ends the transaction under way and begins another.
    """
    with context.autocommit_block():
        connection = context.connection
        assert connection is not None
        # a build waits for transactions that are older than it: without blocking anybody
        connection.execute(text("SET lock_timeout = 0"))
        for name, on in indexes.items():
            connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
            connection.execute(text(f"CREATE INDEX CONCURRENTLY {name} ON {on}"))
        limit_lock_waits(connection)
