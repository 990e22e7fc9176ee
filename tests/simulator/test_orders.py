"""The life of orders over HTTP, through alpaca-py's own models."""

from __future__ import annotations

from typing import Any

import pytest
from alpaca.trading.enums import OrderSide, OrderStatus, OrderType, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
)

from tests.simulator.bench import Bench, eventually, refusal

FIELDS = {
    "id", "client_order_id", "created_at", "updated_at", "submitted_at", "filled_at",
    "expires_at", "expired_at", "canceled_at", "failed_at", "replaced_at", "replaced_by",
    "replaces", "asset_id", "symbol", "asset_class", "notional", "qty", "filled_qty",
    "filled_avg_price", "order_class", "order_type", "type", "side", "position_intent",
    "time_in_force", "limit_price", "stop_price", "status", "extended_hours", "legs",
    "trail_percent", "trail_price", "hwm", "subtag", "source",
}  # fmt: skip


def resting(bench: Bench, **values: Any) -> Any:
    """A limit buy far below the market, working."""
    order = bench.order(**{"type": "limit", "limit_price": "10", **values})
    eventually(lambda: bench.status(order["id"]) == "new")
    return order


def test_market_order_through_the_sdk(bench: Bench) -> None:
    order = bench.client.submit_order(
        MarketOrderRequest(symbol="AAPL", qty=3, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
    )
    assert order.status is OrderStatus.PENDING_NEW
    filled = eventually(
        lambda: (found := bench.client.get_order_by_id(order.id)).filled_at and found
    )
    assert filled.status is OrderStatus.FILLED
    assert filled.filled_qty == "3"
    assert float(filled.filled_avg_price) > 0
    assert bench.client.get_order_by_client_id(order.client_order_id).id == order.id
    assert bench.client.get_open_position("AAPL").qty == "3"


def test_order_fields(bench: Bench) -> None:
    order = bench.order(client_order_id="me")
    assert set(order) == FIELDS
    assert (order["client_order_id"], order["order_class"], order["qty"]) == ("me", "", "1")
    assert order["filled_qty"] == "0"
    assert order["notional"] is None


def test_notional_order_keeps_qty_null(bench: Bench) -> None:
    bench.price("AAPL", "99.99")
    order = bench.filled(qty=None, notional="150")
    assert (order["qty"], order["notional"]) == (None, "150")
    assert order["filled_qty"] == "1.5"


def test_limit_order_rests_until_the_price_comes(bench: Bench) -> None:
    bench.price("AAPL", "100")
    order = resting(bench, limit_price="90")
    bench.price("AAPL", "89.50")
    eventually(lambda: bench.status(order["id"]) == "filled")
    assert bench.client.get(f"/orders/{order['id']}")["filled_avg_price"] == "89.51"


def test_stop_order_waits_for_its_trigger(bench: Bench) -> None:
    bench.price("AAPL", "100")
    order = resting(bench, type="stop", limit_price=None, stop_price="110")
    bench.price("AAPL", "111")
    eventually(lambda: bench.status(order["id"]) == "filled")


def test_partial_fill_comes_in_two_activities(bench: Bench) -> None:
    bench.switch(partial_fill_probability=1)
    order = bench.filled(qty="10")
    rows = bench.client.get("/account/activities/FILL")
    assert [row["type"] for row in rows] == ["fill", "partial_fill"]
    assert sum(int(row["qty"]) for row in rows) == 10
    assert rows[0]["cum_qty"] == "10"
    assert rows[1]["leaves_qty"] == rows[0]["qty"]
    assert {row["order_id"] for row in rows} == {order["id"]}


def test_ioc_that_fills_in_part_is_canceled(bench: Bench) -> None:
    bench.switch(partial_fill_probability=1)
    order = bench.order(qty="10", time_in_force="ioc")
    eventually(lambda: bench.status(order["id"]) == "canceled")
    assert 0 < int(bench.client.get(f"/orders/{order['id']}")["filled_qty"]) < 10


def test_asynchronous_rejection(bench: Bench) -> None:
    bench.switch(async_reject_probability=1)
    order = bench.order()
    eventually(lambda: bench.status(order["id"]) == "rejected")
    assert bench.client.get(f"/orders/{order['id']}")["failed_at"]


# --- cancel


def test_cancel(bench: Bench) -> None:
    order = resting(bench)
    bench.client.cancel_order_by_id(order["id"])
    eventually(lambda: bench.status(order["id"]) == "canceled")
    bench.client.cancel_order_by_id(order["id"])
    bench.switch(repeat_cancel="refuse")
    assert refusal(lambda: bench.client.cancel_order_by_id(order["id"])) == (
        422, {"code": 42210000, "message": 'order is already in "canceled" state'}
    )  # fmt: skip


def test_cancel_of_a_filled_order(bench: Bench) -> None:
    order = bench.filled()
    assert refusal(lambda: bench.client.cancel_order_by_id(order["id"])) == (
        422, {"code": 42210000, "message": 'order is already in "filled" state'}
    )  # fmt: skip


def test_cancel_all(bench: Bench) -> None:
    ids = {resting(bench)["id"] for _ in range(3)}
    answers = bench.client.cancel_orders()
    assert {str(answer.id) for answer in answers} == ids
    assert {answer.status for answer in answers} == {200}
    eventually(lambda: not bench.client.get_orders())


# --- replace


def test_replace_makes_a_new_order(bench: Bench) -> None:
    old = resting(bench, client_order_id="first")
    new = bench.client.replace_order_by_id(
        old["id"], ReplaceOrderRequest(limit_price=11, qty=2, client_order_id="first-r1")
    )
    assert (str(new.replaces), new.client_order_id) == (old["id"], "first-r1")
    found = bench.client.get_order_by_client_id("first")
    assert (found.status, str(found.replaced_by)) == (OrderStatus.REPLACED, str(new.id))
    assert [str(order.id) for order in bench.client.get_orders()] == [str(new.id)]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"limit_price": "10"}, 403, "order parameters are not changed"),
        ({"limit_price": "10.001"}, 422, "invalid limit_price 10.001. "
         "sub-penny increment does not fulfill minimum pricing criteria"),
        ({"limit_price": "0"}, 422, "limit price must be > 0"),
        ({"stop_price": "9"}, 422, "limit orders require no stop price"),
        ({"qty": "100000"}, 403, "insufficient buying power"),
        ({"qty": "2", "client_order_id": "first"}, 422, "client_order_id must be unique"),
    ],
)  # fmt: skip
def test_refused_replacement_changes_nothing(
    bench: Bench, change: dict[str, str], status: int, message: str
) -> None:
    order = resting(bench, client_order_id="first")
    before = bench.client.get("/account")["buying_power"]
    answer = refusal(lambda: bench.client.patch(f"/orders/{order['id']}", change))
    assert (answer[0], answer[1]["message"]) == (status, message)
    assert bench.status(order["id"]) == "new"
    assert bench.client.get("/account")["buying_power"] == before


def test_replace_of_an_order_that_is_not_working(bench: Bench) -> None:
    bench.switch(fill_delay_ms=600_000)
    waiting = bench.order(type="limit", limit_price="10")
    change = {"limit_price": "11"}
    answer = refusal(lambda: bench.client.patch(f"/orders/{waiting['id']}", change))
    assert answer[1]["message"] == "cannot replace order in pending_new status"
    bench.control("POST", f"/orders/{waiting['id']}/expire")
    answer = refusal(lambda: bench.client.patch(f"/orders/{waiting['id']}", change))
    assert answer == (422, {"code": 42210000, "message": "order is not open"})


# --- lists


def test_list_defaults_and_cursors(bench: Bench) -> None:
    bench.switch(hold_fills=True)
    orders = [bench.order(client_order_id=f"o{n}", qty="1") for n in range(60)]
    listed = bench.client.get("/orders")
    assert [o["client_order_id"] for o in listed] == [f"o{n}" for n in range(59, 9, -1)]
    after = bench.client.get("/orders", {"after": orders[57]["submitted_at"], "direction": "asc"})
    assert [o["client_order_id"] for o in after] == ["o58", "o59"]
    until = bench.client.get("/orders", {"until": orders[2]["submitted_at"]})
    assert [o["client_order_id"] for o in until] == ["o1", "o0"]
    by_id = bench.client.get("/orders", {"after_order_id": orders[58]["id"], "status": "all"})
    assert [o["client_order_id"] for o in by_id] == ["o59"]
    by_id = bench.client.get("/orders", {"before_order_id": orders[1]["id"], "nested": "True"})
    assert [o["client_order_id"] for o in by_id] == ["o0"]


def test_list_filters(bench: Bench) -> None:
    bench.filled(symbol="AAPL")
    resting(bench, symbol="MSFT")
    assert [o.symbol for o in bench.client.get_orders()] == ["MSFT"]
    closed = GetOrdersRequest(status=QueryOrderStatus.CLOSED)
    assert [o.symbol for o in bench.client.get_orders(closed)] == ["AAPL"]
    both = GetOrdersRequest(status=QueryOrderStatus.ALL, symbols=["AAPL", "MSFT"], nested=True)
    assert [o.symbol for o in bench.client.get_orders(both)] == ["MSFT", "AAPL"]
    sells = GetOrdersRequest(status=QueryOrderStatus.ALL, side=OrderSide.SELL)
    assert bench.client.get_orders(sells) == []


# --- positions


def test_positions_and_closing(bench: Bench) -> None:
    bench.price("AAPL", "100")
    bench.filled(qty="10")
    bench.filled(symbol="MSFT", side="sell", qty="2")
    shown = {position.symbol: position for position in bench.client.get_all_positions()}
    assert (shown["AAPL"].qty, shown["AAPL"].side, shown["AAPL"].cost_basis) == (
        "10", "long", "1000.1"
    )  # fmt: skip
    assert (shown["MSFT"].qty, shown["MSFT"].side) == ("-2", "short")
    part = bench.client.delete("/positions/AAPL", {"percentage": "50"})
    assert (part["side"], part["qty"], part["position_intent"]) == ("sell", "5", "sell_to_close")
    eventually(lambda: bench.client.get_open_position("AAPL").qty == "5")
    answers = bench.client.close_all_positions(cancel_orders=True)
    assert {answer.status for answer in answers} == {200}
    eventually(lambda: not bench.client.get_all_positions())


def test_coin_pair(bench: Bench) -> None:
    bench.switch(crypto_fee_bps=25)
    order = bench.filled(symbol="BTC/USD", qty="0.01", time_in_force="gtc")
    assert (order["symbol"], order["filled_qty"], order["type"]) == (
        "BTC/USD", "0.01", OrderType.MARKET.value
    )  # fmt: skip
    position = bench.client.get_open_position("BTCUSD")
    assert (position.symbol, position.qty) == ("BTCUSD", "0.009975")


def test_a_limit_request_model(bench: Bench) -> None:
    order = bench.client.submit_order(
        LimitOrderRequest(
            symbol="AAPL", qty=1, side=OrderSide.BUY, limit_price=10.5,
            time_in_force=TimeInForce.GTC, extended_hours=True,
        )
    )  # fmt: skip
    assert (order.limit_price, order.extended_hours) == ("10.5", True)


# --- forced from outside


def test_forced_fill_after_cancel(bench: Bench) -> None:
    order = resting(bench, qty="5")
    bench.control("POST", f"/orders/{order['id']}/cancel")
    made = bench.control("POST", f"/orders/{order['id']}/fill", {"qty": "2", "late": True})
    assert (made["order"]["status"], made["order"]["filled_qty"]) == ("canceled", "2")
    assert bench.client.get("/account/activities/FILL")[0]["qty"] == "2"
    assert bench.client.get_open_position("AAPL").qty == "2"
