"""What the services need from outside, as Protocols; concrete parts are named in bootstrap only.

- `Broker`: submit, cancel, replace, look up, list. What changes something answers with an
  `Answer`, never an exception: whatever came back is one of the seven `Outcome`s (P4). Questions
  (everything else) raise `BrokerUnavailable` (ask again later) or `BrokerRefused` (keys, account:
  a person acts).
- `OrderUpdates`: what the broker tells by itself. Hints only; `Broker` has the truth (P8).
- `MarketData`: reference prices and bars.
- `Publisher`: one sink of the outbox.
- `DecisionStream`: one stream that decisions are taken from.
- `OrderMonitor`, `PlanFinaliser`: who wants to know of a plan's orders, and of its end.
- `Strategy`: facts in, proposed decisions out; no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol, TypeVar

from torghut.domain.exposure import AssetFacts
from torghut.domain.orders import Order, OrderRequest
from torghut.domain.outbox import Message
from torghut.domain.sessions import MarketClock
from torghut.domain.streams import Delivery, StreamAnswer

T = TypeVar("T")


class Outcome(StrEnum):
    """What the answer to a submission, a cancel or a replacement proves."""

    ACCEPTED = "accepted"  # 200, readable, carries our client_order_id; a cancel: any 2xx
    IN_DOUBT = "in_doubt"  # read timeout, reset, 5xx, unreadable, another id
    EXISTS = "exists"  # "client_order_id must be unique": an order of this id is there
    REFUSED = "refused"  # 400/403/404/422 about this order
    ACCOUNT_REFUSED = "account_refused"  # 401, 403 forbidden, account blocked
    RATE_LIMITED = "rate_limited"  # 429: not taken
    NEVER_LEFT = "never_left"  # DNS, connection refused, connect timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back from `Broker.submit`, `cancel`, `replace`; `body` as it came, cut to 4 KiB.

    `order` is set exactly when `outcome` is ACCEPTED, never for a cancel. `retry_at` comes from
    X-RateLimit-Reset.
    `message` is the broker's, or a description of the failure; it never holds a key.
    """

    outcome: Outcome
    order: Order | None = None
    http_status: int | None = None
    broker_code: str | None = None
    message: str = ""
    body: str | None = None
    request_id: str | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The answer to "is there an order with this client_order_id?": found or a definite 404.

    A question that failed is a `BrokerUnavailable`, not a Lookup: failing is not absence.
    """

    order: Order | None
    body: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccount:
    """The broker's account, money in its currency; `raw` as it came.

    Only the number is always there; what is missing is None, and denies where a limit needs it.
    """

    account_number: str
    status: str
    currency: str
    cash: Decimal | None
    equity: Decimal | None
    buying_power: Decimal | None
    blocked: bool  # any of account_blocked, trading_blocked, trade_suspended_by_user
    raw: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """One position as the broker holds it, prices in the account's currency."""

    symbol: str
    qty: Decimal  # signed: short is negative
    avg_px: Decimal | None
    current_price: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FillActivity:
    """One FILL activity; `transact_time` UTC, `cum_qty`/`leaves_qty` of its order."""

    activity_id: str
    broker_order_id: str
    symbol: str
    side: str
    last_qty: Decimal
    last_px: Decimal
    cum_qty: Decimal
    leaves_qty: Decimal
    transact_time: datetime
    raw: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEntry:
    """One activity that is no fill (fee, dividend, transfer, split): what it changed.

    `qty` is signed and of `symbol`; `cash` is below zero for what left the account. `occurred_at`
    may be the beginning of a day only.
    """

    activity_id: str
    activity_type: str
    symbol: str | None
    qty: Decimal
    px: Decimal | None
    cash: Decimal
    occurred_at: datetime
    raw: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateState:
    """X-RateLimit-* of the newest answer; None where a header was missing. `reset_at` UTC."""

    limit: int | None = None
    remaining: int | None = None
    reset_at: datetime | None = None


class Page(list[T]):
    """The readable rows of one page of a broker's list.

    `full`: the page came with as many rows as were asked for, readable or not, so there may be
    more. `last_id` is the last row's id, `unreadable` names the rows that were left out, and
    `last_at` is the submission of the last order of which that could be read.
    """

    def __init__(
        self,
        rows: Iterable[T] = (),
        *,
        full: bool = False,
        last_id: str | None = None,
        unreadable: Sequence[str] = (),
        last_at: datetime | None = None,
    ) -> None:
        super().__init__(rows)
        self.full = full
        self.last_id = last_id
        self.unreadable = tuple(unreadable)
        self.last_at = last_at


class Broker(Protocol):
    """One account at one broker; thread-safe."""

    def submit(self, order: OrderRequest, client_order_id: str) -> Answer: ...

    def cancel(self, broker_order_id: str) -> Answer:
        """Ask for an order to be canceled; taken is not yet canceled."""
        ...

    def replace(
        self, broker_order_id: str, changes: Mapping[str, object], client_order_id: str
    ) -> Answer:
        """Replace an order by a new one with our id and the changes, amounts as exact text."""
        ...

    def lookup(self, client_order_id: str) -> Lookup:
        """Raises BrokerUnavailable, BrokerRefused."""
        ...

    def get_order(self, broker_order_id: str) -> Order | None: ...

    def account(self) -> BrokerAccount: ...

    def positions(self) -> Sequence[BrokerPosition]: ...

    def asset(self, symbol: str) -> AssetFacts: ...

    def market_clock(self) -> MarketClock: ...

    def orders(self, *, after: datetime | None, limit: int) -> Page[Order]:
        """Orders of any status, ascending by submission, `after` exclusive; `limit` ≤ 500."""
        ...

    def open_orders(self) -> Sequence[Order]: ...

    def fills(self, *, page_token: str | None, after: datetime | None) -> Page[FillActivity]:
        """One page (≤ 100) of FILL activities, ascending."""
        ...

    def entries(self, *, page_token: str | None, after: datetime | None) -> Page[AccountEntry]:
        """One page (≤ 100) of the activities that are no fills, ascending."""
        ...

    def rate_state(self) -> RateState: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderUpdate:
    """One message of the broker about one order; `order` is its snapshot as of then.

    Without an order it is a message that could not be read: something happened, nobody knows what.
    """

    event: str
    order: Order | None


class OrderUpdates(Protocol):
    """The broker's stream of one account's order updates; used by one thread."""

    def connect(self) -> None:
        """Raises BrokerUnavailable (try again later) or BrokerRefused (a person acts)."""
        ...

    def receive(self, timeout_s: float) -> OrderUpdate | None:
        """The next update, None if none comes in time. Raises as `connect`: then it is over."""
        ...

    def close(self) -> None: ...


class Publisher(Protocol):
    """A sink that events are given to; used by one thread."""

    def publish(self, message: Message) -> None:
        """Returns once the sink has taken it.

        Raises SinkUnavailable (again later; it may have been taken) or EventRefused (never).
        """
        ...

    def close(self) -> None: ...


class DecisionStream(Protocol):
    """A stream that decisions are taken from; used by one thread. All raise StreamUnavailable.

    What was fetched and is not acknowledged comes again, here or to another process.
    """

    def fetch(self, limit: int) -> Sequence[Delivery]:
        """The next messages, those that others left unacknowledged for too long among them; waits
        for about a second where there are none."""
        ...

    def reply(self, answers: Sequence[StreamAnswer]) -> None:
        """Tell whoever asked for it what became of messages."""
        ...

    def acknowledge(self, answers: Sequence[StreamAnswer]) -> None:
        """The messages need not come again."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Best bid and offer; a side that has no price is None. `quoted_at` UTC."""

    symbol: str
    bid_px: Decimal | None
    ask_px: Decimal | None
    quoted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One daily bar, unadjusted; prices in the account's currency, volume in shares."""

    symbol: str
    session: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class MarketData(Protocol):
    """Prices of the symbols that are traded."""

    def quotes(self, symbols: Iterable[str]) -> Mapping[str, Quote]:
        """Latest quotes; symbols without one are left out. Raises BrokerUnavailable/Refused."""
        ...

    def daily_bars(
        self, symbols: Iterable[str], *, end: date, count: int
    ) -> Mapping[str, Sequence[Bar]]:
        """Up to `count` daily bars per symbol up to and including session `end`, ascending."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyFacts:
    """All that a strategy may know: `scheduled_for` is its "now" (UTC), nothing is fetched."""

    strategy: str
    scheduled_for: datetime
    bars: Mapping[str, Sequence[Bar]]
    positions: Mapping[str, Decimal]  # this strategy's own, signed
    equity: Decimal
    params: Mapping[str, object] = field(default_factory=dict)


class Strategy(Protocol):
    """A plug-in: pure, deterministic; the same facts give the same decisions."""

    bars_wanted: int
    """How many daily bars per symbol `decide` needs."""

    def decide(self, facts: StrategyFacts) -> Sequence[Mapping[str, object]]:
        """Decision JSON without strategy, account and event_ts: the scheduler sets those."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanItemChange:
    """What became of one item of a plan; amounts in shares and in the account's currency."""

    plan_id: int
    correlation_id: str
    position: int
    phase: str
    symbol: str
    status: str
    reason: str | None
    decision_hash: str | None
    filled_qty: Decimal
    filled_value: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A plan at its end; `statistics` by phase, as in `torghut plans`."""

    plan_id: int
    correlation_id: str
    account: str
    strategy: str
    status: str
    failure: str | None
    statistics: Mapping[str, Mapping[str, object]]


class OrderMonitor(Protocol):
    """Told of a plan's orders; must not block for long."""

    def item_changed(self, change: PlanItemChange) -> None:
        """After the commit of the change, once at the most; the events are what is durable."""
        ...


class PlanFinaliser(Protocol):
    """Called at the end of a plan, however it ended."""

    def finalise(self, report: PlanReport) -> None:
        """At least once, before the plan's end is written; the same again must come to the same.

        What it raises is tried again some times, and then noted at the plan; it undoes nothing.
        """
        ...
