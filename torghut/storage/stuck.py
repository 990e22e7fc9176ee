"""Orders that stand where they should not for long: for services/stuck_orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Unledgered:
    """An order that says more is filled than fills of it are booked."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    cum_qty: Decimal
    ledger_qty: Decimal


def unledgered(tx: Connection, account: str, *, before: datetime, limit: int) -> list[Unledgered]:
    """Orders whose fills are not all booked, and of which we heard nothing new since `before`."""
    rows = tx.execute(
        text("""SELECT broker_order_id, client_order_id, symbol, cum_qty, ledger_qty
        FROM executions
        WHERE account = :account AND cum_qty > ledger_qty AND updated_at < :before
        ORDER BY execution_id LIMIT :limit"""),
        {"account": account, "before": before, "limit": limit},
    )
    return [Unledgered(**row._mapping) for row in rows]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order in a status that should pass, and since when we have seen it there."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    status: str
    since: datetime


def waiting(tx: Connection, account: str, *, since: datetime, limit: int) -> list[Waiting]:
    """Orders seen in a passing status (pending_*, accepted) since `since` or before."""
    rows = tx.execute(
        text("""
        SELECT e.broker_order_id, e.client_order_id, e.symbol, e.status, v.since FROM executions e
        CROSS JOIN LATERAL (SELECT coalesce(min(o.observed_at), e.created_at) AS since
          FROM execution_events o
          WHERE o.execution_id = e.execution_id AND o.status = e.status) v
        WHERE e.account = :account AND NOT e.terminal AND v.since <= :since
          AND e.status IN ('pending_new', 'pending_cancel', 'pending_replace', 'accepted')
        ORDER BY e.execution_id LIMIT :limit"""),
        {"account": account, "since": since, "limit": limit},
    )
    return [Waiting(**row._mapping) for row in rows]
