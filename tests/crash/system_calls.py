"""Power failure at the n-th system call of one thread, or of a server: `strace -e inject`.

The signal comes on entering the call, so what the call would have done is not done any more.
strace counts each system call of each thread for itself, from the moment it is attached.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from types import TracebackType

import pytest

ATTACHED_S = 60.0


class Trap:
    """kill -9 for the process of one of these threads, at its n-th `call`. Use as a context.

    Entered, every thread is watched; a missing strace, or one that may not trace (a container
    without SYS_PTRACE), fails the test.
    """

    def __init__(self, threads: Iterable[int], call: str, n: int) -> None:
        self._threads = list(threads)
        program = shutil.which("strace")
        if program is None:
            pytest.fail("strace is missing: run `make programs` (tests/programs.txt)")
        inject = f"inject={call}:signal=SIGKILL:when={n}"
        self._command = [program, "-e", f"trace={call}", "-e", inject, "-o", "/dev/null"]
        for thread in self._threads:
            self._command += ["-p", str(thread)]
        self._strace: subprocess.Popen[str] | None = None

    def __enter__(self) -> Trap:
        self._strace = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._strace.stderr is not None
        for _ in self._threads:
            line = self._strace.stderr.readline()
            if len(self._threads) > 1 and "No such process" in line:
                continue  # one of several that ended meanwhile
            if "attached" not in line:
                self.__exit__(None, None, None)
                pytest.fail(f"strace cannot attach, is ptrace permitted here? {line}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._strace is not None and self._strace.stderr is not None
        self._strace.terminate()
        self._strace.wait(ATTACHED_S)
        self._strace.stderr.close()
