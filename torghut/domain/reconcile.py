"""What the broker's orders teach our books: `diff(broker, local) → corrections`, pure.

Invariants, by which a correction is chosen for each broker order:

R1  Every broker order has an execution: ours by client_order_id (the decision_hash, or one that
    was recorded for a replacement), as the successor of an order of ours, or because it hangs on
    one (a leg, whose id the broker made), else `external`.
R2  An execution's state is the fold of all that was seen of its order; what teaches nothing is
    no correction, so a repeated pass writes nothing.
R3  A decision whose order exists is `submitted`, whatever it waited for: it is never judged,
    expired or sent any more.
R4  A final decision stays final: its late order gets an execution and a discrepancy.
R5  An order is never taken for absent because a list did not show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from torghut.domain.executions import ExecutionState, observe
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.orders import Order


class CorrectionKind(StrEnum):
    """What is to be done about one broker order."""

    FOLD = "fold"  # known, and it has moved
    BACKFILL = "backfill"  # ours, and no execution says so: a commit was lost (R1, R3)
    LATE = "late"  # ours, of a decision that ended without an order (R4)
    ADOPT = "adopt"  # not ours (R1)


@dataclass(frozen=True, slots=True)
class Correction:
    """One thing to be done about one broker order."""

    kind: CorrectionKind
    order: Order


@dataclass(frozen=True, slots=True)
class Local:
    """Our books on the orders in question: executions by broker_order_id, and the status of the
    decision that an order may belong to, by the order's client_order_id.

    `unobserved` are broker ids whose newest observation is gone from the books (book audit).
    `adopted` are broker ids whose execution is no decision's.
    """

    executions: Mapping[str, ExecutionState]
    decisions: Mapping[str, DecisionStatus]
    unobserved: frozenset[str] = frozenset()
    adopted: frozenset[str] = frozenset()


ENDED_WITHOUT_ORDER = frozenset(
    {
        DecisionStatus.DENIED,
        DecisionStatus.REJECTED,
        DecisionStatus.EXPIRED,
        DecisionStatus.CANCELED,
    }
)


def diff(broker: Iterable[Order], local: Local) -> list[Correction]:
    """Corrections in the order of the broker's list; empty when the books agree."""
    corrections: list[Correction] = []
    for order in broker:
        kind = _kind(order, local)
        if kind is not None:
            corrections.append(Correction(kind, order))
    return corrections


def claims(orders: Iterable[Order]) -> dict[str, str]:
    """client_order_id → the decision_hash that it would have: its own, or that of the order which
    names it as a leg or which it replaced, however many times."""
    listed = list(orders)
    ids = {order.broker_order_id: order.client_order_id for order in listed}
    above = {
        order.client_order_id: ids[order.replaces] for order in listed if order.replaces in ids
    } | {leg.client_order_id: order.client_order_id for order in listed for leg in order.legs}
    return {id_: _root(id_, above) for id_ in (*ids.values(), *above)}


def _root(client_order_id: str, above: Mapping[str, str]) -> str:
    seen = {client_order_id}
    while (next_ := above.get(client_order_id)) is not None and next_ not in seen:
        client_order_id = next_
        seen.add(next_)
    return client_order_id


def would_be_told(correction: Correction, local: Local) -> bool:
    """Whether the broker tells this by itself: an order, a status or a quantity that is new here.

    Not told is what moves without an event, as a `submitted_at` that is stamped again.
    """
    known, order = local.executions.get(correction.order.broker_order_id), correction.order
    return known is None or order.status != known.status or order.cum_qty > known.cum_qty


def _kind(order: Order, local: Local) -> CorrectionKind | None:
    known = local.executions.get(order.broker_order_id)
    status = local.decisions.get(order.client_order_id)
    if known is not None and (status is None or order.broker_order_id not in local.adopted):
        teaches = observe(known, order) != known or order.broker_order_id in local.unobserved
        return CorrectionKind.FOLD if teaches else None
    if status is None:
        return CorrectionKind.ADOPT
    return CorrectionKind.LATE if status in ENDED_WITHOUT_ORDER else CorrectionKind.BACKFILL
