"""Executions as folds: an observation of a broker order in, the execution's current state out.

Observations may come late, twice and out of order. The fold is monotonic:
- `cum_qty` never decreases;
- a terminal status is never replaced by a live one (story 29), but a fill after `canceled` is
  taken: quantities grow, the status stays (story 11, P6);
- among live statuses the newer `updated_at` wins, then the higher `cum_qty`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from torghut.domain.orders import Order, OrderRequest
from torghut.domain.values import canonical_amount, sha256_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionState:
    """What the fold has come to. `leaves_qty` is 0 once terminal and for notional orders."""

    status: str
    terminal: bool
    cum_qty: Decimal
    leaves_qty: Decimal
    avg_px: Decimal | None
    replaced_by: str | None
    updated_at: datetime | None


def observe(current: ExecutionState | None, order: Order) -> ExecutionState:
    """The state after seeing `order`; equal to `current` if it teaches nothing."""
    if current is None:
        return _state(order, order.status, order.cum_qty, order.avg_px)
    cum_qty = max(current.cum_qty, order.cum_qty)
    avg_px = order.avg_px if order.cum_qty >= current.cum_qty else current.avg_px
    if _newer(current, order):
        return _state(order, order.status, cum_qty, avg_px)
    return ExecutionState(
        status=current.status,
        terminal=current.terminal,
        cum_qty=cum_qty,
        leaves_qty=_leaves(order, current.terminal, cum_qty),
        avg_px=avg_px,
        replaced_by=current.replaced_by or order.replaced_by,
        updated_at=current.updated_at,
    )


def event_key(order: Order) -> str:
    """Identity of an observation: a pure function of the evidence, 64 hex characters."""
    return sha256_hex(
        {
            "broker_order_id": order.broker_order_id,
            "status": order.status,
            "cum_qty": canonical_amount(order.cum_qty),
            "avg_px": None if order.avg_px is None else canonical_amount(order.avg_px),
            "replaced_by": order.replaced_by,
            "updated_at": None if order.updated_at is None else order.updated_at.isoformat(),
        }
    )


def order_differences(request: OrderRequest, order: Order) -> dict[str, list[str | None]]:
    """Fields in which the broker's order is not the one we asked for: name → [ours, theirs].

    Values that the broker left out are not compared: it may echo fewer fields than it took.
    """
    pairs: dict[str, tuple[object, object]] = {
        "symbol": (_symbol(request.symbol), _symbol(order.symbol)),
        "side": (request.side.value, order.side),
        "type": (request.order_type.value, order.order_type),
        "qty": (request.qty, order.qty),
        "notional": (request.notional, order.notional),
        "limit_price": (request.limit_price, order.limit_price),
        "stop_price": (request.stop_price, order.stop_price),
    }
    return {
        name: [str(ours), str(theirs)]
        for name, (ours, theirs) in pairs.items()
        if ours is not None and theirs not in (None, "") and ours != theirs
    }


def _newer(current: ExecutionState, order: Order) -> bool:
    if current.terminal:
        return False
    if order.terminal:
        return True
    if order.cum_qty != current.cum_qty:
        return order.cum_qty > current.cum_qty
    if current.updated_at is None or order.updated_at is None:
        return current.updated_at is None
    return order.updated_at > current.updated_at


def _state(order: Order, status: str, cum_qty: Decimal, avg_px: Decimal | None) -> ExecutionState:
    return ExecutionState(
        status=status,
        terminal=order.terminal,
        cum_qty=cum_qty,
        leaves_qty=_leaves(order, order.terminal, cum_qty),
        avg_px=avg_px,
        replaced_by=order.replaced_by,
        updated_at=order.updated_at,
    )


def _leaves(order: Order, terminal: bool, cum_qty: Decimal) -> Decimal:
    if terminal or order.qty is None:
        return Decimal(0)
    return max(Decimal(0), order.qty - cum_qty)


def _symbol(symbol: str) -> str:
    return symbol.replace("/", "")  # BTC/USD is echoed as BTCUSD in places (story 20)
