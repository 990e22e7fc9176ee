"""Our rules about orders and the broker's are the same: each case is sent over the real adapter.

An order that breaks a rule of ours is refused by the broker too, and one that keeps them all is
taken. The broker is the simulator, whose rules are written apart from ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace

import pytest
import requests

from tests.brokers.conftest import make_broker
from tests.domain.rule_cases import CASES, PRICE, Case, Put, broken, kept
from tests.simulator.bench import Instant, broker_at
from torghut.brokers.alpaca_mapping import order_body
from torghut.domain.order_rules import OrderRule
from torghut.ports import Answer, Outcome
from torghut.simulator import SimConfig, Simulator
from torghut.simulator.errors import ApiError

OVER_HTTP = [case for case in CASES if case.rule is not OrderRule.AUCTION_WINDOW]
BY_THE_CLOCK = [case for case in CASES if case.rule is OrderRule.AUCTION_WINDOW]


@pytest.fixture(scope="module")
def world() -> Iterator[SimpleNamespace]:
    """A simulator that fills at once, with the real adapter."""
    switches = {"fill_delay_ms": 0}
    config = SimConfig(port=0, control_port=0, partial_fill_probability=0, switches=switches)
    with Simulator(config) as sim:
        adapter = make_broker(sim.url)
        yield SimpleNamespace(sim=sim, adapter=adapter)
        adapter.close()


def put(world: SimpleNamespace, what: Put) -> Answer:
    """The broker's answer to an order of an account with the position that the case needs."""
    control = world.sim.control_url
    requests.post(f"{control}/reset", timeout=10).raise_for_status()
    price = {"symbol": what.order.symbol, "price": str(PRICE)}
    requests.post(f"{control}/market/price", json=price, timeout=10).raise_for_status()
    if what.qty:
        order = {"symbol": what.order.symbol, "side": "buy", "type": "market",
                 "time_in_force": "day", "qty": str(what.qty)}  # fmt: skip
        keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
        answer = requests.post(f"{world.sim.url}/v2/orders", json=order, headers=keys, timeout=10)
        answer.raise_for_status()
        path = f"{control}/orders/{answer.json()['id']}/fill"
        filled = requests.post(path, timeout=10)
        assert filled.ok or "filled" in filled.text
        (position,) = world.adapter.positions()
        assert position.qty == what.qty
    return world.adapter.submit(what.order, "a" * 64)


@pytest.mark.parametrize("case", OVER_HTTP, ids=str)
def test_the_broker_refuses_what_breaks_a_rule(world: SimpleNamespace, case: Case) -> None:
    answer = put(world, broken(case))
    assert answer.outcome is Outcome.REFUSED, answer
    assert answer.http_status in (403, 422)


@pytest.mark.parametrize("case", OVER_HTTP, ids=str)
def test_the_broker_takes_what_keeps_them(world: SimpleNamespace, case: Case) -> None:
    answer = put(world, kept(case))
    assert answer.outcome is Outcome.ACCEPTED, answer


@pytest.mark.parametrize("case", BY_THE_CLOCK, ids=str)
def test_the_windows_of_auctions(case: Case) -> None:
    for what, taken in ((broken(case), False), (kept(case), True)):
        broker = broker_at(Instant(what.at), "real")
        broker.market.set_quote("AAPL", Decimal(100))
        try:
            broker.submit(order_body(what.order, "a" * 64))
            assert taken
        except ApiError as refusal:
            assert not taken and "orders must be submitted after" in refusal.message
