"""The pages that are lists: Decisions, Orders, Positions, Fills, Audit.

A page is one bounded question along a primary key; "older" goes on after its last row. Filters are
those of the HTTP interface, checked by the same models; a field left empty asks for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy import Connection

from torghut.domain.errors import Fault
from torghut.domain.values import canonical_instant, parse_since
from torghut.storage import insights, pnl, queries
from torghut.web.console.frame import Asked, Frame
from torghut.web.problems import invalid
from torghut.web.reads_api import (
    DecisionQuery,
    List,
    ListQuery,
    PageQuery,
    PositionQuery,
)

RECENT = 50
OPEN_MAX = 200
AUDIT_PAGE = 50


def add(routes: APIRouter, frame: Frame) -> None:
    """The routes of the lists."""
    page = partial(frame.page, routes)
    page(
        "/console/decisions",
        "decisions.html",
        lambda tx, asked: _listing(tx, asked, queries.decisions, DecisionQuery),
    )
    page(
        "/console/fills",
        "fills.html",
        lambda tx, asked: _listing(tx, asked, queries.fills, ListQuery),
    )
    page(
        "/console/positions",
        "positions.html",
        lambda tx, asked: _listing(tx, asked, pnl.positions, PositionQuery, status="open"),
    )
    page("/console/orders", "orders.html", _orders)
    page("/console/audit", "audit.html", _audit)


def filters_of(
    query: Mapping[str, str], model: Callable[..., PageQuery], now: datetime, **fixed: str
) -> PageQuery:
    """What a page was asked for, checked. Raises Problem 422 naming every fault."""
    given: dict[str, str] = {name: value.strip() for name, value in query.items()}
    try:
        if "since" in given:
            given["since"] = canonical_instant(parse_since(given["since"], now=now))
    except ValueError as error:
        raise invalid([Fault("since", str(error))], kind="invalid-query") from None
    try:
        return model(**{**fixed, **given})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def older(path: str, query: Mapping[str, str], rows: list[dict[str, Any]], limit: int) -> str:
    """The address of the next page, empty at the end; `rows` may be one more than a page."""
    if len(rows) <= limit:
        return ""
    return f"{path}?{urlencode({**query, 'cursor': rows[limit - 1]['id']})}"


def _listing(
    tx: Connection,
    asked: Asked,
    list_: List,
    model: Callable[..., PageQuery],
    **fixed: str,
) -> Mapping[str, Any]:
    asked_for = filters_of(asked.query, model, asked.now, **{"account": asked.account, **fixed})
    rows = list_(tx, asked_for.filters())
    return {
        "rows": rows[: asked_for.limit],
        "older": older("", asked.query, rows, asked_for.limit),
        "filtered": any(name != "cursor" for name in asked.query),
        "status": getattr(asked_for, "status", None) or "",
    }


def _orders(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    """What may still be filled first, then all of them."""
    recent = _listing(tx, asked, queries.executions, ListQuery)
    standing: list[dict[str, Any]] = []
    if not asked.query:
        filters = queries.Filters(status=queries.OPEN, account=asked.account, limit=OPEN_MAX)
        standing = queries.executions(tx, filters)
    return {**recent, "open": standing, "open_max": OPEN_MAX}


def _audit(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    cursor = filters_of(asked.query, PageQuery, asked.now).cursor
    rows, further = insights.operator_events(tx, before=cursor, limit=AUDIT_PAGE)
    rows = [{**row, **_told(row["payload"])} for row in rows]
    return {"rows": rows, "older": f"?{urlencode({'cursor': further})}" if further else ""}


def _told(payload: Mapping[str, Any]) -> dict[str, str]:
    """What an audited event is about, what it changed, and why, whatever its kind calls them."""

    def first(*names: str) -> str:
        return next((str(payload[name]) for name in names if payload.get(name)), "")

    before, after = first("before", "version_before"), first("after", "version_after", "status")
    return {
        "about": first("scope", "subject", "symbol", "owner", "asked_by"),
        "change": f"{before} → {after}" if before else after,
        "why": first("reason", "resolution", "error", "detail"),
    }
