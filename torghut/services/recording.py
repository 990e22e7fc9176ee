"""Book a broker order that was found to be a decision's own; the same for every way it was found.

Called inside the transaction that advances the decision, by the executor (the answer to a POST),
the settler (a lookup) and the reconciler (the broker's lists).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.executions import order_differences
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.order_actions import changed
from torghut.domain.orders import Order, OrderRequest
from torghut.domain.submission import LOOKUP_CAP_S, Step
from torghut.ports import Page
from torghut.storage import discrepancies, executions, order_actions
from torghut.storage.database_faults import first_line
from torghut.storage.discrepancies import LEFT_OUT
from torghut.storage.executions import Observation, Recorded
from torghut.storage.rows import DecisionRow

CANNOT_BE_BOOKED = Step(DecisionStatus.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, wait_s=LOOKUP_CAP_S)

CANNOT_BE_STORED = (DataError, IntegrityError, ArithmeticError, ValueError)

TAKEN = "it is read and booked now"

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A broker order that is a decision's; `origin` and `source` say how it was learned of."""

    decision: DecisionRow
    order: Order
    origin: str
    source: str


def book_own_orders(tx: Connection, found: Sequence[Found], *, now: datetime) -> list[bool]:
    """Append the observations and fold them, and those of the legs, which are the decisions' as
    well; an order unlike the one asked for is a discrepancy. All are of one account.

    False where one cannot be stored at all: then that is a discrepancy, and nothing else was
    written for it.
    """
    if len(found) > 1:
        try:
            with tx.begin_nested():
                write_own_orders(tx, found, now=now)
            return [True] * len(found)
        except CANNOT_BE_STORED:
            pass  # one of them: each by itself
    return [_book_alone(tx, one, now) for one in found]


def _book_alone(tx: Connection, one: Found, now: datetime) -> bool:
    write = partial(write_own_orders, tx, [one], now=now)
    account, id_ = one.decision.account, one.order.broker_order_id
    return guarded(tx, account, id_, write, actor=one.origin, what="order", now=now)


def guarded(
    tx: Connection,
    account: str,
    subject: str,
    write: Callable[[], None],
    *,
    actor: str,
    what: str,
    now: datetime,
) -> bool:
    """Write in a savepoint; what cannot be stored becomes a discrepancy, the rest goes on."""
    try:
        with tx.begin_nested():
            write()
        return True
    except CANNOT_BE_STORED as error:
        log.warning("cannot be booked", what=what, subject=subject, error=first_line(error))
        evidence = {"error": first_line(error)[:500], "what": what}
        discrepancies.open_(
            tx, account, DiscrepancyKind.CANNOT_BE_BOOKED, subject, evidence, actor=actor, now=now
        )
        return False


def write_own_orders(tx: Connection, found: Sequence[Found], *, now: datetime) -> None:
    """As `book_own_orders`, raising for what cannot be stored."""
    if not found:
        return
    # the broker gave a leg its client_order_id: that it hangs on our order makes it ours
    family = [(one, order) for one in found for order in (one.order, *one.order.legs)]
    seen = [
        Observation(order, one.decision.decision_id, one.origin, one.source)
        for one, order in family
    ]
    recorded = executions.record(tx, found[0].decision.account, seen, now=now)
    for (one, order), booked in zip(family, recorded, strict=True):
        decision = one.decision
        # a leg is not compared: its price and side come from the order that it hangs on
        own = order.client_order_id.startswith(decision.decision_hash) or order.replaces is not None
        if order is one.order and own and (booked.created or booked.attached):
            note_differences(tx, decision, order, actor=one.origin, now=now)
        note_duplicate(tx, decision.account, order, booked, actor=one.origin, now=now)


def note_differences(
    tx: Connection, decision: DecisionRow, order: Order, *, actor: str, now: datetime
) -> None:
    """An order of a decision's that is not the one that was asked for is a discrepancy."""
    differences = order_differences(_asked_for(tx, decision, order), order)
    if not differences:
        return
    evidence: dict[str, object] = {
        "broker_order_id": order.broker_order_id,
        "differences": differences,
    }
    discrepancies.open_(
        tx,
        decision.account,
        DiscrepancyKind.ORDER_DIFFERS,
        decision.decision_hash,
        evidence,
        actor=actor,
        now=now,
    )


def _asked_for(tx: Connection, decision: DecisionRow, order: Order) -> OrderRequest:
    """The order as it was asked for: the decision's, or its recorded replacement.

    Of a successor that somebody else made nothing is known but what can never change.
    """
    if order.client_order_id == decision.decision_hash:
        return decision.order
    unknown = replace(decision.order, qty=None, notional=None, limit_price=None, stop_price=None)
    changes = order_actions.changes_of(tx, order.client_order_id)
    return unknown if changes is None else changed(unknown, changes)


def note_unreadable(
    tx: Connection, account: str, page: Page[T], *, what: str, actor: str, now: datetime
) -> None:
    """Rows of the broker's that could not be read are left out of the books, and said so (P12)."""
    for row in page.unreadable:
        subject, _, problem = row.partition(": ")
        evidence = {"what": what, "problem": problem}
        discrepancies.open_(
            tx, account, DiscrepancyKind.UNREADABLE_ROW, subject, evidence, actor=actor, now=now
        )


def note_taken(
    tx: Connection, account: str, subjects: Sequence[str], *, actor: str, now: datetime
) -> None:
    """What was left out of the books before is in them: its discrepancy ends."""
    discrepancies.end(tx, account, LEFT_OUT, subjects, resolution=TAKEN, actor=actor, now=now)


def note_duplicate(
    tx: Connection, account: str, order: Order, recorded: Recorded, *, actor: str, now: datetime
) -> None:
    """Two orders with one client_order_id: the assumption that P1 rests on is broken. Say so."""
    if recorded.duplicate_of is None:
        return
    evidence = {
        "client_order_id": order.client_order_id,
        "booked": recorded.duplicate_of,
        "second": order.broker_order_id,
        "status": order.status,
        "cum_qty": str(order.cum_qty),
    }
    discrepancies.open_(
        tx,
        account,
        DiscrepancyKind.DUPLICATE_ORDER,
        order.broker_order_id,
        evidence,
        actor=actor,
        now=now,
    )
