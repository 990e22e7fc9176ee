"""What the checks are made from and what they are collected in.

Case     one order with its facts: price, size, worth, position after, worked out once
Checks   collects `Check`s: a limit that is off passes, a value that is missing fails
Verdict  the judgement
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from torghut.domain.deny_reasons import DenyReason
from torghut.domain.exposure import (
    Facts,
    Reservations,
    reference_px,
    size_qty,
)
from torghut.domain.limits import Limits, Rule
from torghut.domain.orders import OrderRequest, Side
from torghut.domain.values import canonical_amount

Measured = Decimal | int | str | None

ZERO = Decimal(0)
_MICRO = Decimal("1e-6")
_MISSING = DenyReason.FACTS_UNAVAILABLE


Made = tuple[DenyReason, Rule, bool, Measured]
"""A check before anybody looks at it: a plain tuple costs a third of a named one."""


class Check(NamedTuple):
    """One check: `measured` against the rule's limit; None where there is nothing to show.

    `code` is the rule's, or FACTS_UNAVAILABLE if what it measures is not known.
    """

    code: DenyReason
    rule: Rule
    passed: bool
    measured: Measured

    def as_json(self) -> dict[str, object]:
        """Plain JSON; amounts as canonical text."""
        rule = self.rule
        return {
            "code": self.code.value,
            "name": rule.name,
            "passed": self.passed,
            "measured": _text(self.measured),
            "limit": _text(rule.limit),
            "unit": rule.unit,
            "source": rule.source,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement; `notional` is what the order takes from buying power at most."""

    deny_reason: DenyReason | None
    made: tuple[Made, ...]
    policy_version: str
    reference_px: Decimal | None
    size_qty: Decimal | None
    notional: Decimal | None

    @property
    def approved(self) -> bool:
        return self.deny_reason is None

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every check, passed ones too."""
        return tuple(map(Check._make, self.made))

    def failed(self, code: DenyReason) -> Check | None:
        """The first failed check of a reason."""
        made = next((m for m in self.made if m[0] is code and not m[2]), None)
        return None if made is None else Check._make(made)


class Checks:
    """Collects the checks of one verdict."""

    __slots__ = ("_note", "_own", "_rules", "failed", "limits", "made")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.made: list[Made] = []
        self.failed: list[DenyReason] = []
        self._note = self.made.append
        self._rules = limits.rules
        self._own = limits.own

    def flag(self, name: str, passed: bool | None, measured: str | None) -> None:
        """A yes or no about a switch; None is not known, and fails."""
        self.rule(self._rules[name], passed, measured)

    def rule(self, rule: Rule, passed: bool | None, measured: Measured) -> None:
        """A yes or no about a rule of the case's own."""
        code = _MISSING if passed is None else rule.code
        self._note((code, rule, passed is True, measured))
        if not passed:
            self.failed.append(code)

    def at_most(self, name: str, measured: Decimal | int | None, exempt: bool = False) -> None:
        """`exempt` orders pass whatever is measured, or cannot be (P11)."""
        rule = self._rules[name]
        limit = rule.limit
        if exempt or limit is None:
            self._note((rule.code, rule, True, measured))
        elif measured is None:
            self._note((_MISSING, rule, False, None))
            self.failed.append(_MISSING)
        else:
            within = measured <= limit  # type: ignore[operator]
            self._note((rule.code, rule, within, measured))
            if not within:
                self.failed.append(rule.code)

    def own_at_most(self, name: str, measured: int, exempt: bool = False) -> None:
        """A count of the strategy's own orders, against the limit that it sets for itself."""
        rule = self._own.get(name)
        if rule is not None:
            passed = exempt or rule.limit is None or measured <= rule.limit  # type: ignore[operator]
            self.rule(rule, passed, measured)

    def at_least(self, name: str, measured: Decimal | None, exempt: bool = False) -> None:
        """The other way round: `measured` must reach the limit."""
        rule = self._rules[name]
        known = exempt or rule.limit is None or measured is not None
        self.rule(rule, self._reached(rule, measured, exempt) if known else None, measured)

    def waited(self, name: str, seconds: Decimal | None, exempt: bool = False) -> None:
        """`seconds` since something happened must reach the limit; None: it never happened."""
        rule = self._rules[name]
        self.rule(rule, self._reached(rule, seconds, exempt), seconds)

    @staticmethod
    def _reached(rule: Rule, measured: Decimal | None, exempt: bool) -> bool:
        if exempt or rule.limit is None or measured is None:
            return True
        return measured >= rule.limit  # type: ignore[operator]


class Case:
    """One order under judgement. Quantities in shares, amounts in account currency, worst case.

    `highest`, `lowest`: signed position if all that may be live is filled with this order.
    `position`: the end in the order's direction, unsigned; `opening` the part of the order that
    opens or adds to it; `shorts`: whether it may sell short; `value_px`: what a share of the
    position counts for, never less than the market says: a limit far below it bounds this order
    and not what is held. None where that is not known.
    """

    __slots__ = (
        "closing", "cost", "event_ts", "facts", "highest", "lowest", "notional", "now", "opening",
        "position", "price", "request", "reserved", "shorts", "size", "value_px", "worth",
    )  # fmt: skip

    def __init__(
        self,
        request: OrderRequest,
        facts: Facts,
        reserved: Reservations,
        now: datetime,
        event_ts: datetime,
    ) -> None:
        self.request = request
        self.facts = facts
        self.reserved = reserved
        self.now = now
        self.event_ts = event_ts
        self.price = price = reference_px(request, facts)
        mark = reserved.mark_px
        self.value_px = price if price is None or mark is None else max(price, mark)
        self.size = size = size_qty(request, price)
        self.notional = product(size, price) if request.notional is None else request.notional
        self.highest: Decimal | None = None
        self.lowest: Decimal | None = None
        self.position: Decimal | None = None
        self.opening: Decimal | None = None
        self.shorts: bool | None = None
        self.worth: Decimal | None = None
        if size is not None and facts.broker_qty is not None:
            self._work_out(size, facts.broker_qty)
        self.closing = self.opening is not None and not self.opening
        self.cost = product(self.opening, price)

    def _work_out(self, size: Decimal, broker_qty: Decimal) -> None:
        ledger_qty, buys = self.facts.ledger_qty, self.request.side is Side.BUY
        low, high = (
            (ledger_qty, broker_qty) if ledger_qty < broker_qty else (broker_qty, ledger_qty)
        )
        high += self.reserved.buy_qty
        low -= self.reserved.sell_qty
        if buys:
            high += size
        else:
            low -= size
        end = high if buys else -low
        self.highest, self.lowest = high, low
        self.position = position = end if end > 0 else ZERO
        self.opening = size if size < position else position
        self.shorts = not buys and position > 0
        self.worth = product(high if high > -low else -low, self.value_px)

    def seconds_since(self, instant: datetime) -> Decimal:
        """Seconds from `instant` to now, below zero for one to come."""
        past = self.now - instant
        whole = past.days * 86_400 + past.seconds
        return Decimal(whole * 1_000_000 + past.microseconds) * _MICRO if past else ZERO


def product(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    """The product; nothing times an unknown price is nothing."""
    if first is not None and not first:
        return ZERO
    return None if first is None or second is None else first * second


def _text(value: Measured) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return canonical_amount(Decimal(value))
