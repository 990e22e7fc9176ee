"""Logs and metrics: how the daemon speaks to machines.

Logs are structlog events on stderr, as JSON lines or for a console. A value that is one of the
configured secrets is replaced before anything is written, whatever field or text it stands in.
Metrics are prometheus_client objects, all declared here; docs/metrics.md has them with their units.

- Labels are closed sets: statuses, reasons, kinds, routes, names of the configuration. Never a
  symbol, a hash or an id.
- A counter of what the database holds counts commits, not attempts (storage.database.after_commit).
- `OF_THE_OWNER` tell about an account. Only the process that owns it knows: a stand-by has none of
  them, so that what it knew when it lost the lease is not taken for the truth (story 14).
- What has never happened is 0, not absent (`begin`): the first time must be seen as an increase.
"""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import EventDict, WrappedLogger

from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.reconcile import CorrectionKind
from torghut.domain.submission import Proof

REDACTED = "[secret]"
SECRET_LENGTH_MIN = 4

# a fill of a market order takes well under a second, a doubt half a minute, a held order a day
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
DUPLICATES_BY = ("intake", "books", "lookup", "broker")

# ------------------------------------------------------------------ decisions

DECISIONS = Counter("torghut_decisions_total", "Decisions accepted, by answer", ["result"])
DECISION_STEPS = Counter(
    "torghut_decision_steps_total",
    "Steps of decisions, by the status they lead to and its reason",
    ["status", "reason"],
)
STAGE_SECONDS = Histogram(
    "torghut_decision_stage_seconds",
    "How long decisions had stood in a status when they left it",
    ["stage"],
    buckets=_SECONDS,
)
ORDER_SECONDS = Histogram(
    "torghut_decision_to_order_seconds",
    "From when a decision was due to the commit that says its order is at the broker",
    ["account"],
    buckets=_SECONDS,
)
ATTEMPTS = Counter(
    "torghut_submission_attempts_total", "Attempts to submit, by what came of them", ["outcome"]
)
ORDERS_SENT = Counter("torghut_orders_sent_total", "Orders posted to the broker", ["account"])
ORDERS_LEAVING = Counter(
    "torghut_orders_leaving_total",
    "Orders in our form that the guard found at the broker and compared with approvals",
    ["account"],
)
ORDER_EXCESS = Counter(
    "torghut_order_excess_total", "Orders that no approved decision covers", ["account"]
)
DUPLICATES = Counter(
    "torghut_duplicates_prevented_total",
    "Second decisions and second orders that did not come to be, by what saw it",
    ["by"],
)
IN_DOUBT = Gauge("torghut_decisions_in_doubt", "Decisions in doubt", ["account"])
IN_DOUBT_AGE = Gauge(
    "torghut_decisions_in_doubt_age_seconds", "Age of the oldest doubt", ["account"]
)
ORDERS_STUCK = Gauge(
    "torghut_orders_stuck", "Orders that have not moved on for too long", ["account"]
)
PLAN_ITEMS = Counter(
    "torghut_plan_items_total",
    "Items of plans, by phase and what became of them",
    ["phase", "outcome"],
)
SAGAS_ENDED = Counter("torghut_sagas_ended_total", "Sagas that ended", ["kind", "outcome"])
TRIPS = Counter("torghut_risk_trips_total", "Trading held back by risk", ["scope"])

# ------------------------------------------------------------------ books and broker

RECONCILED_AT = Gauge(
    "torghut_reconciled_timestamp_seconds", "When the last whole pass ended", ["account"]
)
CORRECTIONS = Counter(
    "torghut_reconcile_corrections_total", "What comparing with the broker changed", ["kind"]
)
DISCREPANCIES = Gauge(
    "torghut_discrepancies_open", "Differences between books and broker", ["account", "kind"]
)
DISCREPANCIES_OPENED = Counter(
    "torghut_discrepancies_opened_total", "Differences that were found", ["kind"]
)
DRIFTS = Gauge(
    "torghut_drifts_open", "Positions and cash that differ from the broker's", ["account"]
)
TIED_OUT = Gauge(
    "torghut_tie_out_begun",
    "1 once the opening is booked that positions and cash are compared from, 0 while it waits",
    ["account"],
)
REALIZED_PL = Gauge(
    "torghut_realized_pl_account_currency", "Realised profit of all positions", ["account"]
)
UNREALIZED_PL = Gauge(
    "torghut_unrealized_pl_account_currency",
    "Profit of open positions at the broker's prices",
    ["account"],
)
EQUITY = Gauge(
    "torghut_equity_account_currency", "Equity in the broker's newest answer", ["account"]
)
DAY_PL = Gauge("torghut_day_pl_account_currency", "Equity less that of the last close", ["account"])
GROSS_EXPOSURE = Gauge(
    "torghut_gross_exposure_account_currency", "Worth of positions, sides added up", ["account"]
)
NET_EXPOSURE = Gauge(
    "torghut_net_exposure_account_currency", "Worth of long less short positions", ["account"]
)

# ------------------------------------------------------------------ the broker's lines

RATE_LEFT = Gauge(
    "torghut_rate_budget_left", "Broker requests left in the account's bucket", ["account"]
)
BROKER_SECONDS = Histogram(
    "torghut_broker_request_seconds",
    "Requests to the broker, by method and HTTP status (or never_left, unanswered)",
    ["method", "code"],
    buckets=_SECONDS,
)
KEYED_REQUESTS = Counter(
    "torghut_keyed_requests_total", "Requests with an Idempotency-Key, by what became", ["answer"]
)
IDEMPOTENCY_KEYS = Gauge("torghut_idempotency_keys", "Stored idempotency keys", ["state"])
STREAM_CONNECTED = Gauge(
    "torghut_stream_connected", "1 while trade updates are listened to", ["account"]
)
STREAM_REFUSED = Gauge(
    "torghut_stream_refused", "1 while the broker refuses the keys of the stream", ["account"]
)
STREAM_GAP = Gauge(
    "torghut_stream_gap_seconds",
    "For how long the owner has not listened to trade updates; 0 while it does, and on a stand-by",
    ["account"],
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

# ------------------------------------------------------------------ streams and the outbox

INTAKE_MESSAGES = Counter(
    "torghut_intake_messages_total",
    "Messages of streams that decisions came from, by answer",
    ["intake", "result"],
)

OUTBOX_LAG = Gauge("torghut_outbox_lag_events", "Events that a sink was not given yet", ["sink"])
OUTBOX_LAG_AGE = Gauge(
    "torghut_outbox_lag_seconds", "Age of the oldest event that a sink was not given", ["sink"]
)
OUTBOX_DELIVERED = Counter(
    "torghut_outbox_delivered_total", "Events that a sink took, repetitions included", ["sink"]
)
OUTBOX_FAILURES = Counter(
    "torghut_outbox_failures_total", "Times that a sink took nothing", ["sink"]
)
OUTBOX_REFUSED = Counter(
    "torghut_outbox_refused_total", "Events that a sink refused for good", ["sink"]
)
DEAD_LETTERS = Gauge(
    "torghut_dead_letters", "Refused events that nobody has dealt with yet", ["sink"]
)

# ------------------------------------------------------------------ the process

BUILD = Gauge("torghut_build_info", "Always 1; the version is in the labels", ["version", "python"])
LEASE_HELD = Gauge("torghut_lease_held", "1 while this process owns the account", ["account"])
LEASE_SINCE = Gauge(
    "torghut_lease_acquired_timestamp_seconds", "When this process took the account", ["account"]
)
LEASE_CHANGES = Counter(
    "torghut_lease_changes_total", "Terms begun, lost, and handed over", ["change"]
)
STEPS = Counter("torghut_loop_counts_total", "What the loops did", ["loop", "what"])
LOOP_FAILURES = Counter("torghut_loop_failures_total", "Passes that failed", ["loop"])
LOOP_SECONDS = Histogram("torghut_loop_seconds", "Duration of one pass", ["loop"])
TICK_LATENESS = Histogram(
    "torghut_tick_lateness_seconds",
    "From a strategy's time to the commit of its tick",
    ["strategy"],
    buckets=_SECONDS,
)
DATABASE_FAULTS = Counter(
    "torghut_database_faults_total", "Transactions that the database did not carry out", ["fault"]
)
POOL_IN_USE = Gauge("torghut_database_pool_in_use", "Connections to the database in use")
POOL_LIMIT = Gauge("torghut_database_pool_limit", "Connections to the database there may be")
HTTP_SECONDS = Histogram(
    "torghut_http_request_seconds",
    "Requests to the HTTP interface, by route and status",
    ["route", "code"],
    buckets=_SECONDS,
)

OF_THE_OWNER = (
    *(IN_DOUBT, IN_DOUBT_AGE, ORDERS_STUCK, RECONCILED_AT, DISCREPANCIES, DRIFTS, TIED_OUT),
    *(REALIZED_PL, UNREALIZED_PL, EQUITY, DAY_PL, GROSS_EXPOSURE, NET_EXPOSURE, LEASE_SINCE),
)


def begin(account: str) -> None:
    """Let what has not happened yet be 0 instead of absent, and say what runs here."""
    BUILD.labels(_version(), platform.python_version()).set(1)
    for status in DecisionStatus:
        DECISION_STEPS.labels(status.value, "")
    for proof in Proof:
        ATTEMPTS.labels(proof.value)
    for by in DUPLICATES_BY:
        DUPLICATES.labels(by)
    for correction in CorrectionKind:
        CORRECTIONS.labels(correction.value)
    for kind in DiscrepancyKind:
        DISCREPANCIES_OPENED.labels(kind.value)
    for change in ("acquired", "lost", "released"):
        LEASE_CHANGES.labels(change)
    for counter in (ORDERS_SENT, ORDERS_LEAVING, ORDER_EXCESS):
        counter.labels(account)
    for scope in ("account", "strategy"):
        TRIPS.labels(scope)
    for end in ("failed", "lost", "muted", "released"):
        STREAM_CONNECTS.labels(end)
    ORDER_SECONDS.labels(account)


def forget_account(account: str) -> None:
    """Drop what only the owner of the account knows: this process is not, or no longer, it."""
    for gauge in OF_THE_OWNER:
        gauge.remove_by_labels({"account": account})


def _version() -> str:
    try:
        return version("torghut")
    except PackageNotFoundError:
        return "0"


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
