"""From a `[sinks.NAME]` table to the sink, with the client that it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from torghut.clock import Clock
from torghut.domain.errors import ConfigError
from torghut.ports import Publisher
from torghut.sink_settings import (
    LogSink,
    NatsSink,
    NotifySink,
    RabbitSink,
    RedisSink,
    Sinks,
    SinkSettings,
    WebhookSink,
)
from torghut.sinks.log_lines import LogLines
from torghut.sinks.notify import Notify
from torghut.sinks.webhook import Webhook

_CLIENTS = {"redis": "redis", "nats": "nats", "rabbitmq": "pika"}  # kind, also the extra → module


def check_clients(sinks: Sinks) -> None:
    """Raises ConfigError for the first sink whose client is not installed."""
    for name, settings in sinks.items():
        module = _CLIENTS.get(settings.kind)
        if module is not None and find_spec(module) is None:
            raise ConfigError(
                f"[sinks.{name}] kind",
                f"is {settings.kind}, whose client {module} is not installed",
                f"pip install 'torghut[{settings.kind}]'",
            )


def open_sink(
    settings: SinkSettings, clock: Clock, *, notify: Callable[[str, str], None]
) -> Publisher:
    """The sink of a table; nothing is connected before the first event.

    `notify` sends a payload on a channel of the database.
    """
    match settings:
        case LogSink():
            return LogLines(settings)
        case NotifySink():
            return Notify(settings, notify)
        case WebhookSink():
            return Webhook(settings, clock)
        case RedisSink():
            from torghut.sinks.redis_stream import RedisStream

            return RedisStream(settings)
        case NatsSink():
            from torghut.sinks.nats_stream import NatsStream

            return NatsStream(settings)
        case RabbitSink():
            from torghut.sinks.rabbit_exchange import RabbitExchange

            return RabbitExchange(settings)
