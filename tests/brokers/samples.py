"""Alpaca's JSON as recorded, and our orders, for the tests of this folder."""

from __future__ import annotations

from torghut.domain.errors import Fault
from torghut.domain.orders import OrderRequest, parse_order

COID = "c" * 64
KEY, SECRET = "PKCANARYKEY000000001", "canarysecret/0123456789+abcdefghijklmnop"


def order_json(**changes: object) -> dict[str, object]:
    """An Order as the paper API answers it."""
    row: dict[str, object] = {
        "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
        "client_order_id": COID,
        "created_at": "2026-10-05T14:30:00.123456789Z",
        "updated_at": "2026-10-05T14:30:00.125Z",
        "submitted_at": "2026-10-05T14:30:00.120Z",
        "filled_at": None,
        "expires_at": "2026-10-05T20:00:00Z",
        "canceled_at": None,
        "replaced_by": None,
        "replaces": None,
        "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
        "symbol": "AAPL",
        "asset_class": "us_equity",
        "notional": None,
        "qty": "10",
        "filled_qty": "0",
        "filled_avg_price": None,
        "order_class": "",
        "order_type": "limit",
        "type": "limit",
        "side": "buy",
        "position_intent": "buy_to_open",
        "time_in_force": "day",
        "limit_price": "100.5",
        "stop_price": None,
        "status": "pending_new",
        "extended_hours": False,
        "legs": None,
        "source": None,
    }
    return {**row, **changes}


def request(**changes: object) -> OrderRequest:
    """A limit order of 10 AAPL at 100.5, with decision JSON fields changed."""
    data: dict[str, object] = {
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "qty": "10",
        "limit_price": "100.5",
    }
    faults: list[Fault] = []
    order = parse_order({k: v for k, v in {**data, **changes}.items() if v is not None}, faults)
    assert order is not None, faults
    return order
