"""Stops an embedded server whose last user has gone, however it went.

One small process per home, started beside the server in a session of its own, because a client
that was killed cannot clean up. It owns `reaper.lock` for life (inherited, already locked, from
its starter), so there is never a second one.

    wait for `watch.lock` to be free → server gone? exit → linger → take `start.lock`
        → nobody came back? stop the server, exit; somebody did: wait again

Every user holds `watch.lock` beside `users.lock`. It is only the alarm: the reaper gives it back
at once, so it never stands in a starter's way, and who is still there is asked of `users.lock`,
under `start.lock`. A starter looks for a reaper while holding `start.lock`, and the reaper leaves
only while holding it: the two cannot miss each other.

Failure behaviour: if its files are gone or cannot be used it exits with 1; the server then stays
until the next start and stop of the same home.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from torghut.storage import embedded_locks
from torghut.storage.embedded_process import (
    EmbeddedError,
    server_is_gone,
    stop_if_unused,
)


def reap(lock_dir: Path, data_dir: Path, linger_s: float) -> None:
    """Wait until no process uses the server for `linger_s` seconds, then stop it.

    Raises OSError when the lock files cannot be used, EmbeddedError when it will not stop.
    """
    while True:
        embedded_locks.acquire(lock_dir / "watch.lock").close()
        # the last user may have stopped it, and then waits for us; else linger before stopping
        with embedded_locks.acquire(lock_dir / "start.lock"):
            if server_is_gone(lock_dir / "server.lock", data_dir):
                os._exit(0)
        threading.Event().wait(linger_s)
        with embedded_locks.acquire(lock_dir / "start.lock"):
            if stop_if_unused(lock_dir, data_dir):
                os._exit(0)  # start.lock stays held until reaper.lock is free too


def main(arguments: list[str]) -> int:
    """`embedded_reaper LOCK_DIR DATA_DIR LINGER_S`; 1 when the server could not be watched."""
    lock_dir, data_dir, linger_s = arguments
    try:
        if sys.platform == "win32":  # locks are not inherited there
            mine = embedded_locks.try_acquire(Path(lock_dir) / "reaper.lock")
            if mine is None:
                return 0
        reap(Path(lock_dir), Path(data_dir), float(linger_s))
    except (OSError, EmbeddedError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
