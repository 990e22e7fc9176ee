"""Keeps one connection to the broker's order updates while the account is ours.

```
standby ──account ours──▶ connecting ──▶ connected ──▶ (over) ──pause──▶ connecting
                              └ keys refused: `refused`, said once, tried again slowly
```

1. Pauses have full jitter over a floor and double up to a cap (story 31: never a storm). Only a
   connection that told something, or stood for `STEADY_S`, makes them short again.
2. Nothing that comes or fails here ends the thread before `stop`.
3. Only this thread uses the stream; `drop` and `stop` are requests to it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.ports import OrderUpdate, OrderUpdates

STEADY_S = 60.0
LISTEN_S = 0.2
STANDBY_S = 0.2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait before the next connection, seconds."""

    floor_s: float = 0.5
    first_s: float = 1.0
    cap_s: float = 30.0
    refused_s: float = 60.0

    def after(self, failures: int, rng: random.Random) -> float:
        """The pause after that many connections in a row that told nothing."""
        widest_s = min(self.cap_s, self.first_s * 2 ** min(max(failures - 1, 0), 16))
        return self.floor_s + rng.uniform(0, widest_s)


class LiveConnection:
    """The thread that listens for one account while `owns()`."""

    def __init__(
        self,
        account: str,
        stream: OrderUpdates,
        *,
        owns: Callable[[], bool],
        clock: Clock,
        rng: random.Random,
        pauses: Pauses,
    ) -> None:
        self.state = "standby"
        self.heard_at = 0.0  # monotonic; of any connection
        self._account = account
        self._stream = stream
        self._owns = owns
        self._clock = clock
        self._rng = rng
        self._pauses = pauses
        self._failures = 0
        self._lost_at: float | None = None  # monotonic; since when the owner does not listen
        telemetry.STREAM_GAP.labels(account).set_function(lambda: self.gap_s)
        self._on_connect: Callable[[], None]
        self._on_update: Callable[[OrderUpdate], None]
        self._dropping = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live updates", daemon=True)

    @property
    def connected(self) -> bool:
        """True while the broker has agreed to tell us what happens."""
        return self.state == "connected"

    @property
    def gap_s(self) -> float:
        """For how long the owner has not listened, seconds; 0 while it does, and on a stand-by."""
        lost_at = self._lost_at
        return 0.0 if lost_at is None else time.monotonic() - lost_at

    def start(
        self, on_connect: Callable[[], None], on_update: Callable[[OrderUpdate], None]
    ) -> None:
        """Begin; both are called by the connection's thread, and must be quick."""
        self._on_connect = on_connect
        self._on_update = on_update
        self._thread.start()

    def drop(self) -> None:
        """Give the present connection up as mute, and make another."""
        self._dropping.set()

    def stop(self, timeout_s: float) -> bool:
        """End the connection and the thread; True if that was done within `timeout_s`."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._owns():
                self._stopping.wait(self._one_connection())
            else:
                self._enter("standby")
                self._stopping.wait(STANDBY_S)

    def _one_connection(self) -> float:
        """From connecting to the end; returns the pause to make after it."""
        if self.state != "refused":
            self._enter("connecting")
        began = time.monotonic()
        end = "failed"
        try:
            self._stream.connect()
            end = "lost"
            self._dropping.clear()
            self._enter("connected")
            self._on_connect()
            end = self._listen()
        except BrokerRefused as error:
            self._note_refused(error)
            return self._pauses.refused_s * self._rng.uniform(0.5, 1.5)
        except BrokerUnavailable as error:
            self._say_over(end, str(error))
        except Exception as error:
            log.exception("trade updates failed", error=type(error).__name__)
        finally:
            self._stream.close()
            telemetry.STREAM_CONNECTS.labels(end).inc()
        told = self.heard_at >= began
        stood = end != "failed" and time.monotonic() - began >= STEADY_S
        self._failures = 1 if told or stood else self._failures + 1
        self._enter("connecting")
        return 0.0 if end == "released" else self._pauses.after(self._failures, self._rng)

    def _listen(self) -> str:
        """Pass on what comes, until it is over for a reason of ours; returns the reason."""
        while not self._stopping.is_set() and self._owns():
            if self._dropping.is_set():
                return "muted"
            update = self._stream.receive(LISTEN_S)
            if update is not None:
                self.heard_at = time.monotonic()
                telemetry.STREAM_MESSAGE_AT.labels(self._account).set(self._clock().timestamp())
                self._on_update(update)
        return "released"

    def _say_over(self, end: str, error: str) -> None:
        say = log.debug if end == "failed" and self._failures else log.warning
        say("trade updates: no connection", end=end, error=error)

    def _note_refused(self, error: BrokerRefused) -> None:
        if self.state != "refused":
            log.error(
                "the broker refuses the keys of the trade-update stream",
                error=str(error),
                mend="check APCA_API_KEY_ID and APCA_API_SECRET_KEY; until then fills are found by "
                "reconciliation alone",
            )
        self._enter("refused")

    def _enter(self, state: str) -> None:
        if state == "connected" and self.state == "refused":
            log.info("trade updates: the keys are accepted again")
        self.state = state
        if state in ("connected", "standby"):
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = time.monotonic()
        telemetry.STREAM_CONNECTED.labels(self._account).set(state == "connected")
        telemetry.STREAM_REFUSED.labels(self._account).set(state == "refused")
