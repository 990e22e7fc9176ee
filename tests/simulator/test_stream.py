"""The trade_updates websocket, with alpaca-py's own TradingStream and a bare client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alpaca.trading.stream import TradingStream
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.simulator.bench import Bench, eventually
from torghut.simulator.stream import EVENTS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def stream_url(bench: Bench) -> str:
    """The websocket's address."""
    return bench.sim.url.replace("http", "ws") + "/stream"


@contextmanager
def sdk_stream(bench: Bench) -> Iterator[list[Any]]:
    """alpaca-py's TradingStream as it is; yields the list that grows with its updates."""
    got: list[Any] = []

    async def on_update(update: Any) -> None:
        got.append(update)

    stream = TradingStream("key", "secret", url_override=stream_url(bench))
    stream.subscribe_trade_updates(on_update)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    eventually(lambda: bench.control("GET", "/stream")["listening"])
    yield got
    asyncio.run_coroutine_threadsafe(stream.stop_ws(), stream._loop).result(10)
    thread.join(10)


def event_of(update: Any) -> str:
    return str(getattr(update.event, "value", update.event))


@pytest.mark.parametrize("frames", ["binary", "text"])
def test_trading_stream_of_the_sdk(bench: Bench, frames: str) -> None:
    bench.switch(stream_frames=frames)
    with sdk_stream(bench) as got:
        order = bench.filled(qty="10")
        eventually(lambda: len(got) == 3)
        assert [event_of(update) for update in got] == ["pending_new", "new", "fill"]
        last = got[-1]
        assert (str(last.order.id), last.qty, last.position_qty) == (order["id"], 10, 10)


def test_every_event_reaches_the_sdk(bench: Bench) -> None:
    """What the book itself tells, and the rarer events on request, each with the whole order."""
    bench.switch(hold_fills=True)
    with sdk_stream(bench) as got:
        order = bench.order(qty="10")
        for event in EVENTS:
            bench.control("POST", f"/orders/{order['id']}/event", {"event": event})
        eventually(lambda: len(got) >= len(EVENTS) + 2)
        assert {event_of(update) for update in got} == set(EVENTS)
        assert {str(update.order.id) for update in got} == {order["id"]}


def test_what_the_book_tells(bench: Bench) -> None:
    """Partial fills, a cancel, a replace, an expiry and a rejection, without being asked to."""
    with sdk_stream(bench) as got:
        bench.switch(hold_fills=True)
        ids = [bench.order(qty="10", type="limit", limit_price="1")["id"] for _ in range(4)]
        eventually(lambda: bench.status(ids[-1]) == "new")
        bench.control("POST", f"/orders/{ids[0]}/fill", {"qty": "4"})
        bench.client.cancel_order_by_id(ids[0])
        bench.client.patch(f"/orders/{ids[1]}", {"qty": "9"})
        bench.control("POST", f"/orders/{ids[2]}/expire")
        bench.control("POST", f"/orders/{ids[3]}/reject")
        wanted = {"pending_new", "new", "partial_fill", "pending_cancel", "canceled", "replaced",
                  "expired", "rejected"}  # fmt: skip
        eventually(lambda: wanted <= {event_of(update) for update in got})
        (part,) = [update for update in got if event_of(update) == "partial_fill"]
        assert (part.qty, part.position_qty, part.order.filled_qty) == (4, 4, "4")


@contextmanager
def listening(bench: Bench) -> Iterator[ClientConnection]:
    """A bare client that has signed in and listens."""
    with connect(stream_url(bench)) as socket:
        socket.send(json.dumps({"action": "auth", "key": "key", "secret": "secret"}))
        socket.recv(5)
        socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        socket.recv(5)
        yield socket


def events(socket: ClientConnection, count: int) -> list[str]:
    """The events of the next messages; `?` for one that has none that can be read."""
    got = []
    for _ in range(count):
        try:
            message = json.loads(socket.recv(5))
            message["data"]["order"]["id"]
            got.append(message["data"]["event"])
        except (ValueError, KeyError, TypeError):
            got.append("?")
    return got


def test_one_connection_for_an_account(bench: Bench) -> None:
    with listening(bench):
        with pytest.raises(InvalidStatus, match="429"):
            connect(stream_url(bench))
        bench.switch(stream_connections="many")
        with listening(bench):
            assert bench.control("GET", "/stream")["listening"] == 2
    counts = bench.control("GET", "/stream")["since_reset"]
    assert (counts["connections"], counts["refused"]) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("mute", {"count": None}, ["canceled"]),
        ("mute", {"after": 1}, ["pending_new", "canceled"]),
        ("duplicate", {}, ["pending_new", "pending_new", "new", "canceled"]),
        ("reorder", {}, ["new", "pending_new", "canceled"]),
        ("malformed", {"message": "broken_json"}, ["?", "new", "canceled"]),
        ("malformed", {"message": "missing_field"}, ["?", "new", "canceled"]),
        ("malformed", {"message": "wrong_type"}, ["?", "new", "canceled"]),
        ("malformed", {"message": "unknown_event"}, ["reticulated", "new", "canceled"]),
    ],
)
def test_faults_of_messages(
    bench: Bench, kind: str, values: dict[str, Any], expected: list[str]
) -> None:
    bench.switch(hold_fills=True)
    bench.fault(kind, "stream", **values)
    with listening(bench) as socket:
        order = bench.order()
        eventually(lambda: bench.status(order["id"]) == "new")
        bench.control("DELETE", "/faults")
        bench.control("POST", f"/orders/{order['id']}/cancel")
        assert events(socket, len(expected)) == expected


def test_a_reordered_message_that_nothing_follows_comes_late(bench: Bench) -> None:
    bench.switch(hold_fills=True)
    bench.fault("reorder", "stream", after=1, delay_s=0.01)
    with listening(bench) as socket:
        bench.order()
        assert events(socket, 2) == ["pending_new", "new"]


@pytest.mark.parametrize("on_request", [True, False])
def test_the_connection_is_cut(bench: Bench, on_request: bool) -> None:
    bench.switch(hold_fills=True)
    if not on_request:
        bench.fault("drop", "stream", after=2)
    with listening(bench) as socket:
        order = bench.order()
        assert events(socket, 2) == ["pending_new", "new"]
        if on_request:
            assert bench.control("POST", "/stream/cut") == {"cut": 1}
        else:
            bench.control("POST", f"/orders/{order['id']}/cancel")
        with pytest.raises(ConnectionClosedError):
            socket.recv(5)
    eventually(lambda: bench.control("GET", "/stream")["connections"] == 0)


def test_frozen(bench: Bench) -> None:
    """No message, no pong; after a while the connection breaks."""
    bench.fault("freeze", "stream", hold_s=0.3)
    with listening(bench) as socket:
        bench.order()
        eventually(lambda: bench.control("GET", "/faults")["rules"][0]["hits"])
        assert not socket.ping().wait(0.1)
        with pytest.raises(ConnectionClosedError):
            socket.recv(5)


def test_sign_in_is_not_answered_or_refused(bench: Bench) -> None:
    bench.fault("never_authorize", "stream")
    bench.fault("refuse_authorization", "stream")
    hello = json.dumps({"action": "auth", "key": "key", "secret": "secret"})
    with connect(stream_url(bench)) as socket:
        socket.send(hello)
        with pytest.raises(TimeoutError):
            socket.recv(0.1)
        for status in ("unauthorized", "authorized"):
            socket.send(hello)
            assert json.loads(socket.recv(5))["data"]["status"] == status


def test_faults_of_requests_and_of_the_stream_are_apart(bench: Bench) -> None:
    bench.control("POST", "/faults", {"route": "*", "kind": "any"})
    with listening(bench) as socket:
        order = bench.control("GET", "/ledger")
        assert order["totals"]["orders"] == 0
        bench.control("DELETE", "/faults")
        bench.order()
        assert events(socket, 2) == ["pending_new", "new"]
    for rule in ({"route": "stream", "kind": "slow"}, {"route": "submit", "kind": "mute"}):
        with pytest.raises(AssertionError, match="kind must be one of"):
            bench.control("POST", "/faults", rule)


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
