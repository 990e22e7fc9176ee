"""Legs of a bracket: orders with ids of the broker's making, booked as the decision's own (P12)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig, eventually
from tests.services.test_reconciler import agree, faults_of, written
from torghut.domain.lifecycle import DecisionStatus

BRACKET: dict[str, Any] = {
    "order_class": "bracket",
    "time_in_force": "gtc",
    "take_profit": {"limit_price": "110"},
    "stop_loss": {"stop_price": "90"},
}


@pytest.fixture(autouse=True)
def pinned(rig: Rig) -> None:
    """AAPL stands at 100."""
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "100"})


def booked(rig: Rig) -> list[tuple[str, str, bool]]:
    """(type, origin, is it the decision's) of each execution, in the order of their booking."""
    rows = rig.sql("""SELECT order_type, origin, decision_id IS NOT NULL AS ours FROM executions
        ORDER BY execution_id""")
    return [(row.order_type, row.origin, row.ours) for row in rows]


def three(origin: str) -> list[tuple[str, str, bool]]:
    return [(kind, origin, True) for kind in ("market", "limit", "stop")]


def settled(rig: Rig, hash_: str) -> bool:
    rig.settle()
    rig.time.pass_s(1)
    return bool(rig.row(hash_).status == DecisionStatus.SUBMITTED)


def test_the_answer_to_the_order_names_its_legs(rig: Rig) -> None:
    rig.send(**BRACKET)
    rig.execute()
    assert booked(rig) == three("submitted")
    assert rig.discrepancies() == []


def test_fills_of_legs_are_the_strategys(rig: Rig) -> None:
    hash_ = rig.send(**BRACKET)
    rig.execute()
    eventually(lambda: agree(rig) and rig.count("fills") == 1)
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "111"})
    eventually(lambda: agree(rig) and rig.count("fills") == 2)
    rows = rig.sql("SELECT DISTINCT decision_id, strategy FROM fills")
    assert [(row.decision_id, row.strategy) for row in rows] == [
        (rig.row(hash_).decision_id, "sample")
    ]
    statuses = rig.sql("SELECT order_type, status, terminal FROM executions ORDER BY execution_id")
    assert [tuple(row) for row in statuses] == [
        ("market", "filled", True), ("limit", "filled", True), ("stop", "canceled", True)
    ]  # fmt: skip
    assert rig.row(hash_).status == "closed"
    before = written(rig)
    rig.reconcile()
    assert written(rig) == before
    assert rig.discrepancies() == []


@pytest.mark.parametrize("kind", ["accept_then_reset", "garbage_body"])
def test_legs_are_found_with_an_order_in_doubt(rig: Rig, kind: str) -> None:
    hash_ = rig.send(**BRACKET)
    rig.fault(kind)
    rig.execute()
    assert booked(rig) == []
    eventually(lambda: settled(rig, hash_))
    assert booked(rig) == three("recovered")


def test_legs_are_found_in_the_lists(rig: Rig) -> None:
    hash_ = rig.send(**BRACKET)
    rig.fault("accept_then_reset")
    rig.execute()
    rig.reconcile()
    assert booked(rig) == three("reconciled")
    assert rig.row(hash_).status in ("submitted", "closed")
    assert "order.adopted" not in rig.events(hash_)


def test_legs_that_were_not_answered_are_found_in_the_lists(rig: Rig) -> None:
    """The order is found, and its legs are not: they come with the next reconciliation."""
    hash_ = rig.send(**BRACKET)
    rig.fault("accept_then_reset")
    rig.execute()
    rig.fault("refuse_5xx", "get_order")
    eventually(lambda: settled(rig, hash_))
    assert booked(rig) == three("recovered")[:1]
    eventually(lambda: agree(rig))
    assert booked(rig) == [*three("recovered")[:1], *three("reconciled")[1:]]
    assert rig.discrepancies() == []


def test_control_legs_of_somebody_else_are_adopted(rig: Rig) -> None:
    rig.place(**BRACKET)
    rig.reconcile()
    assert booked(rig) == [(kind, "external", False) for kind in ("market", "limit", "stop")]
    assert faults_of(rig) == [] or eventually(lambda: agree(rig))


def test_legs_adopted_before_their_order_was_known_become_the_decisions(rig: Rig) -> None:
    """As after a restored backup: the decision comes back last."""
    hash_ = rig.send(**BRACKET)
    rig.fault("accept_then_reset")
    rig.execute()
    listed = rig.broker.orders(after=None, limit=500)
    legs = [order for order in listed if order.client_order_id != hash_]
    rig.reconciler.see_orders(rig.lease, legs)
    assert [ours for *_, ours in booked(rig)] == [False, False]
    rig.reconcile()
    assert all(ours for *_, ours in booked(rig)) and len(booked(rig)) == 3
    assert rig.sql("SELECT 1 FROM executions WHERE account <> :a", a=ACCOUNT) == []
