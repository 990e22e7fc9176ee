"""Pre-trade risk: `evaluate(request, limits, facts, reservations, now) → Verdict`, pure.

Every check runs, in the order of `DenyReason`; the first that fails names the verdict, and all
of them are in it with measured value, limit, unit and where the limit came from. A check whose
facts are missing fails as `facts_unavailable` (fail closed, P7); a limit that is off is recorded
as passed with no limit.

An order that only closes, with everything in flight counted, needs no quote and is not kept back
by a loss: reducing risk stays possible when entering is not (P11). Limits on its size, where that
can be measured, and on the number of orders hold for it as for any other.

Exposure counts filled + open + submitting + in doubt, each at the worse of our ledger and the
broker's snapshot. `Reservations` holds what other decisions may still turn into; a decision's
own row is never in it, because it is only counted once it is `submitting` (story 39).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from torghut.domain.exposure import (
    Facts,
    Reservations,
    TradingState,
    amount_text,
    opening_qty,
    position_after,
    reduces,
    reference_px,
    size_qty,
)
from torghut.domain.orders import OrderRequest
from torghut.domain.values import canonical_amount


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

    def at_most(
        self,
        code: DenyReason,
        name: str,
        measured: Decimal | None,
        unit: str,
        *,
        exempt: bool = False,
    ) -> None:
        """`exempt` orders only close: they pass whatever is measured, or cannot be (P11)."""
        limit = self.limits.by_name[name]
        if limit.value is None:
            self.made.append(Check(code, True, amount_text(measured), None, unit, limit.source))
            return
        passed = exempt or (measured is not None and measured <= limit.value)
        failed_for = code if measured is not None else DenyReason.FACTS_UNAVAILABLE
        self.made.append(
            Check(
                code if passed else failed_for,
                passed,
                amount_text(measured),
                canonical_amount(limit.value),
                f"{unit} ({name})",
                limit.source,
            )
        )


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
    price = reference_px(request, facts)
    size = size_qty(request, price)
    opening = opening_qty(request.side, size, facts, reservations)
    checks = _Checks(limits)
    closing = opening is not None and not opening
    _check_standing(checks, request, facts, reservations, size)
    age_s = Decimal(str((now - event_ts).total_seconds()))
    checks.at_most(DenyReason.DECISION_STALE, "max_decision_age_s", age_s, "s")
    if facts.quoted_at is not None:
        quote_age_s = Decimal(str((now - facts.quoted_at).total_seconds()))
        checks.at_most(DenyReason.QUOTE_STALE, "max_quote_age_s", quote_age_s, "s", exempt=closing)
    elif price is None:
        checks.at_most(DenyReason.QUOTE_STALE, "max_quote_age_s", None, "s", exempt=closing)
    notional = _product(size, price) if request.notional is None else request.notional
    position = position_after(request.side, size, facts, reservations)
    checks.at_most(DenyReason.ORDER_QTY, "max_order_qty", size, "shares")
    checks.at_most(
        DenyReason.ORDER_NOTIONAL,
        "max_order_notional",
        notional,
        "currency",
        exempt=closing and notional is None,
    )
    checks.at_most(
        DenyReason.POSITION_NOTIONAL, "max_position_notional", _product(position, price), "currency"
    )
    _check_counts(checks, reservations)
    _check_account(checks, facts, closing)
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
        shrinks = size is not None and reduces(request.side, size, facts, reservations)
        checks.flag(
            DenyReason.REDUCING_ONLY,
            shrinks,
            "reduces" if shrinks else "opens",
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


def _check_account(checks: _Checks, facts: Facts, closing: bool) -> None:
    loss = None
    account = facts.account
    if account is not None and account.last_equity is not None and account.equity is not None:
        loss = account.last_equity - account.equity
    checks.at_most(DenyReason.DAILY_LOSS, "max_daily_loss", loss, "currency", exempt=closing)


def _check_buying_power(
    checks: _Checks, facts: Facts, reservations: Reservations, cost: Decimal | None
) -> None:
    reserve = checks.limits.by_name["buying_power_reserve_pct"]
    if reserve.value is None:
        checks.made.append(
            Check(
                DenyReason.BUYING_POWER, True, amount_text(cost), None, "currency", reserve.source
            )
        )
        return
    available: Decimal | None = None
    if facts.account is not None and facts.account.buying_power is not None:
        kept = facts.account.buying_power * reserve.value / 100
        available = facts.account.buying_power - kept - reservations.notional
    # an order that opens nothing takes no buying power, whatever is left of it (P11)
    passed = cost is not None and (cost == 0 or (available is not None and cost <= available))
    missing = cost is None or (cost != 0 and available is None)
    checks.made.append(
        Check(
            DenyReason.FACTS_UNAVAILABLE if missing else DenyReason.BUYING_POWER,
            passed,
            amount_text(cost),
            amount_text(available),
            "currency (buying power less reserve and reservations)",
            reserve.source,
        )
    )


def _product(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    if first is not None and not first:
        return Decimal(0)
    return None if first is None or second is None else first * second
