"""Threads for the synchronous work behind the event loop: few, so that HTTP cannot starve trading.

Each kind of work has its own: a long batch does not keep a halt waiting, and no number of requests
takes more connections of the pool than there are threads here. A call that takes too long (a
frozen database answers nobody, not even with an error) is given up: the sender gets a 503 and the
thread comes back when the database does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from torghut.domain.errors import DatabaseUnavailable

T = TypeVar("T")

ANSWER_S = 20.0
BATCH_ANSWER_S = 300.0


class Workers:
    """A pool of threads with a deadline per call."""

    def __init__(self, name: str, threads: int, *, deadline_s: float = ANSWER_S) -> None:
        self._pool = ThreadPoolExecutor(threads, f"http-{name}")
        self._deadline_s = deadline_s

    async def call(self, function: Callable[[], T]) -> T:
        """The function's answer. Raises what it raises, DatabaseUnavailable after the deadline."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, function)
        try:
            return await asyncio.wait_for(future, self._deadline_s)
        except TimeoutError:
            raise DatabaseUnavailable(f"no answer within {self._deadline_s:.0f} s") from None

    def close(self) -> None:
        """No more calls; those waiting are dropped, those running end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
