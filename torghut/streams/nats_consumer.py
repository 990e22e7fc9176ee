"""Decisions from a stream of NATS JetStream, by a durable pull consumer.

A message's data is the decision, JSON. Stream and consumer are made where there are none; what
exists is used as it is, and refused if it would lose messages: without acknowledgements, or with a
last delivery. The server gives a message again once it was not acknowledged for the consumer's
AckWait (`redeliver_after_s` of one that is made), to whichever process asks.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, StreamConfig
from nats.js.errors import NotFoundError

from torghut.domain.streams import Delivery, StreamAnswer, StreamUnavailable
from torghut.nats_line import UNANSWERED, NatsLine
from torghut.stream_settings import NatsIntake

WAIT_S = 1.0
LOOK_EVERY_S = 10.0

T = TypeVar("T")


class NatsConsumer:
    """One durable consumer of one stream."""

    def __init__(self, settings: NatsIntake) -> None:
        self._settings = settings
        self._line = NatsLine(settings.url.get_secret_value().split(","), settings.timeout_s)
        self._pull: JetStreamContext.PullSubscription | None = None
        self._stream: JetStreamContext | None = None
        self._looked_at = 0.0
        self._messages: dict[str, Msg] = {}  # fetched and not acknowledged

    def fetch(self, limit: int) -> Sequence[Delivery]:
        messages = self._wait(self._fetch(limit))
        self._messages = {str(one.metadata.sequence.stream): one for one in messages}
        return [Delivery(message_id, one.data) for message_id, one in self._messages.items()]

    def reply(self, answers: Sequence[StreamAnswer]) -> None:
        if self._settings.reply_subject is not None:
            self._wait(self._reply(self._settings.reply_subject, answers))

    def acknowledge(self, answers: Sequence[StreamAnswer]) -> None:
        self._wait(self._acknowledge([self._messages[answer.message_id] for answer in answers]))

    def close(self) -> None:
        self._line.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop; connecting, looking and asking have a turn each."""
        try:
            return self._line.wait(work, 4 * self._settings.timeout_s + WAIT_S)
        except Exception as error:
            self._pull = None  # look at connection, stream and consumer again
            if not isinstance(error, UNANSWERED):
                raise
            said = str(error) if isinstance(error, _NotUsable) else type(error).__name__
            raise StreamUnavailable(f"nats: {said[:200]}") from error

    async def _fetch(self, limit: int) -> list[Msg]:
        client, new = await self._line.connected()
        if new or self._pull is None:
            self._stream = client.jetstream(timeout=self._settings.timeout_s)
            self._pull = await self._bound(self._stream)
        try:
            return await self._pull.fetch(limit, timeout=WAIT_S)
        except TimeoutError:  # what the client says where there are no messages
            await self._look_after_it()
            return []

    async def _look_after_it(self) -> None:
        """A consumer that was deleted looks as if there were no messages."""
        assert self._stream is not None
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            await self._stream.consumer_info(self._settings.stream, self._settings.group)
            self._looked_at = time.monotonic()

    async def _bound(self, stream: JetStreamContext) -> JetStreamContext.PullSubscription:
        settings = self._settings
        try:
            await stream.stream_info(settings.stream)
        except NotFoundError:
            await stream.add_stream(StreamConfig(name=settings.stream, subjects=[settings.subject]))
        try:
            consumer = await stream.consumer_info(settings.stream, settings.group)
        except NotFoundError:
            consumer = await stream.add_consumer(
                settings.stream,
                ConsumerConfig(
                    durable_name=settings.group,
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=settings.redeliver_after_s,
                    filter_subject=settings.subject,
                ),
            )
        _check(consumer)
        await self._check_reply(stream)
        return await stream.pull_subscribe_bind(consumer=settings.group, stream=settings.stream)

    async def _check_reply(self, stream: JetStreamContext) -> None:
        if self._settings.reply_subject is None:
            return
        try:
            await stream.find_stream_name_by_subject(self._settings.reply_subject)
        except NotFoundError as error:
            raise _NotUsable("no stream holds the reply_subject") from error

    async def _reply(self, subject: str, answers: Sequence[StreamAnswer]) -> None:
        assert self._stream is not None
        for answer in answers:
            said = {
                "id": answer.message_id,
                "result": answer.result,
                "decision_hash": answer.decision_hash,
                "error": answer.error,
            }
            await self._stream.publish(
                subject, json.dumps(said).encode(), timeout=self._settings.timeout_s
            )

    async def _acknowledge(self, messages: Sequence[Msg]) -> None:
        # an acknowledgement that is only sent may be lost with the connection: each is confirmed
        await asyncio.gather(*(one.ack_sync(self._settings.timeout_s) for one in messages))


class _NotUsable(OSError):
    """What is there would lose messages; the text says how."""


def _check(consumer: ConsumerInfo) -> None:
    config = consumer.config
    if config.ack_policy != AckPolicy.EXPLICIT:
        raise _NotUsable("the consumer does not ask for the acknowledgement of each message")
    if config.deliver_subject:
        raise _NotUsable("the consumer pushes messages; a pull consumer is needed")
    if config.max_deliver is not None and config.max_deliver > 0:
        raise _NotUsable("the consumer gives messages up after some deliveries (max_deliver)")
