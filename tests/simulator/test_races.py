"""Replace and cancel when they do not go smoothly: delays, races, errors, statuses that stick."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.common.exceptions import APIError

from tests.simulator.bench import Bench, eventually, refusal
from torghut.simulator.faults import kinds_for


@pytest.fixture(autouse=True)
def pinned(bench: Bench) -> None:
    """AAPL stands at 100."""
    bench.price("AAPL", "100")


def resting(bench: Bench, **values: Any) -> Any:
    """A limit buy of 10 far below the market, working."""
    order = bench.order(**{"type": "limit", "limit_price": "10", "qty": "10", **values})
    eventually(lambda: bench.status(order["id"]) == "new")
    return order


def replace(bench: Bench, order: Any, **change: Any) -> Any:
    return bench.client.patch(f"/orders/{order['id']}", change or {"limit_price": "11"})


def live(bench: Bench) -> list[str]:
    """Ids of orders that may fill, by the broker's list."""
    return [order["id"] for order in bench.client.get("/orders")]


def get(bench: Bench, order_id: str) -> Any:
    return bench.client.get(f"/orders/{order_id}")


# --- replace


def test_the_original_is_found_by_its_client_id(bench: Bench) -> None:
    old = resting(bench, client_order_id="first")
    new = replace(bench, old)
    assert new["client_order_id"] not in ("", "first")
    by_client_id = {"client_order_id": "first"}
    found = bench.client.get("/orders:by_client_order_id", by_client_id)
    assert (found["id"], found["status"], found["replaced_by"]) == (
        old["id"], "replaced", new["id"]
    )  # fmt: skip
    assert new["replaces"] == old["id"]


def test_a_late_replace_waits(bench: Bench) -> None:
    old = resting(bench)
    bench.switch(replace_delay_ms=600_000)
    new = replace(bench, old)
    assert (bench.status(old["id"]), new["status"]) == ("pending_replace", "pending_new")
    bench.price("AAPL", "5")
    assert (bench.status(old["id"]), bench.status(new["id"])) == ("pending_replace", "pending_new")
    for id_, status in ((old["id"], "pending_replace"), (new["id"], "pending_new")):
        change = {"limit_price": "12"}
        answer = refusal(
            lambda id_=id_, change=change: bench.client.patch(f"/orders/{id_}", change)
        )
        assert answer == (
            422, {"code": 42210000, "message": f"cannot replace order in {status} status"}
        )  # fmt: skip


def test_a_late_replace_takes_effect(bench: Bench) -> None:
    old = resting(bench)
    bench.fault("late_replace", "replace", delay_s=0.05)
    new = replace(bench, old)
    assert new["status"] == "pending_new"
    eventually(lambda: bench.status(new["id"]) == "new")
    assert get(bench, old["id"])["replaced_by"] == new["id"]
    assert live(bench) == [new["id"]]


def test_the_old_order_fills_first(bench: Bench) -> None:
    old = resting(bench)
    bench.fault("fills_first", "replace")
    new = replace(bench, old)
    assert (bench.status(old["id"]), bench.status(new["id"])) == ("filled", "rejected")
    assert (get(bench, old["id"])["replaced_by"], live(bench)) == (None, [])
    assert bench.client.get_open_position("AAPL").qty == "10"


@pytest.mark.parametrize(("keeps", "qty"), [("original", "10"), ("leaves", "10")])
def test_the_old_order_fills_in_part_first(bench: Bench, keeps: str, qty: str) -> None:
    """The quantity is settled when the change is asked for: a fill meanwhile comes on top."""
    bench.switch(replace_qty=keeps)
    old = resting(bench)
    bench.fault("fills_part_first", "replace")
    new = replace(bench, old)
    eventually(lambda: bench.status(new["id"]) == "new")
    assert (bench.status(old["id"]), get(bench, old["id"])["filled_qty"]) == ("replaced", "5")
    assert (get(bench, new["id"])["qty"], live(bench)) == (qty, [new["id"]])


def test_a_replacement_that_exceeds_the_position_is_rejected(bench: Bench) -> None:
    bench.filled(qty="10")
    old = resting(bench, side="sell", limit_price="200")
    bench.fault("fills_part_first", "replace")
    new = replace(bench, old, limit_price="201")
    eventually(lambda: bench.status(new["id"]) == "rejected")
    assert (bench.status(old["id"]), live(bench)) == ("partially_filled", [old["id"]])
    assert bench.client.get("/positions/AAPL")["qty_available"] == "0"


@pytest.mark.parametrize("kind", ["accept_then_refuse", "accept_then_5xx"])
def test_an_error_though_it_was_replaced(bench: Bench, kind: str) -> None:
    old = resting(bench, client_order_id="first")
    bench.fault(kind, "replace", status=422 if kind.endswith("refuse") else 504)
    refusal(lambda: replace(bench, old, limit_price="11", client_order_id="first-r1"))
    new = bench.client.get("/orders:by_client_order_id", {"client_order_id": "first-r1"})
    assert (new["replaces"], bench.status(old["id"])) == (old["id"], "replaced")
    assert live(bench) == [new["id"]]


@pytest.mark.parametrize("kind", kinds_for("replace"))
def test_never_two_live_orders_whatever_goes_wrong(bench: Bench, kind: str) -> None:
    old = resting(bench, client_order_id="first")
    bench.fault(kind, "replace", delay_s=0.05, hold_s=0.05)
    with suppress(APIError, requests.RequestException, ValueError):
        replace(bench, old, limit_price="11", client_order_id="first-r1")

    def still() -> bool:
        shown = bench.client.get("/orders", {"status": "all"})
        return not {"pending_replace", "pending_new"} & {order["status"] for order in shown}

    eventually(still)
    ledger = bench.control("GET", "/ledger")["orders"]
    lines = [line for found in ledger.values() for line in found]
    assert len(lines) == len(ledger) <= 2
    assert [line["status"] for line in lines].count("new") == (kind != "fills_first")
    assert {order["id"] for order in bench.client.get("/orders")} == {
        line["order_id"] for line in lines if line["status"] == "new"
    }


def test_a_cancel_overtakes_a_replace(bench: Bench) -> None:
    old = resting(bench)
    bench.switch(replace_delay_ms=600_000)
    new = replace(bench, old)
    bench.client.cancel_order_by_id(old["id"])
    eventually(lambda: bench.status(old["id"]) == "canceled")
    assert bench.status(new["id"]) == "rejected"


def test_a_waiting_replacement_survives_a_restart(
    start: Callable[..., Bench], tmp_path: Path
) -> None:
    first = start(state=tmp_path / "sim.jsonl", switches={"replace_delay_ms": 600_000})
    old = resting(first)
    new = replace(first, old)
    again = start(state=tmp_path / "sim.jsonl")
    eventually(lambda: again.status(new["id"]) == "new")
    assert again.status(old["id"]) == "replaced"


@pytest.mark.parametrize("role", ["entry", "take_profit", "stop_loss"])
@pytest.mark.parametrize("delay_ms", [0, 20])
def test_the_prices_of_a_bracket_can_be_replaced(bench: Bench, role: str, delay_ms: int) -> None:
    exits = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "5"}}
    entry = resting(bench, order_class="bracket", **exits)
    bench.switch(replace_delay_ms=delay_ms)
    chosen = dict(zip(("entry", "take_profit", "stop_loss"), [entry, *entry["legs"]], strict=True))
    change = {"stop_price": "6"} if role == "stop_loss" else {"limit_price": "109"}
    if role == "entry":
        change = {"limit_price": "11"}
    new = replace(bench, chosen[role], **change)
    eventually(lambda: bench.status(chosen[role]["id"]) == "replaced")
    chosen[role] = new
    wanted = [chosen["take_profit"]["id"], chosen["stop_loss"]["id"]]
    shown = bench.client.get(f"/orders/{chosen['entry']['id']}", {"nested": "true"})
    assert sorted(leg["id"] for leg in shown["legs"]) == sorted(wanted)
    eventually(lambda: bench.status(chosen["entry"]["id"]) == "new")
    bench.control("POST", f"/orders/{chosen['entry']['id']}/fill")
    eventually(lambda: bench.status(wanted[0]) == "new")
    bench.price("AAPL", "109" if role == "take_profit" else "110")
    bench.price("AAPL", "112")
    eventually(lambda: bench.status(wanted[0]) == "filled")
    assert bench.status(wanted[1]) == "canceled"
    assert bench.client.get_all_positions() == []


def test_the_quantity_of_a_bracket_cannot_be_replaced(bench: Bench) -> None:
    exits = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "5"}}
    entry = resting(bench, order_class="bracket", **exits)
    answer = refusal(lambda: replace(bench, entry, qty="5"))
    assert answer[1]["message"] == "only prices of bracket orders can be replaced"


# --- cancel


def test_cancel_answered_early(bench: Bench) -> None:
    order = resting(bench)
    bench.fault("late_cancel", "cancel", delay_s=0.2)
    bench.client.cancel_order_by_id(order["id"])
    assert live(bench) == [order["id"]]
    eventually(lambda: bench.status(order["id"]) == "canceled")


def test_cancel_refused_yet_canceled(bench: Bench) -> None:
    order = resting(bench)
    bench.fault("accept_then_refuse", "cancel", status=422)
    assert refusal(lambda: bench.client.cancel_order_by_id(order["id"]))[0] == 422
    eventually(lambda: bench.status(order["id"]) == "canceled")


def test_an_order_fills_while_it_is_pending_cancel(bench: Bench) -> None:
    order = resting(bench)
    bench.fault("fills_first", "cancel")
    bench.client.cancel_order_by_id(order["id"])
    found = get(bench, order["id"])
    assert (found["status"], found["filled_qty"], found["canceled_at"]) == ("filled", "10", None)


def test_an_order_fills_in_part_while_it_is_pending_cancel(bench: Bench) -> None:
    order = resting(bench)
    bench.fault("fills_part_first", "cancel")
    bench.client.cancel_order_by_id(order["id"])
    eventually(lambda: bench.status(order["id"]) == "canceled")
    assert get(bench, order["id"])["filled_qty"] == "5"


def test_cancel_all_says_which_could_not_be_canceled(bench: Bench) -> None:
    orders = [resting(bench) for _ in range(2)]
    answers = bench.client.delete("/orders")
    assert {(row["id"], row["status"], row["body"]["status"]) for row in answers} == {
        (order["id"], 200, "pending_cancel") for order in orders
    }
    eventually(lambda: not live(bench))


# --- statuses that stick


@pytest.mark.parametrize("status", ["pending_new", "accepted"])
def test_an_order_stays_where_it_is(bench: Bench, status: str) -> None:
    bench.switch(stuck=status, fill_delay_ms=0)
    order = bench.order()
    assert order["status"] == status
    bench.price("AAPL", "101")
    assert bench.status(order["id"]) == status
    bench.switch(stuck="")
    eventually(lambda: bench.status(order["id"]) == "filled")


def test_cancel_and_replace_stick(bench: Bench) -> None:
    order, other = resting(bench), resting(bench)
    bench.switch(stuck="pending_cancel,pending_replace", cancel_delay_ms=0)
    bench.client.cancel_order_by_id(order["id"])
    new = replace(bench, other)
    bench.price("AAPL", "101")
    assert bench.status(order["id"]) == "pending_cancel"
    assert bench.status(other["id"]) == "pending_replace"
    assert set(live(bench)) == {order["id"], other["id"], new["id"]}
    bench.switch(stuck="")
    eventually(lambda: bench.status(order["id"]) == "canceled")
    eventually(lambda: bench.status(new["id"]) == "new")


# --- activities


def test_activities_come_late(bench: Bench) -> None:
    bench.switch(activity_delay_ms=600_000)
    bench.filled()
    assert bench.client.get("/account/activities/FILL") == []
    bench.switch(activity_delay_ms=0)
    bench.fault("late_activities", delay_s=0.3)
    late = bench.filled()
    early = bench.filled()
    first = [row["order_id"] for row in bench.client.get("/account/activities/FILL")]
    assert early["id"] in first

    def rows() -> list[Any]:
        found = bench.client.get("/account/activities/FILL", {"direction": "asc"})
        return [row["order_id"] for row in found]

    eventually(lambda: late["id"] in rows())
    assert rows() == [late["id"], early["id"]]


def test_a_page_ends_in_the_middle_of_an_instant(bench: Bench) -> None:
    bench.switch(fill_clock_ms=3_600_000)
    orders = {bench.filled()["id"] for _ in range(5)}
    seen: list[Any] = []
    token = None
    while page := bench.client.get(
        "/account/activities/FILL",
        {"direction": "asc", "page_size": 2} | ({"page_token": token} if token else {}),
    ):
        seen += page
        token = page[-1]["id"]
    assert {row["order_id"] for row in seen} == orders
    assert len({row["transaction_time"] for row in seen}) <= 2  # the hour may turn meanwhile
    assert len({row["id"] for row in seen}) == 5


def test_the_ledger_has_positions_and_cash(bench: Bench) -> None:
    bench.switch(crypto_fee_bps=25)
    bench.filled(qty="3")
    bench.filled(symbol="BTC/USD", qty="0.123456789", time_in_force="gtc")
    ledger = bench.control("GET", "/ledger")
    account = bench.client.get("/account")
    shown = {position.symbol: position.qty for position in bench.client.get_all_positions()}
    assert ledger["cash"] == account["cash"]
    assert ledger["positions"] == {"AAPL": "3", "BTC/USD": shown["BTCUSD"]}
