"""How large the trades of a plan are: items out of targets, a budget out of fills, shares out of
amounts. Each is found once and stored in the transaction that acts on it: nothing is sized twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, Decimal

from sqlalchemy import Connection

from torghut.domain.events import Event, EventKind
from torghut.domain.orders import Side
from torghut.domain.plans import (
    FRACTION,
    ZERO,
    ItemReason,
    ItemStatus,
    PlanItem,
    funded,
    item_of_target,
    own_cash,
    shares,
)
from torghut.domain.sagas import StepDelayed, StepFailed
from torghut.domain.values import canonical_amount
from torghut.ports import Quote
from torghut.services.outside_facts import OutsideFacts
from torghut.services.positions import Holding
from torghut.storage import control, plans
from torghut.storage.plans import ItemRow, PlanRow
from torghut.storage.rows import AccountSnapshot

ACTOR = "plans"


@dataclass(slots=True)
class Held:
    """What may still be sold, or covered, while the items of a phase are sized one by one."""

    holdings: Mapping[str, Holding]
    taken: dict[str, Decimal]

    def free(self, item: ItemRow) -> Decimal:
        """Shares that the item may close at the most."""
        held = self.holdings.get(item.symbol)
        if held is None or (held.qty > 0) != (item.phase is Side.SELL):
            return ZERO
        return max(ZERO, held.free_qty - self.taken.get(item.symbol, ZERO))

    def take(self, item: ItemRow, qty: Decimal) -> None:
        """The item closes as many."""
        self.taken[item.symbol] = self.taken.get(item.symbol, ZERO) + qty


def price(quotes: Mapping[str, Quote], symbol: str, side: Side) -> Decimal | None:
    """What a share is bought or sold at now: the far side of the quote."""
    quote = quotes.get(symbol)
    if quote is None:
        return None
    return quote.ask_px if side is Side.BUY else quote.bid_px


def targets_as_items(
    plan: PlanRow,
    outside: OutsideFacts,
    holdings: Mapping[str, Holding],
    snapshot: AccountSnapshot | None,
    now: datetime,
) -> list[PlanItem]:
    """The trades that bring the holdings to the plan's weights. Raises StepDelayed, StepFailed."""
    if snapshot is None or snapshot.equity is None:
        raise StepDelayed("the broker did not say what the account is worth")
    if snapshot.equity <= 0:
        raise StepFailed(f"the account's equity is {canonical_amount(snapshot.equity)}")
    quotes = outside.quotes(list(plan.targets), now)
    items = []
    for symbol, weight in plan.targets.items():
        bid = price(quotes, symbol, Side.SELL)
        if bid is None:
            raise StepDelayed(f"there is no quote for {symbol}")
        held = holdings.get(symbol)
        item = item_of_target(
            symbol,
            weight,
            equity=snapshot.equity,
            held_qty=ZERO if held is None else held.qty,
            px=bid,
        )
        if item is not None:
            items.append(item)
    return items


def fund_buys(tx: Connection, plan: PlanRow, now: datetime) -> None:
    """The budget: what the settled sells brought by their booked fills, and the plan's own cash."""
    if plan.budget is not None:
        return
    all_items = [
        item for item in plans.items(tx, plan.plan_id) if item.trade_amount >= plan.minimum
    ]
    proceeds = sum((i.filled_value for i in all_items if i.phase is Side.SELL), ZERO)
    proceeds = proceeds.quantize(FRACTION, ROUND_DOWN)
    wanted = [PlanItem(i.symbol, i.phase, i.trade_amount) for i in all_items]
    cash = own_cash(wanted) if plan.cash is None else plan.cash
    buys = [i for i in all_items if i.phase is Side.BUY and i.status is ItemStatus.PENDING]
    parts = funded([item.trade_amount for item in buys], proceeds + cash)
    plans.fund(
        tx,
        plan.plan_id,
        proceeds=proceeds,
        budget=proceeds + cash,
        parts={item.position: part for item, part in zip(buys, parts, strict=True)},
        now=now,
    )
    told: dict[str, object] = {
        "plan_id": plan.plan_id,
        "correlation_id": plan.correlation_id,
        "proceeds": canonical_amount(proceeds),
        "budget": canonical_amount(proceeds + cash),
    }
    event = Event(EventKind.PLAN_FUNDED, ACTOR, plan.account, None, told)
    control.add_events(tx, [event], now=now)


def size(
    plan: PlanRow, item: ItemRow, px: Decimal | None, held: Held
) -> Decimal | tuple[ItemStatus, ItemReason]:
    """Shares to order, or why there is nothing to."""
    if item.trade_amount < plan.minimum:
        return ItemStatus.SKIPPED, ItemReason.MICRO_ORDER
    if px is None or px <= 0:
        return ItemStatus.FAILED, ItemReason.NO_QUOTE
    amount = item.trade_amount
    if item.phase is Side.BUY:
        amount = item.funded_amount or ZERO
        if not amount or amount < plan.minimum:
            return ItemStatus.SKIPPED, ItemReason.NOT_FUNDED
    qty = shares(amount, px, plan.sizing, item.symbol)
    if item.whole and amount >= item.trade_amount:
        qty = held.free(item)
    elif item.phase is Side.SELL:
        qty = min(qty, shares(held.free(item), Decimal(1), plan.sizing, item.symbol))
    if item.phase is Side.SELL and not held.free(item):
        return ItemStatus.SKIPPED, ItemReason.NO_POSITION
    if qty <= 0:
        return ItemStatus.SKIPPED, ItemReason.NO_WHOLE_SHARE
    held.take(item, qty)
    return qty
