"""The result of a decision out of its rows: what `GET /v1/decisions/{hash}` shows as `result`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, text

from torghut.domain.results import result_of
from torghut.domain.values import canonical_amount


def result(tx: Connection, decision: Mapping[str, Any]) -> dict[str, Any]:
    """As plain JSON data; `decision` is its row as torghut.storage.queries gives it."""
    # a leg is no order of its own: it has an id that the broker gave it
    order = tx.execute(
        text("""SELECT broker_order_id, status, avg_px FROM executions
        WHERE decision_id = :id AND client_order_id LIKE :hash || '%'
        ORDER BY execution_id DESC LIMIT 1"""),
        {"id": decision["id"], "hash": decision["decision_hash"]},
    ).one_or_none()
    refusal = tx.execute(
        text("""SELECT message FROM submission_attempts
        WHERE decision_id = :id AND operation = 'submit' AND outcome = 'refused'
        ORDER BY attempt_id DESC LIMIT 1"""),
        {"id": decision["id"]},
    ).scalar_one_or_none()
    known = None
    if order is not None:
        avg_px = None if order.avg_px is None else canonical_amount(order.avg_px)
        known = {**order._mapping, "avg_px": avg_px}
    return asdict(result_of(decision, known, refusal))
