"""The one runner: `run_once(now) → counts`, again and again, on a thread of its own.

A loop waits for its interval or for a wake-up, whichever comes first; polling never stops, so a
lost wake-up costs latency and nothing else (story 44). An exception is logged with its text and
the loop goes on after a pause that doubles up to its cap. `ticked_at` is what /healthz
reads: a loop that stands still for too long is not alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.errors import TorghutError

BACKOFF_FIRST_S = 0.2
BACKOFF_CAP_S = 5.0

Counts = Mapping[str, int]

log = structlog.get_logger(__name__)


class Loop:
    """Runs `run_once` until `stop`. `wake` may be called from any thread."""

    def __init__(
        self,
        name: str,
        run_once: Callable[[datetime], Counts],
        *,
        interval_s: float,
        clock: Clock,
        account: str = "",
        backoff_cap_s: float = BACKOFF_CAP_S,
    ) -> None:
        """`account` stands in the lines of the log, and beside the name where loops are told
        apart."""
        self.name = name
        self.account = account
        self.ticked_at = time.monotonic()
        self.failures = 0
        telemetry.LOOP_FAILURES.labels(name)
        self._run_once = run_once
        self._interval_s = interval_s
        self._backoff_cap_s = backoff_cap_s
        self._clock = clock
        self._event = threading.Event()
        self._stopping = threading.Event()
        own = f"{name} {account}" if account else name
        self._thread = threading.Thread(target=self._run, name=own, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Run again as soon as possible."""
        self._event.set()

    def stop(self, timeout_s: float) -> bool:
        """Ask the loop to end after the run under way; True if it did within `timeout_s`."""
        self._stopping.set()
        self._event.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stalled_s(self) -> float:
        """Seconds since the loop last came round."""
        return time.monotonic() - self.ticked_at

    @property
    def overdue_s(self) -> float:
        """Seconds since the loop should have come round; one that rests until its time is not."""
        return max(0.0, self.stalled_s - self._interval_s)

    def _run(self) -> None:
        if self.account:
            structlog.contextvars.bind_contextvars(account=self.account)
        while not self._stopping.is_set():
            self._event.clear()
            pause_s = self._interval_s
            try:
                with telemetry.LOOP_SECONDS.labels(self.name).time():
                    counts = self._run_once(self._clock())
                self.failures = 0
                if any(counts.values()):
                    log.debug("loop ran", loop=self.name, **counts)
            except TorghutError as error:
                pause_s = self._failed(error)
                log.warning("loop failed", loop=self.name, error=str(error))
            except Exception as error:
                pause_s = self._failed(error)
                log.exception("loop failed", loop=self.name, error=type(error).__name__)
            self.ticked_at = time.monotonic()
            if self.failures:
                self._stopping.wait(pause_s)
            else:
                self._event.wait(pause_s)

    def _failed(self, error: Exception) -> float:
        self.failures += 1
        telemetry.LOOP_FAILURES.labels(self.name).inc()
        return float(min(self._backoff_cap_s, BACKOFF_FIRST_S * 2 ** min(self.failures - 1, 10)))
