"""Crafted stories, one for each status, in the shape of `torghut.storage.queries.story`.

All happens within seconds of 2026-01-05 14:30:00 UTC, when the decision is stored; `at(s)` is
`s` seconds after it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from torghut.domain.decisions import Decision
from torghut.domain.orders import OrderRequest, OrderType, Side, TimeInForce
from torghut.domain.values import canonical_instant, canonical_json, parse_amount

START = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
BROKER_ORDER_ID = "61e69015-8549-4bfd-b9c3-01e75843f47d"
FINAL = ("closed", "denied", "rejected", "expired", "canceled")


def at(seconds: float) -> str:
    """RFC 3339 text of an instant of the story."""
    return canonical_instant(START + timedelta(seconds=seconds))


DECISION = Decision(
    account="paper",
    strategy="ma-crossover",
    order=OrderRequest(
        symbol="AAPL",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        qty=parse_amount("10"),
        limit_price=parse_amount("189.5"),
    ),
    event_ts=START - timedelta(seconds=1),
    expires_at=START + timedelta(days=1),
    intent="entry",
)


def decision(status: str, **changes: object) -> dict[str, Any]:
    """The decision's own row in `status`."""
    row: dict[str, Any] = {
        "id": 7,
        "decision_hash": DECISION.decision_hash,
        "account": DECISION.account,
        "strategy": DECISION.strategy,
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "qty": "10",
        "notional": None,
        "limit_price": "189.5",
        "event_ts": canonical_instant(DECISION.event_ts),
        "intent": DECISION.intent,
        "status": status,
        "status_reason": None,
        "status_detail": None,
        "attempts": 1,
        "expires_at": canonical_instant(DECISION.expires_at),
        "created_at": at(0),
        "updated_at": at(1),
        "correlation_id": None,
        "payload": DECISION.payload(),
        "hash_version": 1,
        "payload_digest": DECISION.payload_digest,
        "source": "http",
        "due_at": at(4),
        "in_doubt_since": None,
        "lookups": 0,
        "lookup_misses": 0,
        "finalized_at": at(2) if status in FINAL else None,
        "fencing_token": 1,
    }
    return {**row, **changes}


def check(code: str, measured: str | None, limit: str | None, **changes: object) -> dict[str, Any]:
    """One check of a verdict, passed unless told otherwise."""
    row = {"code": code, "name": code, "passed": True, "measured": measured, "limit": limit}
    return {**row, "unit": "", "source": "rule", **changes}


def verdict(deny_reason: str | None = None, **changes: object) -> dict[str, Any]:
    """A verdict with one check of each kind."""
    over, halted = deny_reason == "order_notional", deny_reason == "trading_halted"
    row: dict[str, Any] = {
        "outcome": "denied" if deny_reason else "approved",
        "deny_reason": deny_reason,
        "judged_at": at(0.012),
        "policy_version": "ab" * 32,
        "reference_px": "189.5",
        "notional": "1895",
        "checks": [
            check(
                "trading_halted",
                "halted" if halted else "active",
                "not halted",
                name="state",
                passed=not halted,
                source="account:paper by ops: lunch" if halted else "default",
            ),
            check("order_qty", "10", None, name="max_order_qty", unit="shares", source="default"),
            check(
                "order_notional",
                "1895",
                "1000" if over else "100000",
                passed=not over,
                name="max_order_notional",
                unit="currency",
                source="risk.strategy.ma-crossover",
            ),
            check(
                "buying_power",
                "1895",
                "98105.123456789",
                unit="currency (buying power less reserve and reservations)",
                source="default",
            ),
        ],
        "facts": {},
    }
    return {**row, **changes}


def attempt(outcome: str | None, **changes: object) -> dict[str, Any]:
    """The first submission, 12 ms after the decision, answered 213 ms later."""
    row: dict[str, Any] = {
        "operation": "submit",
        "attempt_no": 1,
        "outcome": outcome,
        "http_status": None,
        "broker_code": None,
        "message": None,
        "body": None,
        "request_id": None,
        "intended_at": at(0.012),
        "answered_at": None if outcome is None else at(0.225),
        "broker_order_id": None,
        "client_order_id": DECISION.decision_hash,
        "fencing_token": 1,
        "order_sent": DECISION.payload(),
    }
    return {**row, **changes}


def lookup(outcome: str, seconds: float, **changes: object) -> dict[str, Any]:
    """A lookup asked `seconds` after the decision, answered 20 ms later."""
    times = {"intended_at": at(seconds), "answered_at": at(seconds + 0.02)}
    return {**attempt(outcome), "operation": "lookup", "message": "", **times, **changes}


def execution(status: str, cum_qty: str, **changes: object) -> dict[str, Any]:
    """The decision's order at the broker, seen twice."""
    row: dict[str, Any] = {
        "id": 3,
        "client_order_id": DECISION.decision_hash,
        "broker_order_id": BROKER_ORDER_ID,
        "origin": "submitted",
        "account": "paper",
        "strategy": DECISION.strategy,
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "time_in_force": "day",
        "qty": "10",
        "notional": None,
        "limit_price": "189.5",
        "stop_price": None,
        "status": status,
        "terminal": status == "filled",
        "cum_qty": cum_qty,
        "leaves_qty": str(10 - int(cum_qty)),
        "avg_px": None if cum_qty == "0" else "189.42",
        "ledger_qty": cum_qty,
        "created_at": at(0.225),
        "events": [seen("accepted", "0", 0.225, "submit"), seen(status, cum_qty, 1.5, "stream")],
    }
    return {**row, **changes}


def seen(status: str, cum_qty: str, seconds: float, source: str) -> dict[str, Any]:
    """One observation of the order."""
    return {
        "execution_id": 3,
        "source": source,
        "status": status,
        "cum_qty": cum_qty,
        "avg_px": None,
        "broker_updated_at": at(seconds),
        "observed_at": at(seconds),
        "raw": {},
    }


def fill(last_qty: str, seconds: float) -> dict[str, Any]:
    """A booked fill at 189.42."""
    return {
        "id": 1,
        "activity_id": f"20260105093001000::{last_qty}",
        "client_order_id": DECISION.decision_hash,
        "broker_order_id": BROKER_ORDER_ID,
        "account": "paper",
        "strategy": DECISION.strategy,
        "symbol": "AAPL",
        "side": "buy",
        "last_qty": last_qty,
        "last_px": "189.42",
        "cum_qty": last_qty,
        "leaves_qty": "0",
        "transact_time": at(seconds),
        "recorded_at": at(seconds),
    }


def event(kind: str, seconds: float, **payload: object) -> dict[str, Any]:
    """One event of the outbox."""
    return {
        "id": 1,
        "event_id": "0b7e9c1e-0000-4000-8000-000000000001",
        "kind": kind,
        "schema_version": 1,
        "actor": "executor",
        "payload": payload,
        "created_at": at(seconds),
    }


def story(status: str, row: dict[str, Any] | None = None, **parts: object) -> dict[str, Any]:
    """A story with the given parts; those left out are empty."""
    return {
        "decision": row or decision(status),
        "identity": DECISION.identity(),
        "canonical_identity": canonical_json(DECISION.identity()).decode(),
        "identity_intact": True,
        "verdicts": [],
        "attempts": [],
        "executions": [],
        "fills": [],
        "events": [event("decision.planned", 0, strategy="ma-crossover", symbol="AAPL")],
        "discrepancies": [],
        **parts,
    }


_GATEWAY = {"http_status": 504, "message": "504 Gateway Time-out", "request_id": "req-1"}
_SHORT = {"http_status": 403, "broker_code": "40310000", "message": "insufficient buying power"}

STORIES: dict[str, dict[str, Any]] = {
    "planned": story("planned", decision("planned", attempts=0)),
    "approved": story(
        "approved",
        decision(
            "approved", status_reason="never_left", status_detail="connection refused", due_at=at(4)
        ),
        verdicts=[verdict()],
        attempts=[attempt("never_left", message="connection refused")],
    ),
    "denied": story(
        "denied",
        decision("denied", status_reason="order_notional", attempts=0),
        verdicts=[verdict("order_notional")],
    ),
    "submitting": story("submitting", verdicts=[verdict()], attempts=[attempt(None)]),
    "in_doubt": story(
        "in_doubt",
        decision(
            "in_doubt",
            status_reason="no_definite_answer",
            status_detail="504 Gateway Time-out",
            in_doubt_since=at(0.225),
            lookups=4,
            lookup_misses=2,
            due_at=at(4),
        ),
        verdicts=[verdict()],
        attempts=[
            attempt("in_doubt", **_GATEWAY),
            lookup("absent", 0.5),
            lookup("absent", 1),
            lookup("unanswered", 2, message="read timeout"),
            lookup("unanswered", 3, message="read timeout"),
        ],
        events=[event("decision.planned", 0), event("order.in_doubt", 0.225, detail="504")],
    ),
    "submitted": story(
        "submitted",
        decision("submitted", status_reason="recovered"),
        verdicts=[verdict()],
        attempts=[attempt("in_doubt", **_GATEWAY), lookup("found", 0.5)],
        executions=[execution("partially_filled", "4", origin="recovered", ledger_qty="0")],
    ),
    "closed": story(
        "closed",
        decision("closed", status_reason="order_terminal", status_detail="filled"),
        verdicts=[verdict()],
        attempts=[attempt("accepted", http_status=200)],
        executions=[execution("filled", "10")],
        fills=[fill("4", 1.2), fill("6", 1.4)],
    ),
    "rejected": story(
        "rejected",
        decision("rejected", status_reason="refused_by_broker"),
        verdicts=[verdict()],
        attempts=[attempt("refused", **_SHORT), lookup("absent", 0.3)],
    ),
    "expired": story(
        "expired",
        decision("expired", status_reason="out_of_time"),
        verdicts=[verdict()],
        attempts=[attempt("in_doubt", message="read timeout"), lookup("absent", 40)],
        executions=[execution("accepted", "0", origin="reconciled")],
        discrepancies=[
            {
                "id": 1,
                "account": "paper",
                "kind": "order_after_end",
                "subject": DECISION.decision_hash,
                "evidence": {"broker_order_id": BROKER_ORDER_ID, "decision": "expired"},
                "opened_at": at(90_061),
                "seen_at": at(90_061),
                "resolved_at": None,
                "resolution": None,
            }
        ],
    ),
    "canceled": story(
        "canceled",
        decision(
            "canceled",
            status_reason="trading_halted",
            status_detail="risk_changed: trading_halted",
        ),
        verdicts=[verdict(), verdict("trading_halted", judged_at=at(1.5))],
        attempts=[attempt("rate_limited", http_status=429)],
    ),
}
