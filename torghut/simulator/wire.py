"""The connection below HTTP: answers, resets, half answers and silence.

uvicorn keeps a request's transport to itself; `SimulatorProtocol` puts it into the ASGI scope,
so that a fault can act on the TCP connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from torghut.simulator.http import Reply


class SimulatorProtocol(H11Protocol):
    """HTTP/1.1 with the transport of each connection in `scope["state"]["transport"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport for the requests of this connection."""
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class Wire:
    """The connection of one request."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send

    @property
    def _transport(self) -> asyncio.Transport:
        return cast(asyncio.Transport, self._scope["state"]["transport"])

    async def read_body(self, limit_bytes: int) -> bytes | None:
        """The request's body, or None when it is longer than the limit or the client left."""
        body: bytes = b""
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                return None
            body += cast(bytes, message["body"])
            if len(body) > limit_bytes:
                return None
            if not message.get("more_body"):
                return body

    async def answer(self, reply: Reply) -> None:
        """Send a reply."""
        await self._send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [
                    (name.encode(), value.encode()) for name, value in _headers(reply).items()
                ],
            }
        )
        await self._send({"type": "http.response.body", "body": reply.body})

    async def reset(self) -> None:
        """Break the connection with a TCP RST."""
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self._gone()

    async def pause(self, for_s: float) -> bool:
        """Wait; False when the client left meanwhile."""
        try:
            await asyncio.wait_for(self._gone(), for_s)
        except TimeoutError:
            return True
        return False

    async def silence(self, hold_s: float) -> None:
        """Say nothing until the client leaves or the time is over, then reset."""
        if await self.pause(hold_s):
            await self.reset()

    async def truncate(self, reply: Reply) -> None:
        """Send the head and half of the body, then close."""
        reason = HTTPStatus(reply.status).phrase
        lines = [f"HTTP/1.1 {reply.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in _headers(reply).items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        self._transport.write(head + reply.body[: len(reply.body) // 2])
        self._transport.close()
        await self._gone()

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _headers(reply: Reply) -> dict[str, str]:
    headers = {"content-length": str(len(reply.body)), **reply.headers}
    if reply.status == HTTPStatus.NO_CONTENT:
        del headers["content-length"]
    else:
        headers["content-type"] = reply.content_type
    return headers
