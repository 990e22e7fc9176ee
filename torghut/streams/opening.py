"""From an `[intakes.NAME]` table to the stream, with the client that it needs."""

from __future__ import annotations

from importlib.util import find_spec

from torghut.domain.errors import ConfigError
from torghut.ports import DecisionStream
from torghut.stream_settings import Intakes, IntakeSettings, RedisIntake


def check_clients(intakes: Intakes) -> None:
    """Raises ConfigError for the first stream whose client is not installed."""
    for name, settings in intakes.items():
        if find_spec(settings.kind) is None:  # kind, module and extra have one name
            raise ConfigError(
                f"[intakes.{name}] kind",
                f"is {settings.kind}, whose client is not installed",
                f"pip install 'torghut[{settings.kind}]'",
            )


def open_stream(settings: IntakeSettings) -> DecisionStream:
    """The stream of a table; nothing is connected before the first message is asked for."""
    if isinstance(settings, RedisIntake):
        from torghut.streams.redis_group import RedisGroup

        return RedisGroup(settings)
    from torghut.streams.nats_consumer import NatsConsumer

    return NatsConsumer(settings)
