"""The sender's side of a stream on a real server: sends, sees what is acknowledged and answered.

`Line` has the same face for Redis and for NATS, so that each test runs with both.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import nats
import redis

from tests.outbox import servers
from tests.outbox.servers import Server

KINDS = ("redis", "nats")

T = TypeVar("T")


class Line:
    """One stream with its replies; `name` tells it apart from others of the same server."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name

    def table(self, **over: object) -> dict[str, object]:
        """What stands in `[intakes.NAME]`."""
        raise NotImplementedError

    def send(self, *bodies: object) -> list[str]:
        """Send messages (text as it is, the rest as JSON); their ids."""
        return [self._send(body if isinstance(body, bytes) else _raw(body)) for body in bodies]

    def _send(self, body: bytes) -> str:
        raise NotImplementedError

    def left(self) -> int:
        """Messages that were not delivered, or not acknowledged."""
        raise NotImplementedError

    def replies(self) -> list[dict[str, Any]]:
        """What was answered, in order."""
        raise NotImplementedError


def _raw(body: object) -> bytes:
    return (body if isinstance(body, str) else json.dumps(body)).encode()


class RedisLine(Line):
    """A Redis stream and a consumer group."""

    @property
    def client(self) -> Any:
        return redis.Redis.from_url(f"redis://127.0.0.1:{self.server.port}/0", protocol=2)

    def table(self, **over: object) -> dict[str, object]:
        return {
            "kind": "redis",
            "url": f"redis://127.0.0.1:{self.server.port}/0",
            "stream": self.name,
            "reply_stream": f"{self.name}:replies",
            "redeliver_after_s": 0.3,
            "timeout_s": 2,
            **over,
        }

    def _send(self, body: bytes) -> str:
        return str(self.client.xadd(self.name, {"decision": body}).decode())

    def left(self) -> int:
        client = self.client
        groups = client.xinfo_groups(self.name)
        if not groups:
            return int(client.xlen(self.name))
        (group,) = groups
        after = b"(" + group["last-delivered-id"]
        return int(group["pending"]) + len(client.xrange(self.name, min=after))

    def replies(self) -> list[dict[str, Any]]:
        entries = self.client.xrange(f"{self.name}:replies")
        return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]


class NatsLine(Line):
    """A JetStream stream and a durable consumer."""

    def table(self, **over: object) -> dict[str, object]:
        self._run(self._hold_replies)
        return {
            "kind": "nats",
            "url": f"nats://127.0.0.1:{self.server.port}",
            "stream": self.name,
            "subject": f"{self.name}.decisions",
            "reply_subject": f"{self.name}.replies",
            "redeliver_after_s": 0.3,
            "timeout_s": 2,
            **over,
        }

    def _run(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        async def connected() -> T:
            client = await nats.connect(f"nats://127.0.0.1:{self.server.port}")
            try:
                return await work(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(connected())

    async def _hold_replies(self, stream: Any) -> None:
        await stream.add_stream(name=f"{self.name}-replies", subjects=[f"{self.name}.replies"])
        await stream.add_stream(name=self.name, subjects=[f"{self.name}.decisions"])

    def _send(self, body: bytes) -> str:
        async def publish(stream: Any) -> str:
            return str((await stream.publish(f"{self.name}.decisions", body)).seq)

        return self._run(publish)

    def left(self) -> int:
        async def count(stream: Any) -> int:
            try:
                info = await stream.consumer_info(self.name, "torghut")
            except nats.js.errors.NotFoundError:
                return 1
            return int(info.num_pending + info.num_ack_pending)

        return self._run(count)

    def replies(self) -> list[dict[str, Any]]:
        async def read(stream: Any) -> list[dict[str, Any]]:
            name = f"{self.name}-replies"
            count = (await stream.stream_info(name)).state.messages
            found = [await stream.get_msg(name, seq=n + 1) for n in range(count)]
            return [json.loads(one.data) for one in found]

        return self._run(read)


@contextmanager
def server_of(kind: str) -> Iterator[Server]:
    """A running server of the kind."""
    with (servers.redis if kind == "redis" else servers.nats)() as server:
        yield server


def line(kind: str, server: Server, name: str) -> Line:
    """A stream of this name on the server."""
    return (RedisLine if kind == "redis" else NatsLine)(server, name)
