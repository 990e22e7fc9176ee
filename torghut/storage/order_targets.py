"""Which orders a request is about, and whose a broker order is.

A decision's order is known by its client_order_id: the decision_hash, or one that was recorded
for a replacement before it was sent. The successor of a decision's order is the decision's as
well, whoever replaced it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from torghut.domain.lifecycle import TERMINAL
from torghut.domain.orders import Order
from torghut.storage import decisions
from torghut.storage.rows import DecisionRow

TARGETS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Target:
    """An order that stands, or may come to stand: a decision's (its hash), or somebody else's."""

    decision_id: int | None
    key: str
    broker_order_id: str | None


def open_targets(
    tx: Connection,
    account: str,
    *,
    symbol: str | None = None,
    strategy: str | None = None,
) -> list[Target]:
    """Everything that may be live under the filter, TARGETS_MAX at the most, oldest first.

    Orders that are not ours have no strategy, and are left out where one is asked for.
    """
    values = {
        "account": account,
        "symbol": symbol,
        "strategy": strategy,
        "ended": [status.value for status in TERMINAL],
        "limit": TARGETS_MAX,
    }
    ours = tx.execute(
        text("""
        SELECT d.decision_id, d.decision_hash FROM trade_decisions d
        WHERE d.account = :account
          AND (d.status IN ('planned', 'approved', 'submitting', 'in_doubt')
               OR d.status IN ('submitting', 'in_doubt', 'submitted'))
          AND (CAST(:symbol AS text) IS NULL OR d.symbol = :symbol)
          AND (CAST(:strategy AS text) IS NULL OR d.strategy = :strategy)
        UNION
        SELECT d.decision_id, d.decision_hash
        FROM executions e JOIN trade_decisions d USING (decision_id)
        WHERE e.account = :account AND NOT e.terminal
          AND d.status = ANY(CAST(:ended AS text[]))
          AND (CAST(:symbol AS text) IS NULL OR d.symbol = :symbol)
          AND (CAST(:strategy AS text) IS NULL OR d.strategy = :strategy)
        ORDER BY 1 LIMIT :limit"""),
        values,
    )
    targets = [Target(row.decision_id, row.decision_hash, None) for row in ours]
    if strategy is not None:
        return targets
    others = tx.execute(
        text("""
        SELECT e.broker_order_id FROM executions e
        WHERE e.account = :account AND NOT e.terminal AND e.decision_id IS NULL
          AND (CAST(:symbol AS text) IS NULL OR e.symbol = :symbol)
        ORDER BY e.execution_id LIMIT :limit"""),
        values,
    ).scalars()
    return targets + [Target(None, id_, id_) for id_ in others]


def owners(tx: Connection, orders: Sequence[Order]) -> dict[str, DecisionRow]:
    """client_order_id → decision, locked, of the orders that are a decision's."""
    if not orders:
        return {}
    found = decisions.by_hashes(tx, [order.client_order_id for order in orders])
    strangers = [order for order in orders if order.client_order_id not in found]
    if not strangers:
        return found
    rows = tx.execute(
        text("""
        SELECT o.client_order_id, d.decision_hash
        FROM unnest(CAST(:coids AS text[]), CAST(:replaces AS text[]))
          AS o (client_order_id, replaces)
        JOIN trade_decisions d ON d.decision_id = coalesce(
          (SELECT a.decision_id FROM order_actions a
           WHERE a.client_order_id = o.client_order_id),
          (SELECT e.decision_id FROM executions e WHERE e.broker_order_id = o.replaces))"""),
        {
            "coids": [order.client_order_id for order in strangers],
            "replaces": [order.replaces for order in strangers],
        },
    ).all()
    by_hash = decisions.by_hashes(tx, sorted({row.decision_hash for row in rows}))
    return found | {row.client_order_id: by_hash[row.decision_hash] for row in rows}


def lost_successors(tx: Connection, account: str, *, limit: int) -> list[str]:
    """Broker ids of orders that replaced a decision's order and are not in our books yet."""
    return list(
        tx.execute(
            text("""
            SELECT e.replaced_by FROM trade_decisions d JOIN executions e USING (decision_id)
            WHERE d.account = :account AND d.status = 'submitted' AND e.status = 'replaced'
              AND e.replaced_by IS NOT NULL AND NOT EXISTS
                (SELECT 1 FROM executions s WHERE s.broker_order_id = e.replaced_by)
            ORDER BY e.execution_id LIMIT :limit"""),
            {"account": account, "limit": limit},
        ).scalars()
    )
