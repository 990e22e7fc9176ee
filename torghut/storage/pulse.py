"""Which accounts have work waiting, and of which kind: one question for all of them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, text


class Work(StrEnum):
    """What can wait; each is one loop's."""

    DECISIONS = "decisions"
    DOUBTS = "doubts"
    ACTIONS = "actions"
    FLATTENING = "flattening"
    INBOX = "inbox"


_WAITING = text("""
SELECT a.account, w.work FROM unnest(CAST(:accounts AS text[])) AS a (account)
CROSS JOIN LATERAL (
  SELECT 'decisions' AS work WHERE EXISTS (
    SELECT 1 FROM trade_decisions d WHERE d.account = a.account
      AND d.status IN ('planned', 'approved', 'submitting') AND d.due_at <= :now)
  UNION ALL SELECT 'doubts' WHERE EXISTS (
    SELECT 1 FROM trade_decisions d WHERE d.account = a.account
      AND d.status = 'in_doubt' AND d.due_at <= :now)
  UNION ALL SELECT 'actions' WHERE EXISTS (
    SELECT 1 FROM order_actions o WHERE o.account = a.account
      AND o.status IN ('requested', 'sending', 'confirming', 'in_doubt') AND o.due_at <= :now)
  UNION ALL SELECT 'flattening' WHERE EXISTS (
    SELECT 1 FROM flattens f WHERE f.account = a.account AND f.finalized_at IS NULL)
) AS w
UNION ALL
SELECT a.account, 'inbox' FROM unnest(CAST(:served AS text[])) AS a (account)
WHERE EXISTS (
  SELECT 1 FROM decision_inbox i WHERE i.account = a.account AND i.result IS NULL)""")


def waiting(
    tx: Connection, accounts: Collection[str], served: Collection[str], *, now: datetime
) -> set[tuple[str, Work]]:
    """(account, kind) of what is due: for `accounts`, that are owned, and in the inbox of those
    `served`. A hint: who works it off asks again, and locks."""
    rows = tx.execute(_WAITING, {"accounts": list(accounts), "served": list(served), "now": now})
    return {(row.account, Work(row.work)) for row in rows}
