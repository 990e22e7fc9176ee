"""What runs on an embedded data directory: find it, wait for it, heal after it, stop it.

    alive?   `server.lock` is a flock that the postmaster and all its children inherit, so it is
             free exactly when no process of the cluster is left on this machine: zombies hold no
             descriptors, a reused pid does not hold it either.
    which?   `postmaster.pid` names the postmaster; it is believed only if that process runs, is
             no zombie and has this data directory on its command line.

Everything here is called while holding `start.lock`. Files: `data/postmaster.pid` (read, healed),
`data/log/*.log` and `startup.log` (read for error messages), `server.lock` (probed).
Failure behaviour: EmbeddedError with what, where and what to do; nothing is retried silently
beyond the patience given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torghut.domain.errors import TorghutError
from torghut.storage import embedded_locks

Progress = Callable[[str, float], None]
"""Called about once a second while waiting: what is waited for, seconds waited so far."""

_POLL_S = 0.02
_TAIL_LINES = 12
_NO_SUCH_PID = 2**31 - 1
_STOP_PATIENCE_S = 60.0
_ORPHANS_AFTER_PAUSES = 50


class EmbeddedError(TorghutError):
    """The embedded database cannot do what was asked; the message says what, where and the mend.

    `log` holds the last lines of the server's own log, when there are any.
    """

    def __init__(self, what: str, *, where: Path | str, mend: str, log: str = "") -> None:
        self.what, self.where, self.mend, self.log = what, str(where), mend, log
        text = f"embedded database: {what} (in {where}). {mend}"
        super().__init__(f"{text}\nLast lines of its log:\n{log}" if log else text)


def log_files(data_dir: Path) -> list[Path]:
    """The server's log files, oldest first; the last one is being written."""
    with suppress(OSError):
        found = [(p.stat().st_mtime_ns, p) for p in (data_dir / "log").glob("*.log")]
        return [path for _, path in sorted(found)]
    return []


def log_tail(*paths: Path) -> str:
    """The last lines of the given text files, in order; missing ones are left out."""
    lines: list[str] = []
    for path in paths:
        with suppress(OSError):
            lines += path.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(lines[-_TAIL_LINES:])


class Patience:
    """A deadline that moves on while the server shows signs of life.

    `pause` waits a moment. When `timeout_s` seconds pass without the server writing to its log
    (it reports crash recovery every second), `pause` raises EmbeddedError.
    """

    def __init__(self, timeout_s: float, data_dir: Path, progress: Progress | None) -> None:
        self._timeout_s = timeout_s
        self._data_dir = data_dir
        self._progress = progress
        self._begun = self._sign_at = self._told_at = time.monotonic()
        self._sign: object = None
        self._never = threading.Event()

    def pause(self, waiting_for: str) -> None:
        """Wait a few hundredths of a second, or raise EmbeddedError when time is up."""
        now = time.monotonic()
        if now - self._told_at >= 1.0:
            self._told_at = now
            sign = self._size_of_logs()
            if sign != self._sign:
                self._sign, self._sign_at = sign, now
            if self._progress is not None:
                self._progress(waiting_for, now - self._begun)
        if now - self._sign_at > self._timeout_s:
            raise EmbeddedError(
                f"no progress for {self._timeout_s:g} s while waiting for {waiting_for}",
                where=self._data_dir,
                mend="Look at the log below; start again to keep waiting.",
                log=log_tail(*log_files(self._data_dir)[-1:]),
            )
        self._never.wait(_POLL_S)

    def _size_of_logs(self) -> int:
        total = 0
        for path in log_files(self._data_dir):
            with suppress(OSError):
                total += path.stat().st_size
        return total


@dataclass(frozen=True)
class PostmasterFile:
    """`postmaster.pid` as the server wrote it; `status` is "" until it is known."""

    pid: int
    port: int
    socket_dir: str
    status: str


def read_postmaster_file(data_dir: Path) -> PostmasterFile | None:
    """Read `postmaster.pid`; None when missing, empty or torn."""
    try:
        lines = (data_dir / "postmaster.pid").read_text("utf-8", "surrogateescape").split("\n")
        lines += [""] * (8 - len(lines))
        pid, port = int(lines[0]), int(lines[3] or 0)
    except (FileNotFoundError, ValueError):
        return None
    return PostmasterFile(abs(pid), port, lines[4], lines[7].strip())


def postmaster(data_dir: Path) -> PostmasterFile | None:
    """The running postmaster of this data directory, or None when there is none."""
    found = read_postmaster_file(data_dir)
    if found is None or not _runs_here(found.pid, data_dir):
        return None
    return found


def _runs_here(pid: int, data_dir: Path) -> bool:
    if sys.platform == "win32":  # the server's own interlock settles the rest there
        listed = subprocess.run(
            ["tasklist", "/FI", f"PID eq {pid}", "/FO", "CSV", "/NH"],
            capture_output=True,
            text=True,
            check=False,
        )
        return "postgres" in listed.stdout
    if sys.platform != "linux":
        shown = subprocess.run(
            ["ps", "-ww", "-o", "stat=,command=", "-p", str(pid)],
            capture_output=True,
            check=False,
        ).stdout.strip()
        return not shown.startswith(b"Z") and os.fsencode(data_dir) in shown
    process = Path("/proc") / str(pid)
    try:
        # "pid (name) S ...": the name may hold brackets and spaces, so cut at the last bracket
        if (process / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
            return False
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except (OSError, IndexError):
        return False
    if not arguments[0].endswith(b"postgres"):
        return False
    if os.fsencode(data_dir) in arguments:
        return True
    # started by hand with a relative path: a server's working directory is its data directory
    with suppress(OSError):
        return (process / "cwd").samefile(data_dir)
    return False


def orphans(data_dir: Path) -> Iterator[int]:
    """Pids of server processes working in this data directory (Linux; elsewhere none)."""
    if sys.platform != "linux":
        return
    real = str(data_dir.resolve())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if str((entry / "cwd").readlink()) == real and (
                    entry / "comm"
                ).read_bytes().startswith(b"postgres"):
                    yield int(entry.name)


def end_orphans(data_dir: Path) -> None:
    """Tell the children of a killed postmaster to leave at once; they roll back nothing."""
    if sys.platform != "win32":
        for pid in orphans(data_dir):
            with suppress(OSError):
                os.kill(pid, signal.SIGQUIT)


def heal_postmaster_file(data_dir: Path) -> None:
    """Make a stale `postmaster.pid` harmless, keeping the server's shared-memory interlock.

    The server refuses to start when the pid in the file is in use, even by a zombie or another
    program. The pid is replaced by one that cannot exist; the other lines stay, because from
    them the server checks that no old child is still attached. A torn file is removed.
    """
    path = data_dir / "postmaster.pid"
    if not path.exists():
        return
    if read_postmaster_file(data_dir) is None:
        path.unlink()
        return
    lines = path.read_bytes().split(b"\n")
    lines[0] = str(_NO_SUCH_PID).encode()
    fresh = path.with_name("postmaster.pid.healed")
    fresh.write_bytes(b"\n".join(lines))
    fresh.chmod(0o600)
    if sys.platform != "win32":
        owner = path.stat()
        os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.replace(path)


def server_is_gone(server_lock: Path, data_dir: Path) -> bool:
    """True when no process of the cluster is left (children of a killed one included)."""
    held = embedded_locks.try_acquire(server_lock)
    if held is None:
        return False
    held.close()
    return postmaster(data_dir) is None


def settled(server_lock: Path, data_dir: Path, patience: Patience) -> PostmasterFile | None:
    """Wait until a postmaster runs, and return it, or until nothing of the cluster is left: None.

    In between are a server or an initdb that just began, and children of a killed postmaster;
    such children are told to leave when they do not by themselves.
    """
    pauses = 0
    while (running := postmaster(data_dir)) is None:
        if server_is_gone(server_lock, data_dir):
            return None
        pauses += 1
        if pauses % _ORPHANS_AFTER_PAUSES == 0:
            end_orphans(data_dir)
        patience.pause("processes of an earlier server to end")
    return running


def stop_if_unused(lock_dir: Path, data_dir: Path, progress: Progress | None = None) -> bool:
    """Fast shutdown when no process uses the server; True when it does not run afterwards.

    Call with `start.lock` held. Raises EmbeddedError when the server does not end, even on an
    immediate shutdown (which is safe: it recovers at the next start).
    """
    alone = embedded_locks.try_acquire(lock_dir / "users.lock")
    if alone is None:
        return False
    with alone:
        patience = Patience(_STOP_PATIENCE_S, data_dir, progress)
        running = settled(lock_dir / "server.lock", data_dir, patience)
        if running is None:
            return True
        try:
            _ask_to_stop(running.pid, fast=True)
            _await_gone(lock_dir / "server.lock", data_dir, patience)
        except EmbeddedError:
            _ask_to_stop(running.pid, fast=False)
            _await_gone(lock_dir / "server.lock", data_dir, Patience(10.0, data_dir, progress))
        _remove_socket_dir(running.socket_dir)
    return True


def _ask_to_stop(pid: int, *, fast: bool) -> None:
    if sys.platform == "win32":
        from torghut.storage import embedded_binaries

        pg_ctl = embedded_binaries.bundled().program("pg_ctl")
        subprocess.run([pg_ctl, "kill", "INT" if fast else "QUIT", str(pid)], check=False)
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT if fast else signal.SIGQUIT)


def _await_gone(server_lock: Path, data_dir: Path, patience: Patience) -> None:
    while not server_is_gone(server_lock, data_dir):
        patience.pause("the server to stop")


def _remove_socket_dir(socket_dir: str) -> None:
    # only an empty folder goes; one that somebody else uses by now stays
    if socket_dir:
        with suppress(OSError):
            Path(socket_dir).rmdir()
