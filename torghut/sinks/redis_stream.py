"""Events in a Redis stream: XADD with the fields `id`, `kind`, `decision_hash` and `event`.

`event` is the envelope, JSON. Redis does not look for repetitions: a consumer drops an entry whose
`id` it has had. What Redis has confirmed is as durable as its own `appendfsync` makes it.
"""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.typing import EncodableT

from torghut.domain.outbox import Message, SinkUnavailable
from torghut.sink_settings import RedisSink


class RedisStream:
    """One entry for each event."""

    def __init__(self, settings: RedisSink) -> None:
        self._stream = settings.stream
        self._length_max = settings.length_max
        self._client = redis.Redis.from_url(
            settings.url.get_secret_value(),
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            retry=Retry(NoBackoff(), 0),  # the relay tries again, and counts it
        )

    def publish(self, message: Message) -> None:
        event = message.event
        fields: dict[EncodableT, EncodableT] = {
            "id": event.event_id,
            "kind": event.kind,
            "decision_hash": event.decision_hash or "",
            "event": message.body,
        }
        try:
            self._client.xadd(self._stream, fields, maxlen=self._length_max, approximate=True)
        except redis.ResponseError as error:
            raise SinkUnavailable(f"answered {str(error)[:200]}") from error
        except redis.RedisError as error:
            raise SinkUnavailable(f"no answer: {type(error).__name__}") from error

    def close(self) -> None:
        self._client.close()
