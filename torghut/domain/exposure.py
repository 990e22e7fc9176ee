"""Facts and exposure: what risk is judged on, and the arithmetic of "everything that may be live".

`Facts` are what is known of the outside, `Reservations` what other decisions may still turn into.
The functions take the worse case throughout: the worse of our ledger and the broker's snapshot,
and everything in flight on the same side as filled (P7).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Decimal
from enum import StrEnum

from torghut.domain.orders import OrderRequest, OrderType, Side
from torghut.domain.values import canonical_amount

SHARE_STEP = Decimal("1e-9")


class TradingState(StrEnum):
    """What an account may do; the strictest of the scopes that apply is in force."""

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """The broker's account at `observed_at`, currency units."""

    equity: Decimal | None
    last_equity: Decimal | None
    buying_power: Decimal | None
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
                "equity": amount_text(account.equity),
                "last_equity": amount_text(account.last_equity),
                "buying_power": amount_text(account.buying_power),
                "blocked": account.blocked,
                "observed_at": account.observed_at.isoformat(),
            },
            "bid_px": amount_text(self.bid_px),
            "ask_px": amount_text(self.ask_px),
            "quoted_at": self.quoted_at.isoformat() if self.quoted_at else None,
            "broker_qty": amount_text(self.broker_qty),
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


def reference_px(request: OrderRequest, facts: Facts) -> Decimal | None:
    """The worst price that bounds the cost: a buy's limit, else the far side of the quote.

    The limit of a sell is the least it may bring, and bounds nothing from above.
    """
    if request.limit_price is not None and request.side is Side.BUY:
        return request.limit_price
    if request.side is Side.BUY:
        far, near = facts.ask_px, facts.bid_px
    else:
        far, near = facts.bid_px, facts.ask_px
    price = far if far is not None else near
    if price is not None and request.limit_price is not None:
        return max(price, request.limit_price)
    if price is not None and request.order_type is OrderType.STOP and request.stop_price:
        return max(price, request.stop_price)
    return price


def size_qty(request: OrderRequest, price: Decimal | None) -> Decimal | None:
    """Shares; a notional order's at the reference price, rounded up to 9 decimals."""
    if request.qty is not None:
        return request.qty
    if price is None or not price:
        return None
    assert request.notional is not None
    return (request.notional / price).quantize(SHARE_STEP, rounding=ROUND_UP)


def bounds(facts: Facts) -> tuple[Decimal, Decimal]:
    """(lowest, highest) position that the two books allow for."""
    broker = facts.ledger_qty if facts.broker_qty is None else facts.broker_qty
    return min(facts.ledger_qty, broker), max(facts.ledger_qty, broker)


def position_after(
    side: Side, size: Decimal | None, facts: Facts, reservations: Reservations
) -> Decimal | None:
    """Shares, unsigned, in the order's direction if all that may be live is filled with it."""
    if size is None or facts.broker_qty is None:
        return None
    low, high = bounds(facts)
    if side is Side.BUY:
        return max(Decimal(0), high + reservations.buy_qty + size)
    return max(Decimal(0), reservations.sell_qty + size - low)


def opening_qty(
    side: Side, size: Decimal | None, facts: Facts, reservations: Reservations
) -> Decimal | None:
    """The part of the order that opens or adds to a position, worst case."""
    after = position_after(side, size, facts, reservations)
    return None if after is None or size is None else min(size, after)


def reduces(side: Side, size: Decimal, facts: Facts, reservations: Reservations) -> bool:
    """True if the order cannot leave more than there is, with everything in flight counted."""
    return opening_qty(side, size, facts, reservations) == 0


def amount_text(amount: Decimal | None) -> str | None:
    """Canonical text of an amount, None for a missing one."""
    return None if amount is None else canonical_amount(amount)
