"""Where one embedded cluster lives, and how its data directory is made and configured.

    HOME/pg/            lock files, `startup.log`, and the cluster itself when it can live there
    ROOT/data/          the PostgreSQL data directory (0700, owned by the server's account)
    ROOT/run/           its socket, or `/tmp/torghut-pg-UID-HASH` when that path is unusable

ROOT is HOME/pg. If the server's account cannot walk into it (as root, with a home under /root)
or the path is too long for PostgreSQL (1024 bytes), ROOT is `clusters/HASH` under
`/var/lib/torghut` (as root) or the user's data folder, and `HOME/pg/location` says where. Once
chosen it stays, so that data never seems lost.

A new data directory is made as `data.new` and renamed when complete and on disk: a killed initdb
leaves nothing that looks like a cluster. Only the server's account and ourselves may connect:
by the socket, proven by the kernel (peer), so no password exists on POSIX. On Windows: TCP on
127.0.0.1 and a random password in `HOME/pg/password`.
Failure behaviour: EmbeddedError; OSError passes through and is translated in `embedded`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from torghut.storage.embedded_binaries import (
    ROOT_STATE,
    Account,
    Binaries,
    account_for,
    can_reach,
    make_folder,
)
from torghut.storage.embedded_process import EmbeddedError, log_files, log_tail

OWNER = "torghut"
"""The database role that owns everything; nothing but this role can log in."""

_PATH_BYTES_MAX = 700
_SOCKET_DIR_BYTES_MAX = 88  # sun_path is 104 bytes on macOS, "/.s.PGSQL.5432" takes 15
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")
_INITDB_TIMEOUT_S = 600

# Appended to postgresql.conf once: a later edit by the operator wins. What the promises rest on
# is not here but on the server's command line, where ALTER SYSTEM cannot switch it off.
_SETTINGS = """
# --- Torghut ---
shared_buffers = 128MB
max_connections = 100
wal_compression = on
autovacuum = on
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = 'log'
log_filename = 'server-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
log_min_messages = warning
log_line_prefix = '%m [%p] %d '
log_startup_progress_interval = 1s
"""


@dataclass(frozen=True)
class Cluster:
    """Places and account of one cluster. `lock_dir` is HOME/pg, `root` holds the data."""

    lock_dir: Path
    root: Path
    account: Account

    @property
    def data_dir(self) -> Path:
        """The PostgreSQL data directory."""
        return self.root / "data"

    @property
    def start_lock(self) -> Path:
        """Held while starting, attaching or stopping."""
        return self.lock_dir / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Shared by every process that uses the server."""
        return self.lock_dir / "users.lock"

    @property
    def watch_lock(self) -> Path:
        """Shared likewise; the reaper sleeps on it."""
        return self.lock_dir / "watch.lock"

    @property
    def reaper_lock(self) -> Path:
        """Held by the reaper for life."""
        return self.lock_dir / "reaper.lock"

    @property
    def server_lock(self) -> Path:
        """Inherited by the server: free when nothing of it is left."""
        return self.lock_dir / "server.lock"

    @property
    def startup_log(self) -> Path:
        """What the server says before its own log begins."""
        return self.lock_dir / "startup.log"

    @property
    def password_file(self) -> Path:
        """The password of the database role (Windows only)."""
        return self.lock_dir / "password"


def default_home() -> Path:
    """Where Torghut keeps its state unless told otherwise: a system folder as root."""
    if sys.platform != "win32" and os.geteuid() == 0:
        return ROOT_STATE
    return platformdirs.user_data_path("torghut")


def locate(home: Path) -> Cluster:
    """Find or choose the place of the cluster of `home`, creating `home/pg`.

    Raises EmbeddedError when there is no usable place, OSError when it cannot be written.
    """
    lock_dir = home.expanduser().resolve() / "pg"
    make_folder(lock_dir)
    account = account_for(lock_dir / "data")
    pointer = lock_dir / "location"
    if pointer.exists():
        root = Path(pointer.read_text("utf-8"))
        return Cluster(lock_dir, root, account_for(root / "data"))
    if (lock_dir / "data").exists() or _is_usable(account, lock_dir):
        return Cluster(lock_dir, lock_dir, account)
    base = ROOT_STATE if account.switch else platformdirs.user_data_path("torghut")
    root = base / "clusters" / hashlib.sha256(os.fsencode(lock_dir.parent)).hexdigest()[:16]
    make_folder(root)
    if not _is_usable(account, root):
        raise EmbeddedError(
            f"user {account.name}, under whom PostgreSQL must run, cannot reach the data",
            where=root,
            mend="Allow others to walk into that folder (chmod o+x), or choose another home.",
        )
    fresh = pointer.with_name("location.new")
    fresh.write_text(str(root), "utf-8")
    fresh.replace(pointer)
    return Cluster(lock_dir, root, account_for(root / "data"))


def _is_usable(account: Account, root: Path) -> bool:
    return (
        str(root).isprintable()
        and len(os.fsencode(root)) <= _PATH_BYTES_MAX
        and can_reach(account, root)
    )


def ensure_data_dir(cluster: Cluster, binaries: Binaries, server_lock_fd: int) -> None:
    """Make the data directory unless it exists. Call with `server.lock` held, its descriptor
    given: initdb inherits it, so that a next starter waits for an initdb that lost its parent.

    Raises EmbeddedError when it belongs to another major version or is not one.
    """
    data_dir = cluster.data_dir
    if data_dir.is_dir() and any(data_dir.iterdir()):
        check_version(data_dir, binaries)
        _hand_over(cluster)
        return
    fresh = cluster.root / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    cluster.account.own(fresh)
    _initdb(cluster, binaries, fresh, server_lock_fd)
    with (fresh / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(_SETTINGS)
        file.flush()
        os.fsync(file.fileno())
    if data_dir.is_dir():
        data_dir.rmdir()
    fresh.rename(data_dir)
    if sys.platform != "win32":
        folder = os.open(cluster.root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _hand_over(cluster: Cluster) -> None:
    # a backup restored by root belongs to root, whom the server is not
    if cluster.account.switch and cluster.data_dir.stat().st_uid != cluster.account.uid:
        for path in (*cluster.data_dir.rglob("*"), cluster.data_dir):
            cluster.account.own(path)


def check_version(data_dir: Path, binaries: Binaries) -> None:
    """Raise EmbeddedError unless `data_dir` was written by the major version of `binaries`."""
    try:
        found = (data_dir / "PG_VERSION").read_text("ascii").strip()
    except FileNotFoundError:
        raise EmbeddedError(
            "the folder is not empty and not a PostgreSQL data directory",
            where=data_dir,
            mend="Move it away to start with an empty database, or restore your backup there.",
        ) from None
    if found != binaries.major:
        raise EmbeddedError(
            f"the data was written by PostgreSQL {found}, the programs here are "
            f"PostgreSQL {binaries.major} ({binaries.version})",
            where=data_dir,
            mend=f"Dump it with the old version (pg_dump of PostgreSQL {found}) and load the dump "
            "into a new home, or move this folder away to start with an empty database.",
        )


def _initdb(cluster: Cluster, binaries: Binaries, target: Path, server_lock_fd: int) -> None:
    inherited: tuple[int, ...] = (server_lock_fd,)
    command: list[str | Path] = [binaries.program("initdb"), "-D", target, "-U", OWNER]
    command += ["--data-checksums", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    if int(binaries.major) >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if sys.platform == "win32":
        cluster.password_file.write_text(secrets.token_urlsafe(24), "ascii")
        command += ["--auth=scram-sha-256", "--pwfile", cluster.password_file]
        inherited = ()
    else:
        command += ["--auth-local=peer", "--auth-host=reject"]
    with tempfile.TemporaryFile() as output:
        running = cluster.account.popen(
            command, stdout=output, stderr=subprocess.STDOUT, pass_fds=inherited
        )
        try:
            code = running.wait(_INITDB_TIMEOUT_S)
        except BaseException:
            running.kill()
            running.wait()
            raise
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    if code != 0:
        raise EmbeddedError(
            f"initdb failed with exit code {code}",
            where=target,
            mend="Free space or mend permissions as the log says, then start again.",
            log="\n".join(said.splitlines()[-12:]),
        )


def configure_access(cluster: Cluster) -> None:
    """Write who may connect (`pg_hba.conf`, `pg_ident.conf`), for the accounts of this start."""
    account = cluster.account
    if sys.platform == "win32":
        _write(account, cluster.data_dir / "pg_hba.conf", "host all all 127.0.0.1/32 scram-sha-256")
        return
    import pwd

    names = sorted({account.name, pwd.getpwuid(os.geteuid()).pw_name})
    mapped = "\n".join(f'torghut "{name}" {OWNER}' for name in names)
    _write(account, cluster.data_dir / "pg_hba.conf", "local all all peer map=torghut")
    _write(account, cluster.data_dir / "pg_ident.conf", mapped)


def _write(account: Account, path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"# written by Torghut at each start\n{text}\n", "utf-8")
    fresh.chmod(0o600)
    account.own(fresh)
    fresh.replace(path)


def prepare_socket_dir(cluster: Cluster) -> Path:
    """An empty folder for the socket, short enough, that only the server's account can enter.

    Stale socket files in it go: call with `server.lock` held. Raises EmbeddedError when the
    folder is somebody else's.
    """
    inside = cluster.root / "run"
    uid = cluster.account.uid
    digest = hashlib.sha256(os.fsencode(cluster.root)).hexdigest()[:12]
    outside = Path(f"/tmp/torghut-pg-{uid}-{digest}")  # noqa: S108  checked below
    fits = len(os.fsencode(inside)) <= _SOCKET_DIR_BYTES_MAX
    if fits and _PLAIN_PATH.fullmatch(str(inside)):
        _claim(cluster.account, inside)
        if _takes_sockets(inside):
            return inside
    _claim(cluster.account, outside)
    return outside


def _claim(account: Account, folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    ours = {account.uid, os.geteuid()} if sys.platform != "win32" else {found.st_uid}
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:
        raise EmbeddedError(
            "the folder for the database socket belongs to somebody else",
            where=folder,
            mend="Remove it, after finding out who made it.",
        )
    folder.chmod(0o700)
    account.own(folder)
    for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
        (folder / name).unlink(missing_ok=True)


def _takes_sockets(folder: Path) -> bool:
    # some shared folders of virtual machines hold files but no sockets
    probe = folder / ".s.PGSQL.5432"
    with suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(probe))
        probe.unlink()
        return True
    return False


def explain_failure(cluster: Cluster) -> EmbeddedError:
    """The error for a server that ended while starting, with the last lines of its logs."""
    begun = cluster.startup_log.stat().st_mtime_ns if cluster.startup_log.exists() else 0
    logs = [path for path in log_files(cluster.data_dir) if path.stat().st_mtime_ns >= begun]
    return EmbeddedError(
        "the PostgreSQL server did not start",
        where=cluster.data_dir,
        mend="Mend what its log names (space, permissions, memory), then start again.",
        log=log_tail(cluster.startup_log, *logs),
    )
