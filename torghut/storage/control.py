"""Trading states, events, discrepancies, cursors and strategy ticks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from torghut.domain.events import Event, EventKind
from torghut.domain.exposure import TradingState

GLOBAL = "global"
_STRICTNESS = (TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED)


def account_scope(account: str) -> str:
    """The scope name of one account in trading_states."""
    return f"account:{account}"


def trading_state(tx: Connection, account: str, *, lock: bool = False) -> tuple[TradingState, str]:
    """The strictest state that applies to the account, and why it is so.

    With `lock` a change of state waits for this transaction, so a halt takes effect before the
    next claim.
    """
    query = """SELECT scope, state, actor, reason FROM trading_states
        WHERE scope IN ('global', :scope) ORDER BY scope"""
    rows = tx.execute(
        text(query + (" FOR SHARE" if lock else "")), {"scope": account_scope(account)}
    )
    strictest, reason = TradingState.ACTIVE, "default"
    for row in rows:
        state = TradingState(row.state)
        if _STRICTNESS.index(state) > _STRICTNESS.index(strictest):
            strictest, reason = state, f"{row.scope} by {row.actor}: {row.reason}"
    return strictest, reason


def ensure_scopes(tx: Connection, account: str, *, now: datetime) -> None:
    """Make the rows that `trading_state` locks; a lock on a row that is not there holds nothing."""
    tx.execute(
        text("""
        INSERT INTO trading_states (scope, state, actor, reason, changed_at)
        VALUES ('global', 'active', 'torghut', 'initial', :now),
               (:scope, 'active', 'torghut', 'initial', :now)
        ON CONFLICT (scope) DO NOTHING"""),
        {"scope": account_scope(account), "now": now},
    )


def set_trading_state(
    tx: Connection, scope: str, state: TradingState, *, actor: str, reason: str, now: datetime
) -> TradingState | None:
    """Change a scope's state with its event; returns the state before, None if it was the same."""
    before = tx.execute(
        text("SELECT state FROM trading_states WHERE scope = :scope FOR UPDATE"), {"scope": scope}
    ).scalar_one_or_none()
    if (before or TradingState.ACTIVE.value) == state.value:
        return None
    tx.execute(
        text("""
        INSERT INTO trading_states (scope, state, actor, reason, changed_at)
        VALUES (:scope, :state, :actor, :reason, :now)
        ON CONFLICT (scope) DO UPDATE SET state = excluded.state, actor = excluded.actor,
          reason = excluded.reason, changed_at = excluded.changed_at"""),
        {"scope": scope, "state": state.value, "actor": actor, "reason": reason, "now": now},
    )
    previous = TradingState(before or TradingState.ACTIVE.value)
    payload = {"scope": scope, "before": previous.value, "after": state.value, "reason": reason}
    account = scope.partition(":")[2] or None
    add_events(
        tx,
        [Event(EventKind.TRADING_STATE_CHANGED, actor, account=account, payload=payload)],
        now=now,
    )
    return previous


def add_events(tx: Connection, events: Sequence[Event], *, now: datetime) -> None:
    """Append to the outbox, in order, in the transaction of the change they report (P9)."""
    if not events:
        return
    tx.execute(
        text("""
        INSERT INTO events (kind, account, decision_hash, actor, payload, created_at)
        SELECT kind, account, decision_hash, actor, payload::jsonb, :now
        FROM unnest(CAST(:kind AS text[]), CAST(:account AS text[]), CAST(:hash AS text[]),
          CAST(:actor AS text[]), CAST(:payload AS text[])) WITH ORDINALITY
          AS n (kind, account, decision_hash, actor, payload, place)
        ORDER BY place"""),
        {
            "kind": [e.kind.value for e in events],
            "account": [e.account for e in events],
            "hash": [e.decision_hash for e in events],
            "actor": [e.actor for e in events],
            "payload": [json.dumps(dict(e.payload), default=str) for e in events],
            "now": now,
        },
    )


def open_discrepancy(
    tx: Connection,
    account: str,
    kind: str,
    subject: str,
    evidence: Mapping[str, object],
    *,
    actor: str,
    now: datetime,
) -> bool:
    """Make a difference visible (P12); True if it is new, False if it already stands open."""
    opened: bool = (
        tx.execute(
            text("""
        INSERT INTO discrepancies (account, kind, subject, evidence, opened_at, seen_at)
        VALUES (:account, :kind, :subject, CAST(:evidence AS jsonb), :now, :now)
        ON CONFLICT (account, kind, subject) WHERE resolved_at IS NULL
        DO NOTHING RETURNING discrepancy_id IS NOT NULL"""),
            {
                "account": account,
                "kind": kind,
                "subject": subject,
                "evidence": json.dumps(dict(evidence), default=str),
                "now": now,
            },
        ).scalar_one_or_none()
        is not None
    )
    if opened:
        payload = {"kind": kind, "subject": subject, **evidence}
        event = Event(EventKind.DISCREPANCY_OPENED, actor, account=account, payload=payload)
        add_events(tx, [event], now=now)
    return opened


def cursor(tx: Connection, account: str, name: str) -> str | None:
    """How far a list of the broker was read."""
    return tx.execute(
        text("SELECT position FROM broker_cursors WHERE account = :account AND name = :name"),
        {"account": account, "name": name},
    ).scalar_one_or_none()


def set_cursor(tx: Connection, account: str, name: str, position: str, *, now: datetime) -> None:
    """Move a cursor on; `position` is a canonical instant, which sorts as text. It never goes
    back, so that a pass over the overlap writes nothing."""
    tx.execute(
        text("""
        INSERT INTO broker_cursors AS c (account, name, position, updated_at)
        VALUES (:account, :name, :position, :now)
        ON CONFLICT (account, name) DO UPDATE SET position = excluded.position,
          updated_at = excluded.updated_at
        WHERE c.position COLLATE "C" < excluded.position"""),
        {"account": account, "name": name, "position": position, "now": now},
    )


def claim_tick(
    tx: Connection,
    strategy: str,
    scheduled_for: datetime,
    *,
    outcome: str,
    decisions: int,
    owner: str,
    now: datetime,
) -> bool:
    """Claim one tick of a strategy; False if it was claimed before, by anyone (story 35)."""
    return (
        tx.execute(
            text("""
            INSERT INTO strategy_ticks (strategy, scheduled_for, outcome, decisions, claimed_by,
              claimed_at)
            VALUES (:strategy, :scheduled_for, :outcome, :decisions, :owner, :now)
            ON CONFLICT (strategy, scheduled_for) DO NOTHING RETURNING strategy"""),
            {
                "strategy": strategy,
                "scheduled_for": scheduled_for,
                "outcome": outcome,
                "decisions": decisions,
                "owner": owner,
                "now": now,
            },
        ).one_or_none()
        is not None
    )


def last_tick(tx: Connection, strategy: str) -> datetime | None:
    """The newest tick of a strategy that was claimed, None before the first."""
    return tx.execute(
        text("SELECT max(scheduled_for) FROM strategy_ticks WHERE strategy = :strategy"),
        {"strategy": strategy},
    ).scalar_one_or_none()
