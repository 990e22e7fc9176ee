"""Tie-out: are the amounts that we booked the ones that the broker shows? (P12)

```
one amount: the quantity of a position, or the cash

Booked(amount, moves, entries) ─┐                                      equal
                                ├─ differences ─▶ Look ─▶ follow ─▶  uncertain
the broker's amount ────────────┘                                     differs
```

Books and answer are of two instants, and fills happen in between. So an amount of ours is not one
number but those that the books went through about the time of the answer: what was surely booked
before, then each later move in its order, with and without entries (fees, dividends) whose instant
is not known. Invariants:

1. If the books are right, 0 is among the differences of every look, however much is traded.
2. A lasting difference of d is among the differences of every look, however much is traded.
3. Hence what may be is what all looks since the first doubt have in common. Nothing in common: the
   doubt begins anew. It *differs* at the second look in a row of which none has 0; it is *equal* if
   0 is in what is left, and is either all of it or has lasted for two looks.
4. While a fill of the subject is known but not booked (`waiting`) nothing is concluded.
5. Differences below `step` are none: the broker rounds cash.
6. `fee_awaited` is the largest fee that was taken already and is not listed yet; a broker's amount
   that is lower by up to that is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import accumulate

QTY_STEP = Decimal("1e-9")
CASH_STEP = Decimal("0.01")
CANDIDATES_MAX = 2_000
LOOKS_TO_DIFFER = 2
CASH = "cash"
"""The subject of the account's cash; positions have their symbol."""

_ZERO = Decimal(0)


class Standing(StrEnum):
    """What the looks at one amount come to."""

    EQUAL = "equal"
    UNCERTAIN = "uncertain"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """One amount of our books about the instant of the broker's answer.

    `amount` was booked surely before it; `moves` are fills about then or later, in their order;
    `entries` are those of its other changes of which the instant is not known.
    """

    amount: Decimal = _ZERO
    moves: tuple[Decimal, ...] = ()
    entries: tuple[Decimal, ...] = ()
    waiting: bool = False
    fee_awaited: Decimal = _ZERO

    @property
    def now(self) -> Decimal:
        """The amount as our books have it at last."""
        return self.amount + sum(self.moves, _ZERO) + sum(self.entries, _ZERO)

    @property
    def settled(self) -> bool:
        """Nothing is known that could make the two instants differ."""
        return not (self.moves or self.entries or self.waiting)


@dataclass(frozen=True, slots=True)
class Look:
    """What the difference (broker's less ours) may be; `looks` are those in a row that say so: that
    it is none, if 0 is among the differences, that there is one, if not."""

    differences: frozenset[Decimal]
    looks: int = 1

    @property
    def standing(self) -> Standing:
        """What to conclude."""
        if _ZERO in self.differences:
            sure = len(self.differences) == 1 or self.looks >= LOOKS_TO_DIFFER
            return Standing.EQUAL if sure else Standing.UNCERTAIN
        return Standing.DIFFERS if self.looks >= LOOKS_TO_DIFFER else Standing.UNCERTAIN

    @property
    def difference(self) -> Decimal:
        """The smallest of what the difference may be."""
        return min(self.differences, key=lambda d: (abs(d), d))


def differences(booked: Booked, broker: Decimal, *, step: Decimal) -> frozenset[Decimal]:
    """What the broker's amount less ours may be; empty if nothing can be said of it yet."""
    paths = (len(booked.moves) + 1) * (len(booked.entries) + 1)
    if booked.waiting or paths > CANDIDATES_MAX:
        return frozenset()
    return frozenset(
        _counted(broker - moved - entered, booked.fee_awaited, step)
        for moved in accumulate(booked.moves, initial=booked.amount)
        for entered in accumulate(booked.entries, initial=_ZERO)
    )


def follow(before: Look | None, seen: frozenset[Decimal]) -> Look:
    """The look after `before`: what both have in common, or a new doubt."""
    common = seen if before is None else before.differences & seen
    if before is None or not common:
        return Look(seen)
    if _ZERO in seen and _ZERO not in common:
        return Look(common, 0)  # by itself this look says that all is well
    return Look(common, before.looks + 1)


def beyond(difference: Decimal, tolerance: Decimal) -> bool:
    """Is it more than what was configured to be let pass?"""
    return abs(difference) > tolerance


def symbol_key(symbol: str) -> str:
    """One name for BTC/USD and BTCUSD: orders say the one, positions the other (story 20)."""
    return symbol.replace("/", "")


def one_name(symbols: Iterable[str]) -> dict[str, str]:
    """`symbol_key` → the name to show, that with a slash where there are both."""
    return {symbol_key(symbol): symbol for symbol in sorted(symbols, key=lambda s: ("/" in s, s))}


def _counted(difference: Decimal, fee_awaited: Decimal, step: Decimal) -> Decimal:
    if abs(difference) < step or -fee_awaited <= difference < 0:
        return _ZERO
    return difference.normalize()
