"""What sagas do about orders: have them canceled, undo what was filled, know what came of them.

Both go the one way to the broker: a cancel is an order action, what undoes a fill is a decision.
The identity of that decision is a pure function of the one it undoes and of its round, so that
after a crash the same call finds the decision that was stored, and stores no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import count

from sqlalchemy import Connection

from torghut.clock import Clock
from torghut.domain.decisions import Decision, parse_decision
from torghut.domain.order_actions import Operation
from torghut.domain.orders import Side
from torghut.domain.sagas import StepDelayed
from torghut.domain.sessions import is_crypto
from torghut.domain.values import canonical_amount, canonical_instant
from torghut.services import intake
from torghut.services.order_requests import Asker, record_actions
from torghut.storage import order_outcomes
from torghut.storage.order_actions import NewAction
from torghut.storage.order_outcomes import OrderOutcome, outcomes

UNDO_TTL = timedelta(hours=1)


class Undoing(StrEnum):
    """How far the undoing of a fill is."""

    DONE = "done"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """What was filled of one order, and what its decision is told apart by."""

    account: str
    strategy: str
    symbol: str
    side: Side
    event_ts: datetime
    intent: str
    correlation_id: str | None
    filled_qty: Decimal


def market_decision(leg: Leg, qty: Decimal, *, expires_at: datetime) -> Decision:
    """A market order of `qty` for what the leg names; a coin's stands until it is filled."""
    return parse_decision(
        {
            "strategy": leg.strategy,
            "symbol": leg.symbol,
            "side": leg.side.value,
            "type": "market",
            "qty": canonical_amount(qty),
            "time_in_force": "gtc" if is_crypto(leg.symbol) else "day",
            "event_ts": canonical_instant(leg.event_ts),
            "expires_at": canonical_instant(expires_at),
            "intent": leg.intent,
            "correlation_id": leg.correlation_id,
        },
        account=leg.account,
        ttl=UNDO_TTL,
    )


def cancel_open(
    tx: Connection,
    account: str,
    found: Sequence[OrderOutcome],
    *,
    key: str,
    actor: str,
    reason: str,
    now: datetime,
) -> int:
    """Ask for a cancel of every decision that is live and has none under way; how many. One that
    only waits for its fills has nothing to cancel, however long they take.

    `key` begins the request keys; asking again when a cancel was refused is a further request.
    """
    live = {one.decision_id: one for one in found if one.live}
    if not live:
        return 0
    under_way = order_outcomes.being_canceled(tx, list(live))
    actions = [
        NewAction(operation=Operation.CANCEL, decision_id=id_, target=one.decision_hash)
        for id_, one in live.items()
        if id_ not in under_way
    ]
    if not actions:
        return 0
    asked = order_outcomes.cancels_asked(tx, account, f"{key}-")
    request: dict[str, object] = {"operation": "cancel", "saga": key}
    asker = Asker(actor, reason, f"{key}-{asked}", now)
    return record_actions(tx, account, actions, request, asker)


def undo(tx: Connection, leg: Leg, *, rounds: int, source: str, clock: Clock) -> Undoing:
    """The opposite of what was filled, in one order after the other until all of it is undone.

    A round that was not filled wholly is followed by another one, if there may be as many as
    `rounds`; else raises StepDelayed: a pause first.
    """
    left, last = leg.filled_qty, None
    for number in count(1):
        if left <= 0:
            return Undoing.DONE
        decision = _opposite(leg, left, number, now=clock())
        found = outcomes(tx, [decision.decision_hash]).get(decision.decision_hash)
        if found is None:
            if number > rounds:
                why = "" if last is None else f": {last.status} {last.reason or ''}".rstrip()
                raise StepDelayed(f"{canonical_amount(left)} {leg.symbol} are not undone{why}")
            intake.store(tx, [decision], source=source, clock=clock)
            return Undoing.WAITING
        if not found.settled:
            return Undoing.WAITING
        left, last = left - found.filled_qty, found
    raise AssertionError("unreachable")


def _opposite(leg: Leg, qty: Decimal, number: int, *, now: datetime) -> Decision:
    against = Leg(
        account=leg.account,
        strategy=leg.strategy,
        symbol=leg.symbol,
        side=Side.SELL if leg.side is Side.BUY else Side.BUY,
        event_ts=leg.event_ts,
        intent=f"undo-{number}:{leg.intent}"[:256],
        correlation_id=leg.correlation_id,
        filled_qty=Decimal(0),
    )
    return market_decision(against, qty, expires_at=now + UNDO_TTL)
