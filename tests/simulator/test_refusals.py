"""Every refusal of POST /v2/orders: status, code and message, one row each."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.simulator.bench import KEYS, Bench, eventually, refusal

LIMIT = {"type": "limit", "limit_price": "100"}
BRACKET = {"order_class": "bracket", "take_profit": {"limit_price": "900"},
           "stop_loss": {"stop_price": "10"}}  # fmt: skip
TRAILING = {"type": "trailing_stop", "trail_percent": "1"}

ROWS: list[tuple[dict[str, Any], int, int, str]] = [
    ({"qty": "x"}, 400, 40010000, "request body format is invalid"),
    ({"extended_hours": "yes"}, 400, 40010000, "request body format is invalid"),
    ({"symbol": 7}, 400, 40010000, "request body format is invalid"),
    ({"symbol": None}, 422, 40010001, "symbol is required"),
    ({"side": "up"}, 422, 40010001, "invalid side"),
    ({"type": "magic"}, 422, 40010001, "invalid order type"),
    ({"time_in_force": "week"}, 422, 40010001, "invalid time_in_force"),
    ({"time_in_force": None}, 422, 40010001, "invalid time_in_force"),
    ({"order_class": "pair"}, 422, 40010001, "invalid order_class"),
    ({"position_intent": "hope"}, 422, 40010001, "invalid position_intent"),
    ({"qty": "0"}, 422, 40010001, "qty must be > 0"),
    ({"qty": "-1"}, 422, 40010001, "qty must be > 0"),
    ({"qty": None}, 422, 40010001, "qty or notional is required"),
    ({"notional": "5"}, 422, 40010001, "only one of qty or notional is accepted"),
    ({"type": "limit"}, 422, 40010001, "limit orders require a limit price"),
    ({"type": "limit", "limit_price": "0"}, 422, 40010001, "limit price must be > 0"),
    ({"type": "stop"}, 422, 40010001, "stop orders require a stop price"),
    ({"type": "stop", "stop_price": "-2"}, 422, 40010001, "stop price must be > 0"),
    ({"type": "stop_limit", "stop_price": "2"}, 422, 40010001,
     "stop limit orders require both stop and limit price"),
    ({"limit_price": "5"}, 422, 40010001, "market orders require no stop or limit price"),
    ({**LIMIT, "stop_price": "5"}, 422, 40010001, "limit orders require no stop price"),
    ({"client_order_id": "x" * 129}, 422, 40010001,
     "client_order_id must be no more than 128 characters"),
    ({"symbol": "ZZZZ"}, 422, 42210000, 'asset "ZZZZ" not found'),
    ({"symbol": "TWTR"}, 422, 40010001, "asset TWTR is not active"),
    ({"symbol": "RGC"}, 422, 42210000, 'asset "RGC" is not tradable'),
    ({"type": "limit", "limit_price": "290.123"}, 422, 42210000,
     "invalid limit_price 290.123. sub-penny increment does not fulfill minimum pricing criteria"),
    ({"type": "limit", "limit_price": "0.12345", "qty": "100"}, 422, 42210000,
     "invalid limit_price 0.12345. sub-penny increment does not fulfill minimum pricing criteria"),
    ({"type": "stop", "stop_price": "290.123"}, 422, 42210000,
     "invalid stop_price 290.123. sub-penny increment does not fulfill minimum pricing criteria"),
    ({"extended_hours": True}, 422, 42210000,
     "extended hours order must be DAY or GTC limit orders"),
    ({**LIMIT, "extended_hours": True, "time_in_force": "ioc"}, 422, 42210000,
     "extended hours order must be DAY or GTC limit orders"),
    ({"symbol": "BTC/USD", "qty": "0.01"}, 422, 42210000, "invalid crypto time_in_force"),
    ({"qty": None, "notional": "0.5"}, 422, 42210000, "notional amount must be >= 1.00"),
    ({"qty": "0.5", "time_in_force": "gtc"}, 422, 42210000, "fractional orders must be DAY orders"),
    ({"symbol": "OCGN", "qty": "0.5"}, 403, 40310000, 'asset "OCGN" is not fractionable'),
    ({"qty": "0.001"}, 403, 40310000, "cost basis must be >= minimal amount of order 1"),
    ({"symbol": "BTC/USD", "qty": "0.00001", "time_in_force": "gtc"}, 403, 40310000,
     "cost basis must be >= minimal amount of order 10"),
    ({"side": "sell", "qty": "0.5"}, 422, 42210000, "fractional orders cannot be sold short"),
    ({"side": "sell", "symbol": "HTOO"}, 422, 42210000, 'asset "HTOO" cannot be sold short'),
    ({"side": "sell", "symbol": "BTC/USD", "time_in_force": "gtc"}, 403, 40310000,
     "insufficient balance for BTC (requested: 1, available: 0)"),
    ({"order_class": "mleg"}, 422, 42210000, "the simulator does not support mleg orders"),
    ({"take_profit": {"limit_price": "900"}}, 422, 40010001,
     "take_profit and stop_loss need an order_class"),
    ({"order_class": "bracket"}, 422, 42210000, "bracket orders require take_profit.limit_price"),
    ({"order_class": "bracket", "take_profit": {"limit_price": "900"}}, 422, 42210000,
     "bracket orders require stop_loss.stop_price"),
    ({"order_class": "oto"}, 422, 42210000, "oto orders require either take_profit or stop_loss"),
    ({**BRACKET, "take_profit": {"limit_price": "9"}}, 422, 42210000,
     "take_profit.limit_price must be > stop_loss.stop_price"),
    ({**BRACKET, "side": "sell"}, 422, 42210000,
     "take_profit.limit_price must be < stop_loss.stop_price"),
    ({**BRACKET, "time_in_force": "ioc"}, 422, 42210000,
     "bracket orders must be DAY or GTC orders"),
    ({**BRACKET, **LIMIT, "extended_hours": True}, 422, 42210000,
     "bracket orders are not supported in extended hours"),
    ({**BRACKET, "qty": "0.5"}, 422, 42210000, "fractional orders must be simple orders"),
    ({**BRACKET, "stop_loss": {"stop_price": "10.001"}}, 422, 42210000,
     "invalid stop_loss.stop_price 10.001. "
     "sub-penny increment does not fulfill minimum pricing criteria"),
    ({**BRACKET, "symbol": "BTC/USD", "time_in_force": "gtc"}, 422, 42210000,
     "crypto orders not allowed for advanced order_class: bracket"),
    ({**BRACKET, "order_class": "oco", "side": "sell"}, 422, 42210000,
     "oco orders must be limit orders"),
    ({**BRACKET, **LIMIT, "order_class": "oco", "side": "sell"}, 422, 42210000,
     "limit_price must be take_profit.limit_price"),
    ({**BRACKET, "order_class": "oco", "side": "sell", "type": "limit"}, 422, 42210000,
     "oco orders must be exit orders"),
    ({"type": "trailing_stop"}, 422, 40010001,
     "trailing stop orders require either trail_price or trail_percent"),
    ({"trail_price": "1"}, 422, 40010001,
     "trail_price and trail_percent are only for trailing_stop orders"),
    ({**TRAILING, "trail_percent": "0.09"}, 422, 42210000, "trail_percent must be >= 0.1"),
    ({**TRAILING, "time_in_force": "ioc"}, 422, 42210000,
     "trailing stop orders must be DAY or GTC orders"),
    ({**TRAILING, "extended_hours": True}, 422, 42210000,
     "extended hours order must be DAY or GTC limit orders"),
    ({**BRACKET, **TRAILING}, 422, 42210000, "trailing stop orders must be simple orders"),
    ({**TRAILING, "symbol": "BTC/USD", "time_in_force": "gtc"}, 422, 42210000,
     "invalid order type for crypto order"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "status", "code", "message"),
    ROWS,
    ids=[f"{r[3][:40]}-{i}" for i, r in enumerate(ROWS)],
)
def test_refused_order(
    bench: Bench, change: dict[str, Any], status: int, code: int, message: str
) -> None:
    assert bench.refused(**change) == (status, {"code": code, "message": message})
    assert bench.control("GET", "/ledger")["totals"]["orders"] == 0


@pytest.mark.parametrize("body", ["", "nonsense", "[]", "7", '{"qty": NaN}', "{" * 5000])
def test_bad_body(bench: Bench, body: str) -> None:
    answer = requests.post(bench.sim.url + "/v2/orders", body, headers=KEYS, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, 40010000)


def test_buying_power_names_both_amounts(bench: Bench) -> None:
    bench.price("AAPL", "100")
    status, body = bench.refused(qty="5000")
    assert status == 403
    assert body == {"code": 40310000, "message": "insufficient buying power",
                    "buying_power": "400000", "cost_basis": "500050"}  # fmt: skip


def test_open_orders_reserve_buying_power(bench: Bench) -> None:
    bench.switch(hold_fills=True)
    resting = bench.order(type="limit", limit_price="100", qty="3990")
    assert bench.client.get("/account")["buying_power"] == "1000"
    assert bench.refused(type="limit", limit_price="100", qty="11")[1]["buying_power"] == "1000"
    bench.client.cancel_order_by_id(resting["id"])
    eventually(lambda: bench.client.get("/account")["buying_power"] == "400000")


def test_qty_held_by_open_sell_order(bench: Bench) -> None:
    bench.filled(qty="10")
    bench.switch(hold_fills=True)
    first = bench.order(side="sell", qty="8")
    status, body = bench.refused(side="sell", qty="3")
    assert status == 403
    assert body == {
        "code": 40310000,
        "message": "insufficient qty available for order (requested: 3, available: 2)",
        "available": "2",
        "existing_qty": "10",
        "held_for_orders": "8",
        "symbol": "AAPL",
        "related_orders": [first["id"]],
    }


@pytest.mark.parametrize(
    ("resting", "new", "crosses"),
    [
        (("limit", "100"), ("market", None), True),
        (("limit", "100"), ("limit", "99"), True),
        (("limit", "100"), ("limit", "100"), True),
        (("limit", "100"), ("limit", "101"), False),
    ],
)
def test_wash_trade(
    bench: Bench, resting: tuple[str, str], new: tuple[str, str | None], crosses: bool
) -> None:
    bench.price("AAPL", "100")
    bench.filled(qty="10")
    bench.switch(hold_fills=True)
    first = bench.order(type=resting[0], limit_price=resting[1])
    sell = {"side": "sell", "type": new[0], "limit_price": new[1]}
    if not crosses:
        assert bench.order(**sell)["status"] == "pending_new"
        return
    assert bench.refused(**sell) == (
        403,
        {
            "code": 40310000,
            "message": "potential wash trade detected. use complex orders",
            "existing_order_id": first["id"],
            "reject_reason": "opposite side limit order exists",
        },
    )


@pytest.mark.parametrize(
    ("configuration", "order", "message"),
    [
        ({"suspend_trade": True}, {}, "new orders are rejected by user request"),
        ({"no_shorting": True}, {"side": "sell"}, "account is not allowed to short"),
        ({"fractional_trading": False}, {"qty": "0.5"},
         "fractional trading is not enabled for this account"),
    ],
)  # fmt: skip
def test_account_configuration(
    bench: Bench, configuration: dict[str, Any], order: dict[str, Any], message: str
) -> None:
    assert bench.client.patch("/account/configurations", configuration) == {
        **bench.client.get("/account/configurations"), **configuration
    }  # fmt: skip
    status, answer = bench.refused(**order)
    assert (status, answer["message"]) == (403, message)


def test_a_refused_order_does_not_use_up_its_client_order_id(bench: Bench) -> None:
    bench.refused(client_order_id="mine", qty="100000")
    assert bench.order(client_order_id="mine")["client_order_id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        ("GET", "/orders/zz", 422, 40010001, "order_id is missing"),
        ("GET", "/orders/61e69015-8549-4bfd-b9c3-01e75843f47d", 404, 40410000,
         "order not found for 61e69015-8549-4bfd-b9c3-01e75843f47d"),
        ("GET", "/orders:by_client_order_id?client_order_id=no", 404, 40410000,
         "order not found for no"),
        ("DELETE", "/orders/61e69015-8549-4bfd-b9c3-01e75843f47d", 404, 40410000,
         "order not found for 61e69015-8549-4bfd-b9c3-01e75843f47d"),
        ("GET", "/positions/AAPL", 404, 40410000, "position does not exist"),
        ("DELETE", "/positions/AAPL", 404, 40410000, "position does not exist"),
        ("GET", "/assets/ZZZZ", 404, 40410000, "asset not found for ZZZZ"),
        ("GET", "/account/activities/NONE", 422, 40010001, "invalid activity type: NONE"),
        ("GET", "/orders?limit=501", 422, 40010001, "limit must be an integer between 1 and 500"),
        ("GET", "/orders?status=some", 422, 40010001, "invalid status: some"),
        ("GET", "/orders?after=soon", 422, 40010001,
         "after must be an RFC 3339 timestamp or a date"),
        ("GET", "/nothing", 404, 40410000, "endpoint not found."),
    ],
)  # fmt: skip
def test_other_routes(
    bench: Bench, method: str, path: str, status: int, code: int, message: str
) -> None:
    answer = refusal(lambda: bench.client._request(method, path))
    assert answer == (status, {"code": code, "message": message})


def test_401_has_no_code(bench: Bench) -> None:
    answer = requests.get(bench.sim.url + "/v2/account", timeout=10)
    assert (answer.status_code, json.loads(answer.text)) == (401, {"message": "unauthorized."})
