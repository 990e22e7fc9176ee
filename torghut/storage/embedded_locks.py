"""Advisory file locks that the kernel releases when their holder dies.

Purpose: the embedded database needs to know, after a `kill -9` of anything, who is still there.
A pid in a file cannot say so (pids are reused, zombies look alive); a lock on an open file can.

    acquire(path)               exclusive, waits
    acquire(path, shared=True)  shared, waits
    try_acquire(path)           exclusive, None when somebody else holds it

On POSIX a lock is a `flock`: it belongs to the open file, so a child that inherits the
descriptor keeps it, and closing the last descriptor releases it. Descriptors are not inherited
across `exec` unless passed on purpose. On Windows it is a lock on bytes of the file: a shared
holder takes one byte of many, an exclusive one takes them all.

Lock files are never deleted: two processes would then lock two different files of one name.
Failure behaviour: OSError (missing folder, no permission) passes through.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import TracebackType

_WINDOWS_BYTES = 1024
_WINDOWS_POLL_S = 0.05

if sys.platform == "win32":
    import msvcrt

    def _try_region(fd: int, offset: int, length: int) -> bool:
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, length)
        except OSError:
            return False
        return True

    def _try_lock(fd: int, *, shared: bool) -> bool:
        if not shared:
            return _try_region(fd, 0, _WINDOWS_BYTES)
        first = os.getpid() % _WINDOWS_BYTES
        return any(
            _try_region(fd, (first + step) % _WINDOWS_BYTES, 1) for step in range(_WINDOWS_BYTES)
        )

    def _wait_lock(fd: int, *, shared: bool) -> None:
        pause = threading.Event()
        while not _try_lock(fd, shared=shared):
            pause.wait(_WINDOWS_POLL_S)

else:
    import fcntl

    def _try_lock(fd: int, *, shared: bool) -> bool:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_lock(fd: int, *, shared: bool) -> None:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


class HeldLock:
    """An open file with a lock on it. `close` gives up this process's share of it.

    Closing never unlocks explicitly: after a `fork` both processes share the lock, and it is
    free only when both have closed it or ended.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close the descriptor; safe to call twice."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def acquire(path: Path, *, shared: bool = False) -> HeldLock:
    """Lock `path` (created 0600 when missing), waiting as long as it takes.

    Raises OSError when the file cannot be opened.
    """
    held = HeldLock(_open(path))
    try:
        _wait_lock(held.fd, shared=shared)
    except BaseException:
        held.close()
        raise
    return held


def try_acquire(path: Path) -> HeldLock | None:
    """Lock `path` exclusively if that is possible at once, else None.

    Raises OSError when the file cannot be opened.
    """
    held = HeldLock(_open(path))
    if _try_lock(held.fd, shared=False):
        return held
    held.close()
    return None
