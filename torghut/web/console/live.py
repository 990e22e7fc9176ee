"""Live pages: server-sent events that say "something happened"; the page then fetches itself again.

```
newest event number ── asked every POLL_S, once for all, and only while somebody listens
        │ grew, or QUIET_S passed
        ▼
event: changed ─▶ every open page
```

1. However many pages are open, the database is asked once a second.
2. A stream ends after STREAM_S, and the browser comes back by itself; so does who lost it.
3. Nothing of the books is in a stream: what is shown comes with the page, under its session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from torghut.domain.errors import TorghutError
from torghut.web.problems import unavailable

POLL_S = 1.0
QUIET_S = 5.0
STREAM_S = 600.0
LISTENERS_MAX = 50

_OVER = -1


class Live:
    """Tells its listeners when there is something new. Runs on the event loop."""

    def __init__(self, newest: Callable[[], Awaitable[int]]) -> None:
        self._newest = newest
        self._listeners: set[asyncio.Queue[int]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False

    def listen(self) -> AsyncIterator[bytes]:
        """A new stream. Raises Problem 503 if too many listen."""
        if len(self._listeners) >= LISTENERS_MAX or self._over:
            raise unavailable("too many pages are open at once")
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        self._listeners.add(queue)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return self._stream(queue)

    def close(self) -> None:
        """End all streams, so that the server can end; from any thread."""
        self._over = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its streams with it
                self._loop.call_soon_threadsafe(self._tell, _OVER)

    async def _stream(self, queue: asyncio.Queue[int]) -> AsyncIterator[bytes]:
        end = asyncio.get_running_loop().time() + STREAM_S
        try:
            yield b"retry: 2000\n\n"
            while asyncio.get_running_loop().time() < end:
                number = await queue.get()
                if number == _OVER:
                    return
                yield b"event: changed\ndata: %d\n\n" % number
        finally:
            self._listeners.discard(queue)

    async def _ask(self) -> None:
        told, silent_s = 0, 0.0
        while self._listeners and not self._over:
            await asyncio.sleep(POLL_S)
            silent_s += POLL_S
            try:
                newest = await self._newest()
            except (TorghutError, SQLAlchemyError):
                continue  # the page itself says that the database is away
            if newest != told or silent_s >= QUIET_S:
                told, silent_s = newest, 0.0
                self._tell(newest)

    def _tell(self, number: int) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(number)
