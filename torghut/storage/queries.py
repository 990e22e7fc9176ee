"""Questions without consequences: the one read service behind the CLI and the HTTP interface.

```
decisions · executions · fills · actions     lists: newest first, filtered, one page at a time
decision · story                             one decision by its hash or a unique prefix of it
summary · standing · trading_states · discrepancies     how things stand
```

Answers are plain JSON data: amounts as canonical text, instants as RFC 3339 UTC text with
microseconds, null for what is not known. `begin`, first in a transaction, makes the parts of an
answer agree. Every list is bounded and read backwards along its primary key; a page goes on with
`Filters.before`, the last id of the page before it. Conditions are fixed text with bound
parameters, and only those asked for are in the statement, so that the planner sees which index
serves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from torghut.domain.errors import TorghutError
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.values import canonical_amount, canonical_instant, canonical_json, sha256_hex
from torghut.storage import control, leases, results

LIMIT_MAX = 10_000
STORY_ROWS_MAX = 1_000
PREFIX_MIN = 8
OPEN = "open"

_HASH_PREFIX = re.compile(rf"[0-9a-f]{{{PREFIX_MIN},64}}")

_DECISION = """d.decision_id AS id, d.decision_hash, d.account, d.strategy, d.symbol, d.side,
  d.order_type AS type, d.qty, d.notional, d.limit_price, d.event_ts, d.intent, d.status,
  d.status_reason, d.status_detail, d.attempts, d.expires_at, d.created_at, d.updated_at,
  d.correlation_id"""
_DECISION_WHOLE = f"""{_DECISION}, d.payload, d.hash_version, d.payload_digest, d.source, d.due_at,
  d.in_doubt_since, d.lookups, d.lookup_misses, d.finalized_at, d.fencing_token"""
_EXECUTION = """e.execution_id AS id, d.decision_hash, e.client_order_id, e.broker_order_id,
  e.origin, e.account, d.strategy, e.symbol, e.side, e.order_type AS type, e.time_in_force,
  e.qty, e.notional, e.limit_price, e.stop_price, e.status, e.terminal, e.cum_qty, e.leaves_qty,
  e.avg_px, e.ledger_qty, e.replaces, e.replaced_by, e.broker_created_at, e.broker_updated_at,
  e.created_at, e.updated_at"""
_FILL = """f.fill_id AS id, d.decision_hash, f.activity_id, e.client_order_id, e.broker_order_id,
  f.account, f.strategy, f.symbol, f.side, f.last_qty, f.last_px, f.cum_qty, f.leaves_qty,
  f.transact_time, f.recorded_at"""
_FILLS = """FROM fills f JOIN executions e USING (execution_id)
  LEFT JOIN trade_decisions d ON d.decision_id = e.decision_id"""
_DISCREPANCY = """discrepancy_id AS id, account, kind, subject, evidence, opened_at, seen_at,
  resolved_at, resolution"""


class HashNotUsable(TorghutError):
    """What was given is no decision_hash, or the beginning of more than one."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which rows of a list: None asks for all. `since` is inclusive: created_at of decisions and
    executions, transact_time of fills, updated_at of positions. `limit` rows at most (LIMIT_MAX is
    the ceiling); `before` is a cursor: only rows with a smaller id. `origin` is of executions."""

    status: str | None = None
    symbol: str | None = None
    strategy: str | None = None
    account: str | None = None
    since: datetime | None = None
    limit: int = 50
    before: int | None = None
    origin: str | None = None


def begin(tx: Connection) -> None:
    """Make a new transaction one read-only snapshot, so that the parts of an answer agree."""
    tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


# ---------------------------------------------------------------- lists


def decisions(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Decisions, newest first."""
    where = {
        "status": "d.status = :status",
        "symbol": "d.symbol = :symbol",
        "strategy": "d.strategy = :strategy",
        "account": "d.account = :account",
        "since": "d.created_at >= :since",
        "before": "d.decision_id < :before",
    }
    return page(tx, f"SELECT {_DECISION} FROM trade_decisions d", where, "d.decision_id", filters)


def executions(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Broker orders, newest first; strategy is null for orders that are not ours. The status
    `open` is that of all that may still be filled."""
    where = {
        "status": "NOT e.terminal" if filters.status == OPEN else "e.status = :status",
        "symbol": "e.symbol = :symbol",
        "strategy": "d.strategy = :strategy",
        "account": "e.account = :account",
        "since": "e.created_at >= :since",
        "origin": "e.origin = :origin",
        "before": "e.execution_id < :before",
    }
    source = (
        f"SELECT {_EXECUTION} FROM executions e LEFT JOIN trade_decisions d USING (decision_id)"
    )
    return page(tx, source, where, "e.execution_id", filters)


def fills(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Booked fills, latest booked first; `status` asks for the status of their order."""
    where = {
        "status": "e.status = :status",
        "symbol": "f.symbol = :symbol",
        "strategy": "f.strategy = :strategy",
        "account": "f.account = :account",
        "since": "f.transact_time >= :since",
        "before": "f.fill_id < :before",
    }
    source = f"SELECT {_FILL} {_FILLS}"
    return page(tx, source, where, "f.fill_id", filters)


def actions(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Cancels and replacements, newest first."""
    where = {
        "status": "a.status = :status",
        "symbol": "coalesce(d.symbol, e.symbol) = :symbol",
        "strategy": "d.strategy = :strategy",
        "account": "a.account = :account",
        "since": "a.created_at >= :since",
        "before": "a.action_id < :before",
    }
    source = """SELECT a.action_id AS id, a.operation, a.account, d.strategy,
      coalesce(d.symbol, e.symbol) AS symbol, d.decision_hash, a.broker_order_id,
      a.client_order_id, a.changes, a.status, a.status_reason, a.status_detail, a.attempts,
      a.new_order_id, a.request_key, a.requested_by, a.reason, a.created_at, a.updated_at
    FROM order_actions a LEFT JOIN trade_decisions d USING (decision_id)
    LEFT JOIN executions e ON e.broker_order_id = a.broker_order_id"""
    return page(tx, source, where, "a.action_id", filters)


def page(
    tx: Connection, source: str, where: Mapping[str, str], key: str, filters: Filters
) -> list[dict[str, Any]]:
    """One page of `source`, largest `key` first, under the conditions that were asked for."""
    asked = {name: getattr(filters, name) for name in where if getattr(filters, name) is not None}
    if "symbol" in asked:
        asked["symbol"] = asked["symbol"].upper()
    conditions = " AND ".join(where[name] for name in asked) or "true"
    rows = tx.execute(
        text(f"{source} WHERE {conditions} ORDER BY {key} DESC LIMIT :limit"),
        {**asked, "limit": max(1, min(filters.limit, LIMIT_MAX))},
    )
    return [plain(row) for row in rows]


# ---------------------------------------------------------------- one decision


def decision(tx: Connection, decision_hash: str) -> dict[str, Any] | None:
    """One decision with all that is stored of it and its `result` (torghut.domain.results), None if
    it is not known.

    A prefix of at least 8 characters will do if it is the beginning of one hash only; raises
    HashNotUsable otherwise.
    """
    prefix = decision_hash.strip().lower()
    if not _HASH_PREFIX.fullmatch(prefix):
        raise HashNotUsable(
            f"a decision_hash is 64 hexadecimal characters, or the first {PREFIX_MIN} or more"
        )
    rows = tx.execute(
        text(f"""SELECT {_DECISION_WHOLE} FROM trade_decisions d
        WHERE d.decision_hash >= :first AND d.decision_hash <= :last
        ORDER BY d.decision_hash LIMIT 2"""),
        {"first": prefix.ljust(64, "0"), "last": prefix.ljust(64, "f")},
    ).all()
    if len(rows) > 1:
        raise HashNotUsable(f"{prefix} is the beginning of more than one decision_hash; give more")
    if not rows:
        return None
    whole = plain(rows[0])
    return {**whole, "result": results.result(tx, whole)}


def story(tx: Connection, decision_hash: str) -> dict[str, Any] | None:
    """All that happened to a decision, each part in the order of time; None if it is not known.

    `identity` is what was hashed, `canonical_identity` its RFC 8785 text, `identity_intact` whether
    the hash of that text is the decision's. At most STORY_ROWS_MAX rows of each kind.
    Raises HashNotUsable as `decision` does.
    """
    whole = decision(tx, decision_hash)
    if whole is None:
        return None
    identity = {
        "v": whole["hash_version"],
        **{name: whole[name] for name in ("account", "strategy", "symbol", "side")},
        "event_ts": whole["event_ts"],
        "intent": whole["intent"],
    }
    key = {"id": whole["id"], "hash": whole["decision_hash"], "account": whole["account"]}
    orders = _story_rows(tx, _STORY_EXECUTIONS, key)
    events = _story_rows(tx, _STORY_EXECUTION_EVENTS, key)
    for order in orders:
        order["events"] = [e for e in events if e["execution_id"] == order["id"]]
    subjects = [whole["decision_hash"]]
    subjects += [o[name] for o in orders for name in ("client_order_id", "broker_order_id")]
    return {
        "decision": whole,
        "identity": identity,
        "canonical_identity": canonical_json(identity).decode(),
        "identity_intact": sha256_hex(identity) == whole["decision_hash"],
        "verdicts": _story_rows(tx, _STORY_VERDICTS, key),
        "attempts": _story_rows(tx, _STORY_ATTEMPTS, key),
        "executions": orders,
        "fills": _story_rows(tx, _STORY_FILLS, key),
        "events": _story_rows(tx, _STORY_EVENTS, key),
        "discrepancies": _story_rows(tx, _STORY_DISCREPANCIES, {**key, "subjects": subjects}),
    }


_STORY_VERDICTS = """
SELECT verdict_id, outcome, deny_reason, judged_at, policy_version, facts_id, reference_px,
  notional, checks, facts
FROM risk_verdicts WHERE decision_id = :id ORDER BY verdict_id"""

_STORY_ATTEMPTS = """
SELECT operation, attempt_no, outcome, http_status, broker_code, message, body, request_id,
  intended_at, answered_at, broker_order_id, client_order_id, fencing_token, order_sent
FROM submission_attempts WHERE decision_id = :id ORDER BY attempt_id"""

_STORY_EXECUTIONS = f"""
SELECT {_EXECUTION} FROM executions e JOIN trade_decisions d USING (decision_id)
WHERE e.decision_id = :id ORDER BY e.execution_id"""

_STORY_EXECUTION_EVENTS = """
SELECT v.execution_id, v.source, v.status, v.cum_qty, v.avg_px, v.broker_updated_at,
  v.observed_at, v.raw
FROM execution_events v JOIN executions e USING (execution_id)
WHERE e.decision_id = :id ORDER BY v.execution_event_id"""

_STORY_FILLS = f"""
SELECT {_FILL} {_FILLS}
WHERE e.decision_id = :id ORDER BY f.transact_time, f.fill_id"""

_STORY_EVENTS = """
SELECT event_seq AS id, event_id, kind, schema_version, actor, payload, created_at
FROM events WHERE decision_hash = :hash ORDER BY event_seq"""

_STORY_DISCREPANCIES = f"""
SELECT {_DISCREPANCY} FROM discrepancies
WHERE account = :account AND subject = ANY(CAST(:subjects AS text[])) ORDER BY discrepancy_id"""


def _story_rows(
    tx: Connection, query: str, parameters: Mapping[str, object]
) -> list[dict[str, Any]]:
    rows = tx.execute(text(f"{query} LIMIT :limit"), {**parameters, "limit": STORY_ROWS_MAX})
    return [plain(row) for row in rows]


# ---------------------------------------------------------------- how things stand


def summary(tx: Connection, account: str, *, now: datetime | None = None) -> dict[str, Any]:
    """How an account stands: decisions by status, what is open or in doubt, who owns it.

    `now` is what ages are measured against; None is Postgres's clock.
    """
    counted = tx.execute(
        text("""SELECT status, count(*) AS decisions FROM trade_decisions
        WHERE account = :account GROUP BY status"""),
        {"account": account},
    )
    by_status = {row.status: row.decisions for row in counted}
    decisions = {s.value: by_status.get(s.value, 0) for s in DecisionStatus}
    return {"account": account, "decisions": decisions, **standing(tx, account, now=now)}


def standing(tx: Connection, account: str, *, now: datetime | None = None) -> dict[str, Any]:
    """A summary without the count of all decisions: quick however many there are."""
    doubt = tx.execute(
        text("""SELECT count(*) AS decisions,
          extract(epoch FROM coalesce(CAST(:now AS timestamptz), clock_timestamp())
            - min(in_doubt_since)) AS age_s
        FROM trade_decisions WHERE account = :account AND status = 'in_doubt'"""),
        {"account": account, "now": now},
    ).one()
    counts = tx.execute(
        text("""SELECT
          (SELECT count(*) FROM executions WHERE account = :account AND NOT terminal) AS orders,
          (SELECT count(*) FROM discrepancies
           WHERE account = :account AND resolved_at IS NULL) AS discrepancies"""),
        {"account": account},
    ).one()
    state, reason = control.trading_state(tx, account)
    lease = leases.current(tx, account)
    return {
        "open_orders": counts.orders,
        "in_doubt": {
            "decisions": doubt.decisions,
            "oldest_age_s": None if doubt.age_s is None else max(0.0, round(float(doubt.age_s), 3)),
        },
        "trading_state": {"state": state.value, "reason": reason},
        "lease": None
        if lease is None
        else {"owner": lease[0], "fencing_token": lease[1], "valid": lease[2]},
        "open_discrepancies": counts.discrepancies,
        "broker_account": _snapshot(tx, account),
    }


def _snapshot(tx: Connection, account: str) -> dict[str, Any] | None:
    row = tx.execute(
        text("""SELECT account_number, status, currency, cash, equity, buying_power, blocked,
          positions, observed_at FROM broker_accounts WHERE account = :account"""),
        {"account": account},
    ).one_or_none()
    return None if row is None else plain(row)


def trading_states(tx: Connection) -> list[dict[str, Any]]:
    """Every scope that ever had a state: global, then accounts and strategies by name."""
    rows = tx.execute(
        text("""SELECT scope, state, actor, reason, changed_at FROM trading_states
        ORDER BY scope <> 'global', scope LIMIT :limit"""),
        {"limit": LIMIT_MAX},
    )
    return [plain(row) for row in rows]


def newest_policy(tx: Connection, account: str) -> dict[str, Any] | None:
    """Under which policy version the account's newest verdict was given, and when."""
    row = tx.execute(
        text("""SELECT v.policy_version, v.judged_at
        FROM risk_verdicts v JOIN trade_decisions d USING (decision_id)
        WHERE d.account = :account ORDER BY v.verdict_id DESC LIMIT 1"""),
        {"account": account},
    ).one_or_none()
    return None if row is None else plain(row)


def discrepancies(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Differences between our books and the broker's, newest first (status: open, resolved); of
    the filters only status, account, since (opened_at), limit and before are looked at."""
    rows = tx.execute(
        text(f"""SELECT {_DISCREPANCY} FROM discrepancies
        WHERE (CAST(:account AS text) IS NULL OR account = :account)
          AND (CAST(:status AS text) IS NULL OR (resolved_at IS NULL) = (:status = 'open'))
          AND (CAST(:since AS timestamptz) IS NULL OR opened_at >= :since)
          AND (CAST(:before AS bigint) IS NULL OR discrepancy_id < :before)
        ORDER BY discrepancy_id DESC LIMIT :limit"""),
        {
            "account": filters.account,
            "status": filters.status,
            "since": filters.since,
            "before": filters.before,
            "limit": max(1, min(filters.limit, LIMIT_MAX)),
        },
    )
    return [plain(row) for row in rows]


# ---------------------------------------------------------------- JSON


def plain(row: Row[Any]) -> dict[str, Any]:
    """A row as plain JSON data."""
    return {name: _value(value) for name, value in row._mapping.items()}


def _value(value: object) -> object:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Decimal):
        return canonical_amount(value)
    if isinstance(value, datetime):
        return canonical_instant(value)
    if isinstance(value, Mapping):
        return {str(name): _value(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_value(item) for item in value]
    return str(value)
