"""`/stream`: the trade_updates websocket.

    client: authenticate (or auth)   -> server: authorization, authorized | unauthorized
    client: listen [trade_updates]   -> server: listening
    server: trade_updates            one message for each event of the book

Messages are JSON, in binary frames by default, as the paper environment sends them. Nothing is
replayed to a client that connects late. A client that does not read fast enough is cut off
once `BACKLOG` messages wait for it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from torghut.simulator.book import Book, BookEvent
from torghut.simulator.clock import rfc3339
from torghut.simulator.gateway import Credentials
from torghut.simulator.numbers import text
from torghut.simulator.orders import order_json

BACKLOG = 10_000
TRADE_UPDATES = "trade_updates"
_NAMESPACE = uuid.UUID("0d0f3d1c-7f5e-5b53-8d0e-0d1f6f1b5c11")


class Stream:
    """The websocket clients of one book."""

    def __init__(self, book: Book, credentials: Credentials, binary: bool = True) -> None:
        self._book = book
        self._credentials = credentials
        self._binary = binary
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()

    def observe(self, event: BookEvent) -> None:
        """Pass one event of the book on to every client that listens."""
        if not self._listeners:
            return
        message = {"stream": TRADE_UPDATES, "data": self._data(event)}
        for queue in list(self._listeners):
            if queue.full():
                self._listeners.discard(queue)
            else:
                queue.put_nowait(message)

    def _data(self, event: BookEvent) -> dict[str, Any]:
        data: dict[str, Any] = {
            "event": event.kind,
            "timestamp": rfc3339(event.at),
            "order": order_json(event.order),
        }
        key = f"{event.order.id}:{event.kind}:{event.at.isoformat()}"
        if event.fill is not None:
            key = event.fill.id
            data |= {
                "price": text(event.fill.price),
                "qty": text(event.fill.qty),
                "position_qty": text(self._book.account.qty(event.order.symbol)),
            }
        return {**data, "execution_id": str(uuid.uuid5(_NAMESPACE, key))}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one websocket (ASGI)."""
        await receive()
        await send({"type": "websocket.accept"})
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(BACKLOG)
        sending = asyncio.create_task(self._send_forever(queue, send))
        try:
            await self._converse(receive, queue)
        finally:
            self._listeners.discard(queue)
            sending.cancel()

    async def _send_forever(self, queue: asyncio.Queue[dict[str, Any]], send: Any) -> None:
        while True:
            payload = json.dumps(await queue.get(), separators=(",", ":"))
            frame = {"bytes": payload.encode()} if self._binary else {"text": payload}
            await send({"type": "websocket.send", **frame})

    async def _converse(self, receive: Any, queue: asyncio.Queue[dict[str, Any]]) -> None:
        authorized = False
        while (message := await receive())["type"] == "websocket.receive":
            request = _read(message)
            action = request.get("action")
            if action in ("authenticate", "auth"):
                authorized = self._credentials.accept_pair(*_keys(request))
                status = "authorized" if authorized else "unauthorized"
                data: dict[str, Any] = {"status": status, "action": action}
                queue.put_nowait({"stream": "authorization", "data": data})
            elif action == "listen" and authorized:
                wanted = request.get("data", {}).get("streams", [])
                streams = [TRADE_UPDATES] if TRADE_UPDATES in wanted else []
                queue.put_nowait({"stream": "listening", "data": {"streams": streams}})
                if streams:
                    self._listeners.add(queue)
                else:
                    self._listeners.discard(queue)
            else:
                data = {"status": "unauthorized", "action": str(action)}
                queue.put_nowait({"stream": "authorization", "data": data})


def _read(message: dict[str, Any]) -> dict[str, Any]:
    raw = message.get("text") or message.get("bytes") or b""
    try:
        request = json.loads(raw)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _keys(request: dict[str, Any]) -> tuple[str, str]:
    data = request.get("data")
    nested = data if isinstance(data, dict) else {}
    key = nested.get("key_id") or request.get("key")
    secret = nested.get("secret_key") or request.get("secret")
    return str(key or ""), str(secret or "")
