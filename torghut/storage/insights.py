"""What the console shows beyond the lists of torghut.storage.queries.

```
equity           a curve out of the facts that verdicts were made from: a few hundred rows, picked
                 along the primary key, so that it costs the same at any size of the books
ticks            the newest ticks of each strategy
operator_events  what was done to trading from outside: who, why, before and after
newest_event     the number of the newest event: has anything happened?
newest_verdict   how much of each limit the newest order took
```

Answers are plain JSON data, as in torghut.storage.queries.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from torghut.domain.events import EventKind
from torghut.storage.queries import plain

AUDITED = (
    EventKind.TRADING_STATE_CHANGED,
    EventKind.ACTION_REQUESTED,
    EventKind.FLATTEN_CHANGED,
    EventKind.DISCREPANCY_CLOSED,
    EventKind.DISCREPANCY_RESOLVED,
    EventKind.ENTRY_RECORDED,
    EventKind.LIMITS_RELOADED,
    EventKind.LIMITS_REFUSED,
    EventKind.LEASE_ACQUIRED,
    EventKind.SINK_FORGOTTEN,
    EventKind.INBOX_DISMISSED,
    EventKind.TOKEN_CREATED,
    EventKind.TOKEN_REVOKED,
)
"""Kinds of events that somebody decided, or that change who decides."""

STRETCH = 200_000
"""How many events one page of the audit looks through at the most."""


def equity(tx: Connection, account: str, *, points: int) -> list[dict[str, Any]]:
    """The account's equity over time, as risk saw it: `at`, `equity`; about `points`, in order."""
    rows = tx.execute(
        text("""
        WITH ends AS (SELECT min(verdict_id) AS low, max(verdict_id) AS high FROM risk_verdicts),
        spots AS (
          SELECT DISTINCT low + (high - low) * n / :points AS spot
          FROM ends, generate_series(0, :points) AS n)
        SELECT DISTINCT v.judged_at AS at, v.equity::numeric AS equity
        FROM spots CROSS JOIN LATERAL (
          SELECT r.decision_id, r.judged_at, r.facts #>> '{facts,account,equity}' AS equity
          FROM risk_verdicts r WHERE r.verdict_id >= spots.spot ORDER BY r.verdict_id LIMIT 1) v
        JOIN trade_decisions d USING (decision_id)
        WHERE d.account = :account AND v.equity IS NOT NULL
        UNION
        SELECT observed_at, equity FROM broker_accounts
        WHERE account = :account AND equity IS NOT NULL
        ORDER BY 1"""),
        {"account": account, "points": points},
    )
    return [plain(row) for row in rows]


def ticks(tx: Connection, *, each: int) -> list[dict[str, Any]]:
    """The newest `each` ticks of every strategy that ever had one, by name, newest first."""
    rows = tx.execute(
        text("""
        WITH RECURSIVE names AS (
          (SELECT strategy FROM strategy_ticks ORDER BY strategy LIMIT 1)
          UNION ALL
          SELECT (SELECT t.strategy FROM strategy_ticks t WHERE t.strategy > n.strategy
                  ORDER BY t.strategy LIMIT 1)
          FROM names n WHERE n.strategy IS NOT NULL)
        SELECT t.strategy, t.scheduled_for, t.outcome, t.decisions, t.claimed_by, t.claimed_at
        FROM (SELECT strategy FROM names WHERE strategy IS NOT NULL LIMIT 1000) n
        CROSS JOIN LATERAL (
          SELECT * FROM strategy_ticks s WHERE s.strategy = n.strategy
          ORDER BY s.scheduled_for DESC LIMIT :each) t
        ORDER BY t.strategy, t.scheduled_for DESC"""),
        {"each": each},
    )
    return [plain(row) for row in rows]


def operator_events(
    tx: Connection, *, before: int | None, limit: int
) -> tuple[list[dict[str, Any]], int | None]:
    """A page of AUDITED events, newest first, and where the next one begins; None: at the end.

    A page looks through STRETCH events at the most: it may be empty and yet have a next one.
    """
    start = newest_event(tx) + 1 if before is None else before
    end = max(start - STRETCH, 0)
    rows = tx.execute(
        text("""
        SELECT event_seq AS id, kind, account, decision_hash, actor, payload, created_at
        FROM events WHERE event_seq < :start AND event_seq >= :end
          AND kind = ANY(CAST(:kinds AS text[]))
        ORDER BY event_seq DESC LIMIT :limit"""),
        {"start": start, "end": end, "kinds": [k.value for k in AUDITED], "limit": limit},
    )
    found = [plain(row) for row in rows]
    if len(found) == limit:
        return found, found[-1]["id"]
    return found, end or None


def newest_event(tx: Connection) -> int:
    """The number of the newest event, 0 before the first."""
    return int(tx.execute(text("SELECT coalesce(max(event_seq), 0) FROM events")).scalar_one())


def newest_verdict(tx: Connection, account: str) -> dict[str, Any] | None:
    """The newest verdict about an order of the account, with its checks."""
    row = tx.execute(
        text("""
        SELECT d.decision_hash, d.symbol, d.strategy, v.outcome, v.deny_reason, v.judged_at,
          v.policy_version, v.checks
        FROM risk_verdicts v JOIN trade_decisions d USING (decision_id)
        WHERE d.account = :account ORDER BY v.verdict_id DESC LIMIT 1"""),
        {"account": account},
    ).one_or_none()
    return None if row is None else plain(row)
