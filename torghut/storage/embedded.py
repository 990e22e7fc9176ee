"""The embedded database: a real PostgreSQL that lives and leaves with the processes using it.

    start(home)  start.lock ─ users.lock, watch.lock (for life) ─ reaper ─ initdb? ─ postgres
    stop(home)   start.lock ─ users.lock given back ─ last one out? fast shutdown

Lock files in HOME/pg, always taken in this order, released by the kernel when a holder dies:

    start.lock   exclusive while starting, attaching or stopping: one at a time
    users.lock   shared, one holder per process that uses the server
    watch.lock   the same; what the reaper sleeps on
    reaper.lock  held by the reaper (`embedded_reaper`), which stops a server nobody uses
    server.lock  inherited by the server itself: free = no process of the cluster is left

Invariants: 1. at most one server per home; 2. a server with a living user is never stopped;
3. a server without users is stopped, whether they left or were killed; 4. fsync,
synchronous_commit, full_page_writes and data checksums are on.

Failure behaviour: after a kill of any of server, client, reaper or all, the next `start` attaches
or recovers. It waits for crash recovery as long as the server reports progress. If the server
dies under a living client, calling `start` again brings it back. Everything else is an
EmbeddedError that says what, where and what to do. Files and places: see `embedded_cluster`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from torghut.storage import embedded_locks, embedded_process
from torghut.storage.embedded_binaries import Binaries, binaries_for, child_environment
from torghut.storage.embedded_cluster import (
    OWNER,
    Cluster,
    check_version,
    configure_access,
    default_home,
    ensure_data_dir,
    explain_failure,
    locate,
    prepare_socket_dir,
)
from torghut.storage.embedded_process import EmbeddedError, Patience, PostmasterFile, Progress

__all__ = ["EmbeddedError", "EmbeddedServer", "Progress", "default_home", "start", "stop"]

LINGER_S = 1.0
"""Seconds a server outlives its last user, so that a row of short commands shares one."""

_DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")
_THROW_AWAY = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_LOG_KEPT_S = 6 * 86_400
_TURN_PATIENCE_S = 120.0
_REAPER_PAUSES_MAX = 100

_guard = threading.RLock()
_users: dict[Path, tuple[embedded_locks.HeldLock, embedded_locks.HeldLock]] = {}
_children: list[subprocess.Popen[bytes]] = []  # kept so that ended ones are reaped, not warned of


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server. `url` is for SQLAlchemy (`postgresql+psycopg://…`) and may hold a secret
    on Windows, so it is left out of `repr`; `pid` is the postmaster's; `version` like "18.1"."""

    url: str = field(repr=False)
    data_dir: Path
    pid: int
    version: str

    @property
    def libpq_url(self) -> str:
        """The same address for psycopg and other libpq clients (`postgresql://…`)."""
        return self.url.replace("postgresql+psycopg:", "postgresql:", 1)


def start(
    home: Path,
    *,
    database: str = "torghut",
    timeout_s: float = 120,
    progress: Progress | None = None,
    durable: bool = True,
    bin_dir: Path | None = None,
) -> EmbeddedServer:
    """Start the server of `home`, or attach to it; this process then counts as a user of it.

    Idempotent: call it again at any time, also after the server died. `database` is created when
    missing. `timeout_s`: seconds without a sign of progress before giving up; `progress` is told
    once a second what is waited for. `durable=False` is for throw-away test data only.
    `bin_dir`: other PostgreSQL programs than the wheel's. Raises EmbeddedError.
    """
    with _guard:
        try:
            cluster = locate(home)
            patience = Patience(timeout_s, cluster.data_dir, progress)
            with _turn(cluster, patience):
                return _start(cluster, database, patience, durable, bin_dir)
        except (OSError, subprocess.SubprocessError) as error:
            raise _translated(error, home) from error


def stop(home: Path, *, progress: Progress | None = None) -> None:
    """Leave the server of `home`; the last one out shuts it down and waits for that.

    Afterwards no process of it is left, and `home` may be removed, unless others use the server.
    Does nothing when it does not run. Raises EmbeddedError when it will not end.
    """
    if not (home / "pg").is_dir():
        return
    with _guard:
        try:
            cluster = locate(home)
            patience = Patience(_TURN_PATIENCE_S, cluster.data_dir, progress)
            with _turn(cluster, patience):
                stopped = _leave(cluster, progress)
            if stopped:
                _await_reaper(cluster, patience)
        except OSError as error:
            raise _translated(error, home) from error


def _turn(cluster: Cluster, patience: Patience) -> embedded_locks.HeldLock:
    """Take `start.lock`, waiting for whoever starts or stops the server now."""
    while (held := embedded_locks.try_acquire(cluster.start_lock)) is None:
        patience.pause("another process that is starting or stopping the server")
    return held


def _translated(error: Exception, home: Path) -> EmbeddedError:
    named = getattr(error, "filename", None)
    where = named if isinstance(named, str) else str(home)
    why = getattr(error, "strerror", None) or str(error)
    return EmbeddedError(
        f"the operating system refused: {why}",
        where=where,
        mend="Mend its permissions or free space, or set TORGHUT_HOME to another folder.",
    )


def _start(
    cluster: Cluster, database: str, patience: Patience, durable: bool, bin_dir: Path | None
) -> EmbeddedServer:
    joined = cluster.lock_dir not in _users
    if joined:
        _users[cluster.lock_dir] = (
            embedded_locks.acquire(cluster.users_lock, shared=True),
            embedded_locks.acquire(cluster.watch_lock, shared=True),
        )
    try:
        binaries = binaries_for(cluster.account, bin_dir)
        _ensure_reaper(cluster)
        running = _ensure_running(cluster, binaries, patience, durable)
        if not _ensure_database(cluster, running, database, patience):
            # what was found running was dying: killed a moment ago, perhaps
            running = _ensure_running(cluster, binaries, patience, durable)
            if not _ensure_database(cluster, running, database, patience):
                raise explain_failure(cluster)
    except BaseException:
        if joined:
            with suppress(EmbeddedError):  # the first error is the one to tell
                _leave(cluster, None)
        raise
    return EmbeddedServer(
        _url(cluster, running, database), cluster.data_dir, running.pid, binaries.version
    )


def _leave(cluster: Cluster, progress: Progress | None) -> bool:
    """Stop being a user; True when nobody else is one and the server has ended."""
    users, watch = _users.pop(cluster.lock_dir, (None, None))
    if users is not None:
        users.close()
    try:
        return embedded_process.stop_if_unused(cluster.lock_dir, cluster.data_dir, progress)
    finally:
        if watch is not None:
            watch.close()
        _children[:] = [child for child in _children if child.poll() is None]


def _await_reaper(cluster: Cluster, patience: Patience) -> None:
    """Wait until the reaper has left too, or the server is back in use."""
    for _ in range(_REAPER_PAUSES_MAX):
        with _turn(cluster, patience):
            free = embedded_locks.try_acquire(cluster.reaper_lock)
            if free is not None:
                free.close()
                return
            if not embedded_process.server_is_gone(cluster.server_lock, cluster.data_dir):
                return
        patience.pause("the reaper to leave")


def _ensure_reaper(cluster: Cluster) -> None:
    """Start a reaper unless one lives. It is handed its lock, so there is no gap to race in."""
    held = embedded_locks.try_acquire(cluster.reaper_lock)
    if held is None:
        return
    package_root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(p for p in (package_root, os.environ.get("PYTHONPATH")) if p)
    command = [sys.executable, "-m", "torghut.storage.embedded_reaper"]
    with held:
        if sys.platform == "win32":
            held.close()  # a lock cannot be inherited there: the reaper takes it itself
        _children.append(
            subprocess.Popen(
                [*command, str(cluster.lock_dir), str(cluster.data_dir), str(LINGER_S)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=cluster.lock_dir.anchor,
                env=child_environment({"PYTHONPATH": search}),
                start_new_session=True,
                pass_fds=() if sys.platform == "win32" else (held.fd,),
            )
        )


def _ensure_running(
    cluster: Cluster, binaries: Binaries, patience: Patience, durable: bool
) -> PostmasterFile:
    while True:
        running = embedded_process.settled(cluster.server_lock, cluster.data_dir, patience)
        if running is None:
            with embedded_locks.acquire(cluster.server_lock) as lock:
                child = _launch(cluster, binaries, lock, durable)
            return _await_ready(cluster, patience, child)
        check_version(cluster.data_dir, binaries)
        ready = _await_attached(cluster, patience)
        if ready is not None:
            return ready


def _launch(
    cluster: Cluster, binaries: Binaries, lock: embedded_locks.HeldLock, durable: bool
) -> subprocess.Popen[bytes]:
    """Heal, initialise when needed, and start the server, which inherits `server.lock`."""
    ensure_data_dir(cluster, binaries, lock.fd)
    embedded_process.heal_postmaster_file(cluster.data_dir)
    configure_access(cluster)
    _prune_logs(cluster)
    options = list(_DURABLE if durable else _THROW_AWAY)
    if sys.platform == "win32":
        return _launch_windows(cluster, binaries, options)
    options += [
        "listen_addresses=",
        "port=5432",
        f"unix_socket_directories={prepare_socket_dir(cluster)}",
        "unix_socket_permissions=0700",
    ]
    command: list[str | Path] = [binaries.program("postgres"), "-D", cluster.data_dir]
    for option in options:
        command += ["-c", option]
    with cluster.startup_log.open("wb") as log:
        cluster.startup_log.chmod(0o600)
        child = cluster.account.popen(
            command, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock.fd,)
        )
    _children.append(child)
    return child


def _launch_windows(
    cluster: Cluster, binaries: Binaries, options: list[str]
) -> subprocess.Popen[bytes]:
    # pg_ctl drops administrator rights, which the server refuses; it must not wait, we do
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = " ".join(f"-c {o}" for o in (*options, "listen_addresses=127.0.0.1", f"port={port}"))
    command: list[str | Path] = [binaries.program("pg_ctl"), "start", "-W", "-o", flags]
    command += ["-D", cluster.data_dir, "-l", cluster.startup_log]
    child = cluster.account.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if child.wait() != 0:
        raise explain_failure(cluster)
    return child


def _prune_logs(cluster: Cluster) -> None:
    # files are named by weekday: one that is a week old would be appended to, not replaced
    logs = embedded_process.log_files(cluster.data_dir)
    if logs:
        newest = logs[-1].stat().st_mtime
        for path in logs:
            if newest - path.stat().st_mtime > _LOG_KEPT_S:
                path.unlink()


def _await_ready(
    cluster: Cluster, patience: Patience, child: subprocess.Popen[bytes]
) -> PostmasterFile:
    while True:
        found = embedded_process.read_postmaster_file(cluster.data_dir)
        started_by_us = found is not None and (sys.platform == "win32" or found.pid == child.pid)
        if found is not None and started_by_us and found.status == "ready":
            return found
        if sys.platform != "win32" and child.poll() is not None:
            raise explain_failure(cluster)
        patience.pause("the server to be ready (it may be recovering from a crash)")


def _await_attached(cluster: Cluster, patience: Patience) -> PostmasterFile | None:
    """Wait for a server somebody else started; None when it ended meanwhile."""
    while True:
        found = embedded_process.postmaster(cluster.data_dir)
        if found is None or found.status == "ready":
            return found
        patience.pause("the running server to be ready (it may be recovering or stopping)")


def _url(cluster: Cluster, running: PostmasterFile, database: str) -> str:
    name = quote(database, safe="")
    if running.socket_dir:
        where = quote(running.socket_dir, safe="/")
        return f"postgresql+psycopg://{OWNER}@/{name}?host={where}&port={running.port}"
    secret = cluster.password_file.read_text("ascii")
    return f"postgresql+psycopg://{OWNER}:{secret}@127.0.0.1:{running.port}/{name}"


def _ensure_database(
    cluster: Cluster, running: PostmasterFile, database: str, patience: Patience
) -> bool:
    """False if the server has ended meanwhile."""
    import psycopg
    from psycopg import sql

    url = _url(cluster, running, "postgres").replace("+psycopg", "", 1)
    while True:
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
                known = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", (database,)
                ).fetchone()
                if known is None:
                    name = sql.Identifier(database)
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
            return True
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return True  # somebody else created it at the same moment
        except psycopg.OperationalError as error:
            if embedded_process.postmaster(cluster.data_dir) is None:
                return False
            if error.sqlstate is None or error.sqlstate.startswith("57P"):
                patience.pause("the server to accept connections")
                continue
            raise EmbeddedError(
                f"database {database!r} cannot be opened: {error}",
                where=cluster.data_dir,
                mend="See the server's log in the folder log there.",
            ) from error
