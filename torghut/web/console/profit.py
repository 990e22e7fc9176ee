"""P&L by strategy and by symbol, as a page and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from torghut.domain.errors import Fault
from torghut.storage import pnl
from torghut.web.console.frame import Asked, Frame
from torghut.web.console.rendering import HEADERS
from torghut.web.problems import invalid

COLUMNS = ("positions", "realized_pl", "unrealized_pl", "total_pl", "unpriced")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the beginning of a text."""


def add(routes: APIRouter, frame: Frame) -> None:
    """The routes of profit."""
    frame.page(routes, "/console/pnl", "pnl.html", _profit)

    async def export(request: Request) -> Response:
        session = frame.session_of(request)
        if session is None:
            return frame.ask_to_sign_in(request)
        by = request.query_params.get("by", "strategy")
        try:
            if by not in ("strategy", "symbol"):
                raise invalid([Fault("by", "must be strategy or symbol")], kind="invalid-query")
            account = frame.account(request)
            rows = await frame.reader.ask(lambda tx: _rows(tx, account, by))
        except Exception as error:  # noqa: BLE001 - shown as a page, and logged
            return frame.failed(request, session, error)
        headers = {
            **HEADERS,
            "Content-Disposition": f'attachment; filename="torghut-pnl-by-{by}.csv"',
        }
        return Response(as_csv(by, rows), media_type="text/csv", headers=headers)

    routes.add_api_route("/console/pnl.csv", export, methods=["GET"], include_in_schema=False)


def as_csv(by: str, rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; a name that a spreadsheet would calculate is made a text."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow((by, *COLUMNS))
    for row in rows:
        name = str(row[by] or "")
        name = f"'{name}" if name.startswith(FORMULA) else name
        writer.writerow((name, *(row[column] for column in COLUMNS)))
    return out.getvalue()


def _profit(tx: Connection, asked: Asked) -> Mapping[str, Any]:
    account = asked.account
    whole = pnl.totals(tx, account, by="account")
    return {
        "by_strategy": _rows(tx, account, "strategy"),
        "by_symbol": _rows(tx, account, "symbol"),
        "whole": _with_total(whole[0]) if whole else None,
    }


def _rows(tx: Connection, account: str, by: str) -> list[dict[str, Any]]:
    rows = pnl.totals(tx, account, by="strategy" if by == "strategy" else "symbol")
    return [_with_total(row) for row in rows]


def _with_total(row: dict[str, Any]) -> dict[str, Any]:
    total = Decimal(row["realized_pl"]) + Decimal(row["unrealized_pl"])
    return {**row, "total_pl": format(total, "f")}
