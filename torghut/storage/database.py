"""The one way to a transaction: an engine with every timeout set, and commits that are believed
only when Postgres says that they are durable.

```
with database.transaction() as tx:     # READ COMMITTED, one connection of the pool
    storage.something(tx, …)           # functions take tx first and never commit
                                       # leaving the block commits; an exception rolls back
```

Failure behaviour:
- no connection, or a broken one outside of COMMIT: `DatabaseUnavailable`; nothing was committed.
- broken during COMMIT: `CommitInDoubt`; the caller re-reads by key and assumes nothing (P4).
- COMMIT answered with a warning (a synchronous standby was lost and the wait canceled):
  `NotDurable`; the rows are visible but may be lost in a failover, so nothing is sent on them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection as PsycopgConnection
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from torghut.domain.errors import ConfigError, DatabaseUnavailable, NotDurable

CONNECT_TIMEOUT_S = 5
TCP_USER_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 5_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 5_000  # a frozen owner must not hold its lease row for long
POOL_TIMEOUT_S = 10

_DRIVER = "postgresql+psycopg"


class CommitInDoubt(DatabaseUnavailable):
    """The connection broke while COMMIT was under way: the change may or may not be there."""


def database_url(text: str) -> URL:
    """A SQLAlchemy URL from `postgres://`, `postgresql://` or `postgresql+psycopg://` text."""
    try:
        url = make_url(text)
    except Exception as error:  # noqa: BLE001 - whatever the parser dislikes is the user's typo
        raise ConfigError(
            "TORGHUT_DATABASE_URL",
            f"is not a database URL ({type(error).__name__})",
            "write postgresql://user:password@host:5432/database",
        ) from None
    if url.drivername not in ("postgres", "postgresql", _DRIVER):
        raise ConfigError(
            "TORGHUT_DATABASE_URL",
            f"names {url.drivername!r}, but only PostgreSQL is supported",
            "write postgresql://user:password@host:5432/database",
        )
    return url.set(drivername=_DRIVER)


class Database:
    """An engine on one Postgres database. Thread-safe; `close()` when done."""

    def __init__(self, url: str, *, pool_size: int = 12, application: str = "torghut") -> None:
        self.url = database_url(url)
        self._local = threading.local()
        self._engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=4,
            pool_timeout=POOL_TIMEOUT_S,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "application_name": application,
                "options": " ".join(
                    f"-c {name}={value}"
                    for name, value in (
                        ("statement_timeout", STATEMENT_TIMEOUT_MS),
                        ("lock_timeout", LOCK_TIMEOUT_MS),
                        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS),
                        ("timezone", "UTC"),
                    )
                ),
            },
        )
        event.listen(self._engine, "connect", self._on_connect)

    def _on_connect(self, connection: PsycopgConnection[object], _record: object) -> None:
        connection.add_notice_handler(self._on_notice)

    def _on_notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._local.warning = diagnostic.message_primary

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends without an exception.

        Raises DatabaseUnavailable, CommitInDoubt, NotDurable; other database errors (a violated
        constraint) pass through as SQLAlchemy raised them.
        """
        try:
            connection = self._engine.connect()
        except (OperationalError, PoolTimeoutError) as error:
            raise DatabaseUnavailable(unreachable(self.url, error)) from error
        with connection:
            try:
                yield connection
            except OperationalError as error:
                if _is_retryable(error):
                    raise DatabaseUnavailable(unreachable(self.url, error)) from error
                raise
            self._commit(connection)

    def _commit(self, connection: Connection) -> None:
        self._local.warning = None
        try:
            connection.commit()
        except DBAPIError as error:
            if isinstance(error, OperationalError) or error.connection_invalidated:
                raise CommitInDoubt(f"COMMIT was not answered: {first_line(error)}") from error
            raise
        if self._local.warning is not None:
            raise NotDurable(f"COMMIT was answered with a warning: {self._local.warning}")

    def close(self) -> None:
        """Close all connections; the pool must not be used afterwards."""
        self._engine.dispose()


def _is_retryable(error: OperationalError) -> bool:
    """Broken connections, timeouts, deadlocks: nothing was committed, the same again later."""
    return True if error.connection_invalidated else error.orig is not None


def unreachable(url: URL, error: Exception) -> str:
    """One line for a person: which database (without its password), and what it said."""
    return (
        f"database {url.render_as_string(hide_password=True)} does not answer: {first_line(error)}"
    )


def first_line(error: Exception) -> str:
    """The driver's own first line, without SQL and parameters."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().split("\n", 1)[0]
