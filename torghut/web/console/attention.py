"""Attention: all that waits for a person, each with its evidence, advice, and what may be done.

in_doubt · discrepancies · what the broker listed and our books could not take · decisions of the
inbox and of streams that were refused · orders of others · sagas whose undoing has failed so far.
Advice is that of the command line (torghut.cli_words, cli_headline).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection

from torghut import cli_words as words
from torghut.cli_headline import next_step
from torghut.domain.discrepancies import DRIFTS
from torghut.domain.sagas import SagaStatus
from torghut.storage import inbox, plan_reads, queries
from torghut.storage.discrepancies import LEFT_OUT
from torghut.storage.queries import Filters
from torghut.web.console.frame import Asked, Frame

SHOWN_MAX = 200
BODY_SHOWN_MAX = 2_000


def add(routes: APIRouter, frame: Frame) -> None:
    """The route of the page."""
    frame.page(routes, "/console/attention", "attention.html", _attention)


def _attention(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    account = asked.account
    doubts = queries.decisions(tx, Filters(status="in_doubt", account=account, limit=SHOWN_MAX))
    found = queries.discrepancies(tx, Filters(status="open", account=account, limit=SHOWN_MAX))
    for item in found:
        item["advice"] = words.DISCREPANCY_ADVICE.get(item["kind"], "")
        item["drift"] = item["kind"] in DRIFTS
        item["decision_hash"] = _hash(item)
    others = Filters(status=queries.OPEN, origin="external", account=account, limit=SHOWN_MAX)
    undoing = Filters(status=SagaStatus.COMPENSATING, account=account, limit=SHOWN_MAX)
    return {
        "doubts": [_doubt(tx, row, asked) for row in doubts],
        "discrepancies": [item for item in found if item["kind"] not in LEFT_OUT],
        "left_out": [item for item in found if item["kind"] in LEFT_OUT],
        "refused": inbox.refused(
            tx, account, dismissed=False, limit=SHOWN_MAX, length_max=BODY_SHOWN_MAX
        ),
        "external": queries.executions(tx, others),
        "stuck": [row for row in plan_reads.sagas(tx, undoing) if row["undo_failures"]],
        "shown_max": SHOWN_MAX,
    }


def _doubt(tx: Connection, row: dict[str, Any], asked: Asked) -> dict[str, Any]:
    whole = queries.decision(tx, row["decision_hash"]) or row
    return {**whole, "next": next_step({"decision": whole, "executions": []}, asked.now)}


def _hash(item: Mapping[str, Any]) -> str | None:
    """The decision that a discrepancy is about, where its subject or evidence names one."""
    named = item["evidence"].get("decision_hash")
    for value in (item["subject"], named):
        if isinstance(value, str) and len(value) == 64 and value.isalnum():
            return value
    return None
