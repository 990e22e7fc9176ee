"""What the adapter sends for every kind of order, and how it shows orders that hang on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from tests.brokers.conftest import make_broker
from tests.brokers.samples import KEY, SECRET, order_json, request
from torghut.brokers.alpaca_mapping import order_of
from torghut.domain.orders import Order
from torghut.ports import Outcome
from torghut.simulator import SimConfig, Simulator

SIZE: Mapping[str, object] = {"type": "market", "limit_price": None}
LEGS: Mapping[str, object] = {
    "take_profit": {"limit_price": "110"},
    "stop_loss": {"stop_price": "95", "limit_price": "94.5"},
}
BRACKET: Mapping[str, object] = {**SIZE, "order_class": "bracket", **LEGS}

# decision fields → what the broker's own order says about them
SHAPES: dict[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
    "limit": ({"limit_price": "10.01"}, {"limit_price": "10.01", "order_class": ""}),
    "extended hours": (
        {"extended_hours": True, "time_in_force": "gtc"},
        {"extended_hours": True, "time_in_force": "gtc"},
    ),
    "stop limit": (
        {"type": "stop_limit", "stop_price": "120", "limit_price": "121.5"},
        {"stop_price": "120", "limit_price": "121.5"},
    ),
    "notional": (
        {**SIZE, "qty": None, "notional": "150.37"},
        {"notional": "150.37", "qty": None},
    ),
    "fraction": ({**SIZE, "qty": "0.123456789"}, {"qty": "0.123456789", "notional": None}),
    "trail price": (
        {**SIZE, "type": "trailing_stop", "trail_price": "2.5"},
        {"trail_price": "2.5", "trail_percent": None, "hwm": "100", "stop_price": "102.5"},
    ),
    "trail percent": (
        {**SIZE, "type": "trailing_stop", "trail_percent": "0.1", "time_in_force": "gtc"},
        {"trail_percent": "0.1", "trail_price": None, "stop_price": "100.1"},
    ),
    "coins": (
        {**SIZE, "symbol": "BTC/USD", "qty": "0.123456789", "time_in_force": "ioc"},
        {"symbol": "BTC/USD", "asset_class": "crypto", "time_in_force": "ioc"},
    ),
    "bracket": (BRACKET, {"order_class": "bracket"}),
    "oto": (
        {**SIZE, "order_class": "oto", "stop_loss": {"stop_price": "95"}},
        {"order_class": "oto"},
    ),
    "oco": (
        {"order_class": "oco", "side": "sell", "qty": "1", "limit_price": None, **LEGS},
        {"order_class": "oco", "limit_price": "110"},
    ),
    "oco with its limit": (
        {"order_class": "oco", "side": "sell", "qty": "1", "limit_price": "110", **LEGS},
        {"order_class": "oco", "limit_price": "110"},
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with Simulator(SimConfig(port=0, control_port=0, partial_fill_probability=0)) as sim:
        yield sim


@pytest.fixture
def world(server: Simulator) -> Iterator[SimpleNamespace]:
    """An empty book whose prices stand at 100, the adapter, and the control API, which fills."""
    adapter = make_broker(server.url)

    def control(method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(method, server.control_url + path, json=body, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    control("POST", "/switches", {"hold_fills": True})
    for symbol in ("AAPL", "BTC/USD"):
        control("POST", "/market/price", {"symbol": symbol, "price": "100"})
    yield SimpleNamespace(adapter=adapter, control=control, url=server.url)
    adapter.close()
    control("POST", "/reset")


def place(world: SimpleNamespace, coid: str, fields: Mapping[str, object]) -> Order:
    answer = world.adapter.submit(request(**fields), coid)
    assert answer.outcome is Outcome.ACCEPTED, answer
    assert answer.order is not None
    return answer.order


def bought(world: SimpleNamespace, coid: str = "b") -> None:
    """A position of one share."""
    order = place(world, coid, {**SIZE, "qty": "1"})
    world.control("POST", f"/orders/{order.broker_order_id}/fill")


def types(orders: Any) -> list[str]:
    return [order.order_type for order in orders]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_order_arrives_as_it_was_asked_for(
    world: SimpleNamespace, shape: str
) -> None:
    fields, wanted = SHAPES[shape]
    if fields.get("order_class") == "oco":
        bought(world)
    order = place(world, "a" * 64, fields)
    keys = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
    url = f"{world.url}/v2/orders/{order.broker_order_id}"
    shown = requests.get(url, headers=keys, timeout=10).json()
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["client_order_id"] == "a" * 64


def test_the_answer_names_the_legs(world: SimpleNamespace) -> None:
    order = place(world, "a" * 64, BRACKET)
    profit, stop = order.legs
    assert (profit.order_type, profit.side, profit.limit_price) == ("limit", "sell", 110)
    assert (stop.order_type, stop.stop_price, str(stop.limit_price)) == ("stop_limit", 95, "94.5")
    assert {profit.status, stop.status} == {"held"}
    assert len({o.client_order_id for o in (order, profit, stop)}) == 3


def test_questions_name_the_legs(world: SimpleNamespace) -> None:
    order = place(world, "a" * 64, BRACKET)
    expected = [leg.broker_order_id for leg in order.legs]
    by_id = world.adapter.get_order(order.broker_order_id)
    by_client_id = world.adapter.lookup("a" * 64).order
    for found in (by_id, by_client_id):
        assert [leg.broker_order_id for leg in found.legs] == expected


def test_lists_are_flat_and_name_the_legs(world: SimpleNamespace) -> None:
    place(world, "f" * 64, {"limit_price": "10"})
    order = place(world, "a" * 64, BRACKET)
    listed = world.adapter.orders(after=None, limit=500)
    assert types(listed) == ["limit", "market", "limit", "stop_limit"]
    assert [types(found.legs) for found in listed] == [[], ["limit", "stop_limit"], [], []]
    assert not listed.full
    first = world.adapter.orders(after=None, limit=2)
    assert (types(first), first.full) == (["limit", "market"], True)
    assert types(first[1].legs) == ["limit", "stop_limit"]
    profit, _ = (leg.broker_order_id for leg in order.legs)
    world.control("POST", f"/orders/{order.broker_order_id}/fill")
    still_open = {found.broker_order_id for found in world.adapter.open_orders()}
    assert profit in still_open and order.broker_order_id not in still_open


def test_a_list_of_simple_orders_is_one_request(world: SimpleNamespace) -> None:
    place(world, "a" * 64, {"limit_price": "10"})
    world.adapter.orders(after=None, limit=500)
    assert world.control("GET", "/requests")["routes"]["list_orders"] == 1
    place(world, "c" * 64, BRACKET)
    world.adapter.orders(after=None, limit=500)
    assert world.control("GET", "/requests")["routes"]["list_orders"] == 3


def test_an_order_is_found_even_if_its_legs_are_not(world: SimpleNamespace) -> None:
    place(world, "a" * 64, BRACKET)
    world.control("POST", "/faults", {"route": "get_order", "kind": "refuse_5xx", "count": 1})
    found = world.adapter.lookup("a" * 64).order
    assert (found.client_order_id, found.legs) == ("a" * 64, ())


def test_a_leg_that_cannot_be_read_does_not_hide_its_order() -> None:
    leg = order_json(id="other", client_order_id="its own")
    order = order_of(order_json(order_class="bracket", legs=[{"id": 7}, leg]))
    assert [leg.broker_order_id for leg in order.legs] == ["other"]
