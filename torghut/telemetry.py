"""Logs and metrics: how the daemon speaks to machines.

Logs are structlog events on stderr, as JSON lines or for a console. A value that is one of the
configured secrets is replaced before anything is written, whatever field or text it stands in.
Metrics are prometheus_client objects, all declared here with their units.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import EventDict, WrappedLogger

REDACTED = "[secret]"
SECRET_LENGTH_MIN = 4

DECISIONS = Counter("torghut_decisions_total", "Decisions accepted, by answer", ["result"])
STEPS = Counter("torghut_loop_counts_total", "What the loops did", ["loop", "what"])
LOOP_FAILURES = Counter("torghut_loop_failures_total", "Passes that failed", ["loop"])
LOOP_SECONDS = Histogram("torghut_loop_seconds", "Duration of one pass", ["loop"])
TRIPS = Counter("torghut_risk_trips_total", "Trading held back by risk", ["scope"])
IN_DOUBT = Gauge("torghut_decisions_in_doubt", "Decisions in doubt", ["account"])
IN_DOUBT_AGE = Gauge(
    "torghut_decisions_in_doubt_age_seconds", "Age of the oldest doubt", ["account"]
)
ORDERS_STUCK = Gauge(
    "torghut_orders_stuck", "Orders that have not moved on for too long", ["account"]
)
DATABASE_FAULTS = Counter(
    "torghut_database_faults_total", "Transactions that the database did not carry out", ["fault"]
)
DRIFTS = Gauge(
    "torghut_drifts_open", "Positions and cash that differ from the broker's", ["account"]
)
LEASE_HELD = Gauge("torghut_lease_held", "1 while this process owns the account", ["account"])
ORDER_EXCESS = Counter(
    "torghut_order_excess_total", "Orders that no approved decision covers", ["account"]
)
RATE_LEFT = Gauge("torghut_rate_budget_left", "Broker requests left in the bucket")
RECONCILED_AT = Gauge(
    "torghut_reconciled_timestamp_seconds", "When the last whole pass ended", ["account"]
)
STREAM_CONNECTED = Gauge(
    "torghut_stream_connected", "1 while trade updates are listened to", ["account"]
)
STREAM_REFUSED = Gauge(
    "torghut_stream_refused", "1 while the broker refuses the keys of the stream", ["account"]
)
STREAM_MESSAGE_AT = Gauge(
    "torghut_stream_message_timestamp_seconds", "When the last trade update came", ["account"]
)
STREAM_CONNECTS = Counter(
    "torghut_stream_connects_total", "Connections of the stream, by how they ended", ["end"]
)
STREAM_MALFORMED = Counter("torghut_stream_malformed_total", "Trade updates that were unreadable")
STREAM_DROPPED = Counter(
    "torghut_stream_dropped_total", "Trade updates dropped because too many waited"
)


def configure_logging(*, level: str, form: str, secrets: Iterable[str] = ()) -> None:
    """Set up structlog and the standard library's logging alike; `form` is json or console."""
    hidden = tuple(secret for secret in secrets if len(secret) >= SECRET_LENGTH_MIN)

    def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: _clean(value, hidden) for key, value in event.items()}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    last: structlog.typing.Processor
    if form == "json":
        last = structlog.processors.JSONRenderer(default=str)
    else:
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # websockets would write whole frames, and the keys are in one of them
    for noisy in (
        *("apscheduler", "alembic", "urllib3", "uvicorn.access", "exchange_calendars"),
        "websockets",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _clean(value: object, hidden: tuple[str, ...]) -> object:
    if isinstance(value, str):
        for secret in hidden:
            value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, dict):
        return {key: _clean(item, hidden) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, hidden) for item in value]
    return value
