"""Rebalance plans, pure: what a plan is, how many shares an amount buys, what funds the buys.

```
plan JSON ──parse_plan──▶ PlanRequest ── items ─────────────────▶ sells, then buys
                               └────── targets ──item_of_target──▶ (once, by quotes and positions)
```

One plan per account and correlation_id. `payload` is what was asked for, canonical: the same again
is the same plan; anything else under its correlation_id is a conflict, and `differing_parts` names
what differs. An item is its phase, symbol and normalised amount, so that the same item twice in a
plan is one order, and another amount is another item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from typing import TypeVar

from torghut.domain.decisions import differing_fields
from torghut.domain.errors import Fault, TorghutError
from torghut.domain.orders import Side
from torghut.domain.sessions import is_crypto
from torghut.domain.values import (
    canonical_amount,
    canonical_instant,
    parse_amount,
    parse_instant,
    parse_symbol,
    parse_text,
    shown_name,
)

PLAN_SAGA = "plan"
PLAN_STEPS = ("prepare", "sell", "fund", "buy", "finish")
ITEMS_MAX = 500
CORRELATION_ID_MAX = 128
STRATEGY_DEFAULT = "rebalance"
MINIMUM_DEFAULT = Decimal(1)
ZERO = Decimal(0)
WHOLE = Decimal(1)
FRACTION = Decimal("0.000000001")
CENT = Decimal("0.01")
SHARES_MAX = Decimal(10) ** 18

_FIELDS = frozenset(
    {
        *("correlation_id", "strategy", "account", "event_ts", "expires_at", "items", "targets"),
        *("sizing", "min_trade_amount", "cash", "on_failure"),
    }
)
C = TypeVar("C", bound=StrEnum)
T = TypeVar("T")


class Sizing(StrEnum):
    """How shares are rounded, down in either case."""

    WHOLE = "whole"
    FRACTIONAL = "fractional"


class OnFailure(StrEnum):
    """What an item that fails does to its plan."""

    CONTINUE = "continue"  # nothing: the others go on
    KEEP = "keep"  # the plan stops; open orders are canceled, what was filled stays
    UNDO = "undo"  # the plan stops; open orders are canceled, what was filled is undone


class PlanStatus(StrEnum):
    """Where a plan stands."""

    WORKING = "working"
    COMPLETED = "completed"
    STOPPED = "stopped"
    UNDONE = "undone"


class ItemStatus(StrEnum):
    """Where an item of a plan stands."""

    PENDING = "pending"
    PLACED = "placed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"


class ItemReason(StrEnum):
    """Why an item was skipped, or failed without the broker or risk having said why."""

    MICRO_ORDER = "micro_order"
    NO_WHOLE_SHARE = "no_whole_share"
    NO_POSITION = "no_position"
    NOT_FUNDED = "not_funded"
    PLAN_STOPPED = "plan_stopped"
    NO_QUOTE = "no_quote"
    PARTLY_FILLED = "partly_filled"
    NOT_FILLED = "not_filled"
    IDENTITY_TAKEN = "identity_taken"


class InvalidPlan(TorghutError):
    """The input is no plan. `faults` names every fault found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One trade that is wanted: `trade_amount` in the account's currency; `whole` sells all."""

    symbol: str
    side: Side
    trade_amount: Decimal
    whole: bool = False

    def as_json(self) -> dict[str, object]:
        """Canonical JSON data."""
        return {
            "symbol": self.symbol,
            "action": self.side.value,
            "trade_amount": canonical_amount(self.trade_amount),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A plan, checked. `event_ts`, `expires_at` and `cash` are None where the sender gave none."""

    account: str
    correlation_id: str
    strategy: str
    items: tuple[PlanItem, ...] | None
    targets: Mapping[str, Decimal] | None
    event_ts: datetime | None
    expires_at: datetime | None
    sizing: Sizing
    min_trade_amount: Decimal
    cash: Decimal | None
    on_failure: OnFailure

    def payload(self) -> dict[str, object]:
        """Everything that was asked for, as canonical JSON data; absent fields are left out."""
        data: dict[str, object] = {
            "strategy": self.strategy,
            "sizing": self.sizing.value,
            "min_trade_amount": canonical_amount(self.min_trade_amount),
            "on_failure": self.on_failure.value,
        }
        if self.items is not None:
            data["items"] = [item.as_json() for item in self.items]
        if self.targets is not None:
            data["targets"] = {s: canonical_amount(w) for s, w in sorted(self.targets.items())}
        if self.cash is not None:
            data["cash"] = canonical_amount(self.cash)
        for name in ("event_ts", "expires_at"):
            instant = getattr(self, name)
            if instant is not None:
                data[name] = canonical_instant(instant)
        return data


def parse_plan(data: object, *, accounts: Sequence[str], default: str | None) -> PlanRequest:
    """A PlanRequest of one of `accounts` from plan JSON (docs/plans.md); `default` is the one that
    a plan without a name means. Raises InvalidPlan naming every fault."""
    if not isinstance(data, Mapping):
        raise InvalidPlan([Fault("", "must be a JSON object with the fields of a plan")])
    faults = [
        Fault(shown_name(name), "is not a known field of a plan")
        for name in data
        if name not in _FIELDS
    ]

    def read(name: str, parse: Callable[[object], T]) -> T | None:
        value = data.get(name)
        return None if value is None else _parsed(name, value, parse, faults)

    correlation_id = read(
        "correlation_id", lambda value: parse_text(value, length_max=CORRELATION_ID_MAX)
    )
    if data.get("correlation_id") is None:
        faults.append(Fault("correlation_id", "is missing"))
    strategy = read("strategy", lambda value: parse_text(value, length_max=128))
    named = read("account", lambda value: parse_text(value, length_max=64))
    account = named or default
    if account not in accounts:
        faults.append(Fault("account", f"must be one that is traded here: {', '.join(accounts)}"))
    items = read("items", lambda value: _items(value, faults))
    targets = read("targets", lambda value: _targets(value, faults))
    if (data.get("items") is None) == (data.get("targets") is None):
        faults.append(Fault("items", "or targets, exactly one of them, is required"))
    minimum = read("min_trade_amount", _not_negative)
    request = PlanRequest(
        account=account or "",
        correlation_id=correlation_id or "",
        strategy=strategy or STRATEGY_DEFAULT,
        items=items,
        targets=targets,
        event_ts=read("event_ts", parse_instant),
        expires_at=read("expires_at", parse_instant),
        sizing=_choice(data, "sizing", Sizing.WHOLE, faults),
        min_trade_amount=MINIMUM_DEFAULT if minimum is None else minimum,
        cash=read("cash", _not_negative),
        on_failure=_choice(data, "on_failure", OnFailure.CONTINUE, faults),
    )
    if faults:
        raise InvalidPlan(faults)
    return request


def item_of_target(
    symbol: str, weight: Decimal, *, equity: Decimal, held_qty: Decimal, px: Decimal
) -> PlanItem | None:
    """The trade that brings a holding (signed) to its share of the equity; None if there is none.

    Weight 0 closes all of it. Amounts are rounded to cents.
    """
    wanted = (weight * equity - held_qty * px).quantize(CENT, ROUND_HALF_EVEN)
    whole = not weight and bool(held_qty)
    if not wanted and not whole:
        return None
    buys = wanted > 0 if wanted else held_qty < 0
    side = Side.BUY if buys else Side.SELL
    return PlanItem(symbol, side, max(CENT, abs(wanted)), whole=whole)


def shares(amount: Decimal, px: Decimal, sizing: Sizing, symbol: str) -> Decimal:
    """How many shares an amount is worth at a price, rounded down; coins always in fractions.

    At most SHARES_MAX: more than any risk allows, and still a number that a decision can have, so
    that one absurd item is denied by itself and holds up no other.
    """
    step = FRACTION if sizing is Sizing.FRACTIONAL or is_crypto(symbol) else WHOLE
    return min(amount / px, SHARES_MAX).quantize(step, ROUND_DOWN)


def own_cash(items: Iterable[PlanItem]) -> Decimal:
    """What a plan's buys exceed its sells by: the cash it takes, unless it names another sum."""
    signed = sum((item.side.sign * item.trade_amount for item in items), ZERO)
    return max(ZERO, signed)


def funded(amounts: Sequence[Decimal], budget: Decimal) -> list[Decimal]:
    """What of each amount the budget covers, first come first served; never more in all."""
    covered: list[Decimal] = []
    left = budget
    for amount in amounts:
        part = min(amount, left)
        covered.append(part)
        left -= part
    return covered


def intent(correlation_id: str, phase: Side, trade_amount: Decimal, *, undo_round: int = 0) -> str:
    """What tells an item's decision apart: its phase, its normalised amount, its plan."""
    text = f"{phase.value}:{canonical_amount(trade_amount)}:{correlation_id}"
    return f"undo-{undo_round}:{text}" if undo_round else text


def differing_parts(first: Mapping[str, object], second: Mapping[str, object]) -> tuple[str, ...]:
    """Where two payloads of plans differ; of items and targets, which."""
    named: list[str] = []
    for name in differing_fields(first, second):
        before, after = first.get(name), second.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            named += [f"{name}.{part}" for part in differing_fields(before, after)]
        elif isinstance(before, list) and isinstance(after, list):
            named += _differing_rows(name, before, after)
        else:
            named.append(name)
    return tuple(named)


def _differing_rows(name: str, before: Sequence[object], after: Sequence[object]) -> list[str]:
    found = [
        f"{name}[{place}].{part}"
        for place, (one, other) in enumerate(zip(before, after, strict=False))
        if isinstance(one, Mapping) and isinstance(other, Mapping)
        for part in differing_fields(one, other)
    ]
    shorter, longer = sorted((len(before), len(after)))
    return found + [f"{name}[{place}]" for place in range(shorter, longer)]


def _items(value: object, faults: list[Fault]) -> tuple[PlanItem, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of items that is not empty")
    if len(value) > ITEMS_MAX:
        raise ValueError(f"has {len(value)} items, at most {ITEMS_MAX} are allowed")
    found = [_item(f"items[{place}]", item, faults) for place, item in enumerate(value)]
    return tuple(item for item in found if item is not None)


def _item(path: str, value: object, faults: list[Fault]) -> PlanItem | None:
    if not isinstance(value, Mapping):
        faults.append(Fault(path, "must be an object with symbol, action and trade_amount"))
        return None
    before = len(faults)
    wanted = ("symbol", "action", "trade_amount")
    faults.extend(
        Fault(f"{path}.{shown_name(key)}", "is not a known field")
        for key in value
        if key not in wanted
    )
    faults.extend(Fault(f"{path}.{k}", "is missing") for k in wanted if value.get(k) is None)
    if len(faults) > before:
        return None
    symbol = _parsed(f"{path}.symbol", value["symbol"], parse_symbol, faults)
    side = _parsed(f"{path}.action", value["action"], _side, faults)
    amount = _parsed(f"{path}.trade_amount", value["trade_amount"], _positive, faults)
    if symbol is None or side is None or amount is None:
        return None
    return PlanItem(symbol, side, amount)


def _targets(value: object, faults: list[Fault]) -> Mapping[str, Decimal]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("must be an object of symbols and weights that is not empty")
    if len(value) > ITEMS_MAX:
        raise ValueError(f"has {len(value)} symbols, at most {ITEMS_MAX} are allowed")
    found: dict[str, Decimal] = {}
    for name, weight in value.items():
        path = f"targets.{shown_name(name)}"
        symbol = _parsed(path, name, parse_symbol, faults)
        share = _parsed(path, weight, _not_negative, faults)
        if symbol in found:
            faults.append(Fault(path, "names a symbol a second time"))
        if symbol is not None and share is not None:
            found[symbol] = share
    if sum(found.values()) > 1:
        faults.append(Fault("targets", "add up to more than 1, the whole of the equity"))
    return found


def _parsed(
    name: str, value: object, parse: Callable[[object], T], faults: list[Fault]
) -> T | None:
    try:
        return parse(value)
    except ValueError as error:
        faults.append(Fault(name, str(error)))
        return None


def _side(value: object) -> Side:
    if isinstance(value, str) and value.lower() in set(Side):
        return Side(value.lower())
    raise ValueError("must be buy or sell")


def _positive(value: object) -> Decimal:
    amount = parse_amount(value)
    if amount <= 0:
        raise ValueError(f"must be greater than 0, not {canonical_amount(amount)}")
    return amount


def _not_negative(value: object) -> Decimal:
    amount = parse_amount(value)
    if amount < 0:
        raise ValueError(f"must not be less than 0, but is {canonical_amount(amount)}")
    return amount


def _choice(data: Mapping[str, object], name: str, default: C, faults: list[Fault]) -> C:
    value = data.get(name)
    if value is None:
        return default
    choices = type(default)
    if isinstance(value, str) and value in set(choices):
        return choices(value)
    faults.append(Fault(name, "must be one of " + ", ".join(choices)))
    return default
