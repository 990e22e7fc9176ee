"""Orders that left against decisions that were approved: what is one too many? Pure (story 40).

An order is ours by the form of its client_order_id: a decision_hash, or one with `-r1`, `-r2`…
after it for a replacement. One order may stand for an approved decision, for its symbol and side,
and no larger than it; one more for each recorded replacement, no larger than recorded, even if the
decision itself was larger: what it has filled by then is not there a second time. Whatever else
carries such an id is excess, whoever sent it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from torghut.domain.orders import Order, OrderRequest
from torghut.domain.values import canonical_amount

_OURS = re.compile(r"(?P<hash>[0-9a-f]{64})(?P<replacement>-r[1-9][0-9]{0,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Approval:
    """What a decision asked for, whether risk ever approved it, and the order known for it."""

    request: OrderRequest
    approved: bool
    broker_order_id: str | None
    replacements: Mapping[str, Decimal] = field(default_factory=dict)
    """Recorded replacements: client_order_id → the most shares that were approved for it."""


def hash_of(client_order_id: str) -> str | None:
    """The decision_hash in a client_order_id of our form, None if it is not of our form."""
    match = _OURS.fullmatch(client_order_id)
    return match["hash"] if match else None


def excess(order: Order, approval: Approval | None, first: str | None) -> str | None:
    """Why the order is one too many, None if an approved decision covers it.

    `approval` is of the decision that the id names, None if this account has none; `first` the
    broker's id of the order seen first under this client_order_id.
    """
    if approval is None:
        return "no decision of this account has this hash"
    if not approval.approved:
        return "its decision was never approved"
    replaces = order.client_order_id != hash_of(order.client_order_id)
    if replaces and order.client_order_id not in approval.replacements:
        return "a replacement that nobody recorded"
    for other in (first, None if replaces else approval.broker_order_id):
        if other not in (None, order.broker_order_id):
            return f"a second order of one decision: {other} is its first"
    request = approval.request
    if replaces and request.qty is not None:
        request = replace(request, qty=approval.replacements[order.client_order_id])
    return _unlike(order, request)


def _unlike(order: Order, request: OrderRequest) -> str | None:
    # crypto pairs come with and without the slash (story 20)
    if order.symbol.replace("/", "") != request.symbol.replace("/", ""):
        return f"for {order.symbol}, where {request.symbol} was approved"
    if order.side != request.side.value:
        return f"a {order.side}, where a {request.side.value} was approved"
    return _larger("shares", order.qty, request.qty, order.cum_qty) or _larger(
        "of currency", order.notional, request.notional, Decimal(0)
    )


def _larger(
    unit: str, ordered: Decimal | None, approved: Decimal | None, filled: Decimal
) -> str | None:
    most = max(ordered or Decimal(0), filled)
    if approved is None:
        # an order by amount is filled in shares, whose number nobody approved
        return None if unit == "shares" or not most else f"{most} {unit}, where none were approved"
    if most <= approved:
        return None
    return f"{canonical_amount(most)} {unit}, where {canonical_amount(approved)} were approved"
