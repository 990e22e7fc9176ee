"""Trading states, events, strategy ticks and requests to reload limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from torghut.domain.events import Event, EventKind
from torghut.domain.exposure import TradingState
from torghut.storage.json_arrays import json_array, jsonb_array

GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class TradingStates:
    """What is in force for an account, and for the strategies that are restricted beyond it."""

    account: tuple[TradingState, str]
    strategies: Mapping[str, tuple[TradingState, str]]

    def of(self, strategy: str) -> tuple[TradingState, str]:
        """The strictest state that applies to a decision of `strategy`, and why it is so."""
        own = self.strategies.get(strategy)
        return self.account if own is None or not stricter(own[0], self.account[0]) else own

    def halted(self) -> list[str]:
        """Strategies that are halted while the account may not be."""
        return [
            name for name, (state, _) in self.strategies.items() if state is TradingState.HALTED
        ]


def stricter(state: TradingState, than: TradingState) -> bool:
    """True if `state` allows less than `than`."""
    order = list(TradingState)
    return order.index(state) > order.index(than)


def account_scope(account: str) -> str:
    """The scope name of one account in trading_states."""
    return f"account:{account}"


def strategy_scope(strategy: str) -> str:
    """The scope name of one strategy, on every account."""
    return f"strategy:{strategy}"


def trading_state(
    tx: Connection, account: str, *, strategy: str | None = None, lock: bool = False
) -> tuple[TradingState, str]:
    """The strictest state that applies to the account, or to one of its strategies, and why.

    With `lock` a change of state waits for this transaction, so a halt takes effect before the
    next claim.
    """
    query = """SELECT scope, state, actor, reason FROM trading_states
        WHERE scope = ANY(CAST(:scopes AS text[])) ORDER BY scope"""
    scopes = [GLOBAL, account_scope(account)]
    scopes += [] if strategy is None else [strategy_scope(strategy)]
    rows = tx.execute(text(query + (" FOR SHARE" if lock else "")), {"scopes": scopes})
    strictest, reason = TradingState.ACTIVE, "default"
    for row in rows:
        state = TradingState(row.state)
        if stricter(state, strictest):
            strictest, reason = state, _because(row.scope, row.actor, row.reason)
    return strictest, reason


def trading_states(tx: Connection, account: str, *, lock: bool = False) -> TradingStates:
    """The states of an account and of every strategy that is not active.

    A strategy without a row has nothing to lock: with `lock` its change waits for this transaction
    at the global row, which `set_trading_state` takes first. That is also why the strategies are
    read by a statement of their own: one that had to wait sees what it waited for only afterwards.
    """
    whole = trading_state(tx, account, lock=lock)
    rows = tx.execute(
        text("""SELECT scope, state, actor, reason FROM trading_states
        WHERE scope LIKE 'strategy:%' AND state <> 'active'""")
    )
    return TradingStates(
        whole,
        {
            row.scope.partition(":")[2]: (
                TradingState(row.state),
                _because(row.scope, row.actor, row.reason),
            )
            for row in rows
        },
    )


def _because(scope: str, actor: str, reason: str) -> str:
    return f"{scope} by {actor}: {reason}"


def strategy_known(tx: Connection, strategy: str) -> bool:
    """True if the strategy ever sent a decision or had a state of its own."""
    found: bool = tx.execute(
        text("""SELECT EXISTS (SELECT 1 FROM trade_decisions WHERE strategy = :strategy)
          OR EXISTS (SELECT 1 FROM trading_states WHERE scope = :scope)"""),
        {"strategy": strategy, "scope": strategy_scope(strategy)},
    ).scalar_one()
    return found


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
    previous = _locked(tx, scope)
    if previous is state:
        return None
    _write_state(tx, scope, previous, state, actor=actor, reason=reason, now=now)
    return previous


def tighten(
    tx: Connection, scope: str, state: TradingState, *, actor: str, reason: str, now: datetime
) -> bool:
    """Make a scope stricter, for trips that nobody asked for; False if it is as strict already.

    Never loosens: only a person resumes, by `set_trading_state`.
    """
    previous = _locked(tx, scope)
    if not stricter(state, previous):
        return False
    _write_state(tx, scope, previous, state, actor=actor, reason=reason, now=now)
    return True


def _locked(tx: Connection, scope: str) -> TradingState:
    query = text("SELECT state FROM trading_states WHERE scope = :scope FOR UPDATE")
    if scope.startswith("strategy:"):
        # what a claim holds while it judges; a strategy's own row may not be there to be held
        tx.execute(query, {"scope": GLOBAL})
    before = tx.execute(query, {"scope": scope}).scalar_one_or_none()
    return TradingState.ACTIVE if before is None else TradingState(before)


def _write_state(
    tx: Connection,
    scope: str,
    before: TradingState,
    after: TradingState,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    tx.execute(
        text("""
        INSERT INTO trading_states (scope, state, actor, reason, changed_at)
        VALUES (:scope, :state, :actor, :reason, :now)
        ON CONFLICT (scope) DO UPDATE SET state = excluded.state, actor = excluded.actor,
          reason = excluded.reason, changed_at = excluded.changed_at"""),
        {"scope": scope, "state": after.value, "actor": actor, "reason": reason, "now": now},
    )
    payload = {"scope": scope, "before": before.value, "after": after.value, "reason": reason}
    kind, _, name = scope.partition(":")
    account = name if kind == "account" else None
    add_events(
        tx,
        [Event(EventKind.TRADING_STATE_CHANGED, actor, account=account, payload=payload)],
        now=now,
    )


def resumed_at(tx: Connection, scope: str, *, not_by: str) -> datetime | None:
    """When a person last made the scope active; None if it is not, or always was."""
    return tx.execute(
        text("""SELECT changed_at FROM trading_states
        WHERE scope = :scope AND state = 'active' AND actor NOT IN ('torghut', :not_by)"""),
        {"scope": scope, "not_by": not_by},
    ).scalar_one_or_none()


def add_events(tx: Connection, events: Sequence[Event], *, now: datetime) -> None:
    """Append to the outbox, in order, in the transaction of the change they report (P9)."""
    if not events:
        return
    tx.execute(
        text(f"""
        INSERT INTO events (kind, account, decision_hash, actor, payload, created_at)
        SELECT kind, account, decision_hash, actor, payload, :now
        FROM unnest(CAST(:kind AS text[]), CAST(:account AS text[]), CAST(:hash AS text[]),
          CAST(:actor AS text[]), {jsonb_array("payload")}) WITH ORDINALITY
          AS n (kind, account, decision_hash, actor, payload, place)
        ORDER BY place"""),
        {
            "kind": [e.kind.value for e in events],
            "account": [e.account for e in events],
            "hash": [e.decision_hash for e in events],
            "actor": [e.actor for e in events],
            "payload": json_array(json.dumps(dict(e.payload), default=str) for e in events),
            "now": now,
        },
    )


def request_reload(tx: Connection, *, actor: str, now: datetime) -> tuple[int, int]:
    """Ask every daemon on this database to read its limits again.

    Returns the request's id and the newest event before it: its answers come after that one.
    """
    row = tx.execute(
        text("""INSERT INTO limit_reloads (actor, requested_at) VALUES (:actor, :now)
        RETURNING reload_id, (SELECT coalesce(max(event_seq), 0) FROM events) AS newest"""),
        {"actor": actor, "now": now},
    ).one()
    return row.reload_id, row.newest


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """Somebody asked for the limits to be read again."""

    reload_id: int
    actor: str
    requested_at: datetime


def newest_reload(tx: Connection) -> ReloadRequest | None:
    """The newest request to reload the limits, None before the first."""
    row = tx.execute(
        text("""SELECT reload_id, actor, requested_at FROM limit_reloads
        ORDER BY reload_id DESC LIMIT 1""")
    ).one_or_none()
    return None if row is None else ReloadRequest(row.reload_id, row.actor, row.requested_at)


def reload_answers(
    tx: Connection, account: str, reload_id: int, *, after: int
) -> list[tuple[str, dict[str, Any]]]:
    """(kind, payload) of the events that answer a request, oldest first; `after` as it returned."""
    rows = tx.execute(
        text("""
        SELECT kind, payload FROM events
        WHERE event_seq > :after AND account = :account AND kind LIKE 'limits.%'
          AND payload ->> 'reload_id' = :reload_id
        ORDER BY event_seq"""),
        {"account": account, "reload_id": str(reload_id), "after": after},
    )
    return [(row.kind, row.payload) for row in rows]


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
