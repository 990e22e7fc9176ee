"""Facts and reservations: what risk is judged on, and the arithmetic of "all that may be live".

`Facts` are what is known of the outside, `Reservations` what other decisions may still turn into;
both are stored with the verdict (storage/verdicts), so that it can be judged again. The functions
take the worse case throughout: the worse of our ledger and the broker's snapshot, and everything
in flight on the same side as filled (P7).
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
    """The broker's account at `observed_at`, currency units.

    `peak_equity` is the highest since a person last resumed the account.
    """

    equity: Decimal | None
    last_equity: Decimal | None
    buying_power: Decimal | None
    blocked: bool
    observed_at: datetime
    shorting_enabled: bool | None = None
    peak_equity: Decimal | None = None
    account_number: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFacts:
    """What the broker says of an asset. `listed`: False if it knows no such asset, None if this
    broker keeps no list of assets at all; then nothing is known of it, and nothing is checked.
    `pair`: the broker's name of a pair that was asked for under another one (BTCUSD)."""

    listed: bool | None
    tradable: bool = False
    fractionable: bool = False
    shortable: bool = False
    pair: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the outside world; None is missing, and missing denies."""

    state: TradingState
    state_reason: str
    account: AccountFacts | None
    live_account_number: str | None = None  # set in live mode: the account that is meant (P10)
    bid_px: Decimal | None = None
    ask_px: Decimal | None = None
    quoted_at: datetime | None = None
    asset: AssetFacts | None = None
    daily_volume: Decimal | None = None  # shares, average of the last sessions
    broker_qty: Decimal | None = None  # signed position at the broker; None: snapshot missing
    ledger_qty: Decimal = Decimal(0)  # signed position by our own books, fills not booked included
    last_fill_at: datetime | None = None  # newest fill in the symbol, None: none that matters
    session_open: bool | None = None  # None: the session is not asked about (policy `send`)
    open_discrepancies: int = 0
    by_person: bool = False  # a person's own order (close, flatten), not a strategy's


@dataclass(frozen=True, slots=True, kw_only=True)
class RestingOrder:
    """An own order of the same symbol that may stand at the broker, with what bounds its price."""

    side: str
    limit_px: Decimal | None
    stop_px: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCounts:
    """Orders of an account or of one strategy, the one under judgement not among them."""

    open_orders: int = 0
    last_second: int = 0
    last_minute: int = 0
    today: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservations:
    """What may still become a position or use buying power, without this decision's own row.

    `buy_qty`, `sell_qty`: shares of this symbol still open, submitting or in doubt.
    `notional`: buying power that the account snapshot does not know of yet.
    `others_*`: worth of all other symbols, worst case: gross, and the net's two ends; None where
    a price is missing. `strategy_*`: the same of this strategy alone, and its own position.
    `mark_px`: the highest price known of this symbol, of the market or of an order that is open.
    """

    buy_qty: Decimal = Decimal(0)
    sell_qty: Decimal = Decimal(0)
    mark_px: Decimal | None = None
    notional: Decimal = Decimal(0)
    others_gross: Decimal | None = Decimal(0)
    others_net_high: Decimal | None = Decimal(0)
    others_net_low: Decimal | None = Decimal(0)
    strategy_qty: Decimal = Decimal(0)
    strategy_buy_qty: Decimal = Decimal(0)
    strategy_sell_qty: Decimal = Decimal(0)
    strategy_others: Decimal | None = Decimal(0)
    counts: OrderCounts = OrderCounts()
    strategy_counts: OrderCounts = OrderCounts()
    rate_denials: int = 0  # of this strategy in the last minute
    rejects_in_a_row: int = 0
    twin_at: datetime | None = None  # newest order of the same symbol, side and size
    resting: tuple[RestingOrder, ...] = ()  # own orders of the symbol on the other side


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


def amount_text(amount: Decimal | None) -> str | None:
    """Canonical text of an amount, None for a missing one."""
    return None if amount is None else canonical_amount(amount)


def daily_loss(account: AccountFacts) -> Decimal | None:
    """Equity lost since the last close, realised and unrealised; below zero for a gain.

    None, too, where there was none at the last close: measured from nothing, no loss would show.
    """
    if account.equity is None or account.last_equity is None or account.last_equity <= 0:
        return None
    return account.last_equity - account.equity


def drawdown_pct(account: AccountFacts) -> Decimal | None:
    """Equity lost from its peak in percent of the peak."""
    if account.equity is None or account.peak_equity is None or account.peak_equity <= 0:
        return None
    return (account.peak_equity - account.equity) * 100 / account.peak_equity
