"""A running simulator with a real alpaca-py client, and what the tests do with them."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import requests
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.trading.client import TradingClient

from torghut.simulator import SimConfig, Simulator
from torghut.simulator.assets import AssetList
from torghut.simulator.bars import BarFile
from torghut.simulator.broker import Broker
from torghut.simulator.market import Market
from torghut.simulator.switches import Switches

KEYS = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
DEADLINE_S = 20
FRIDAY_NOON = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)


def eventually(condition: Callable[[], Any]) -> Any:
    """The first true value of a condition; fails after the deadline."""
    pause = threading.Event()
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        pause.wait(0.005)
    raise AssertionError(f"not within {DEADLINE_S} s: {condition}")


class Bench:
    """One simulator, one client, the control API."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.client = TradingClient("key", "secret", url_override=sim.url)
        self.client._retry = 0
        self.data = StockHistoricalDataClient("key", "secret", url_override=sim.url)

    def timeout(self, seconds: float) -> None:
        """Give the client the timeout that alpaca-py lacks."""
        session = self.client._session
        session.request = functools.partial(session.request, timeout=seconds)  # type: ignore[method-assign]

    def order(self, **values: Any) -> Any:
        """Submit an order by its raw JSON; AAPL market buy of 1 by default."""
        body = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market",
                "time_in_force": "day", **values}  # fmt: skip
        return self.client.post("/orders", {k: v for k, v in body.items() if v is not None})

    def refused(self, **values: Any) -> tuple[int, dict[str, Any]]:
        """Submit an order that is refused: status and body."""
        return refusal(lambda: self.order(**values))

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Call the control API."""
        answer = requests.request(method, self.sim.control_url + path, json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def fault(self, kind: str, route: str = "submit", **values: Any) -> None:
        """Add a fault rule that strikes once."""
        self.control("POST", "/faults", {"route": route, "kind": kind, "count": 1, **values})

    def switch(self, **values: Any) -> None:
        """Set behaviour switches."""
        self.control("POST", "/switches", values)

    def price(self, symbol: str, price: str, **values: Any) -> None:
        """Pin a price."""
        self.control("POST", "/market/price", {"symbol": symbol, "price": price, **values})

    def status(self, order_id: str) -> str:
        """The status of an order."""
        return str(self.client.get(f"/orders/{order_id}")["status"])

    def filled(self, **values: Any) -> Any:
        """Submit an order and wait until it is filled."""
        order = self.order(**values)
        eventually(lambda: self.status(order["id"]) == "filled")
        return self.client.get(f"/orders/{order['id']}")

    def ledger(self, client_order_id: str) -> list[dict[str, Any]]:
        """The broker orders that the second books have for a client id."""
        return self.control("GET", "/ledger")["orders"].get(client_order_id, [])


def refusal(call: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the APIError a call raises."""
    try:
        answer = call()
    except APIError as error:
        assert error.response is not None
        return error.response.status_code, error.response.json()
    raise AssertionError(f"not refused: {answer}")


class Instant:
    """A clock that tests move."""

    def __init__(self, at: datetime = FRIDAY_NOON) -> None:
        self.at = at
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        """The instant."""
        return self.at

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)
        self.elapsed_s += seconds


def broker_at(
    instant: Instant,
    mode: str = "open",
    bars: BarFile | None = None,
    seed: int = 1,
    **switches: Any,
) -> Broker:
    """A broker without a server, whose time is the test's."""
    assets = AssetList(bars.first_prices if bars else None)
    market = Market(mode, seed, assets, bars, wall=instant.now)
    chosen = Switches().changed({"partial_fill_probability": 0, **switches})
    return Broker(market, chosen, seed, Decimal(100_000), lambda: instant.elapsed_s)


def body(**values: Any) -> dict[str, Any]:
    """An order's JSON body; AAPL market buy of 1 by default."""
    return {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market",
            "time_in_force": "day", **values}  # fmt: skip


__all__ = ["FRIDAY_NOON", "KEYS", "Bench", "Instant", "SimConfig", "Simulator", "body",
           "broker_at", "eventually", "refusal"]  # fmt: skip
