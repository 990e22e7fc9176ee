"""Which orders are one too many: the table, one reason at a time (story 40)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.factories import order as request_of
from torghut.domain.excess import Approval, excess, hash_of
from torghut.domain.orders import Order

HASH = "ab" * 32
AT = datetime(2026, 1, 5, 15, tzinfo=UTC)


def placed(**over: Any) -> Order:
    """The broker's order of 10 AAPL for HASH, with any field changed."""
    values: dict[str, Any] = {
        "broker_order_id": "b1",
        "client_order_id": HASH,
        "symbol": "AAPL",
        "side": "buy",
        "order_type": "market",
        "time_in_force": "day",
        "status": "new",
        "qty": Decimal(10),
        "notional": None,
        "limit_price": None,
        "stop_price": None,
        "cum_qty": Decimal(0),
        "avg_px": None,
        "created_at": AT,
        "updated_at": AT,
        "submitted_at": AT,
        "replaces": None,
        "replaced_by": None,
        "raw": {},
    }
    return Order(**{**values, **over})


@pytest.mark.parametrize(
    ("id_", "wanted"),
    [
        (HASH, HASH),
        (f"{HASH}-r1", HASH),
        (f"{HASH}-r20", HASH),
        (f"{HASH}-r0", None),
        (f"{HASH}-x1", None),
        (HASH.upper(), None),
        (HASH[:-1], None),
        (f"{HASH}0", None),
        (f"{HASH}\n", None),
        ("", None),
        ("904837e3-3b76-47ec-b432-046db621571b", None),
    ],
)
def test_ours_by_form(id_: str, wanted: str | None) -> None:
    assert hash_of(id_) == wanted


def approval(approved: bool = True, known: str | None = None, **over: object) -> Approval:
    return Approval(request_of(**over), approved, known)


def replaced(
    qty: str, number: int = 1, approved: bool = True, known: str | None = "b1", **over: object
) -> Approval:
    """An approval of 10 shares with its n-th replacement recorded, for so many shares."""
    recorded = {f"{HASH}-r{number}": Decimal(qty)}
    return Approval(request_of(**over), approved, known, recorded)


def successor(number: int = 1, **over: Any) -> Order:
    return placed(client_order_id=f"{HASH}-r{number}", broker_order_id="b2", **over)


NOTIONAL = {"qty": None, "notional": "500"}


@pytest.mark.parametrize(
    ("order", "approved", "first", "wanted"),
    [
        # covered
        (placed(), approval(), None, None),
        (placed(), approval(known="b1"), "b1", None),
        (placed(qty=Decimal("9.999999999")), approval(), None, None),
        (placed(cum_qty=Decimal(10), status="filled"), approval(), None, None),
        (placed(symbol="BTCUSD"), approval(symbol="BTC/USD", time_in_force="gtc"), None, None),
        (placed(qty=None, notional=Decimal(500)), approval(**NOTIONAL), None, None),
        (placed(qty=Decimal(3), cum_qty=Decimal(3)), approval(**NOTIONAL), None, None),
        (successor(), replaced("10"), None, None),
        (successor(), replaced("10"), "b2", None),
        (successor(qty=Decimal(25)), replaced("25"), None, None),
        (successor(qty=Decimal(4), cum_qty=Decimal(4)), replaced("4"), None, None),
        (successor(number=2), replaced("10", number=2), None, None),
        (placed(), replaced("25"), "b1", None),
        # one too many
        (successor(number=2), replaced("10"), None, "a replacement that nobody recorded"),
        (successor(), replaced("10", approved=False), None, "its decision was never approved"),
        (successor(), replaced("10"), "b9", "a second order of one decision: b9 is its first"),
        (successor(qty=Decimal(26)), replaced("25"), None, "26 shares, where 25 were approved"),
        (successor(qty=Decimal(5)), replaced("4"), None, "5 shares, where 4 were approved"),
        (successor(qty=Decimal(4), cum_qty=Decimal(5)), replaced("4"), None, "5 shares, where 4"),
        (successor(side="sell"), replaced("10"), None, "a sell, where a buy was approved"),
        (successor(symbol="MSFT"), replaced("10"), None, "for MSFT, where AAPL was approved"),
        (placed(qty=Decimal(25)), replaced("25"), "b1", "25 shares, where 10 were approved"),
        (placed(), None, None, "no decision of this account has this hash"),
        (placed(), approval(approved=False), None, "its decision was never approved"),
        (placed(client_order_id=f"{HASH}-r1"), approval(), None, "a replacement that nobody"),
        (placed(), approval(), "b0", "a second order of one decision: b0 is its first"),
        (placed(), approval(known="b0"), None, "a second order of one decision: b0"),
        (placed(symbol="MSFT"), approval(), None, "for MSFT, where AAPL was approved"),
        (placed(side="sell"), approval(), None, "a sell, where a buy was approved"),
        (placed(qty=Decimal("10.000000001")), approval(), None, "10.000000001 shares, where 10"),
        (placed(cum_qty=Decimal(11)), approval(), None, "11 shares, where 10 were approved"),
        (placed(qty=None, notional=Decimal(500)), approval(), None, "500 of currency, where none"),
        (
            placed(qty=None, notional=Decimal("500.01")),
            approval(**NOTIONAL),
            None,
            "500.01 of currency, where 500 were approved",
        ),
    ],
)
def test_excess(
    order: Order, approved: Approval | None, first: str | None, wanted: str | None
) -> None:
    problem = excess(order, approved, first)
    assert problem is None if wanted is None else wanted in (problem or "")
