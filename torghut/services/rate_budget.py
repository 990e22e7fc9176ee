"""One token bucket per broker account; a share of it is kept for what must always get through.

New orders take from the bucket only down to the reserve; lookups, cancels and closing orders may
empty it. Reconciliation works in the background of all that: it gets a share of the rate, so that
however often it runs, orders find room. The size follows `X-RateLimit-Limit`, but not above a
number that was set on purpose; the level never exceeds `X-RateLimit-Remaining`, and after a 429
nothing is taken before the reset. A reset that the broker named opens a new window, so the bucket
is full then; after a pause of our own guess it is opened just far enough for the next order to
find out.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime

from torghut.ports import RateState

RESERVE_SHARE = 0.2
BACKGROUND_SHARE = 0.3
PAUSE_UNKNOWN_S = 5.0
PAUSE_CAP_S = 90.0


class RateBudget:
    """Thread-safe. `per_min` requests a minute on average, at most that many at once.

    With `ceiling` the broker's headers can only lower that: somebody chose the number, perhaps
    because other programs share the account.
    """

    def __init__(self, per_min: int, *, ceiling: bool = False) -> None:
        self._lock = threading.Condition()
        self._ceiling = float(per_min) if ceiling else None
        self._per_min = float(per_min)
        self._level = float(per_min)
        self._background = per_min * BACKGROUND_SHARE
        self._filled_at = time.monotonic()
        self._paused_until = 0.0
        self._level_after_pause = 0.0

    def for_orders(self, wanted: int) -> int:
        """Take up to `wanted` tokens for new orders, leaving the reserve; returns how many."""
        with self._lock:
            self._refill()
            free = int(self._level - self._per_min * RESERVE_SHARE)
            taken = max(0, min(wanted, free))
            self._level -= taken
            return taken

    def give_back(self, tokens: int) -> None:
        """Return tokens that were taken for orders and not used."""
        with self._lock:
            self._level = min(self._per_min, self._level + tokens)

    def wait_for_one(self, timeout_s: float, *, background: bool = False) -> bool:
        """Take one token for a question, waiting up to `timeout_s`; False if none came.

        `background` questions keep to BACKGROUND_SHARE of the rate.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while True:
                self._refill()
                if self._level >= 1 and (not background or self._background >= 1):
                    self._level -= 1
                    self._background -= background
                    return True
                now = time.monotonic()
                if now >= deadline:
                    return False
                pause_s = max(self._paused_until - now, self._next_token_s(background))
                self._lock.wait(min(max(pause_s, 0.005), deadline - now))

    def pause(self, until: datetime | None, *, now: datetime) -> float:
        """Take nothing before `until` (a 429's reset); returns the seconds that this lasts."""
        wait_s = PAUSE_UNKNOWN_S if until is None else (until - now).total_seconds()
        wait_s = min(max(wait_s, 0.5), PAUSE_CAP_S)
        with self._lock:
            self._pause(wait_s, named=until is not None)
        return wait_s

    def correct(self, state: RateState, *, now: datetime) -> None:
        """Follow what the broker says about its own limit."""
        with self._lock:
            self._refill()
            if state.limit is not None and state.limit > 0:
                limit = min(float(state.limit), self._ceiling or float(state.limit))
                if limit > self._per_min:
                    self._level += limit - self._per_min
                    self._background += (limit - self._per_min) * BACKGROUND_SHARE
                self._per_min = limit
                self._level = min(self._level, self._per_min)
            left_s = None if state.reset_at is None else (state.reset_at - now).total_seconds()
            if state.remaining is None or (left_s is not None and left_s <= 0):
                return  # nothing said, or said of a window that is over
            self._level = min(self._level, float(state.remaining))
            if state.remaining == 0 and left_s is not None and left_s <= PAUSE_CAP_S:
                self._pause(left_s, named=True)

    @property
    def left(self) -> float:
        """Tokens left, the reserve included."""
        with self._lock:
            self._refill()
            return self._level

    @property
    def per_min(self) -> float:
        """Requests a minute, as the broker's headers or the settings have it now."""
        with self._lock:
            return self._per_min

    @property
    def background_every_s(self) -> float:
        """Seconds in which the background share gains one token."""
        return 60 / (self._per_min * BACKGROUND_SHARE)

    def _next_token_s(self, background: bool) -> float:
        wait_s = (1 - self._level) * 60 / self._per_min
        if background:
            wait_s = max(wait_s, (1 - self._background) * 60 / (self._per_min * BACKGROUND_SHARE))
        return wait_s

    def _pause(self, wait_s: float, *, named: bool) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + wait_s)
        self._level = 0.0
        full = self._per_min
        self._level_after_pause = full if named else full * RESERVE_SHARE + 1

    def _refill(self) -> None:
        now = time.monotonic()
        if now < self._paused_until:
            self._filled_at = now
            return
        self._level = max(self._level, min(self._level_after_pause, self._per_min))
        self._level_after_pause = 0.0
        gained = (now - self._filled_at) * self._per_min / 60
        self._level = min(self._per_min, self._level + gained)
        share = self._per_min * BACKGROUND_SHARE
        self._background = min(share, self._background + gained * BACKGROUND_SHARE)
        self._filled_at = now
