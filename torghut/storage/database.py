"""The one way to a transaction: an engine with every timeout set, and commits that are believed
only when Postgres says that they are durable.

```
with database.transaction() as tx:     # READ COMMITTED, one connection of the pool
    storage.something(tx, …)           # functions take tx first and never commit
                                       # leaving the block commits; an exception rolls back
```

Failure behaviour (docs/faults.md has it from the operator's side):
- no connection, a broken or silent one outside of COMMIT, a deadlock, a full disk, a server that
  became a stand-by: `DatabaseUnavailable`; nothing was committed, the same again later.
- broken or silent during COMMIT: `CommitInDoubt`; the caller re-reads by key and assumes nothing
  (P4).
- COMMIT answered with a warning (a synchronous standby was lost and the wait canceled):
  `NotDurable`; the rows are visible but may be lost in a failover, so nothing is sent on them.

Behind a pooler in transaction mode each transaction may meet another server process: nothing is
prepared, and the timeouts are set anew in each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from torghut import telemetry
from torghut.domain.errors import DatabaseUnavailable, NotDurable
from torghut.storage.address import connect_parameters, database_url
from torghut.storage.database_faults import (
    DatabaseFault,
    fault_of,
    first_line,
    in_words,
    unreachable,
)
from torghut.storage.watched import ServerSilent, WatchedConnection

STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 5_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 5_000  # a frozen owner must not hold its lease row for long
POOL_TIMEOUT_S = 10
POOL_OVERFLOW = 4
CONFLICT_TRIES = 5

_BEFORE_COMMIT = "torghut.before_commit"
_AFTER_COMMIT = "torghut.after_commit"

T = TypeVar("T")


class CommitInDoubt(DatabaseUnavailable):
    """The connection broke while COMMIT was under way: the change may or may not be there."""


class Conflict(DatabaseUnavailable):
    """A deadlock or a serialization failure: the same transaction at once again."""


class Database:
    """An engine on one Postgres database. Thread-safe; `close()` when done.

    `pooled`: between us and Postgres is a pooler in transaction mode.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 12,
        application: str = "torghut",
        pooled: bool = False,
    ) -> None:
        self.url = database_url(url)
        self.pooled = pooled
        self.connections_max = pool_size + POOL_OVERFLOW
        self._local = threading.local()
        self.parameters = {**connect_parameters(self.url), "application_name": application}
        self._engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=POOL_TIMEOUT_S,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
        )
        event.listen(self._engine, "do_connect", self._connect)
        event.listen(self._engine, "connect", self._on_connect)
        if pooled:
            event.listen(self._engine, "begin", _set_timeouts)

    def _connect(self, *_: object) -> WatchedConnection:
        if self._local.silent and "," not in str(self.parameters.get("host")):
            raise ServerSilent("no answer from the server")  # as the pooled connection found
        if self.pooled:
            return WatchedConnection.connect(**self.parameters, prepare_threshold=None)
        given = self.parameters.get("options", "")
        ours = (f"-c {name}={value}" for name, value in _session_settings())
        return WatchedConnection.connect(**self.parameters | {"options": " ".join([given, *ours])})

    def _on_connect(self, connection: WatchedConnection, _record: object) -> None:
        connection.add_notice_handler(self._on_notice)
        connection.on_silent = self._note_silence

    def _note_silence(self) -> None:
        self._local.silent = True

    def _on_notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._local.warning = diagnostic.message_primary

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends without an exception.

        Raises DatabaseUnavailable, Conflict, CommitInDoubt, NotDurable; other database errors (a
        violated constraint) pass through as SQLAlchemy raised them.
        """
        self._local.silent = False
        try:
            connection = self._engine.connect()
        except (OperationalError, PoolTimeoutError) as error:
            raise _counted(
                DatabaseFault.UNREACHABLE, DatabaseUnavailable(unreachable(self.url, error))
            ) from error
        with connection:
            connection.info.pop(_BEFORE_COMMIT, None)
            connection.info.pop(_AFTER_COMMIT, None)
            try:
                yield connection
                for last, items in connection.info.pop(_BEFORE_COMMIT, {}).items():
                    last(connection, items)
            except DBAPIError as error:
                fault = fault_of(error)
                if fault is None:
                    raise
                raise self._unavailable(fault, error) from error
            waiting = connection.info.pop(_AFTER_COMMIT, ())
            self._commit(connection)
            for call in waiting:
                call()

    @property
    def connections_in_use(self) -> int:
        """Connections of the pool that are taken at the moment."""
        return int(self._engine.pool.checkedout())  # type: ignore[attr-defined]

    def retried(self, work: Callable[[Connection], T]) -> T:
        """`work` in a transaction of its own, again at once when it met a deadlock."""
        for attempt in range(1, CONFLICT_TRIES + 1):
            try:
                with self.transaction() as tx:
                    return work(tx)
            except Conflict:
                if attempt == CONFLICT_TRIES:
                    raise
        raise AssertionError("unreachable")

    def _unavailable(self, fault: DatabaseFault, error: DBAPIError) -> DatabaseUnavailable:
        if fault is DatabaseFault.READ_ONLY:
            # every pooled connection leads to a server that is not the primary any more
            self._engine.dispose()
        kind = Conflict if fault is DatabaseFault.CONFLICT else DatabaseUnavailable
        return _counted(fault, kind(in_words(self.url, fault, error)))

    def _commit(self, connection: Connection) -> None:
        self._local.warning = None
        try:
            connection.commit()
        except DBAPIError as error:
            if fault_of(error) is None:
                raise
            raise _counted(
                DatabaseFault.COMMIT_IN_DOUBT,
                CommitInDoubt(f"COMMIT was not answered: {first_line(error)}"),
            ) from error
        if self._local.warning is not None:
            telemetry.DATABASE_FAULTS.labels(DatabaseFault.NOT_DURABLE).inc()
            raise NotDurable(f"COMMIT was answered with a warning: {self._local.warning}")

    def close(self) -> None:
        """Close all connections; the pool must not be used afterwards."""
        self._engine.dispose()


def before_commit(
    tx: Connection, call: Callable[[Connection, list[T]], object], items: Iterable[T]
) -> None:
    """Call once, as the last thing in `tx`, a Database's transaction, with all the items that were
    given. A savepoint that is given up takes nothing back: the call has to look for itself."""
    tx.info.setdefault(_BEFORE_COMMIT, {}).setdefault(call, []).extend(items)


def after_commit(tx: Connection, call: Callable[[], object]) -> None:
    """Call when `tx`, a Database's transaction, has committed, and never if it has not: what is
    counted is what is durable. A savepoint that is given up takes nothing back."""
    tx.info.setdefault(_AFTER_COMMIT, []).append(call)


def _session_settings() -> tuple[tuple[str, object], ...]:
    return (
        ("statement_timeout", STATEMENT_TIMEOUT_MS),
        ("lock_timeout", LOCK_TIMEOUT_MS),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS),
        ("timezone", "UTC"),
    )


def _set_timeouts(connection: Connection) -> None:
    """For this transaction alone: the next one may be another server process's."""
    named: dict[str, Any] = {name: str(value) for name, value in _session_settings()}
    calls = ", ".join(f"set_config('{name}', :{name}, true)" for name in named)
    connection.execute(text(f"SELECT {calls}"), named)


def _counted(fault: DatabaseFault, error: DatabaseUnavailable) -> DatabaseUnavailable:
    telemetry.DATABASE_FAULTS.labels(fault).inc()
    return error
