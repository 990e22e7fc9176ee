"""Risk (which limits are in force, where each was set, how near the newest order came to it) and
Strategies (their schedule, last ticks, next tick, trading state)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import groupby
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection

from torghut.config import risk_policy
from torghut.domain.values import canonical_instant
from torghut.services.limit_reload import listed
from torghut.services.scheduler import next_tick
from torghut.storage import control, insights, queries
from torghut.web.console.decision import bars
from torghut.web.console.frame import Asked, Frame
from torghut.web.parts import WebParts

TICKS_SHOWN = 10


def add(routes: APIRouter, frame: Frame) -> None:
    """The routes of both pages."""
    frame.page(routes, "/console/risk", "risk.html", partial(_risk, frame.parts))
    frame.page(routes, "/console/strategies", "strategies.html", partial(_strategies, frame.parts))


def _risk(parts: WebParts, tx: Connection, asked: Asked) -> Mapping[str, Any]:
    process = parts.process(asked.account)
    policy = process.policy if process else risk_policy(parts.settings.of(asked.account))
    newest = insights.newest_verdict(tx, asked.account)
    return {
        "limits": listed(policy),
        "version": policy.version,
        "newest": newest,
        "bars": bars(newest["checks"]) if newest else [],
    }


def _strategies(parts: WebParts, tx: Connection, asked: Asked) -> Mapping[str, Any]:
    configured = parts.settings.strategies
    ticks = {
        name: list(rows)
        for name, rows in groupby(
            insights.ticks(tx, each=TICKS_SHOWN), key=lambda row: row["strategy"]
        )
    }
    states = {row["scope"]: row for row in queries.trading_states(tx)}
    found = []
    for name in sorted({*configured, *ticks}):
        config = configured.get(name)
        fire = next_tick(name, config, asked.now) if config else None
        found.append(
            {
                "name": name,
                "config": config,
                "next": None if fire is None else canonical_instant(fire),
                "ticks": ticks.get(name, []),
                "state": states.get(control.strategy_scope(name)),
            }
        )
    return {"strategies": found}
