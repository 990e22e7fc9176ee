"""Events in a durable topic exchange of RabbitMQ; the routing key is the event's kind.

Messages are persistent, `message_id` is the event's id, and the broker confirms each one. A message
that no queue wants would be lost: it is not taken, and is given again until a queue is bound.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, NackError, UnroutableError

from torghut.domain.outbox import Message, SinkUnavailable
from torghut.sink_settings import RabbitSink


class RabbitExchange:
    """One confirmed message for each event."""

    def __init__(self, settings: RabbitSink) -> None:
        self._exchange = settings.exchange
        self._parameters = pika.URLParameters(settings.url.get_secret_value())
        self._parameters.socket_timeout = settings.timeout_s
        self._parameters.stack_timeout = settings.timeout_s
        self._parameters.blocked_connection_timeout = settings.timeout_s
        # what ends the wait for a server that is frozen, or gone without a word: nothing else does
        self._heartbeat_s = math.ceil(settings.timeout_s)
        self._parameters.heartbeat = self._heartbeat_s
        self._used_at = 0.0
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None

    def publish(self, message: Message) -> None:
        event = message.event
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=pika.DeliveryMode.Persistent,
            message_id=event.event_id,
            type=event.kind,
            headers={"decision_hash": event.decision_hash or ""},
        )
        try:
            self._opened().basic_publish(
                self._exchange, event.kind, message.body, properties, mandatory=True
            )
        except UnroutableError as error:
            raise SinkUnavailable("no queue is bound to the exchange for this kind") from error
        except NackError as error:
            raise SinkUnavailable("the broker did not take it") from error
        except (AMQPError, OSError) as error:
            self.close()
            raise SinkUnavailable(f"no answer: {type(error).__name__}") from error

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and connection.is_open:
            with suppress(AMQPError, OSError):  # it may be gone already
                connection.close()

    def _opened(self) -> BlockingChannel:
        # nobody answers heartbeats while there are no events: the server takes it for dead
        idle = time.monotonic() - self._used_at > self._heartbeat_s
        if self._channel is None or not self._channel.is_open or idle:
            self.close()
            self._connection = pika.BlockingConnection(self._parameters)
            channel = self._connection.channel()
            channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
            channel.confirm_delivery()
            self._channel = channel
        self._used_at = time.monotonic()
        return self._channel
