"""One connection to NATS for code that is not asyncio: nats-py has a loop on a thread of its own.

A call waits for its outcome. The client does not reconnect by itself: whoever calls tries again,
and counts it; `connected` makes a new connection where the old one is gone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

PING_S = 10  # two of them unanswered, and the connection counts as lost

T = TypeVar("T")

UNANSWERED = (NatsError, OSError, TimeoutError, concurrent.futures.TimeoutError)
"""What a call may raise when the server does not answer, or answers that it cannot."""


class NatsLine:
    """Connects on first use; used by one thread at a time."""

    def __init__(self, servers: Sequence[str], timeout_s: float) -> None:
        self._servers = list(servers)
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T], wait_s: float) -> T:
        """Run it in the loop; raises one of UNANSWERED, at the latest after `wait_s`."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(wait_s)
        finally:
            future.cancel()

    async def connected(self) -> tuple[Client, bool]:
        """The client, and whether its connection is a new one."""
        if self._client is not None and self._client.is_connected:
            return self._client, False
        if self._client is not None:
            await self._client.close()
        self._client = await nats.connect(
            self._servers,
            connect_timeout=max(1, int(self._timeout_s)),
            allow_reconnect=False,
            max_reconnect_attempts=1,  # of connecting, too: each server once or twice
            reconnect_time_wait=0,
            ping_interval=PING_S,
            error_cb=_unsaid,
        )
        return self._client, True

    def close(self) -> None:
        """End the connection and the thread."""
        if self._client is not None:
            with suppress(*UNANSWERED):  # what was published is confirmed already
                self.wait(self._client.close(), 3 * self._timeout_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._timeout_s)


async def _unsaid(_: Exception) -> None:
    """What went wrong is raised where it matters."""
