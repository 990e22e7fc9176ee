"""Replace and cancel where a decision has exits: what is replaced is the entry, never an exit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.services.rig import Rig
from tests.services.test_legs import BRACKET
from torghut.services import order_requests
from torghut.storage import order_actions

ENTRIES = {
    "limit": ({"type": "limit", "limit_price": "99"}, {"limit_price": "98"}),
    # an exit would take a stop price: it is the entry's that is meant
    "stop": ({"type": "stop", "stop_price": "105"}, {"stop_price": "106"}),
}


@pytest.fixture(autouse=True)
def pinned(rig: Rig) -> None:
    """AAPL stands at 100."""
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "100"})


def entered(rig: Rig, kind: str) -> str:
    """A bracket whose entry stands."""
    hash_ = rig.send(**{**BRACKET, **ENTRIES[kind][0]})
    rig.execute()
    rig.reconcile()
    assert rig.count("executions") == 3
    return hash_


def standing(rig: Rig) -> list[tuple[Any, ...]]:
    """(side, type, stop price) of what may be filled."""
    rows = rig.sql("""SELECT side, order_type, stop_price FROM executions WHERE NOT terminal
        ORDER BY side, order_type""")
    return [(row.side, row.order_type, row.stop_price) for row in rows]


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize("knowing", [True, False], ids=["", "control_exits_taken_for_the_entry"])
def test_a_replacement_is_of_the_entry(
    rig: Rig, kind: str, knowing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the newest open order of the decision, an exit, would be replaced instead."""
    if not knowing:
        monkeypatch.setattr(order_actions, "standing_of_decision", _all_alike())
    hash_ = entered(rig, kind)
    entry = rig.broker_orders(hash_)[0]["order_id"]
    before = standing(rig)
    asked = order_requests.replace(rig.database, hash_, ENTRIES[kind][1], rig.asker())
    end = rig.finish(asked)
    (target,) = rig.sql("SELECT broker_order_id FROM order_actions")[0]
    assert (target == entry) is knowing
    if not knowing:
        return
    assert end == [("done", "order_replaced")]
    rig.reconcile()
    exits = [row for row in before if row[0] == "sell"]
    assert [row for row in standing(rig) if row[0] == "sell"] == exits
    assert rig.discrepancies() == []
    again = dict.fromkeys(ENTRIES[kind][1], "97" if kind == "limit" else "107")
    asked = order_requests.replace(rig.database, hash_, again, rig.asker("again"))
    assert rig.finish(asked) == [("done", "order_replaced")]
    assert len(rig.broker_orders(f"{hash_}-r2")) == 1


def _all_alike() -> Callable[..., Any]:
    from dataclasses import replace

    read = order_actions.standing_of_decision

    def alike(*args: Any) -> list[order_actions.Standing]:
        orders = [replace(order, exit=False) for order in read(*args)]
        return sorted(orders, key=lambda order: order.execution_id)

    return alike


def test_with_the_entry_filled_there_is_nothing_to_replace(rig: Rig) -> None:
    """The exits stay as they are."""
    hash_ = entered(rig, "limit")
    rig.control("POST", f"/orders/{hash_}/fill", {})
    rig.reconcile()
    before = standing(rig)
    assert [row[0] for row in before] == ["sell", "sell"]
    asked = order_requests.replace(rig.database, hash_, {"limit_price": "98"}, rig.asker())
    assert rig.finish(asked) == [("moot", "order_ended")]
    assert standing(rig) == before


def test_an_entry_replaced_by_somebody_else_is_followed(rig: Rig) -> None:
    """Its successor has an id of the broker's making, as exits have."""
    hash_ = entered(rig, "limit")
    keys = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
    url = f"{rig.sim.url}/v2/orders/{rig.broker_orders(hash_)[0]['order_id']}"
    reply = requests.patch(url, json={"limit_price": "97"}, headers=keys, timeout=10)
    reply.raise_for_status()
    rig.reconcile()
    asked = order_requests.replace(rig.database, hash_, {"limit_price": "96"}, rig.asker())
    assert rig.finish(asked) == [("done", "order_replaced")]
    assert rig.sql("SELECT broker_order_id FROM order_actions") == [(reply.json()["id"],)]


@pytest.mark.parametrize("filled", [False, True])
def test_a_cancel_ends_entry_and_exits(rig: Rig, filled: bool) -> None:
    """The entry is named while it stands, then an exit; the broker cancels the rest."""
    hash_ = entered(rig, "limit")
    if filled:
        rig.control("POST", f"/orders/{hash_}/fill", {})
        rig.reconcile()
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    assert rig.finish(asked) == [("done", "order_canceled")]
    rig.reconcile()
    assert standing(rig) == []
    entry = rig.broker_orders(hash_)[0]["order_id"]
    assert rig.sql("SELECT broker_order_id = :e FROM order_actions", e=entry) == [(not filled,)]
    assert rig.status(hash_)[0] == "closed"
