"""Wake-ups over Postgres: NOTIFY on a connection of its own, outside every intake transaction.

A hint and nothing more: whoever listens also polls (story 44), and behind PgBouncer in
transaction mode, where LISTEN does not work, polling is all there is.
"""

from __future__ import annotations

import psycopg
from sqlalchemy import text

from torghut.storage.database import Database
from torghut.storage.watched import WatchedConnection

CHANNEL = "torghut_wake"
LISTEN_S = 5.0


def notify(database: Database) -> None:
    """Tell every listening daemon that there is work. Raises DatabaseUnavailable."""
    with database.transaction() as tx:
        tx.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})


class Listener:
    """Waits for wake-ups on a connection of its own; `wait` is called by one thread."""

    def __init__(self, database: Database) -> None:
        self._parameters = database.parameters
        self._connection: WatchedConnection | None = None

    def wait(self, timeout_s: float = LISTEN_S) -> bool:
        """True if a wake-up came within `timeout_s`. Raises psycopg.Error when disconnected;
        the next call connects again, and counts as a wake-up: one may have been missed."""
        if self._connection is None:
            connection = WatchedConnection.connect(**self._parameters, autocommit=True)
            connection.execute(f"LISTEN {CHANNEL}")
            self._connection = connection
            return True
        try:
            if list(self._connection.notifies(timeout=timeout_s, stop_after=1)):
                return True
            self._connection.execute("SELECT 1")  # silence is no proof that it still listens
            return False
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; `wait` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
