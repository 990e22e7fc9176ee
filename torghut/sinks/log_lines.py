"""Events as JSON lines on standard output or standard error, whatever the log's own level is."""

from __future__ import annotations

import sys

import structlog

from torghut.domain.outbox import Message, SinkUnavailable
from torghut.sink_settings import LogSink


class LogLines:
    """One line for each event, flushed before the next; `event` in it is the event's kind."""

    def __init__(self, settings: LogSink) -> None:
        stream = sys.stdout if settings.stream == "stdout" else sys.stderr
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[structlog.processors.JSONRenderer(default=str, ensure_ascii=False)],
            cache_logger_on_first_use=True,
        )

    def publish(self, message: Message) -> None:
        envelope = message.event.envelope()
        kind = envelope.pop("kind")
        try:
            self._log.msg(kind, **envelope)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            raise SinkUnavailable(f"cannot be written to: {type(error).__name__}") from error

    def close(self) -> None:
        return
