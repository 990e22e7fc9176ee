"""Wake-ups over Postgres: NOTIFY on a connection of its own, outside every intake transaction.

A hint and nothing more: whoever listens also polls (story 44), and behind PgBouncer in
transaction mode, where LISTEN does not work, polling is all there is.
"""

from __future__ import annotations

from collections.abc import Collection

import psycopg
from sqlalchemy import text

from torghut.storage.database import Database
from torghut.storage.watched import WatchedConnection

CHANNEL = "torghut_wake"
LISTEN_S = 5.0
ACCOUNT = "account:"
"""Before the label of an account that has work."""
SEATS = "seats"
"""A lease was released."""


def notify(database: Database, topics: Collection[str]) -> None:
    """Tell every listening daemon what there is to look at. Raises DatabaseUnavailable."""
    with database.transaction() as tx:
        tx.execute(
            text("SELECT pg_notify(:channel, t) FROM unnest(CAST(:topics AS text[])) AS t"),
            {"channel": CHANNEL, "topics": sorted(topics)},
        )


class Listener:
    """Waits for wake-ups on a connection of its own; `wait` is called by one thread."""

    def __init__(self, database: Database) -> None:
        self._parameters = database.parameters
        self._connection: WatchedConnection | None = None

    def wait(self, timeout_s: float = LISTEN_S) -> set[str]:
        """What there is to look at, empty if nothing came within `timeout_s`; "" is everything,
        as is said after connecting, and by processes of an earlier version.

        Raises psycopg.Error when disconnected; the next call connects again.
        """
        if self._connection is None:
            connection = WatchedConnection.connect(**self._parameters, autocommit=True)
            connection.execute(f"LISTEN {CHANNEL}")
            self._connection = connection
            return {""}  # something may have been missed
        try:
            heard = self._connection.notifies(timeout=timeout_s, stop_after=1)
            if topics := {one.payload for one in heard}:
                return topics
            self._connection.execute("SELECT 1")  # silence is no proof that it still listens
            return set()
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; `wait` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
