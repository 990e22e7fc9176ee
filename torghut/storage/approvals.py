"""Approved decisions, as the guard reads them: nothing here is locked or written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from torghut.domain.excess import Approval
from torghut.domain.orders import order_from_payload


def by_hash(tx: Connection, account: str, hashes: Sequence[str]) -> dict[str, Approval]:
    """What the account's decisions of these hashes approve; unknown hashes are left out.

    An execution known for the hash can only make a second order visible, never excuse one.
    """
    rows = tx.execute(
        text("""
        SELECT d.decision_hash, d.symbol, d.side, d.payload, e.broker_order_id,
          EXISTS (SELECT 1 FROM risk_verdicts v
                  WHERE v.decision_id = d.decision_id AND v.outcome = 'approved') AS approved
        FROM trade_decisions d
        LEFT JOIN executions e ON e.client_order_id = d.decision_hash
        WHERE d.account = :account AND d.decision_hash = ANY(CAST(:hashes AS text[]))"""),
        {"account": account, "hashes": list(hashes)},
    )
    replacements = _replacements(tx, account, hashes)
    return {
        row.decision_hash: Approval(
            order_from_payload(row.symbol, row.side, row.payload),
            row.approved,
            row.broker_order_id,
            replacements.get(row.decision_hash, {}),
        )
        for row in rows
    }


def _replacements(
    tx: Connection, account: str, hashes: Sequence[str]
) -> dict[str, dict[str, Decimal]]:
    """Replacements whose call was recorded before it was made, with the shares they ask for."""
    found: dict[str, dict[str, Decimal]] = {}
    rows = tx.execute(
        text("""
        SELECT d.decision_hash, a.client_order_id,
          greatest(a.open_qty, CAST(a.changes ->> 'qty' AS numeric), 0) AS most
        FROM order_actions a JOIN trade_decisions d USING (decision_id)
        WHERE a.account = :account AND a.operation = 'replace' AND a.client_order_id IS NOT NULL
          AND d.decision_hash = ANY(CAST(:hashes AS text[]))"""),
        {"account": account, "hashes": list(hashes)},
    )
    for row in rows:
        found.setdefault(row.decision_hash, {})[row.client_order_id] = row.most
    return found


def newest_verdict_at(tx: Connection) -> datetime | None:
    """When a decision was last judged, on any account; None before the first."""
    return tx.execute(
        text("SELECT judged_at FROM risk_verdicts ORDER BY verdict_id DESC LIMIT 1")
    ).scalar_one_or_none()
