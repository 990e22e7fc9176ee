"""The trade_updates websocket, with alpaca-py's own TradingStream and a bare client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from alpaca.trading.stream import TradingStream
from websockets.sync.client import connect

from tests.simulator.bench import Bench, eventually

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def stream_url(bench: Bench) -> str:
    """The websocket's address."""
    return bench.sim.url.replace("http", "ws") + "/stream"


def test_trading_stream_of_the_sdk(bench: Bench) -> None:
    got: list[Any] = []

    async def on_update(update: Any) -> None:
        got.append(update)

    stream = TradingStream("key", "secret", url_override=stream_url(bench))
    stream.subscribe_trade_updates(on_update)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    eventually(lambda: bench.sim.gateway.stream._listeners)
    order = bench.filled(qty="10")
    eventually(lambda: len(got) == 3)
    assert [str(getattr(u.event, "value", u.event)) for u in got] == ["pending_new", "new", "fill"]
    last = got[-1]
    assert (str(last.order.id), last.qty, last.position_qty) == (order["id"], 10, 10)
    asyncio.run_coroutine_threadsafe(stream.stop_ws(), stream._loop).result(10)
    thread.join(10)


@pytest.mark.parametrize(
    "hello",
    [
        {"action": "authenticate", "data": {"key_id": "key", "secret_key": "secret"}},
        {"action": "auth", "key": "key", "secret": "secret"},
    ],
)
def test_handshake(start: Callable[..., Bench], hello: dict[str, Any]) -> None:
    bench = start(key="key", secret="secret")
    with connect(stream_url(bench)) as socket:
        socket.send(json.dumps(hello))
        answer = socket.recv()
        assert isinstance(answer, bytes)
        assert json.loads(answer) == {
            "stream": "authorization", "data": {"status": "authorized", "action": hello["action"]}
        }  # fmt: skip
        socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        assert json.loads(socket.recv())["data"] == {"streams": ["trade_updates"]}
        bench.switch(partial_fill_probability=1)
        bench.order(qty="10")
        events = [json.loads(socket.recv())["data"] for _ in range(4)]
    assert [e["event"] for e in events] == ["pending_new", "new", "partial_fill", "fill"]
    assert int(events[2]["qty"]) + int(events[3]["qty"]) == 10
    assert events[3]["order"]["filled_qty"] == "10"
    assert len({e["execution_id"] for e in events}) == 4


def test_wrong_keys(start: Callable[..., Bench]) -> None:
    bench = start(key="key", secret="secret")
    with connect(stream_url(bench)) as socket:
        socket.send(json.dumps({"action": "auth", "key": "key", "secret": "wrong"}))
        assert json.loads(socket.recv())["data"]["status"] == "unauthorized"
        socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        assert json.loads(socket.recv())["data"]["status"] == "unauthorized"
        socket.send("not json")
        assert json.loads(socket.recv())["data"]["status"] == "unauthorized"


def test_other_paths_are_no_websockets(bench: Bench) -> None:
    with pytest.raises(Exception, match="403"):
        connect(bench.sim.url.replace("http", "ws") + "/other")
