"""What became of decisions and their orders: final or not, and what their booked fills come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, text

from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.orders import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderOutcome:
    """One decision. `settled`: it is final, its orders have ended, and every fill is booked.
    `live`: it is not final, or an order of it stands; what is neither waits for its fills."""

    decision_id: int
    decision_hash: str
    payload_digest: str
    status: DecisionStatus
    reason: str | None
    detail: str | None
    settled: bool
    live: bool
    filled_qty: Decimal
    filled_value: Decimal


def outcomes(tx: Connection, hashes: Sequence[str]) -> dict[str, OrderOutcome]:
    """By decision_hash; value in the account's currency, without fees. Fills are those of the
    ledger, and of every order of the decision, replacements included."""
    rows = tx.execute(
        text("""
        SELECT d.decision_id, d.decision_hash, d.payload_digest, d.status, d.status_reason,
          d.status_detail,
          d.finalized_at IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM executions e WHERE e.decision_id = d.decision_id
              AND (NOT e.terminal OR e.cum_qty > e.ledger_qty)) AS settled,
          d.finalized_at IS NULL OR EXISTS (
            SELECT 1 FROM executions e
            WHERE e.decision_id = d.decision_id AND NOT e.terminal) AS live,
          coalesce(f.qty, 0) AS qty, coalesce(f.worth, 0) AS worth
        FROM trade_decisions d
        LEFT JOIN LATERAL (
          SELECT sum(l.last_qty) AS qty, sum(l.last_qty * l.last_px) AS worth
          FROM executions e JOIN fills l USING (execution_id)
          WHERE e.decision_id = d.decision_id) f ON true
        WHERE d.decision_hash = ANY(CAST(:hashes AS text[]))"""),
        {"hashes": list(hashes)},
    )
    return {
        row.decision_hash: OrderOutcome(
            decision_id=row.decision_id,
            decision_hash=row.decision_hash,
            payload_digest=row.payload_digest,
            status=DecisionStatus(row.status),
            reason=row.status_reason,
            detail=row.status_detail,
            settled=row.settled,
            live=row.live,
            filled_qty=row.qty,
            filled_value=row.worth,
        )
        for row in rows
    }


def not_sent(tx: Connection, account: str, side: Side) -> dict[str, Decimal]:
    """Symbol → shares of decisions of a side that wait for their verdict, or to be sent. Those of
    an amount of money are not counted: nobody knows their shares yet."""
    rows = tx.execute(
        text("""SELECT symbol, sum(qty) AS qty FROM trade_decisions
        WHERE account = :account AND side = :side AND qty IS NOT NULL
          AND status IN ('planned', 'approved')
        GROUP BY symbol"""),
        {"account": account, "side": side.value},
    )
    return {row.symbol: row.qty for row in rows}


def being_canceled(tx: Connection, decision_ids: Sequence[int]) -> set[int]:
    """Those of the decisions for which a cancel is under way."""
    rows = tx.execute(
        text("""SELECT decision_id FROM order_actions
        WHERE decision_id = ANY(CAST(:ids AS bigint[])) AND operation = 'cancel'
          AND status IN ('requested', 'sending', 'confirming', 'in_doubt')"""),
        {"ids": list(decision_ids)},
    )
    return set(rows.scalars())


def cancels_asked(tx: Connection, account: str, prefix: str) -> int:
    """How many cancels were asked for under keys that begin with `prefix`."""
    count: int = tx.execute(
        text("""SELECT count(*) FROM order_actions
        WHERE account = :account AND starts_with(request_key, :prefix)"""),
        {"account": account, "prefix": prefix},
    ).scalar_one()
    return count
