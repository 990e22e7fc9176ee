"""Processes of tests.idempotency.worker, as a test sees them."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from torghut.idempotency import Store

WAIT_S = 60.0


class Worker:
    """A process; `lines` counts what it printed."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.lines: Counter[str] = Counter()
        self.gone = threading.Event()
        self._printed = threading.Condition()
        self._numbers: dict[str, int] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._out.open() as printed:
            for line in printed:
                word, _, number = line.strip().partition(" ")
                with self._printed:
                    self.lines[word] += 1
                    self._numbers[word] = int(number or 0)
                    self._printed.notify_all()
        self.gone.set()

    @property
    def pid(self) -> int:
        self.said("pid")
        return self._numbers["pid"]

    @property
    def url(self) -> str:
        self.said("port")
        return f"http://127.0.0.1:{self._numbers['port']}/effect"

    def said(self, word: str, times: int = 1) -> None:
        """Wait until it has."""
        with self._printed:
            reached = self._printed.wait_for(lambda: self.lines[word] >= times, WAIT_S)
        assert reached, self.lines

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if not self.gone.is_set():
            os.kill(self.pid, signal.SIGKILL)
            assert self.gone.wait(WAIT_S)


Start = Callable[..., list[Worker]]


def effects(store: Store) -> int:
    """How often the body had its effect."""
    with store.transaction() as tx:
        return int(tx.execute(text("SELECT count(*) FROM effects")).scalar_one())
