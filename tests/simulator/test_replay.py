"""Replay of daily bars: the clock, the phases of a session, and fills at its prices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.bench import Bench, Instant, body, broker_at, eventually
from torghut.simulator.bars import BarFile
from torghut.simulator.broker import Broker

CSV = """\
date,symbol,open,high,low,close,volume
2010-03-01,AAPL,100,105,95,102,1000
2010-03-02,AAPL,103,110,101,108,1000
2010-03-03,AAPL,107,112,104,111,1000
2010-03-04,AAPL,120,125,118,119,1000
2010-03-05,AAPL,90,92,80,85,1000
"""
FIRST = date(2010, 3, 1)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "bars.csv"
    path.write_text(CSV)
    return path


@pytest.fixture
def broker(csv: Path) -> Broker:
    return broker_at(Instant(), "replay", BarFile(csv))


ROWS: list[tuple[dict[str, Any], str, str, str | None]] = [
    # order placed at the close of 1 March, day reached, status, average price
    ({}, "2010-03-02", "filled", "103.01"),
    ({"side": "sell"}, "2010-03-02", "filled", "102.99"),
    ({"type": "limit", "limit_price": "102"}, "2010-03-02", "filled", "102"),
    ({"type": "limit", "limit_price": "104"}, "2010-03-02", "filled", "103.01"),
    ({"type": "limit", "limit_price": "100"}, "2010-03-02", "expired", None),
    ({"type": "limit", "limit_price": "85", "time_in_force": "gtc"}, "2010-03-04", "new", None),
    ({"type": "limit", "limit_price": "85", "time_in_force": "gtc"}, "2010-03-05", "filled", "85"),
    ({"type": "limit", "limit_price": "99", "time_in_force": "gtc"}, "2010-03-05", "filled",
     "90.01"),
    ({"type": "stop", "stop_price": "109"}, "2010-03-02", "filled", "109"),
    ({"type": "stop", "stop_price": "115", "time_in_force": "gtc"}, "2010-03-04", "filled",
     "120.01"),
    ({"type": "stop_limit", "stop_price": "115", "limit_price": "116", "time_in_force": "gtc"},
     "2010-03-04", "new", None),
    ({"type": "stop_limit", "stop_price": "115", "limit_price": "119", "time_in_force": "gtc"},
     "2010-03-04", "filled", "119"),
    ({"time_in_force": "opg"}, "2010-03-02", "filled", "103.01"),
    ({"time_in_force": "cls"}, "2010-03-02", "filled", "108.01"),
    ({"type": "limit", "limit_price": "100", "time_in_force": "opg"}, "2010-03-02", "expired",
     None),
]  # fmt: skip


@pytest.mark.parametrize(("order", "day", "status", "price"), ROWS)
def test_order_at_the_close(
    broker: Broker, order: dict[str, Any], day: str, status: str, price: str | None
) -> None:
    broker.advance(FIRST, "close")
    taken = broker.submit(body(**order))
    assert taken.status == "accepted"
    broker.advance(date.fromisoformat(day), "close")
    assert taken.status == status
    average = taken.filled_cost / taken.filled_qty if taken.filled_qty else None
    assert average == (None if price is None else Decimal(price))


def test_over_http(start: Callable[..., Bench], csv: Path) -> None:
    bench = start(market="replay", bars=csv)
    assert bench.client.get_clock().timestamp.isoformat().startswith("2010-03-01T09:30:00")
    bench.control("POST", "/market/advance", {"to": "2010-03-01", "phase": "close"})
    assert not bench.client.get_clock().is_open
    order = bench.order(qty="2")
    assert order["status"] == "accepted"
    reached = bench.control("POST", "/market/advance", {})
    assert (reached["date"], reached["bars"]["AAPL"]["c"]) == ("2010-03-02", 108.0)
    found = bench.client.get(f"/orders/{order['id']}")
    assert (found["status"], found["filled_avg_price"]) == ("filled", "103.01")
    row = bench.client.get("/account/activities/FILL")[0]
    assert row["id"].startswith("20100302093000")
    late = bench.order(qty="1")
    assert eventually(lambda: bench.status(late["id"]) == "filled")
    assert bench.client.get(f"/orders/{late['id']}")["filled_avg_price"] == "108.01"
    for _ in range(3):
        bench.control("POST", "/market/advance", {})
    assert bench.control("POST", "/market/advance")["finished"] is True
    bench.control("POST", "/reset")
    assert bench.control("GET", "/market")["date"] == "2010-03-01"


def test_bars_do_not_show_the_future(broker: Broker) -> None:
    asset = broker.market.assets.find("AAPL")
    assert asset is not None

    def seen() -> list[str]:
        bars = broker.market.daily_bars(asset, FIRST, date(2011, 1, 1))
        return [bar.starts_at.date().isoformat() for bar in bars]

    assert seen() == []
    broker.advance(date(2010, 3, 2), "open")
    assert seen() == ["2010-03-01"]
    assert broker.market.quote(asset, broker.market.now()).last == 103
    broker.advance(date(2010, 3, 2), "before_close")
    assert seen() == ["2010-03-01", "2010-03-02"]


def test_a_session_missing_from_the_file_does_not_expire_a_day_order(tmp_path: Path) -> None:
    path = tmp_path / "storm.csv"
    path.write_text(CSV.replace("2010-03-02", "2010-03-08").replace("2010-03-01", "2010-02-26"))
    broker = broker_at(Instant(), "replay", BarFile(path))
    broker.advance(date(2010, 2, 26), "close")
    order = broker.submit(body())
    assert order.expires_at.date() == date(2010, 3, 3)
    broker.advance(date(2010, 3, 3), "open")
    assert order.status == "filled"


def test_time_does_not_go_back(broker: Broker) -> None:
    broker.advance(date(2010, 3, 3))
    with pytest.raises(ValueError, match="lies before"):
        broker.advance(date(2010, 3, 2))


def test_position_is_kept_across_a_restart(start: Callable[..., Bench], csv: Path) -> None:
    state = csv.with_name("sim.jsonl")
    bench = start(market="replay", bars=csv, state=state)
    bench.control("POST", "/market/advance", {"to": "2010-03-03"})
    bench.filled()
    again = start(market="replay", bars=csv, state=state)
    assert again.control("GET", "/market")["date"] == "2010-03-03"
    assert again.client.get_open_position("AAPL").current_price == "111"
