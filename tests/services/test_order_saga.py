"""One decision as a saga: validate, check risk, execute, update records (P1, P2)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.factories import decision
from tests.services.planning import Planning
from tests.services.rig import Rig
from torghut.domain.decisions import Decision
from torghut.domain.values import canonical_instant
from torghut.services.order_saga import start_order
from torghut.storage import plan_reads


@pytest.fixture
def planning(rig: Rig) -> Planning:
    rig.control(
        "POST", "/market/price", {"symbol": "AAPL", "price": "100", "bid": "100", "ask": "100"}
    )
    return Planning(rig)


def begin(planning: Planning, wanted: Decision, *, undo: bool = False) -> int:
    rig = planning.rig
    id_, _ = start_order(rig.database, wanted, undo_fills=undo, actor="test", now=rig.time())
    return id_


def look(planning: Planning, saga_id: int) -> dict[str, Any]:
    with planning.rig.database.transaction() as tx:
        found = plan_reads.saga(tx, saga_id)
    assert found is not None
    return found


def finish(planning: Planning, saga_id: int) -> dict[str, Any]:
    planning.until(lambda: look(planning, saga_id)["finalized_at"])
    return look(planning, saga_id)


def test_an_order_is_filled_and_recorded(planning: Planning) -> None:
    wanted = decision(qty="3")
    saga = finish(planning, begin(planning, wanted))
    assert saga["status"] == "completed"
    assert saga["steps"][3]["result"] == {"filled_qty": "3", "filled_value": "300", "avg_px": "100"}
    assert planning.rig.status(wanted.decision_hash)[0] == "closed"
    assert begin(planning, wanted) == saga["id"]
    assert len(planning.rig.broker_orders(wanted.decision_hash)) == 1


def test_what_risk_denies_is_undone(planning: Planning) -> None:
    wanted = decision(qty="100000000")
    saga = finish(planning, begin(planning, wanted))
    assert saga["status"] == "compensated"
    assert saga["failure"].startswith("check_risk: denied")
    assert [step["status"] for step in saga["steps"]] == ["undone", "undone", "pending", "pending"]
    assert planning.rig.posts() == 0


def test_what_the_broker_refuses_is_undone(planning: Planning) -> None:
    planning.rig.fault("reject", symbol="AAPL", status=422, code=42210000, count=0)
    saga = finish(planning, begin(planning, decision(qty="3")))
    assert saga["status"] == "compensated"
    assert saga["failure"].startswith("execute_order: nothing was filled: rejected")


def test_an_order_that_had_its_identity_before_is_left_alone(planning: Planning) -> None:
    """In conflict with a decision of somebody else: that one's order is not ours to cancel."""
    rig = planning.rig
    resting = {"type": "limit", "limit_price": "1", "time_in_force": "gtc"}
    theirs = rig.send(qty="10", **resting)
    rig.execute()
    saga = finish(planning, begin(planning, decision(qty="3", **resting)))
    assert saga["status"] == "compensated"
    assert saga["failure"] == "check_risk: another order has its identity: qty"
    assert rig.count("order_actions") == 0
    assert rig.status(theirs)[0] == "submitted"


def test_a_signal_that_is_over_is_not_traded(planning: Planning) -> None:
    late = decision(expires_at="2026-01-05T15:00:00Z")
    saga = finish(planning, begin(planning, late))
    assert saga["failure"].startswith("validate_signal: its expires_at")
    assert planning.rig.count("trade_decisions") == 0


@pytest.mark.parametrize("undo", [False, True])
def test_an_order_that_is_filled_in_part_is_canceled_and_undone(
    planning: Planning, undo: bool
) -> None:
    """Not filled by its expires_at: canceled; the part stays, or is sold again."""
    rig = planning.rig
    rig.control("POST", "/switches", {"hold_fills": True})
    until = canonical_instant(rig.time() + timedelta(seconds=60))
    wanted = decision(qty="10", type="limit", limit_price="100", expires_at=until)
    saga_id = begin(planning, wanted, undo=undo)
    planning.until(lambda: rig.count("executions", "NOT terminal"))
    order = rig.broker_orders(wanted.decision_hash)[0]["order_id"]
    rig.control("POST", f"/orders/{order}/fill", {"qty": "4"})
    planning.until(lambda: rig.count("fills"))
    dear = {"symbol": "AAPL", "price": "101", "bid": "101", "ask": "102"}
    rig.control("POST", "/market/price", dear)
    rig.control("POST", "/switches", {"hold_fills": False})
    rig.time.pass_s(90)
    saga = finish(planning, saga_id)
    assert saga["status"] == "compensated"
    assert "still open at its expires_at" in saga["failure"]
    left = rig.sql("SELECT qty FROM positions WHERE symbol = 'AAPL'")[0].qty
    assert left == (0 if undo else 4)
    assert rig.count("executions", "status = 'canceled'") == 1
    assert rig.count("trade_decisions", "side = 'sell'") == int(undo)
