"""Heartbeat: one thread that keeps the leases of all attempts of a store alive.

It starts with the first attempt and rests while there is none. A beat that fails is tried again at
the next turn: five of them fit into a lease. A process that dies, or stands still, stops beating.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torghut.idempotency.store import Claim

log = logging.getLogger(__name__)


class Heartbeat:
    """Calls `beat` with the claims that are held, every `interval_s`."""

    def __init__(self, beat: Callable[[Sequence[Claim]], object], *, interval_s: float) -> None:
        self._beat = beat
        self._interval_s = interval_s
        self._claims: set[Claim] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, claim: Claim) -> None:
        """Keep this claim alive from now on."""
        with self._changed:
            self._claims.add(claim)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="idempotency-heartbeat", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def remove(self, claim: Claim) -> None:
        """It has ended."""
        with self._changed:
            self._claims.discard(claim)

    def close(self) -> None:
        """No more beats; returns when the last one is over."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(self._interval_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._claims or self._closed)
                # a claim is fresh when it is added: the first beat is due after an interval
                if self._changed.wait_for(lambda: self._closed, self._interval_s):
                    return
                claims = sorted(self._claims, key=lambda claim: claim.token)
            if not claims:
                continue
            try:
                self._beat(claims)
            except Exception:
                log.exception("leases were not renewed; trying again")
