"""The exposure book: all that may be live in an account, and what each new approval adds to it.

    storage/facts ─▶ Exposure ─▶ ExposureBook ── reservations(order) ─▶ evaluate
                                      ▲── take(order, …) ◀── approved ──┘

One book serves one batch of decisions: each is judged on everything that was approved before it,
so that limits hold when decisions race (P7). Pure arithmetic; nothing in here asks anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from torghut.domain.exposure import OrderCounts, Reservations, RestingOrder
from torghut.domain.orders import OrderRequest, OrderType, Side

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class SymbolExposure:
    """Signed position by our books (fills not booked included) and open shares by side."""

    ledger_qty: Decimal = ZERO
    buy_qty: Decimal = ZERO
    sell_qty: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """An order that was sent: what a duplicate of it would look like."""

    symbol: str
    side: str
    qty: Decimal | None
    notional: Decimal | None
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """All that may be live in an account (P7), and what it did lately.

    `by_strategy` is by (strategy, symbol); `notional` is the buying power that the account's
    snapshot knows nothing of; `strategy_counts`, `rate_denials` are by strategy. What no limit
    needs is left empty by the reader.
    """

    by_symbol: Mapping[str, SymbolExposure] = field(default_factory=dict)
    by_strategy: Mapping[tuple[str, str], SymbolExposure] = field(default_factory=dict)
    reference_px: Mapping[str, Decimal] = field(default_factory=dict)
    notional: Decimal = ZERO
    strategy_counts: Mapping[str, OrderCounts] = field(default_factory=dict)
    rate_denials: Mapping[str, int] = field(default_factory=dict)
    rejects_in_a_row: int = 0
    open_discrepancies: int = 0
    twins: tuple[Twin, ...] = ()
    resting: Mapping[str, tuple[tuple[str, RestingOrder], ...]] = field(default_factory=dict)
    last_fill_at: Mapping[str, datetime] = field(default_factory=dict)


_FLAT = SymbolExposure()
_NO_ORDERS = OrderCounts()


class ExposureBook:
    """`held`: positions by the broker, None if they are not known; `marks`: prices by symbol."""

    def __init__(
        self,
        exposure: Exposure,
        held: Mapping[str, Decimal] | None,
        marks: Mapping[str, Decimal],
    ) -> None:
        self._held = held
        self._marks = dict(exposure.reference_px)
        for symbol, price in marks.items():
            self._marks[symbol] = max(price, self._marks.get(symbol, price))
        self._symbols = dict(exposure.by_symbol)
        self._strategies = dict(exposure.by_strategy)
        self._notional = exposure.notional
        self._own = dict(exposure.strategy_counts)
        self._all = _total(exposure.strategy_counts)
        self._denials = dict(exposure.rate_denials)
        self._rejects = exposure.rejects_in_a_row
        self._twins = list(exposure.twins)
        self._resting = dict(exposure.resting)

    def broker_qty(self, symbol: str) -> Decimal | None:
        """Signed position at the broker; crypto is named there without the slash (story 20)."""
        if self._held is None:
            return None
        return self._held.get(symbol, self._held.get(symbol.replace("/", ""), ZERO))

    def ledger_qty(self, symbol: str) -> Decimal:
        """Signed position by our books."""
        return self._symbols.get(symbol, _FLAT).ledger_qty

    def reservations(
        self, order: OrderRequest, strategy: str, *, counted_today: bool, whole_account: bool
    ) -> Reservations:
        """What else may be live when `order` is judged.

        `counted_today`: the decision was sent before and is in today's count already.
        `whole_account`: a limit needs the worth of the other symbols.
        """
        here = self._symbols.get(order.symbol, _FLAT)
        mine = self._strategies.get((strategy, order.symbol), _FLAT)
        own = self._own.get(strategy, _NO_ORDERS)
        gross, high, low, others = self._others(order.symbol, strategy) if whole_account else _NONE
        return Reservations(
            buy_qty=here.buy_qty,
            sell_qty=here.sell_qty,
            mark_px=self._mark(order.symbol),
            notional=self._notional,
            others_gross=gross,
            others_net_high=high,
            others_net_low=low,
            strategy_qty=mine.ledger_qty,
            strategy_buy_qty=mine.buy_qty,
            strategy_sell_qty=mine.sell_qty,
            strategy_others=others,
            counts=_less_today(self._all, counted_today),
            strategy_counts=_less_today(own, counted_today),
            rate_denials=self._denials.get(strategy, 0),
            rejects_in_a_row=self._rejects,
            twin_at=self._twin_at(order),
            resting=tuple(
                resting
                for side, resting in self._resting.get(order.symbol, ())
                if side != order.side.value
            ),
        )

    def take(
        self,
        order: OrderRequest,
        strategy: str,
        *,
        size: Decimal | None,
        notional: Decimal | None,
        reference_px: Decimal | None,
        counted_today: bool,
        now: datetime,
    ) -> None:
        """Count an approved order: what the next decision of the batch is judged on."""
        size = size or ZERO
        self._symbols[order.symbol] = _with(self._symbols.get(order.symbol), order.side, size)
        key = (strategy, order.symbol)
        self._strategies[key] = _with(self._strategies.get(key), order.side, size)
        self._notional += notional or ZERO
        self._all = _one_more(self._all, counted_today)
        self._own[strategy] = _one_more(self._own.get(strategy, _NO_ORDERS), counted_today)
        if reference_px is not None:
            known = self._marks.get(order.symbol, reference_px)
            self._marks[order.symbol] = max(reference_px, known)
        self._twins.append(
            Twin(
                symbol=order.symbol,
                side=order.side.value,
                qty=order.qty,
                notional=order.notional,
                sent_at=now,
            )
        )
        if order.order_type is not OrderType.MARKET:
            resting = RestingOrder(
                side=order.side.value, limit_px=order.limit_price, stop_px=order.stop_price
            )
            before = self._resting.get(order.symbol, ())
            self._resting[order.symbol] = (*before, (order.side.value, resting))

    def release(
        self, order: OrderRequest, strategy: str, *, qty: Decimal, notional: Decimal
    ) -> None:
        """Take out an order that is to be replaced: `qty` shares of it are open."""
        here = self._symbols.get(order.symbol, _FLAT)
        self._symbols[order.symbol] = _with(here, order.side, -_reserved(here, order.side, qty))
        key = (strategy, order.symbol)
        mine = self._strategies.get(key, _FLAT)
        self._strategies[key] = _with(mine, order.side, -_reserved(mine, order.side, qty))
        self._notional = max(ZERO, self._notional - notional)
        self._all = _one_fewer(self._all)
        self._own[strategy] = _one_fewer(self._own.get(strategy, _NO_ORDERS))

    def deny_for_rate(self, strategy: str) -> None:
        """Count a denial for order_rate."""
        self._denials[strategy] = self._denials.get(strategy, 0) + 1

    def _twin_at(self, order: OrderRequest) -> datetime | None:
        return max(
            (
                twin.sent_at
                for twin in self._twins
                if (twin.symbol, twin.side, twin.qty, twin.notional)
                == (order.symbol, order.side.value, order.qty, order.notional)
            ),
            default=None,
        )

    def _others(self, symbol: str, strategy: str) -> tuple[Decimal | None, ...]:
        """Gross, net high, net low of the other symbols, gross of the strategy's others."""
        totals: list[Decimal | None] = [ZERO, ZERO, ZERO, ZERO]
        names = {name.replace("/", ""): name for name in self._symbols}
        held = self._held or {}
        for name in {*self._symbols, *(names.get(name, name) for name in held)} - {symbol}:
            if name.replace("/", "") != symbol.replace("/", ""):
                self._add(totals, name, *self._ends(name))
        for (owner, name), part in self._strategies.items():
            if owner == strategy and name != symbol:
                high = max(ZERO, part.ledger_qty + part.buy_qty)
                low = max(ZERO, part.sell_qty - part.ledger_qty)
                totals[3] = _add(totals[3], max(high, low), self._mark(name))
        return tuple(totals)

    def _ends(self, name: str) -> tuple[Decimal, Decimal]:
        """(highest, lowest) signed position that all in flight may lead to."""
        part = self._symbols.get(name, _FLAT)
        broker = self.broker_qty(name)
        broker = part.ledger_qty if broker is None else broker
        return (
            max(part.ledger_qty, broker) + part.buy_qty,
            min(part.ledger_qty, broker) - part.sell_qty,
        )

    def _mark(self, name: str) -> Decimal | None:
        prices = [self._marks[n] for n in {name, name.replace("/", "")} if n in self._marks]
        return max(prices, default=None)

    def _add(self, totals: list[Decimal | None], name: str, high: Decimal, low: Decimal) -> None:
        mark = self._mark(name)
        totals[0] = _add(totals[0], max(high, -low, ZERO), mark)
        totals[1] = _add(totals[1], high, mark)
        totals[2] = _add(totals[2], low, mark)


_NONE: tuple[Decimal | None, ...] = (None, None, None, None)


def _add(total: Decimal | None, qty: Decimal, mark: Decimal | None) -> Decimal | None:
    if not qty:
        return total
    return None if total is None or mark is None else total + qty * mark


def _with(part: SymbolExposure | None, side: Side, size: Decimal) -> SymbolExposure:
    part = part or _FLAT
    if side is Side.BUY:
        return replace(part, buy_qty=part.buy_qty + size)
    return replace(part, sell_qty=part.sell_qty + size)


def _one_more(counts: OrderCounts, counted_today: bool) -> OrderCounts:
    return OrderCounts(
        open_orders=counts.open_orders + 1,
        last_second=counts.last_second + 1,
        last_minute=counts.last_minute + 1,
        today=counts.today + (0 if counted_today else 1),
    )


def _one_fewer(counts: OrderCounts) -> OrderCounts:
    return replace(counts, open_orders=max(0, counts.open_orders - 1))


def _reserved(part: SymbolExposure, side: Side, qty: Decimal) -> Decimal:
    return min(qty, part.buy_qty if side is Side.BUY else part.sell_qty)


def _less_today(counts: OrderCounts, counted_today: bool) -> OrderCounts:
    return replace(counts, today=max(0, counts.today - 1)) if counted_today else counts


def _total(by_strategy: Mapping[str, OrderCounts]) -> OrderCounts:
    every = by_strategy.values()
    return OrderCounts(
        open_orders=sum(counts.open_orders for counts in every),
        last_second=sum(counts.last_second for counts in every),
        last_minute=sum(counts.last_minute for counts in every),
        today=sum(counts.today for counts in every),
    )
