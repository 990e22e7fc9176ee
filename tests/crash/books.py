"""Everything that must hold at the end of a case, whatever failed in the middle; one line a fault.

The broker's side is the simulator's ledger and its count of requests; ours is Postgres. A control
runs the same function and must find the fault it is named for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from tests.factories import ACCOUNT
from torghut import proof
from torghut.domain.lifecycle import TERMINAL

WITHOUT_ORDER = frozenset({"denied", "rejected", "expired", "canceled"})


def faults(
    tx: Connection, ledger: Mapping[str, Any], *, allowed: Collection[str] = ()
) -> list[str]:
    """Faults of both books; `allowed` are kinds of discrepancies that belong to the case."""
    compared = proof.compare(tx, ACCOUNT, proof.ledger_orders(ledger))
    orders: Mapping[str, list[Mapping[str, Any]]] = ledger["orders"]
    found = [] if compared.holds else [f"{compared}: {'; '.join(compared.differences)}"]
    found += _decisions(tx, orders)
    found += _attempts(tx)
    found += _positions(tx, orders)
    found += _events(tx)
    found += [
        f"discrepancy {row.kind} about {row.subject[:8]}: {row.evidence}"
        for row in tx.execute(text("SELECT kind, subject, evidence FROM discrepancies"))
        if row.kind not in allowed
    ]
    return found


def posted(requests: Mapping[str, Any], client_order_id: str) -> int:
    """POST /v2/orders that the broker received for one id, whatever came of them."""
    return int(requests["posts_by_client_order_id"].get(client_order_id, 0))


def _decisions(tx: Connection, orders: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    """Each is final: one order, or a refusal with its reason and none (stories 2, 5, 38)."""
    found: list[str] = []
    for row in tx.execute(text("SELECT decision_hash, status, status_reason FROM trade_decisions")):
        name, there = f"decision {row.decision_hash[:8]}", orders.get(row.decision_hash, [])
        if row.status not in TERMINAL:
            found.append(f"{name} is not final: {row.status} ({row.status_reason})")
        elif row.status in WITHOUT_ORDER and there:
            found.append(f"{name} is {row.status}, but the broker has {len(there)} order(s)")
        elif row.status in WITHOUT_ORDER and not row.status_reason:
            found.append(f"{name} is {row.status} without a reason")
        elif row.status == "closed" and len(there) != 1:
            found.append(f"{name} is closed with {len(there)} orders at the broker")
    return found


def _attempts(tx: Connection) -> list[str]:
    """No outcome is missing but those of dead processes; one owner at a time (stories 36, 45)."""
    owners = _rows(
        tx,
        """SELECT (payload ->> 'fencing_token')::bigint AS token, created_at FROM events
        WHERE kind = 'lease.acquired' ORDER BY event_seq""",
    )
    newest = owners[-1].token
    found: list[str] = []
    for row in _rows(
        tx,
        """SELECT client_order_id, attempt_no, fencing_token, outcome, intended_at
        FROM submission_attempts WHERE operation = 'submit' ORDER BY attempt_id""",
    ):
        name = f"attempt {row.attempt_no} of {row.client_order_id[:8]}"
        if row.outcome is None and row.fencing_token == newest:
            found.append(f"{name}: its process lives, and it has no outcome")
        later = [o for o in owners if o.token > row.fencing_token]
        if later and row.intended_at > later[0].created_at:
            found.append(f"{name}: made under token {row.fencing_token}, owner was a newer one")
    return found


def _positions(tx: Connection, orders: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    """Our positions are the broker's fills, added up (stories 11, 25)."""
    theirs: dict[str, Decimal] = {}
    for order in (line for lines in orders.values() for line in lines):
        sign = 1 if order["side"] == "buy" else -1
        total = theirs.get(order["symbol"], Decimal(0))
        theirs[order["symbol"]] = total + sign * Decimal(order["filled_qty"])
    ours = {row.symbol: row.qty for row in _rows(tx, "SELECT symbol, qty FROM positions")}
    return [
        f"position {symbol}: ours {ours.get(symbol, 0)}, the broker's {theirs.get(symbol, 0)}"
        for symbol in sorted(ours.keys() | theirs.keys())
        if ours.get(symbol, Decimal(0)) != theirs.get(symbol, Decimal(0))
    ]


def _events(tx: Connection) -> list[str]:
    """The outbox tells the same story: each decision enters `submitted` and its end once (P9)."""
    found: list[str] = []
    for row in _rows(
        tx,
        """SELECT d.decision_hash, d.status,
          count(*) FILTER (WHERE e.kind = 'decision.planned') AS planned,
          count(*) FILTER (WHERE e.kind IN ('order.submitted', 'order.recovered')) AS sent,
          count(*) FILTER (WHERE e.kind IN ('decision.closed', 'order.rejected', 'decision.denied',
            'decision.expired', 'decision.canceled')) AS ended
        FROM trade_decisions d LEFT JOIN events e USING (decision_hash)
        GROUP BY d.decision_hash, d.status""",
    ):
        sent = 1 if row.status in ("submitted", "closed") else 0
        ended = 1 if row.status in TERMINAL else 0
        if (row.planned, row.sent, row.ended) != (1, sent, ended):
            found.append(
                f"events of {row.decision_hash[:8]} ({row.status}): planned {row.planned}, "
                f"sent {row.sent}, ended {row.ended}"
            )
    return found


def _rows(tx: Connection, query: str) -> list[Row[Any]]:
    return list(tx.execute(text(query)).all())
