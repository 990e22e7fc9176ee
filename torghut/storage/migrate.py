"""Bring a database to the schema this version needs; safe when several processes try at once.

The scripts are `migrations/` of the repository, shipped in the wheel as `torghut/migrations`.
An advisory lock makes concurrent upgrades one after the other. What keeps the locks of a migration
short is in torghut/storage/online.py.
"""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from torghut.domain.errors import DatabaseUnavailable, TorghutError
from torghut.storage.address import connect_parameters, database_url
from torghut.storage.database_faults import DatabaseFault, fault_of, unreachable
from torghut.storage.online import limit_lock_waits

SERVER_VERSION_MIN = 15
_LOCK_KEY = 0x746F7267687574  # "torghut"
_TURN_S = 0.2
_TRIES = 60


class SchemaError(TorghutError):
    """The database's schema is not the one this version works with; the text says what to do."""


def upgrade(url: str, *, to: str = "head") -> tuple[str | None, str]:
    """Migrate to the newest schema, or to an older revision; returns (revision before, now).

    Raises DatabaseUnavailable, SchemaError (unknown newer schema, too old a server).
    """
    target = database_url(url)
    engine = _engine(target)
    try:
        with engine.connect() as connection:
            _check_server(connection.dialect.server_version_info)
            _take_turn(connection)
            before = MigrationContext.configure(connection).get_current_revision()
            _check_known(before)
            _migrate(connection, to)
            after = MigrationContext.configure(connection).get_current_revision()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
            connection.commit()
            assert after is not None
            return before, after
    except OperationalError as error:
        raise DatabaseUnavailable(unreachable(target, error)) from error
    finally:
        engine.dispose()


def _take_turn(connection: Connection) -> None:
    """Wait for the lock without a snapshot, as CREATE INDEX CONCURRENTLY waits for those."""
    pause = threading.Event()
    ask = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.execute(ask, {"key": _LOCK_KEY}).scalar_one():
        connection.commit()
        pause.wait(_TURN_S)
    connection.commit()


def _migrate(connection: Connection, to: str) -> None:
    """Each migration is its own transaction; one that got no lock in time is tried again."""
    config = _config()
    config.attributes["connection"] = connection
    limit_lock_waits(connection)
    connection.commit()
    pause = threading.Event()
    for _ in range(_TRIES):
        try:
            command.upgrade(config, to)
            connection.commit()
            return
        except (OperationalError, psycopg.errors.LockNotAvailable) as error:
            if isinstance(error, OperationalError) and fault_of(error) is not DatabaseFault.TIMEOUT:
                raise
            connection.rollback()
            pause.wait(_TURN_S)
    raise SchemaError(
        "a table that has to be changed was in use all the time, and nothing was changed by this "
        "step: look for a long transaction in pg_stat_activity, then run `torghut migrate` again"
    )


def check(url: str) -> str:
    """The database's revision if it is the one this version works with.

    Raises SchemaError when it is older, newer or absent; DatabaseUnavailable.
    """
    target = database_url(url)
    engine = _engine(target)
    try:
        with engine.connect() as connection:
            _check_server(connection.dialect.server_version_info)
            revision = MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise DatabaseUnavailable(unreachable(target, error)) from error
    finally:
        engine.dispose()
    _check_known(revision)
    head = _scripts().get_current_head()
    if revision is None or revision != head:
        stands = f"at schema {revision}" if revision else "empty"
        raise SchemaError(
            f"the database is {stands}, this version needs schema {head}; "
            "run `torghut migrate`, or start with `torghut run --migrate`"
        )
    return revision


def _engine(target: URL) -> Engine:
    """No statement timeout, as a migration may take long; behind a pooler nothing is prepared."""
    named = connect_parameters(target) | {"prepare_threshold": None}
    return create_engine(target, connect_args=named)


def _check_server(version: tuple[int | str, ...] | None) -> None:
    if version is None or int(version[0]) < SERVER_VERSION_MIN:
        shown = ".".join(map(str, version or ()))
        raise SchemaError(
            f"the server is PostgreSQL {shown}; versions from {SERVER_VERSION_MIN} on are supported"
        )


def _check_known(revision: str | None) -> None:
    if revision is not None and revision not in {s.revision for s in _scripts().walk_revisions()}:
        raise SchemaError(
            f"the database has schema {revision}, which this version does not know: "
            "it was migrated by a newer one; install that version"
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_location()).replace("%", "%%"))
    return config


def _location() -> Path:
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "migrations", package.parent / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise SchemaError(f"no migration scripts beside {package}; install torghut again")
