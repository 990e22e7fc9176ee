"""Changes of cash and positions that are no fills: fees, and what the control API is asked for."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import requests

from tests.simulator.bench import Bench

NO_FILLS = {"category": "non_trade_activity", "direction": "asc"}


def listed(bench: Bench, **more: object) -> list[Any]:
    rows: list[Any] = bench.client.get("/account/activities", {**NO_FILLS, **more})
    return rows


def enter(bench: Bench, **body: object) -> Any:
    return bench.control("POST", "/entries", body)


def test_cash_and_positions_change_with_and_without_an_activity(bench: Bench) -> None:
    enter(bench, cash="-250.75")
    enter(bench, cash="1000", type="CSD")
    enter(bench, symbol="AAPL", qty="3", price="100", type="JNLS")
    assert bench.client.get("/account")["cash"] == "100749.25"
    (position,) = bench.client.get_all_positions()
    assert (position.qty, position.avg_entry_price) == ("3", "100")
    rows = listed(bench)
    assert [(r["activity_type"], r["net_amount"]) for r in rows] == [("CSD", "1000"), ("JNLS", "0")]
    ledger = bench.control("GET", "/ledger")
    assert (ledger["cash"], ledger["positions"]) == ("100749.25", {"AAPL": "3"})
    assert bench.client.get("/account/activities/FILL") == []


def test_entries_are_paged_by_token(bench: Bench) -> None:
    for number in range(5):
        enter(bench, cash=str(number + 1), type="DIV")
    first = listed(bench, page_size=2)
    rest = listed(bench, page_token=first[-1]["id"])
    assert [row["net_amount"] for row in first + rest] == ["1", "2", "3", "4", "5"]


def test_a_fee_on_coins_is_taken_out_of_what_is_received(bench: Bench) -> None:
    bench.switch(crypto_fee_bps=25)
    bench.control("POST", "/market/price", {"symbol": "BTC/USD", "price": "80000"})
    bench.filled(symbol="BTC/USD", qty="0.01", time_in_force="gtc")
    before = Decimal(bench.client.get("/account")["cash"])
    sold = bench.filled(symbol="BTC/USD", qty="0.005", side="sell", time_in_force="gtc")
    proceeds = Decimal("0.005") * Decimal(sold["filled_avg_price"])
    after = Decimal(bench.client.get("/account")["cash"])
    assert after - before == proceeds - (proceeds * 25 / 10_000).quantize(Decimal("1e-9"))
    in_coins, in_money = listed(bench)
    assert (in_coins["symbol"], in_coins["qty"]) == ("BTCUSD", "-0.000025")
    assert Decimal(in_money["net_amount"]) == after - before - proceeds


def test_entries_survive_a_restart(start: Callable[..., Bench], tmp_path: Path) -> None:
    first = start(state=tmp_path / "sim.jsonl")
    first.switch(crypto_fee_bps=25)
    first.filled(symbol="BTC/USD", qty="0.01", time_in_force="gtc")
    enter(first, cash="-10", type="CSW")
    first.control("POST", "/state/save")
    second = start(state=tmp_path / "sim.jsonl")
    for bench in (first, second):
        assert bench.client.get("/account")["cash"] == bench.control("GET", "/ledger")["cash"]
    assert second.control("GET", "/ledger") == first.control("GET", "/ledger")
    assert listed(second) == listed(first)


def test_an_unknown_symbol_is_refused(bench: Bench) -> None:
    body = {"symbol": "NOPE", "qty": "1"}
    answer = requests.post(bench.sim.control_url + "/entries", json=body, timeout=10)
    assert answer.status_code == 404
