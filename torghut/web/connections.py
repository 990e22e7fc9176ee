"""Connections of hostile clients: how long one may take to ask, and how many one peer may hold.

uvicorn bounds an idle connection only after its first answer: one that never finishes the head of a
request would stay for good, and a thousand of them would shut everybody out. So

1. a head has to be whole within HEAD_S of the connection, or of its first byte;
2. one peer holds PEER_MAX connections at the most; what is beyond is closed at once.

The body's time and size are bounded where it is read (torghut.web.bodies).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
PEER_MAX = 512

_held: Counter[str] = Counter()


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, for clients that mean no good. Runs on the event loop."""

    _head: asyncio.TimerHandle | None = None
    _peer: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        _held[self._peer] += 1
        if _held[self._peer] > PEER_MAX:
            transport.abort()
            return
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._under_way():
            self._heard()
        elif self._head is None and not self.transport.is_closing():
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        if self._peer is not None:
            _held[self._peer] -= 1
            if _held[self._peer] <= 0:
                del _held[self._peer]
            self._peer = None
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._heard()
        super().on_response_complete()

    def _under_way(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _wait_for_head(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self._give_up)

    def _heard(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if not self._under_way():
            self.transport.abort()
