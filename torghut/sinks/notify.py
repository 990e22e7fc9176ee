"""Events as NOTIFY on a channel of the database that they are in.

A payload may have at most 7999 bytes. What is larger goes as `{"id", "seq", "kind", "truncated":
true}`: the listener reads the row of `events` by its id. Postgres keeps nothing for those who do
not listen at that moment; they find what they missed in `events`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from torghut.domain.errors import DatabaseUnavailable, NotDurable
from torghut.domain.outbox import Message, SinkUnavailable
from torghut.sink_settings import NotifySink

PAYLOAD_BYTES_MAX = 7999


class Notify:
    """One NOTIFY for each event, in a transaction of its own: `send` gets channel and payload."""

    def __init__(self, settings: NotifySink, send: Callable[[str, str], None]) -> None:
        self._channel = settings.channel
        self._send = send

    def publish(self, message: Message) -> None:
        body = message.body
        if len(body) > PAYLOAD_BYTES_MAX:
            event = message.event
            short = {"id": event.event_id, "seq": event.seq, "kind": event.kind, "truncated": True}
            body = json.dumps(short).encode()
        try:
            self._send(self._channel, body.decode())
        except (DatabaseUnavailable, NotDurable) as error:
            raise SinkUnavailable(f"NOTIFY failed: {error}") from error

    def close(self) -> None:
        return
