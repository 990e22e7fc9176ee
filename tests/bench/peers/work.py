"""What a decision makes a durable pipeline do, the same for every peer.

    decision in the queue ─▶ judge ─▶ commit verdict + intent ─▶ submit (a no-op)
                                         ─▶ commit execution + event

A handler may run twice for one decision, as every queue says; so each insert is a no-op the second
time, and no peer has to do more for it. Statements have `$1` parameters, which asyncpg and the raw
cursors of psycopg both take.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

SYMBOLS = ("AAPL", "MSFT", "NVDA", "TSLA", "AMZN", "GOOGL", "SPY", "QQQ")

TABLES = """
CREATE TABLE verdicts (
  decision_hash text PRIMARY KEY,
  outcome       text NOT NULL,
  checks        jsonb,
  judged_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE intents (
  decision_hash text PRIMARY KEY,
  order_sent    jsonb NOT NULL,
  intended_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE executions (
  client_order_id text PRIMARY KEY,
  broker_order_id text NOT NULL UNIQUE,
  status          text NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE outbox (
  decision_hash text NOT NULL,
  kind          text NOT NULL,
  payload       jsonb NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  outbox_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);
"""

WRITTEN = ("verdicts", "intents", "executions", "outbox")
"""Tables that have one row per decision afterwards."""

INTENT = """
WITH verdict AS (
  INSERT INTO verdicts (decision_hash, outcome, checks) VALUES ($1::text, $2::text, $3::jsonb)
  ON CONFLICT DO NOTHING
)
INSERT INTO intents (decision_hash, order_sent) VALUES ($1::text, $4::jsonb)
ON CONFLICT DO NOTHING
"""

OUTCOME = """
WITH execution AS (
  INSERT INTO executions (client_order_id, broker_order_id, status)
  VALUES ($1::text, $2::text, $3::text) ON CONFLICT DO NOTHING RETURNING client_order_id
)
INSERT INTO outbox (decision_hash, kind, payload)
SELECT client_order_id, 'order.submitted', $4::jsonb FROM execution
"""

CHECKS = 43
"""As many as Torghut makes with the limits that are on by default."""

_LIMITS = tuple((f"limit_number_{number:02}", 1_000.0 * (number + 1)) for number in range(CHECKS))


def decisions(count: int) -> list[tuple[str, str]]:
    """(decision_hash, payload as JSON text): of the size of Torghut's, all different."""
    made = []
    for number in range(count):
        payload = {
            "strategy": "bench",
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "side": ("buy", "sell")[number % 2],
            "type": "limit",
            "qty": "10",
            "limit_price": "100.25",
            "time_in_force": "day",
            "event_ts": "2026-01-05T14:30:00.000000Z",
            "intent": f"n{number}",
        }
        text = json.dumps(payload)
        made.append((hashlib.sha256(text.encode()).hexdigest(), text))
    return made


def parsed(count: int) -> list[tuple[str, dict[str, str]]]:
    """The same for queues that make JSON themselves."""
    return [(hash_, json.loads(payload)) for hash_, payload in decisions(count)]


def judge(payload: dict[str, Any]) -> tuple[str, str]:
    """(outcome, checks as JSON text): every limit compared, every comparison written down."""
    qty, price = float(payload["qty"]), float(payload["limit_price"])
    measured = qty * price
    checks = [
        {
            "name": name,
            "passed": measured <= limit * 1_000.0,
            "measured": f"{measured:.2f}",
            "limit": f"{limit:.2f}",
        }
        for name, limit in _LIMITS
    ]
    outcome = "approved" if all(check["passed"] for check in checks) else "denied"
    return outcome, json.dumps(checks)


def order_of(payload: dict[str, Any]) -> str:
    """The order that is sent, as JSON text."""
    names = ("symbol", "side", "type", "qty", "limit_price", "time_in_force")
    return json.dumps({name: payload[name] for name in names})


def submit(decision_hash: str) -> tuple[str, str]:
    """(broker_order_id, status): a broker that takes everything at once."""
    return f"b-{decision_hash}", "accepted"


def event_of(broker_order_id: str, status: str) -> str:
    """The event of an accepted order, as JSON text."""
    return json.dumps({"broker_order_id": broker_order_id, "status": status})
