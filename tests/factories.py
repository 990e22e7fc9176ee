"""Decisions and orders for tests: complete and valid, with any field changed or (None) left out."""

from __future__ import annotations

from datetime import timedelta

from torghut.domain.decisions import Decision, parse_decision
from torghut.domain.errors import Fault
from torghut.domain.orders import OrderRequest, parse_order

ACCOUNT = "paper"
TTL = timedelta(days=3650)

_ORDER: dict[str, object] = {"symbol": "AAPL", "side": "buy", "type": "market", "qty": "10"}
_SIGNAL: dict[str, object] = {"strategy": "sample", "event_ts": "2026-01-05T14:30:00Z"}


def decision_json(**over: object) -> dict[str, object]:
    """Decision JSON: a market order for 10 AAPL."""
    data = {**_SIGNAL, **_ORDER, **over}
    return {name: value for name, value in data.items() if value is not None}


def decision(**over: object) -> Decision:
    """The same, parsed, for account `paper` and not expired for ten years."""
    return parse_decision(decision_json(**over), account=ACCOUNT, ttl=TTL)


def order(**over: object) -> OrderRequest:
    """An order for 10 AAPL at the market."""
    faults: list[Fault] = []
    data = {name: value for name, value in {**_ORDER, **over}.items() if value is not None}
    parsed = parse_order(data, faults)
    assert parsed is not None, faults
    return parsed
