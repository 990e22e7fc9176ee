"""Bracket, OCO and OTO orders, and trailing stops, over HTTP through alpaca-py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce
from alpaca.trading.requests import (
    GetOrderByIdRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    StopLossRequest,
    TakeProfitRequest,
    TrailingStopOrderRequest,
)

from tests.simulator.bench import Bench, Instant, body, broker_at, eventually, refusal
from torghut.simulator.bars import BarFile

EXITS = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "95"}}


@pytest.fixture(autouse=True)
def pinned(bench: Bench) -> None:
    """AAPL stands at 100."""
    bench.price("AAPL", "100")


def bracket(bench: Bench, **values: Any) -> Any:
    """A bracket around a limit buy of 10 at 99, which rests."""
    return bench.order(**{"qty": "10", "type": "limit", "limit_price": "99", "time_in_force": "gtc",
                          "order_class": "bracket", **EXITS, **values})  # fmt: skip


def entered(bench: Bench, **values: Any) -> tuple[Any, str, str]:
    """A bracket whose entry is filled: the entry, and the ids of take profit and stop."""
    order = bracket(bench, type="market", limit_price=None, **values)
    profit, stop = (leg["id"] for leg in order["legs"])
    eventually(lambda: bench.status(profit) == "new")
    return order, profit, stop


def shown(bench: Bench, order_id: str, **params: str) -> Any:
    return bench.client.get(f"/orders/{order_id}", params)


def listed(bench: Bench, **params: Any) -> list[str]:
    return [order["id"] for order in bench.client.get("/orders", params)]


# --- bracket


def test_a_bracket_through_the_sdk(bench: Bench) -> None:
    order = bench.client.submit_order(
        MarketOrderRequest(
            symbol="AAPL", qty=2, side=OrderSide.BUY, time_in_force=TimeInForce.GTC,
            order_class=OrderClass.BRACKET, take_profit=TakeProfitRequest(limit_price=110),
            stop_loss=StopLossRequest(stop_price=95, limit_price=94.5),
        )
    )  # fmt: skip
    profit, stop = order.legs
    assert order.order_class is OrderClass.BRACKET
    assert (profit.type, profit.limit_price, profit.status) == ("limit", "110", "held")
    assert (stop.type, stop.stop_price, stop.limit_price) == ("stop_limit", "95", "94.5")
    assert {profit.side, stop.side} == {OrderSide.SELL}
    ids = {order.id, profit.id, stop.id}
    assert len(ids | {order.client_order_id, profit.client_order_id, stop.client_order_id}) == 6
    nested = bench.client.get_order_by_id(order.id, GetOrderByIdRequest(nested=True))
    assert [leg.id for leg in nested.legs] == [profit.id, stop.id]
    assert bench.client.get_order_by_id(order.id).legs is None
    every = bench.client.get_orders(GetOrdersRequest(status="all"))
    assert {found.id for found in every} == ids
    rolled = bench.client.get_orders(GetOrdersRequest(status="all", nested=True))
    assert [(found.id, len(found.legs)) for found in rolled] == [(order.id, 2)]


def test_held_legs_are_not_in_the_list_of_open_orders(bench: Bench) -> None:
    order, profit, stop = entered(bench)
    assert (bench.status(profit), bench.status(stop)) == ("new", "held")
    assert listed(bench) == [profit]
    assert listed(bench, nested="true") == []
    assert set(listed(bench, status="closed")) == {order["id"], stop}
    bench.switch(held_listed="open")
    assert listed(bench) == [stop, profit]


def test_exits_wait_for_the_complete_entry(bench: Bench) -> None:
    order = bracket(bench)
    profit, stop = (leg["id"] for leg in order["legs"])
    bench.control("POST", f"/orders/{order['id']}/fill", {"qty": "9", "price": "99"})
    bench.price("AAPL", "120")
    assert (bench.status(profit), bench.status(stop)) == ("held", "held")
    bench.control("POST", f"/orders/{order['id']}/fill", {"qty": "1", "price": "99"})
    eventually(lambda: bench.status(profit) == "filled")
    assert bench.status(stop) == "canceled"
    assert bench.client.get_all_positions() == []


def test_the_stop_fills_and_cancels_the_take_profit(bench: Bench) -> None:
    _, profit, stop = entered(bench)
    bench.price("AAPL", "94")
    eventually(lambda: bench.status(stop) == "filled")
    assert bench.status(profit) == "canceled"
    assert bench.client.get_all_positions() == []


def test_a_partial_fill_of_one_exit_reduces_the_other(bench: Bench) -> None:
    _, profit, stop = entered(bench)
    bench.control("POST", f"/orders/{profit}/fill", {"qty": "4", "price": "110"})
    assert (bench.status(profit), shown(bench, stop)["qty"]) == ("partially_filled", "6")
    bench.price("AAPL", "94")
    eventually(lambda: bench.status(stop) == "filled")
    assert (bench.status(profit), shown(bench, profit)["filled_qty"]) == ("canceled", "4")
    assert bench.client.get_all_positions() == []


@pytest.mark.parametrize("canceled", [0, 1, 2])
def test_canceling_one_cancels_the_rest(bench: Bench, canceled: int) -> None:
    order = bracket(bench)
    ids = [order["id"], *(leg["id"] for leg in order["legs"])]
    bench.client.cancel_order_by_id(ids[canceled])
    eventually(lambda: {bench.status(id_) for id_ in ids} == {"canceled"})
    assert bench.client.get("/account")["buying_power"] == "400000"


def test_exits_hold_the_shares_once(bench: Bench) -> None:
    entered(bench)
    position = bench.client.get("/positions/AAPL")
    assert (position["qty"], position["qty_available"]) == ("10", "0")
    status, refused = refusal(lambda: bench.client.delete("/positions/AAPL"))
    assert (status, refused["held_for_orders"], refused["available"]) == (403, "10", "0")


def test_the_short_side(bench: Bench) -> None:
    exits = {"take_profit": {"limit_price": "90"}, "stop_loss": {"stop_price": "105"}}
    order, profit, stop = entered(bench, side="sell", **exits)
    assert {leg["side"] for leg in order["legs"]} == {"buy"}
    bench.price("AAPL", "106")
    eventually(lambda: bench.status(stop) == "filled")
    assert bench.status(profit) == "canceled"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stop_loss": {"stop_price": "99"}}, "stop_loss.stop_price must be <= base_price - 0.01"),
        ({"take_profit": {"limit_price": "99"}},
         "take_profit.limit_price must be >= base_price + 0.01"),
    ],
)  # fmt: skip
def test_exits_lie_a_cent_beyond_the_base_price(
    bench: Bench, change: dict[str, Any], message: str
) -> None:
    status, refused = refusal(lambda: bracket(bench, **change))
    assert (status, refused) == (
        422, {"code": 42210000, "message": message, "base_price": "99"}
    )  # fmt: skip
    ((name, leg),) = change.items()
    ((field, price),) = leg.items()
    beyond = Decimal(price) + (Decimal("0.01") if name == "take_profit" else -Decimal("0.01"))
    assert bracket(bench, **{name: {field: str(beyond)}})["status"] == "pending_new"


def test_a_bracket_enters_and_an_oco_exits(bench: Bench) -> None:
    bench.filled(qty="10")
    sell = {
        "side": "sell",
        "take_profit": {"limit_price": "90"},
        "stop_loss": {"stop_price": "105"},
    }
    assert refusal(lambda: bracket(bench, **sell))[1]["message"] == (
        "bracket orders must be entry orders"
    )
    oco = {**sell, "side": "buy", "limit_price": None, "order_class": "oco"}
    assert refusal(lambda: bracket(bench, **oco))[1]["message"] == "oco orders must be exit orders"


def test_an_exit_that_waits_cannot_be_filled_by_force(bench: Bench) -> None:
    order = bracket(bench)
    path = f"{bench.sim.control_url}/orders/{order['legs'][0]['id']}/fill"
    answer = requests.post(path, timeout=10)
    assert (answer.status_code, answer.json()["message"]) == (422, "order waits for another order")


# --- OCO, OTO


def test_an_oco(bench: Bench) -> None:
    bench.filled(qty="10")
    order = bench.client.submit_order(
        LimitOrderRequest(
            symbol="AAPL", qty=10, side=OrderSide.SELL, time_in_force=TimeInForce.GTC,
            order_class=OrderClass.OCO, take_profit=TakeProfitRequest(limit_price=110),
            stop_loss=StopLossRequest(stop_price=95),
        )
    )  # fmt: skip
    (stop,) = order.legs
    assert (order.limit_price, stop.stop_price, stop.status) == ("110", "95", "held")
    assert bench.client.get("/positions/AAPL")["qty_available"] == "0"
    bench.price("AAPL", "94")
    eventually(lambda: bench.status(str(stop.id)) == "filled")
    assert bench.status(str(order.id)) == "canceled"
    assert bench.client.get_all_positions() == []


def test_an_oto(bench: Bench) -> None:
    order = bench.order(qty="3", order_class="oto", stop_loss={"stop_price": "95"})
    (stop,) = order["legs"]
    eventually(lambda: bench.status(stop["id"]) == "new")
    change = {"stop_price": "96"}
    answer = refusal(lambda: bench.client.patch(f"/orders/{stop['id']}", change))
    assert answer[1]["message"] == "oto orders cannot be replaced"
    bench.price("AAPL", "94")
    eventually(lambda: bench.status(stop["id"]) == "filled")


def test_close_all_cancels_groups_first(bench: Bench) -> None:
    entered(bench)
    bracket(bench)
    answers = bench.client.close_all_positions(cancel_orders=True)
    assert [answer.status for answer in answers] == [200]
    eventually(lambda: not bench.client.get_all_positions())
    assert listed(bench) == []


# --- trailing stop


@pytest.mark.parametrize(
    ("side", "trail", "stop", "moved", "raised"),
    [
        ("sell", {"trail_price": 2}, "98", "105", "103"),
        ("sell", {"trail_percent": 1}, "99", "110", "108.9"),
        ("buy", {"trail_price": 2}, "102", "90", "92"),
    ],
)
def test_a_trailing_stop_follows_the_market(
    bench: Bench, side: str, trail: dict[str, float], stop: str, moved: str, raised: str
) -> None:
    if side == "sell":
        bench.filled()
    order = bench.client.submit_order(
        TrailingStopOrderRequest(
            symbol="AAPL", qty=1, side=OrderSide(side), time_in_force=TimeInForce.GTC, **trail
        )
    )
    eventually(lambda: bench.status(str(order.id)) == "new")
    assert (order.hwm, order.stop_price) == ("100", stop)
    bench.price("AAPL", moved)
    eventually(lambda: shown(bench, str(order.id))["hwm"] == moved)
    assert shown(bench, str(order.id))["stop_price"] == raised
    back = Decimal(raised) - 1 if side == "buy" else Decimal(raised) + 1
    bench.price("AAPL", str(back))
    assert (shown(bench, str(order.id))["hwm"], bench.status(str(order.id))) == (moved, "new")
    bench.price("AAPL", raised)
    eventually(lambda: bench.status(str(order.id)) == "filled")


def test_the_trail_can_be_replaced(bench: Bench) -> None:
    bench.filled()
    order = bench.order(side="sell", type="trailing_stop", trail_price="5")
    eventually(lambda: bench.status(order["id"]) == "new")
    bench.price("AAPL", "110")
    eventually(lambda: shown(bench, order["id"])["hwm"] == "110")
    new = bench.client.patch(f"/orders/{order['id']}", {"trail": "3"})
    assert (new["trail_price"], new["hwm"], new["stop_price"]) == ("3", "110", "107")


# --- prices of a replay


def test_in_a_replay_a_day_that_reaches_both_exits_takes_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(
        "date,symbol,open,high,low,close,volume\n"
        "2010-03-01,AAPL,100,100,100,100,1\n2010-03-02,AAPL,100,120,90,100,1\n"
    )
    broker = broker_at(Instant(), "replay", BarFile(path))
    entry = broker.submit(body(order_class="bracket", time_in_force="gtc", **EXITS))
    broker.matcher.drain()
    broker.advance(date(2010, 3, 2), "before_close")
    profit, stop = broker.book.legs(entry)
    assert (stop.status, stop.filled_cost, profit.status) == ("filled", 95, "canceled")


# --- restart


def test_groups_survive_a_restart(start: Callable[..., Bench], tmp_path: Path) -> None:
    first = start(state=tmp_path / "sim.jsonl")
    first.price("AAPL", "100")
    _, profit, stop = entered(first)
    again = start(state=tmp_path / "sim.jsonl")
    again.price("AAPL", "94")
    eventually(lambda: again.status(stop) == "filled")
    assert again.status(profit) == "canceled"
