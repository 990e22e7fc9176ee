"""The pages of plans and sagas: a list of both, and one of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection

from torghut.cli_words import ITEM_REASON_WORDS, reason_in_words
from torghut.storage import plan_reads, queries
from torghut.web.console.frame import Asked, Frame
from torghut.web.console.lists import filters_of, older
from torghut.web.plans_api import PlanQuery
from torghut.web.problems import Problem

SAGAS_SHOWN = 50


def add(routes: APIRouter, frame: Frame) -> None:
    """The routes."""
    frame.page(routes, "/console/plans", "plans.html", _lists)
    frame.page(routes, "/console/plans/{plan_id}", "plan.html", _plan)
    frame.page(routes, "/console/sagas/{saga_id}", "saga.html", _saga)


def _lists(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    query = filters_of(asked.query, PlanQuery, asked.now, account=asked.account)
    plans = plan_reads.plans(tx, query.filters())
    sagas = queries.Filters(account=asked.account, limit=SAGAS_SHOWN)
    return {
        "plans": plans[: query.limit],
        "older": older("", asked.query, plans, query.limit),
        "sagas": plan_reads.sagas(tx, sagas),
        "sagas_max": SAGAS_SHOWN,
    }


def _plan(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    found = plan_reads.plan(tx, _number(asked.path["plan_id"]))
    if found is None:
        raise Problem(404, "unknown", "no plan has this number")
    items = [{**item, "why": _why(item["reason"])} for item in found["items"]]
    return {"plan": found, "items": items, "saga": found["saga"]}


def _saga(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    found = plan_reads.saga(tx, _number(asked.path["saga_id"]))
    if found is None:
        raise Problem(404, "unknown", "no saga has this number")
    return {"saga": found}


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Problem(404, "unknown", "this is no number")
    return int(text)


def _why(reason: str | None) -> str:
    return ITEM_REASON_WORDS.get(reason or "") or reason_in_words(reason)
