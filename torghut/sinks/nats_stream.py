"""Events in a stream of NATS JetStream, a subject for each kind: torghut.events.order.submitted.

`Nats-Msg-Id` is the event's id: within the stream's duplicate window the server itself drops
repetitions. A stream that does not exist is made, kept in files; one that exists is used as it is.
nats-py is asyncio: it lives in a loop on a thread of its own, and a call waits for its outcome.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from torghut.domain.outbox import EventRefused, Message, SinkUnavailable
from torghut.sink_settings import NatsSink

T = TypeVar("T")

_UNANSWERED = (NatsError, OSError, TimeoutError, concurrent.futures.TimeoutError)


class NatsStream:
    """One message for each event, confirmed by the stream before the next."""

    def __init__(self, settings: NatsSink) -> None:
        self._settings = settings
        self._servers = settings.url.get_secret_value().split(",")
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()

    def publish(self, message: Message) -> None:
        try:
            self._wait(self._publish(message))
        except MaxPayloadError as error:
            raise EventRefused("larger than the server takes") from error
        except _UNANSWERED as error:
            self._stream = None  # look at connection and stream again
            raise SinkUnavailable(f"not taken: {type(error).__name__}") from error

    def close(self) -> None:
        if self._client is not None:
            with suppress(*_UNANSWERED):  # what was published is confirmed already
                self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._settings.timeout_s)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop; connecting, asking for the stream and publishing have a turn each."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(3 * self._settings.timeout_s)
        finally:
            future.cancel()

    async def _publish(self, message: Message) -> None:
        stream = self._stream or await self._opened()
        await stream.publish(
            f"{self._settings.subject}.{message.event.kind}",
            message.body,
            timeout=self._settings.timeout_s,
            stream=self._settings.stream,
            headers={"Nats-Msg-Id": message.event.event_id},
        )

    async def _opened(self) -> JetStreamContext:
        if self._client is None or not self._client.is_connected:
            await self._connect()
        assert self._client is not None
        stream = self._client.jetstream(timeout=self._settings.timeout_s)
        try:
            await stream.stream_info(self._settings.stream)
        except NotFoundError:
            await stream.add_stream(
                StreamConfig(
                    name=self._settings.stream,
                    subjects=[f"{self._settings.subject}.>"],
                    duplicate_window=self._settings.duplicate_window_s,
                )
            )
        self._stream = stream
        return stream

    async def _connect(self) -> None:
        if self._client is not None:
            await self._client.close()
        # the relay tries again, and counts it: a client that reconnects by itself would hide it
        self._client = await nats.connect(
            self._servers,
            connect_timeout=max(1, int(self._settings.timeout_s)),
            allow_reconnect=False,
            error_cb=_unsaid,
        )


async def _unsaid(_: Exception) -> None:
    """What went wrong is raised where it matters."""
