"""One websocket of `/stream`: its outgoing messages, in order, and what a fault makes of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from torghut.simulator.faults import Fault

BACKLOG = 10_000
STRANGE_EVENT = "reticulated"


class Session:
    """The sending side of one connection. `transport` is the TCP connection below it."""

    def __init__(self, transport: asyncio.Transport, send: Any, *, binary: bool) -> None:
        self._transport = transport
        self._send = send
        self._binary = binary
        self._frozen = False
        self._held: list[str] = []
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._timers: list[asyncio.TimerHandle] = []
        self._sending = asyncio.create_task(self._send_forever())

    def answer(self, message: dict[str, Any]) -> None:
        """Send an answer of the handshake."""
        self._queue.put_nowait(_json(message))

    def tell(self, message: dict[str, Any], fault: Fault | None) -> bool:
        """Send a trade update, or what the fault makes of it; False when this is the end."""
        kind = fault.kind if fault else ""
        if kind == "drop" or self._queue.qsize() >= BACKLOG:
            self._queue.put_nowait(None)
            return False
        if fault is None:
            self._put(_json(message))
        elif kind == "malformed":
            self._put(_spoiled(message, fault.message))
        elif kind == "duplicate":
            self._put(_json(message), _json(message))
        elif kind == "reorder":
            self._held.append(_json(message))
            self._later(fault.delay_s, self._put)
        elif kind == "freeze":
            self._frozen = True
            self._transport.pause_reading()
            self._later(fault.hold_s, self.cut)
        return True

    def cut(self) -> None:
        """Close the TCP connection without a word of websocket."""
        self._transport.abort()

    def end(self) -> None:
        """The connection is gone."""
        self._sending.cancel()
        for timer in self._timers:
            timer.cancel()

    def _put(self, *messages: str) -> None:
        """These messages, then what was held back for them."""
        held, self._held = self._held, []
        for message in (*messages, *held):
            self._queue.put_nowait(message)

    def _later(self, delay_s: float, action: Any) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, action))

    async def _send_forever(self) -> None:
        while (payload := await self._queue.get()) is not None:
            if not self._frozen:
                frame = {"bytes": payload.encode()} if self._binary else {"text": payload}
                await self._send({"type": "websocket.send", **frame})
        self.cut()


def _json(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


def _spoiled(message: dict[str, Any], how: str | None) -> str:
    data = cast(dict[str, Any], message["data"])
    if how == "missing_field":
        data["order"].pop("id")
    elif how == "wrong_type":
        data["order"] = [data["order"]]
    elif how == "unknown_event":
        data["event"] = STRANGE_EVENT
    whole = _json(message)
    return whole[: len(whole) // 2] if how == "broken_json" else whole
