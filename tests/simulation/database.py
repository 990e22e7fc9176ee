"""The real schema and the real SQL, in virtual time, for processes that are never suspended inside
a transaction.

    process ─▶ transaction() ─▶ [pause] BEGIN ─ statements ─ COMMIT [pause] ─▶ process

All processes of a run share one session: at most one transaction is open at a time, so that no
wait for a lock can stop the scheduler. What statements of open transactions do to each other is
therefore not simulated; tests/services/test_races.py and tests/chaos do that with real threads.
A transaction may fail as the production one may: unreachable before it began, or COMMIT in doubt,
with the change made or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection, text

from tests.simulation.driver import Session
from torghut.domain.errors import DatabaseUnavailable
from torghut.storage.database import CommitInDoubt, Database

SEARCH_PATH = "virtual,pg_catalog,public"
_TABLES = text("""SELECT schemaname || '.' || tablename AS name FROM pg_catalog.pg_tables
WHERE schemaname IN ('public', 'virtual') AND tablename <> 'alembic_version' ORDER BY 1""")

T = TypeVar("T")


class World(Protocol):
    """What a database needs to know of what goes on around it."""

    def pause(self, what: str) -> None: ...

    def stamp(self) -> int: ...

    def postgres_now(self) -> datetime: ...

    def database_fault(self) -> str | None: ...

    def note(self, what: str) -> None: ...

    transaction_of: str | None


class Server:
    """A migrated database of the simulation's own; `reset` empties it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = Session(url, search_path=SEARCH_PATH)
        self.session.run(Path(__file__).with_name("virtual.sql").read_text(encoding="utf-8"))
        tables = ", ".join(row.name for row in self.session.execute(_TABLES))
        self._empty = (
            "SET session_replication_role = replica;"
            f"TRUNCATE {tables} RESTART IDENTITY CASCADE;"
            "SET session_replication_role = origin"
        )

    def reset(self) -> None:
        """Empty all tables; a table that grows makes the seeds after it slower."""
        self.session.run(self._empty)

    def close(self) -> None:
        self.session.close()


class SimulatedDatabase:
    """`torghut.storage.database.Database` as far as the services use it, for one process."""

    pooled = False

    def __init__(self, server: Server, world: World, process: str) -> None:
        self._session = server.session
        self._world = world
        self._process = process

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As the production one."""
        world = self._world
        fault = _begin(world)
        self._session.info.clear()
        world.transaction_of = self._process
        try:
            self._session.begin(_settings(world, self._process))
            try:
                yield self._session  # type: ignore[misc]  # it has what storage uses of it
            except BaseException:
                self._session.run("ROLLBACK")
                raise
            if fault == "commit lost":
                self._session.run("ROLLBACK")
            else:
                self._session.commit()
        finally:
            world.transaction_of = None
        _end(world, fault)

    def retried(self, work: Callable[[Connection], T]) -> T:
        """As the production one; there are no conflicts here."""
        with self.transaction() as tx:
            return work(tx)

    def close(self) -> None: ...


class ProductionDatabase(Database):
    """The production class in the same harness: slower, and must do the same (test_driver)."""

    def __init__(self, server: Server, world: World, process: str) -> None:
        super().__init__(server.url, pool_size=1)
        self.parameters["options"] = f"-c search_path={SEARCH_PATH}"
        self._world = world
        self._process = process

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        world = self._world
        fault = _begin(world)
        world.transaction_of = self._process
        try:
            with super().transaction() as tx:
                for setting in _settings(world, self._process).split(";"):
                    tx.execute(text(setting.replace(":", "\\:")))
                yield tx
                if fault == "commit lost":
                    raise CommitInDoubt("COMMIT was not answered")
        except CommitInDoubt:
            pass
        finally:
            world.transaction_of = None
        _end(world, fault)


def _begin(world: World) -> str | None:
    """Before BEGIN: a place to stop at, and the fault that this transaction will meet."""
    if world.transaction_of is not None:
        raise AssertionError("a transaction inside a transaction")
    world.pause("BEGIN")
    fault = world.database_fault()
    if fault == "unreachable":
        world.note("database unreachable")
        raise DatabaseUnavailable("the database does not answer")
    return fault


def _end(world: World, fault: str | None) -> None:
    if fault is not None:
        world.note(fault)
    world.pause("committed")
    if fault is not None:
        raise CommitInDoubt("COMMIT was not answered")


def _settings(world: World, process: str) -> str:
    now = world.postgres_now().isoformat()
    return f"SET LOCAL virtual.now = '{now}';SET LOCAL virtual.who = '{process} {world.stamp()}'"
