"""Pre-trade risk: `evaluate(request, limits, facts, reservations, now) → Verdict`, pure.

Every check runs, in the order of `DenyReason`; the first that fails names the verdict, and all
of them are in it with measured value, limit, unit and where the limit came from. A check whose
facts are missing fails as `facts_unavailable` (fail closed, P7); a limit that is off is recorded
as passed with no limit.

Exposure counts filled + open + submitting + in doubt, each at the worse of our ledger and the
broker's snapshot. `Reservations` holds what other decisions may still turn into; a decision's
own row is never in it, because it is only counted once it is `submitting` (story 39).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_UP, Decimal
from enum import StrEnum

from torghut.domain.orders import OrderRequest, OrderType, Side
from torghut.domain.values import canonical_amount

_SHARE = Decimal("1e-9")


class DenyReason(StrEnum):
    """Why risk denied; closed, in order of precedence."""

    TRADING_HALTED = "trading_halted"
    REDUCING_ONLY = "reducing_only"
    ACCOUNT_BLOCKED = "account_blocked"
    SYMBOL_NOT_ENABLED = "symbol_not_enabled"
    SESSION_CLOSED = "session_closed"
    DECISION_STALE = "decision_stale"
    FACTS_UNAVAILABLE = "facts_unavailable"
    QUOTE_STALE = "quote_stale"
    ORDER_QTY = "order_qty"
    ORDER_NOTIONAL = "order_notional"
    POSITION_NOTIONAL = "position_notional"
    OPEN_ORDERS = "open_orders"
    ORDER_RATE = "order_rate"
    DAILY_LOSS = "daily_loss"
    BUYING_POWER = "buying_power"


class TradingState(StrEnum):
    """What an account may do; the strictest of the scopes that apply is in force."""

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"


LIMIT_DEFAULTS: Mapping[str, Decimal | None] = {
    # name: default, None is off; currency units, shares, counts, seconds or percent as named
    "max_order_notional": Decimal(100_000),
    "max_order_qty": None,
    "max_position_notional": Decimal(1_000_000),
    "max_open_orders": None,
    "max_orders_per_minute": None,
    "max_orders_per_day": None,
    "max_decision_age_s": None,  # expires_at already bounds every decision's life
    "max_quote_age_s": None,
    "max_daily_loss": None,
    "buying_power_reserve_pct": Decimal(0),
}

LIVE_LIMITS = ("max_order_notional", "max_orders_per_minute", "max_daily_loss")
"""Limits without which live mode does not start."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in force: None is off; `source` says where it was set."""

    value: Decimal | None
    source: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that apply to one decision, and the version of the policy they come from."""

    by_name: Mapping[str, Limit]
    symbols: frozenset[str] | None  # None: every symbol is enabled
    symbols_source: str
    policy_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """The broker's account at `observed_at`, currency units."""

    equity: Decimal
    last_equity: Decimal | None
    buying_power: Decimal
    blocked: bool
    observed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the outside world; None is missing, and missing denies."""

    state: TradingState
    state_reason: str
    account: AccountFacts | None
    bid_px: Decimal | None = None
    ask_px: Decimal | None = None
    quoted_at: datetime | None = None
    broker_qty: Decimal | None = None  # signed position at the broker; None: snapshot missing
    ledger_qty: Decimal = Decimal(0)  # signed position by our own books, fills not booked included
    session_open: bool | None = None  # None: the session is not asked about (policy `send`)

    def as_json(self) -> dict[str, object]:
        """Plain JSON for the verdict's row."""
        account = self.account
        return {
            "state": self.state.value,
            "account": None
            if account is None
            else {
                "equity": str(account.equity),
                "last_equity": _text(account.last_equity),
                "buying_power": str(account.buying_power),
                "blocked": account.blocked,
                "observed_at": account.observed_at.isoformat(),
            },
            "bid_px": _text(self.bid_px),
            "ask_px": _text(self.ask_px),
            "quoted_at": self.quoted_at.isoformat() if self.quoted_at else None,
            "broker_qty": _text(self.broker_qty),
            "ledger_qty": str(self.ledger_qty),
            "session_open": self.session_open,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservations:
    """What may still become a position or use buying power, without this decision's own row.

    `buy_qty`, `sell_qty`: shares of this symbol still open, submitting or in doubt.
    `notional`: buying power that the account snapshot does not know of yet.
    """

    buy_qty: Decimal = Decimal(0)
    sell_qty: Decimal = Decimal(0)
    notional: Decimal = Decimal(0)
    open_orders: int = 0
    orders_last_minute: int = 0
    orders_today: int = 0

    def as_json(self) -> dict[str, object]:
        """Plain JSON for the verdict's row."""
        return {
            "buy_qty": str(self.buy_qty),
            "sell_qty": str(self.sell_qty),
            "notional": str(self.notional),
            "open_orders": self.open_orders,
            "orders_last_minute": self.orders_last_minute,
            "orders_today": self.orders_today,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `measured` against `limit` in `unit`; None where there is nothing to show."""

    code: DenyReason
    passed: bool
    measured: str | None
    limit: str | None
    unit: str
    source: str

    def as_json(self) -> dict[str, object]:
        return {
            "code": self.code.value,
            "passed": self.passed,
            "measured": self.measured,
            "limit": self.limit,
            "unit": self.unit,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement; `notional` is what the order takes from buying power at most."""

    deny_reason: DenyReason | None
    checks: tuple[Check, ...]
    policy_version: str
    reference_px: Decimal | None
    size_qty: Decimal | None
    notional: Decimal | None

    @property
    def approved(self) -> bool:
        return self.deny_reason is None


@dataclass(slots=True)
class _Checks:
    """Collects checks; a limit that is off passes, a value that is missing fails."""

    limits: Limits
    made: list[Check] = field(default_factory=list)

    def flag(
        self, code: DenyReason, passed: bool, measured: str, limit: str, source: str = "rule"
    ) -> None:
        self.made.append(Check(code, passed, measured, limit, "", source))

    def at_most(self, code: DenyReason, name: str, measured: Decimal | None, unit: str) -> None:
        limit = self.limits.by_name[name]
        if limit.value is None:
            self.made.append(Check(code, True, _text(measured), None, unit, limit.source))
            return
        passed = measured is not None and measured <= limit.value
        failed_for = code if measured is not None else DenyReason.FACTS_UNAVAILABLE
        self.made.append(
            Check(
                code if passed else failed_for,
                passed,
                _text(measured),
                canonical_amount(limit.value),
                f"{unit} ({name})",
                limit.source,
            )
        )


def needs_quote(order: OrderRequest) -> bool:
    """True if the order's cost cannot be bounded without a quote."""
    return order.limit_price is None


def evaluate(
    request: OrderRequest,
    limits: Limits,
    facts: Facts,
    reservations: Reservations,
    now: datetime,
    *,
    event_ts: datetime,
) -> Verdict:
    """Judge one order. Pure: the same arguments give the same verdict, byte for byte."""
    price = _reference_px(request, facts)
    size = _size_qty(request, price)
    opening = _opening_qty(request.side, size, facts, reservations)
    checks = _Checks(limits)
    _check_standing(checks, request, facts, reservations, size)
    age_s = Decimal(str((now - event_ts).total_seconds()))
    checks.at_most(DenyReason.DECISION_STALE, "max_decision_age_s", age_s, "s")
    if facts.quoted_at is not None:
        quote_age_s = Decimal(str((now - facts.quoted_at).total_seconds()))
        checks.at_most(DenyReason.QUOTE_STALE, "max_quote_age_s", quote_age_s, "s")
    notional = _product(size, price) if request.notional is None else request.notional
    position = _position_after(request.side, size, facts, reservations)
    checks.at_most(DenyReason.ORDER_QTY, "max_order_qty", size, "shares")
    checks.at_most(DenyReason.ORDER_NOTIONAL, "max_order_notional", notional, "currency")
    checks.at_most(
        DenyReason.POSITION_NOTIONAL, "max_position_notional", _product(position, price), "currency"
    )
    _check_counts(checks, reservations)
    _check_account(checks, facts)
    cost = _product(opening, price)
    _check_buying_power(checks, facts, reservations, cost)
    failed = sorted(
        (check.code for check in checks.made if not check.passed), key=list(DenyReason).index
    )
    return Verdict(
        deny_reason=failed[0] if failed else None,
        checks=tuple(checks.made),
        policy_version=limits.policy_version,
        reference_px=price,
        size_qty=size,
        notional=cost,
    )


def _check_standing(
    checks: _Checks,
    request: OrderRequest,
    facts: Facts,
    reservations: Reservations,
    size: Decimal | None,
) -> None:
    halted = facts.state is TradingState.HALTED
    checks.flag(
        DenyReason.TRADING_HALTED, not halted, facts.state, "not halted", facts.state_reason
    )
    if facts.state is TradingState.REDUCING:
        reduces = size is not None and _reduces(request.side, size, facts, reservations)
        checks.flag(
            DenyReason.REDUCING_ONLY,
            reduces,
            "reduces" if reduces else "opens",
            "reduces the position, all in flight counted",
            facts.state_reason,
        )
    if facts.account is not None:
        checks.flag(
            DenyReason.ACCOUNT_BLOCKED,
            not facts.account.blocked,
            "blocked" if facts.account.blocked else "open",
            "not blocked by the broker",
            "broker account flags",
        )
    symbols = checks.limits.symbols
    checks.flag(
        DenyReason.SYMBOL_NOT_ENABLED,
        symbols is None or request.symbol in symbols,
        request.symbol,
        "any" if symbols is None else ",".join(sorted(symbols)),
        checks.limits.symbols_source,
    )
    if facts.session_open is not None:
        checks.flag(
            DenyReason.SESSION_CLOSED,
            facts.session_open,
            "open" if facts.session_open else "closed",
            "open",
            "TORGHUT_SESSION_POLICY",
        )


def _check_counts(checks: _Checks, reservations: Reservations) -> None:
    # the order under judgement is the one that would make each count one higher
    checks.at_most(
        DenyReason.OPEN_ORDERS, "max_open_orders", Decimal(reservations.open_orders + 1), "orders"
    )
    checks.at_most(
        DenyReason.ORDER_RATE,
        "max_orders_per_minute",
        Decimal(reservations.orders_last_minute + 1),
        "orders",
    )
    checks.at_most(
        DenyReason.ORDER_RATE,
        "max_orders_per_day",
        Decimal(reservations.orders_today + 1),
        "orders",
    )


def _check_account(checks: _Checks, facts: Facts) -> None:
    loss = None
    if facts.account is not None and facts.account.last_equity is not None:
        loss = facts.account.last_equity - facts.account.equity
    checks.at_most(DenyReason.DAILY_LOSS, "max_daily_loss", loss, "currency")


def _check_buying_power(
    checks: _Checks, facts: Facts, reservations: Reservations, cost: Decimal | None
) -> None:
    reserve = checks.limits.by_name["buying_power_reserve_pct"]
    if reserve.value is None:
        checks.made.append(
            Check(DenyReason.BUYING_POWER, True, _text(cost), None, "currency", reserve.source)
        )
        return
    available: Decimal | None = None
    if facts.account is not None:
        kept = facts.account.buying_power * reserve.value / 100
        available = facts.account.buying_power - kept - reservations.notional
    # an order that opens nothing takes no buying power, whatever is left of it (P11)
    passed = cost is not None and (cost == 0 or (available is not None and cost <= available))
    missing = cost is None or (cost != 0 and available is None)
    checks.made.append(
        Check(
            DenyReason.FACTS_UNAVAILABLE if missing else DenyReason.BUYING_POWER,
            passed,
            _text(cost),
            _text(available),
            "currency (buying power less reserve and reservations)",
            reserve.source,
        )
    )


def _reference_px(request: OrderRequest, facts: Facts) -> Decimal | None:
    """The worst price that bounds the cost: the limit, else the far side of the quote."""
    if request.limit_price is not None:
        return request.limit_price
    if request.side is Side.BUY:
        far, near = facts.ask_px, facts.bid_px
    else:
        far, near = facts.bid_px, facts.ask_px
    price = far if far is not None else near
    if price is not None and request.order_type is OrderType.STOP and request.stop_price:
        return max(price, request.stop_price)
    return price


def _size_qty(request: OrderRequest, price: Decimal | None) -> Decimal | None:
    if request.qty is not None:
        return request.qty
    if price is None or not price:
        return None
    assert request.notional is not None
    return (request.notional / price).quantize(_SHARE, rounding=ROUND_UP)


def _bounds(facts: Facts) -> tuple[Decimal, Decimal]:
    """(lowest, highest) position that the two books allow for."""
    broker = facts.ledger_qty if facts.broker_qty is None else facts.broker_qty
    return min(facts.ledger_qty, broker), max(facts.ledger_qty, broker)


def _position_after(
    side: Side, size: Decimal | None, facts: Facts, reservations: Reservations
) -> Decimal | None:
    """Shares, unsigned, in the order's direction if all that may be live is filled with it."""
    if size is None or facts.broker_qty is None:
        return None
    low, high = _bounds(facts)
    if side is Side.BUY:
        return max(Decimal(0), high + reservations.buy_qty + size)
    return max(Decimal(0), reservations.sell_qty + size - low)


def _opening_qty(
    side: Side, size: Decimal | None, facts: Facts, reservations: Reservations
) -> Decimal | None:
    """The part of the order that opens or adds to a position, worst case."""
    after = _position_after(side, size, facts, reservations)
    return None if after is None or size is None else min(size, after)


def _reduces(side: Side, size: Decimal, facts: Facts, reservations: Reservations) -> bool:
    """True if the order cannot leave more than there is, with everything in flight counted."""
    return _opening_qty(side, size, facts, reservations) == 0


def _product(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    if first is not None and not first:
        return Decimal(0)
    return None if first is None or second is None else first * second


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else canonical_amount(amount)
