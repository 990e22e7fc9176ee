"""The first page: what the machine is doing, in ten seconds; and the button that stops it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection

from torghut.storage import facts, insights, pnl, queries
from torghut.web.console.charts import drawdown, line_chart
from torghut.web.console.frame import Asked, Frame
from torghut.web.parts import WebParts

POINTS = 240
NEWEST = 8
LATE_S = 3.0
"""An answer of the broker is old after this many times the interval of reconciliation."""


def add(routes: APIRouter, frame: Frame) -> None:
    """The route of the first page."""
    frame.page(routes, "/", "overview.html", partial(_overview, frame.parts))


def _overview(parts: WebParts, tx: Connection, asked: Asked) -> Mapping[str, Any]:
    account = asked.account
    began = time.monotonic()
    newest = queries.decisions(tx, queries.Filters(account=account, limit=NEWEST))
    database_s = time.monotonic() - began
    process = parts.process(account)
    return {
        "newest": newest,
        "states": queries.trading_states(tx),
        "profit": _today(tx, account),
        "totals": next(iter(pnl.totals(tx, account, by="account")), None),
        "process": process,
        "health": parts.health(),
        "database_s": database_s,
        "late_s": LATE_S * parts.settings.reconcile_interval_s,
        "reconciled_s": _age_s(process.reconciled_at if process else None, asked.now),
        "broker_s": _broker_age_s(asked),
        **_charts(insights.equity(tx, account, points=POINTS)),
    }


def _today(tx: Connection, account: str) -> Decimal | None:
    """What the account has gained since the broker's last close; the daily loss is judged by it."""
    snapshot = facts.account_snapshot(tx, account)
    if snapshot is None or snapshot.equity is None or snapshot.last_equity is None:
        return None
    return snapshot.equity - snapshot.last_equity


def _charts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    points = [(datetime.fromisoformat(row["at"]), Decimal(row["equity"])) for row in rows]
    if len(points) < 2:
        return {"equity_chart": None, "drawdown_chart": None}
    (_, first), (_, last) = points[0], points[-1]
    depths = drawdown(points)
    said = f"Equity from {first:,.2f} to {last:,.2f}"
    deepest = min(depth for _, depth in depths)
    return {
        "equity_chart": line_chart(points, said=said),
        "drawdown_chart": line_chart(
            depths, said=f"Drawdown, at the deepest {deepest:,.1f} %", unit=" %", filled=True
        ),
        "equity_said": said,
        "drawdown_said": f"{depths[-1][1]:,.1f} % now, {deepest:,.1f} % at the deepest",
    }


def _age_s(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else max(0.0, (now - at).total_seconds())


def _broker_age_s(asked: Asked) -> float | None:
    snapshot = asked.standing["broker_account"]
    at = None if snapshot is None else datetime.fromisoformat(snapshot["observed_at"])
    return _age_s(at, asked.now)
