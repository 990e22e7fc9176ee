"""The relays of one process: a loop and a thread for each sink, so that none waits for another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from torghut.clock import Clock
from torghut.ports import Publisher
from torghut.services.loops import Loop
from torghut.services.relay import Relay
from torghut.services.supervisor import counted

POLL_S = 0.5
SHUTDOWN_S = 10.0


class Relays:
    """Starts and stops relays; each comes with its sink, which is closed after it."""

    def __init__(self, relays: Sequence[tuple[Relay, Publisher]], clock: Clock) -> None:
        self._relays = tuple(relays)
        self.loops = tuple(
            Loop(f"outbox-{relay.sink}", self._pass(relay, at), interval_s=POLL_S, clock=clock)
            for at, (relay, _) in enumerate(self._relays)
        )

    def start(self) -> None:
        """Begin to give events."""
        for loop in self.loops:
            loop.start()

    def stop(self) -> None:
        """End after the events that are on their way, and close the sinks."""
        for relay, _ in self._relays:
            relay.halt()
        deadline = time.monotonic() + SHUTDOWN_S
        for loop, (_, publisher) in zip(self.loops, self._relays, strict=True):
            if loop.stop(max(0.1, deadline - time.monotonic())):
                publisher.close()

    def _pass(self, relay: Relay, at: int) -> Callable[[datetime], Mapping[str, int]]:
        def run(now: datetime) -> Mapping[str, int]:
            counts = counted(f"outbox-{relay.sink}", relay.run_once(now))
            if counts.get("delivered") or counts.get("dead"):
                self.loops[at].wake()  # there may be more
            return counts

        return run
