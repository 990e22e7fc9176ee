"""All routes of the console."""

from __future__ import annotations

from fastapi import APIRouter

from torghut.web.console import (
    actions,
    attention,
    decision,
    entry,
    lists,
    overview,
    plans,
    profit,
    rules,
)
from torghut.web.console.frame import Frame
from torghut.web.console.live import Live
from torghut.web.keyring import Keyring
from torghut.web.parts import Staff, WebParts


def router(parts: WebParts, staff: Staff, keyring: Keyring) -> tuple[APIRouter, Live]:
    """The routes, and the hub of their streams, to be closed before the server is."""
    routes = APIRouter()
    frame = Frame(parts, staff, keyring)
    for part in (overview, lists, decision, plans, attention, profit, rules, actions):
        part.add(routes, frame)
    return routes, entry.add(routes, frame)
