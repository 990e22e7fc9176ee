"""Every kind of fault, seen through the real alpaca-py client.

Stories 5, 6, 22, 26, 33: an answer, or the lack of one, says little about what happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests
from alpaca.common.exceptions import APIError

from tests.simulator.bench import KEYS, Bench, eventually, refusal
from torghut.simulator.faults import KINDS, FaultPlan, FaultRule, kinds_for, parse_fault

SHORT_S = 0.3


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("accept_then_hang", requests.ReadTimeout),
        ("accept_then_reset", requests.ConnectionError),
        ("truncated_body", requests.exceptions.ChunkedEncodingError),
        ("garbage_body", requests.JSONDecodeError),
    ],
)
def test_order_taken_without_a_readable_answer(
    bench: Bench, kind: str, error: type[Exception]
) -> None:
    bench.timeout(SHORT_S)
    bench.fault(kind)
    with pytest.raises(error):
        bench.order(client_order_id="mine")
    found = bench.client.get_order_by_client_id("mine")
    assert [line["order_id"] for line in bench.ledger("mine")] == [str(found.id)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("hang_before", requests.ReadTimeout),
        ("reset_before", requests.ConnectionError),
    ],
)
def test_order_not_taken_without_an_answer(bench: Bench, kind: str, error: type[Exception]) -> None:
    bench.timeout(SHORT_S)
    bench.fault(kind)
    with pytest.raises(error):
        bench.order(client_order_id="mine")
    assert bench.ledger("mine") == []
    assert refusal(lambda: bench.client.get_order_by_client_id("mine"))[0] == 404


def test_the_reset_is_a_reset(bench: Bench) -> None:
    bench.fault("accept_then_reset")
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        bench.order()


def test_a_hang_ends_by_itself(bench: Bench) -> None:
    bench.fault("hang_before", hold_s=0.05)
    with pytest.raises(requests.ConnectionError):
        bench.order()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("html", [True, False])
@pytest.mark.parametrize(("kind", "taken"), [("accept_then_5xx", 1), ("refuse_5xx", 0)])
def test_server_errors(bench: Bench, kind: str, taken: int, html: bool, status: int) -> None:
    bench.fault(kind, status=status, html=html)
    with pytest.raises(APIError) as caught:
        bench.order(client_order_id="mine")
    assert caught.value.status_code == status
    assert len(bench.ledger("mine")) == taken
    if html:
        assert "nginx" in str(caught.value)
        with pytest.raises(json.JSONDecodeError):
            _ = caught.value.code
    else:
        assert caught.value.code == status * 100000 + 10000


@pytest.mark.parametrize(("status", "code"), [(403, 40310000), (422, 42210000)])
def test_accept_then_refuse(bench: Bench, status: int, code: int) -> None:
    bench.fault("accept_then_refuse", status=status)
    assert bench.refused(client_order_id="mine") == (
        status, {"code": code, "message": "order refused"}
    )  # fmt: skip
    assert len(bench.ledger("mine")) == 1


@pytest.mark.parametrize("html", [True, False])
@pytest.mark.parametrize("headers", [True, False])
def test_rate_limit(bench: Bench, html: bool, headers: bool) -> None:
    bench.fault("rate_limit", html=html, rate_limit_headers=headers)
    with pytest.raises(APIError) as caught:
        bench.order(client_order_id="mine")
    response = caught.value.response
    assert response is not None
    assert response.status_code == 429
    assert ("X-RateLimit-Reset" in response.headers) == headers
    assert response.headers["content-type"].startswith("text/html" if html else "application/json")
    assert bench.ledger("mine") == []


def test_slow(bench: Bench) -> None:
    bench.timeout(SHORT_S)
    bench.fault("slow", delay_s=30)
    with pytest.raises(requests.ReadTimeout):
        bench.order(client_order_id="mine")
    assert len(bench.ledger("mine")) == 1
    bench.fault("slow", delay_s=0.01)
    assert bench.order()["status"] == "pending_new"


def test_empty_body(bench: Bench) -> None:
    bench.fault("empty_body")
    answer = requests.post(
        bench.sim.url + "/v2/orders",
        json={"symbol": "AAPL", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"},
        headers=KEYS,
        timeout=10,
    )
    assert (answer.status_code, answer.content) == (200, b"")
    assert bench.control("GET", "/ledger")["totals"]["orders"] == 1


@pytest.mark.parametrize("route", ["submit", "by_client_order_id", "get_order"])
def test_other_id(bench: Bench, route: str) -> None:
    order = bench.order(client_order_id="mine") if route != "submit" else None
    bench.fault("other_id", route)
    calls: dict[str, Callable[[], Any]] = {
        "submit": lambda: bench.order(client_order_id="mine"),
        "get_order": lambda: bench.client.get(f"/orders/{order['id']}"),
        "by_client_order_id": lambda: bench.client.get(
            "/orders:by_client_order_id", {"client_order_id": "mine"}
        ),
    }
    shown = calls[route]()
    assert shown["client_order_id"].startswith("other-")
    assert shown["id"] != bench.ledger("mine")[0]["order_id"]


def test_late_visibility(bench: Bench) -> None:
    bench.switch(hold_fills=True)
    bench.fault("late_visibility", visible_after_s=0.2)
    order = bench.order(client_order_id="mine")
    assert refusal(lambda: bench.client.get_order_by_client_id("mine"))[0] == 404
    assert bench.client.get("/orders") == []
    assert bench.client.get(f"/orders/{order['id']}")["client_order_id"] == "mine"
    eventually(lambda: bench.client.get("/orders"))
    assert str(bench.client.get_order_by_client_id("mine").id) == order["id"]


@pytest.mark.parametrize("hang", [True, False])
def test_late_accept(bench: Bench, hang: bool) -> None:
    bench.timeout(SHORT_S)
    bench.fault("late_accept", delay_s=0.5, hang=hang)
    with pytest.raises(requests.ConnectionError if not hang else requests.ReadTimeout):
        bench.order(client_order_id="mine")
    assert bench.ledger("mine") == []
    eventually(lambda: bench.ledger("mine"))
    assert bench.client.get_order_by_client_id("mine")


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("unauthorized", 401, {"message": "unauthorized."}),
        ("forbidden", 403, {"message": "forbidden."}),
    ],
)
def test_definite_refusals_about_the_account(
    bench: Bench, kind: str, status: int, body: dict[str, str]
) -> None:
    bench.fault(kind)
    assert bench.refused() == (status, body)


def test_reject_says_what_the_rule_says(bench: Bench) -> None:
    bench.fault("reject", status=403, code=40310100, message="trade denied")
    assert bench.refused() == (403, {"code": 40310100, "message": "trade denied"})


@pytest.mark.parametrize(
    ("route", "call"),
    [
        ("account", lambda b: b.client.get_account()),
        ("positions", lambda b: b.client.get_all_positions()),
        ("activities", lambda b: b.client.get("/account/activities")),
        ("list_orders", lambda b: b.client.get_orders()),
        ("clock", lambda b: b.client.get_clock()),
        ("assets", lambda b: b.client.get_all_assets()),
        ("calendar", lambda b: b.client.get("/calendar", {"start": "2026-11-20"})),
        ("quotes", lambda b: b.client.get("/stocks/quotes/latest", {"symbols": "AAPL"})),
        ("bars", lambda b: b.client.get("/stocks/bars/latest", {"symbols": "AAPL"})),
    ],
)
def test_every_route_can_fail(bench: Bench, route: str, call: Callable[[Bench], Any]) -> None:
    bench.fault("refuse_5xx", route, status=503)
    assert refusal(lambda: call(bench))[0] == 503
    call(bench)


def test_cancel_and_replace_take_effect_behind_an_error(bench: Bench) -> None:
    order = bench.order(type="limit", limit_price="10", client_order_id="mine")
    eventually(lambda: bench.status(order["id"]) == "new")
    bench.fault("accept_then_5xx", "replace", status=500)
    change = {"limit_price": "11", "client_order_id": "mine-r1"}
    assert refusal(lambda: bench.client.patch(f"/orders/{order['id']}", change))[0] == 500
    new = bench.client.get_order_by_client_id("mine-r1")
    eventually(lambda: bench.status(str(new.id)) == "new")
    bench.fault("accept_then_reset", "cancel")
    with pytest.raises(requests.ConnectionError):
        bench.client.cancel_order_by_id(new.id)
    eventually(lambda: bench.status(str(new.id)) == "canceled")


# --- when a rule strikes


def test_rule_for_one_symbol_after_some_matches(bench: Bench) -> None:
    bench.switch(hold_fills=True)
    bench.fault("refuse_5xx", status=500, symbol="MSFT", after=1)
    bench.order(symbol="AAPL")
    bench.order(symbol="MSFT")
    assert bench.refused(symbol="MSFT")[0] == 500
    bench.order(symbol="MSFT")
    rule = bench.control("GET", "/faults")["rules"][0]
    assert (rule["matches"], rule["hits"]) == (3, 1)
    assert bench.control("DELETE", "/faults") == {"removed": 1}


def test_rule_for_one_client_order_id(bench: Bench) -> None:
    bench.fault("refuse_5xx", "*", status=500, client_order_id="mine", count=2)
    bench.order(client_order_id="yours")
    assert bench.refused(client_order_id="mine")[0] == 500
    assert refusal(lambda: bench.client.get_order_by_client_id("mine"))[0] == 500
    bench.order(client_order_id="mine")


def test_wrong_rules_are_refused(bench: Bench) -> None:
    answer = requests.post(
        bench.sim.control_url + "/faults", json={"route": "submit", "kind": "flood"}, timeout=10
    )
    assert answer.status_code == 422
    assert "kind must be one of" in answer.text


def test_same_seed_same_faults() -> None:
    def run(seed: int) -> list[str | None]:
        plan = FaultPlan(seed)
        plan.add(parse_fault("all:0.2"))
        drawn = (plan.decide(route) for _ in range(200) for route in ("submit", "account"))
        return [fault and fault.kind for fault in drawn]

    assert run(7) == run(7)
    assert run(7) != run(8)
    struck = [kind for kind in run(7) if kind]
    assert 40 < len(struck) < 120
    assert set(struck) <= set(kinds_for("submit"))


def test_every_undecided_kind_is_drawn() -> None:
    plan = FaultPlan(1)
    plan.add(parse_fault("all:1"))
    drawn = {
        fault.kind
        for _ in range(500)
        for route in ("submit", "cancel", "replace")
        if (fault := plan.decide(route))
    }
    left_out = {"any", "unauthorized", "forbidden", "reject", "late_activities"}
    assert drawn == set(KINDS) - left_out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("submit:accept_then_reset:0.2",
         FaultRule("submit", "accept_then_reset", probability=0.2)),
        ("*:slow:once:delay_s=1.5", FaultRule("*", "slow", count=1, delay_s=1.5)),
        ("all:0.1", FaultRule("*", "any", probability=0.1)),
        ("submit:accept_then_5xx:x3:status=504,html=true",
         FaultRule("submit", "accept_then_5xx", count=3, status=504, html=True)),
    ],
)  # fmt: skip
def test_parse_fault(text: str, expected: FaultRule) -> None:
    assert parse_fault(text) == expected


@pytest.mark.parametrize("text", ["", "submit", "submit:slow", "submit:flood:1", "submit:slow:2",
                                  "submit:slow:often", "submit:slow:1:colour=red"])  # fmt: skip
def test_parse_fault_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="fault"):
        parse_fault(text)
