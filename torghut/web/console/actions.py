"""What may be done from the console. Each asks for a reason and is a service that the command line
and the HTTP interface call too; none decides anything by itself.

    trading-state   halt, reduce, resume: everything, the account, or one strategy
    cancel          a decision's order, or an open order of somebody else
    resolve         a discrepancy that was looked into
    accept          the broker's amount, where ours differs
    dismiss         a refused decision of the inbox or of a stream
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from fastapi import APIRouter

from torghut.domain.errors import Fault
from torghut.domain.exposure import TradingState
from torghut.services import operator, order_requests, refusals, tie_out
from torghut.services.operator import NotChanged
from torghut.services.order_requests import Asker, Requested
from torghut.web.console.frame import Frame
from torghut.web.console.sessions import Session
from torghut.web.parts import WebParts
from torghut.web.reads_api import CURSOR_MAX

Form = Mapping[str, str]


def add(routes: APIRouter, frame: Frame) -> None:
    """The routes of the actions."""
    actions = Actions(frame.parts)
    for name, step in (
        ("trading-state", actions.trading_state),
        ("cancel", actions.cancel),
        ("resolve", actions.resolve),
        ("accept", actions.accept),
        ("dismiss", actions.dismiss),
    ):
        frame.action(routes, f"/console/{name}", step)


class Actions:
    """The steps, for the account that the form names. Each returns what was done, in a sentence."""

    def __init__(self, parts: WebParts) -> None:
        self._settings = parts.settings
        self._database = parts.database

    def trading_state(self, session: Session, form: Form, now: datetime) -> str:
        """`state`, and `scope`: global (if empty), account, or strategy with its `strategy`."""
        try:
            state = TradingState(form.get("state", ""))
        except ValueError:
            raise NotChanged(Fault("state", "must be active, reducing or halted")) from None
        kind = form.get("scope", "") or "global"
        if kind not in ("global", "account", "strategy"):
            raise NotChanged(Fault("scope", "must be global, account or strategy"))
        scope = operator.scope_of(
            form["account"] if kind == "account" else None,
            form.get("strategy", "") if kind == "strategy" else None,
        )
        done = operator.change(
            state,
            self._database,
            scope,
            actor=session.actor,
            reason=form.get("reason", ""),
            now=now,
            settings=self._settings,
        )
        if not done.changed:
            return f"{done.scope} is {done.state} already"
        return f"{done.scope}: {done.before} → {done.state}"

    def cancel(self, session: Session, form: Form, now: datetime) -> str:
        """`decision_hash`, or `broker_order_id` of an order that is not ours."""
        asker = Asker(session.actor, form.get("reason", ""), form.get("key", ""), now)
        if form.get("decision_hash"):
            asked = order_requests.cancel(self._database, form["decision_hash"], asker)
        else:
            account, order = form["account"], form.get("broker_order_id", "")
            asked = order_requests.cancel_order(self._database, account, order, asker)
        return f"cancel {_standing(asked)}; the order shows what becomes of it"

    def resolve(self, session: Session, form: Form, now: datetime) -> str:
        """`id` of a discrepancy."""
        done = operator.resolve(
            self._database,
            _id(form.get("id", "")),
            actor=session.actor,
            reason=form.get("reason", ""),
            now=now,
        )
        return f"discrepancy {done['id']}, {done['kind']} {done['subject']}, is closed"

    def accept(self, session: Session, form: Form, now: datetime) -> str:
        """`subject`: a symbol, or cash."""
        done = tie_out.accept(
            self._database,
            form["account"],
            form.get("subject", ""),
            actor=session.actor,
            reason=operator.checked_reason(form.get("reason", "")),
            now=now,
        )
        return f"{done['subject']}: {done['difference']} taken into our books"

    def dismiss(self, session: Session, form: Form, now: datetime) -> str:
        """`id` of a refused decision."""
        number = _id(form.get("id", ""))
        account, reason = form["account"], form.get("reason", "")
        refusals.dismiss(
            self._database, account, [number], actor=session.actor, reason=reason, now=now
        )
        return f"refused decision {number} is dismissed"


def _standing(asked: Requested) -> str:
    return "asked for already" if asked.replayed else "asked for"


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= CURSOR_MAX):
        raise NotChanged(Fault("id", "is no number of what is listed"))
    return int(text)
