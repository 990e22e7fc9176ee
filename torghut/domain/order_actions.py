"""Actions on standing orders: cancel and replace, by the protocol of a submission. Pure.

```
 requested ──▶ done       (nothing stood at the broker: the decision is called off)
     │  ▲ └──▶ refused    (us: risk, trading state)    └──▶ moot (there is nothing to act on)
     ▼  │ surely not taken, or to be asked for again
 sending ────▶ confirming (cancel: the broker has taken it, and the order is not seen ended yet)
     │            │
     ├────────────┼──▶ done | refused | moot
     ▼            ▼
 in_doubt ───▶ done | refused | moot | confirming | requested
```

Read a row as: power failed right after this status was committed — what does the next start see?

- requested: nothing left the machine in this attempt; taken up again by the normal path.
- sending: the call may or may not have left. Whoever owns the account next moves it to in_doubt.
- confirming: the order is looked at until it has ended; asked for again if it does not.
- in_doubt: the order is looked at, and a replacement's client_order_id asked for, until the answer
  is definite.

What an order looks like decides, not the answer to the call: the same 422 stands for an order that
was filled meanwhile and for one that cannot be canceled yet (story 8), and orders have been
replaced behind an error (stories 12, 26). A cancel may be asked for again at any time. A
replacement may be sent again only with the client_order_id it was first sent with, and only at
the order it was first sent to: each of the two alone makes a second one impossible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from torghut.domain.errors import Fault
from torghut.domain.orders import (
    OrderClass,
    OrderRequest,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
    read_field,
)
from torghut.domain.submission import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    LOOKUP_CAP_S,
    LOOKUP_FIRST_S,
    MISSES_FOR_ABSENCE,
    Proof,
    backoff,
)
from torghut.domain.values import canonical_amount, parse_amount

REFUSALS_MAX = 5
LOOKS_BEFORE_ASKING_AGAIN = 6


class Operation(StrEnum):
    """What is done to an order."""

    CANCEL = "cancel"
    REPLACE = "replace"


class ActionStatus(StrEnum):
    """Where an action stands."""

    REQUESTED = "requested"
    SENDING = "sending"
    CONFIRMING = "confirming"
    IN_DOUBT = "in_doubt"
    DONE = "done"
    REFUSED = "refused"
    MOOT = "moot"


S = ActionStatus

ACTION_TRANSITIONS: dict[ActionStatus, frozenset[ActionStatus]] = {
    S.REQUESTED: frozenset({S.SENDING, S.DONE, S.REFUSED, S.MOOT}),
    S.SENDING: frozenset({S.REQUESTED, S.CONFIRMING, S.IN_DOUBT, S.DONE, S.REFUSED, S.MOOT}),
    S.CONFIRMING: frozenset({S.REQUESTED, S.DONE, S.REFUSED, S.MOOT}),
    S.IN_DOUBT: frozenset({S.REQUESTED, S.CONFIRMING, S.DONE, S.REFUSED, S.MOOT}),
    S.DONE: frozenset(),
    S.REFUSED: frozenset(),
    S.MOOT: frozenset(),
}

ACTION_ENDED = frozenset(status for status, after in ACTION_TRANSITIONS.items() if not after)


OPERATOR = "operator"
"""The strategy of closing decisions; risk judges them as if the account were reducing."""


class FlattenStatus(StrEnum):
    """Where a flattening stands; the steps: torghut/services/flattening.py."""

    REQUESTED = "requested"
    CANCELING = "canceling"
    CLOSING = "closing"
    DONE = "done"
    FAILED = "failed"


FLATTEN_ENDED = frozenset({FlattenStatus.DONE, FlattenStatus.FAILED})


class ActionReason(StrEnum):
    """Why an action entered its status; stored as `status_reason`."""

    WAITS_FOR_DECISION = "waits_for_decision"  # it is on its way to the broker, or in doubt
    WAITS_FOR_REPLACE = "waits_for_replace"  # another replacement of the order is not settled
    FACTS_AWAITED = "facts_awaited"
    CALLED_OFF = "called_off"  # the decision had not been sent
    ASKED_FOR = "asked_for"  # the broker took the cancel, and the order has not ended yet
    ORDER_CANCELED = "order_canceled"
    ORDER_REPLACED = "order_replaced"
    ORDER_ENDED = "order_ended"
    DECISION_ENDED = "decision_ended"  # without an order
    FOLLOWS_SUCCESSOR = "follows_successor"  # the order was replaced: its successor is canceled
    REPLACED_BY_OTHER = "replaced_by_other"
    STILL_OPEN = "still_open"
    REFUSED_BY_BROKER = "refused_by_broker"
    ORDER_UNKNOWN = "order_unknown"
    DENIED_BY_RISK = "denied_by_risk"
    NOT_REPLACEABLE = "not_replaceable"
    RATE_LIMITED = "rate_limited"
    NEVER_LEFT = "never_left"
    NO_DEFINITE_ANSWER = "no_definite_answer"
    OWNER_LOST = "owner_lost"


R = ActionReason


class Seen(StrEnum):
    """What the broker's answer to "how does the order stand?" comes to."""

    OPEN = "open"
    CHANGING = "changing"  # pending_cancel, pending_replace: the broker is at it
    CANCELED = "canceled"
    ENDED = "ended"  # filled, expired, rejected
    REPLACED = "replaced"
    UNKNOWN = "unknown"  # a definite "no such order"
    UNANSWERED = "unanswered"


def seen(status: str | None, *, answered: bool = True) -> Seen:
    """Class an order by its status, None if there is none; `answered` is False if asking failed."""
    if status is None:
        return Seen.UNKNOWN if answered else Seen.UNANSWERED
    match status:
        case "canceled":
            return Seen.CANCELED
        case "replaced":
            return Seen.REPLACED
        case "pending_cancel" | "pending_replace":
            return Seen.CHANGING
    return Seen.ENDED if OrderStatus.is_terminal(status) else Seen.OPEN


@dataclass(frozen=True, slots=True)
class ActionStep:
    """The next status of an action, why, and when it may be taken up again.

    `missed` counts a definite "no such order".
    """

    status: ActionStatus
    reason: ActionReason
    wait_s: float = 0.0
    missed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDoubt:
    """What an action has been through since its last call, this look not yet counted."""

    status: ActionStatus
    since: datetime | None
    attempts: int
    looks: int
    misses: int
    refused: bool = False  # the last call was refused; only the look after it failed


def after_cancel(
    proof: Proof | None, order: Seen, past: ActionDoubt, *, wait_s: float = 0.0, graced: bool
) -> ActionStep:
    """The step of a cancel after its call (`proof`) or a later look (None), and how the order was
    seen then. `wait_s` is how long a rate limit lasts, `graced` whether absence may be believed.
    """
    match order:
        case Seen.CANCELED:
            return ActionStep(S.DONE, R.ORDER_CANCELED)
        case Seen.ENDED:
            return ActionStep(S.MOOT, R.ORDER_ENDED)
        case Seen.REPLACED:
            return ActionStep(S.REQUESTED, R.FOLLOWS_SUCCESSOR, LOOKUP_FIRST_S)
    again_s = backoff(past.attempts, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
    look_s = backoff(past.looks + 1, first_s=LOOKUP_FIRST_S, cap_s=LOOKUP_CAP_S)
    match proof:
        case Proof.RATE_LIMITED:
            return ActionStep(S.REQUESTED, R.RATE_LIMITED, wait_s)
        case Proof.NEVER_LEFT | Proof.NOT_SENT:
            return ActionStep(S.REQUESTED, R.NEVER_LEFT, again_s)
        case Proof.ACCEPTED:
            return ActionStep(S.CONFIRMING, R.ASKED_FOR, LOOKUP_FIRST_S)
        case Proof.IN_DOUBT:
            return ActionStep(S.IN_DOUBT, R.NO_DEFINITE_ANSWER, LOOKUP_FIRST_S)
        case Proof.REFUSED | Proof.ACCOUNT_REFUSED if order is Seen.OPEN:
            if past.attempts >= REFUSALS_MAX:
                return ActionStep(S.REFUSED, R.REFUSED_BY_BROKER)
            return ActionStep(S.REQUESTED, R.REFUSED_BY_BROKER, again_s)
        case Proof():
            return ActionStep(S.IN_DOUBT, R.NO_DEFINITE_ANSWER, LOOKUP_FIRST_S)
    return _after_look(order, past, look_s, graced)


def _after_look(order: Seen, past: ActionDoubt, look_s: float, graced: bool) -> ActionStep:
    reason = R.ASKED_FOR if past.status is S.CONFIRMING else R.NO_DEFINITE_ANSWER
    stays = ActionStep(past.status, reason, look_s, missed=order is Seen.UNKNOWN)
    match order:
        case Seen.CHANGING:
            return ActionStep(S.CONFIRMING, R.ASKED_FOR, look_s)
        case Seen.OPEN if past.status is S.IN_DOUBT:
            return ActionStep(S.REQUESTED, R.STILL_OPEN)
        case Seen.OPEN if past.looks + 1 >= LOOKS_BEFORE_ASKING_AGAIN:
            return ActionStep(S.REQUESTED, R.STILL_OPEN)
        case Seen.UNKNOWN if graced and past.misses + 1 >= MISSES_FOR_ABSENCE:
            return ActionStep(S.REFUSED, R.ORDER_UNKNOWN)
    return stays


def after_replace(
    proof: Proof | None,
    successor: Proof | None,
    order: Seen,
    past: ActionDoubt,
    *,
    wait_s: float = 0.0,
    graced: bool,
) -> ActionStep:
    """The step of a replacement after its call (`proof`) or a later look (None).

    `successor` is what asking for the new client_order_id came to (None: not asked), `order` how
    the old order was seen. Found is done, whatever else was said.
    """
    if successor is Proof.FOUND or proof is Proof.ACCEPTED:
        return ActionStep(S.DONE, R.ORDER_REPLACED)
    again_s = backoff(past.attempts, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
    match proof:
        case Proof.RATE_LIMITED:
            return ActionStep(S.REQUESTED, R.RATE_LIMITED, wait_s)
        case Proof.NEVER_LEFT | Proof.NOT_SENT:
            return ActionStep(S.REQUESTED, R.NEVER_LEFT, again_s)
    if order in (Seen.CANCELED, Seen.ENDED):
        return ActionStep(S.MOOT, R.ORDER_ENDED)  # an order that has ended is never replaced
    look_s = backoff(past.looks + 1, first_s=LOOKUP_FIRST_S, cap_s=LOOKUP_CAP_S)
    missed = successor is Proof.ABSENT
    doubt = ActionStep(S.IN_DOUBT, R.NO_DEFINITE_ANSWER, look_s, missed=missed)
    enough = missed and graced and past.misses + 1 >= MISSES_FOR_ABSENCE
    if order is Seen.REPLACED:
        return ActionStep(S.MOOT, R.REPLACED_BY_OTHER) if enough else doubt
    if not missed or order is not Seen.OPEN:
        return doubt
    if past.refused or proof in (Proof.REFUSED, Proof.ACCOUNT_REFUSED):
        return ActionStep(S.REFUSED, R.REFUSED_BY_BROKER)
    return ActionStep(S.REQUESTED, R.STILL_OPEN) if enough else doubt


def graced(past: ActionDoubt, now: datetime, *, absence_grace_s: float) -> bool:
    """True if enough time has passed since the doubt began to believe in absence."""
    return past.since is not None and now - past.since >= timedelta(seconds=absence_grace_s)


# ---------------------------------------------------------------- what a replacement changes

CHANGE_FIELDS = frozenset({"qty", "limit_price", "stop_price", "trail", "time_in_force"})
PRICE_FIELDS = frozenset({"limit_price", "stop_price"})
_OF_TYPE: Mapping[str, frozenset[OrderType]] = {
    "limit_price": frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT}),
    "stop_price": frozenset({OrderType.STOP, OrderType.STOP_LIMIT}),
    "trail": frozenset({OrderType.TRAILING_STOP}),
}


def parse_changes(
    data: Mapping[str, object], order: OrderRequest, faults: list[Fault]
) -> dict[str, object]:
    """The new values of a replacement, canonical; appends every fault found."""
    if order.notional is not None:
        faults.append(Fault("qty", "a notional order cannot be replaced; cancel it"))
    if order.order_class is OrderClass.OTO:
        faults.append(Fault("order_class", "an oto order cannot be replaced; cancel it"))
    elif order.order_class is not OrderClass.SIMPLE:
        faults.extend(
            Fault(name, f"only prices of {order.order_class} orders can be replaced")
            for name in sorted(CHANGE_FIELDS - PRICE_FIELDS)
            if data.get(name) is not None
        )
    changes: dict[str, object] = {}
    for name in sorted(CHANGE_FIELDS - {"time_in_force"}):
        amount = read_field(data, name, parse_amount, faults)
        if amount is None:
            continue
        if amount <= 0:
            faults.append(Fault(name, f"must be greater than 0, not {canonical_amount(amount)}"))
        if order.order_type not in _OF_TYPE.get(name, frozenset(OrderType)):
            faults.append(Fault(name, f"does not belong to a {order.order_type} order"))
        changes[name] = canonical_amount(amount)
    tif = data.get("time_in_force")
    if tif is not None:
        if isinstance(tif, str) and tif in set(TimeInForce):
            changes["time_in_force"] = tif
        else:
            faults.append(Fault("time_in_force", "must be one of " + ", ".join(TimeInForce)))
    if not changes and not faults:
        faults.append(Fault("", "changes nothing; give one of " + ", ".join(sorted(CHANGE_FIELDS))))
    return changes


def changed(order: OrderRequest, changes: Mapping[str, object]) -> OrderRequest:
    """`order` with the changes of a replacement applied."""
    amounts = {
        name: Decimal(str(changes[name]))
        for name in ("qty", "limit_price", "stop_price")
        if name in changes
    }
    wanted = replace(order, **amounts)  # type: ignore[arg-type]
    if "time_in_force" in changes:
        wanted = replace(wanted, time_in_force=TimeInForce(str(changes["time_in_force"])))
    if "trail" in changes:
        trail = Decimal(str(changes["trail"]))
        if order.trail_percent is not None:
            wanted = replace(wanted, trail_percent=trail)
        else:
            wanted = replace(wanted, trail_price=trail)
    return wanted


def enlarges(before: OrderRequest, after: OrderRequest) -> bool:
    """True unless `after` surely risks no more than `before`: not more shares, not a worse limit,
    the same stop and trail."""
    assert before.qty is not None and after.qty is not None
    if after.qty > before.qty or before.stop_price != after.stop_price:
        return True
    if (before.trail_price, before.trail_percent) != (after.trail_price, after.trail_percent):
        return True
    if before.limit_price is None or after.limit_price is None:
        return before.limit_price != after.limit_price
    if before.side is Side.BUY:
        return after.limit_price > before.limit_price
    return after.limit_price < before.limit_price


def replacement_id(decision_hash: str, number: int) -> str:
    """client_order_id of the order that a decision's n-th replacement makes."""
    return f"{decision_hash}-r{number}"
