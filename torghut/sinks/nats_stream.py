"""Events in a stream of NATS JetStream, a subject for each kind: torghut.events.order.submitted.

`Nats-Msg-Id` is the event's id: within the stream's duplicate window the server itself drops
repetitions. A stream that does not exist is made, kept in files; one that exists is used as it is.
"""

from __future__ import annotations

from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from torghut.domain.outbox import EventRefused, Message, SinkUnavailable
from torghut.nats_line import UNANSWERED, NatsLine
from torghut.sink_settings import NatsSink


class NatsStream:
    """One message for each event, confirmed by the stream before the next."""

    def __init__(self, settings: NatsSink) -> None:
        self._settings = settings
        self._line = NatsLine(settings.url.get_secret_value().split(","), settings.timeout_s)
        self._stream: JetStreamContext | None = None

    def publish(self, message: Message) -> None:
        try:
            # connecting, asking for the stream and publishing have a turn each
            self._line.wait(self._publish(message), 3 * self._settings.timeout_s)
        except MaxPayloadError as error:
            raise EventRefused("larger than the server takes") from error
        except UNANSWERED as error:
            self._stream = None  # look at connection and stream again
            raise SinkUnavailable(f"not taken: {type(error).__name__}") from error

    def close(self) -> None:
        self._line.close()

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
        client, _ = await self._line.connected()
        stream = client.jetstream(timeout=self._settings.timeout_s)
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
