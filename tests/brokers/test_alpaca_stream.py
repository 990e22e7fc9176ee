"""AlpacaUpdates against the simulator's `/stream`: the handshake, every fault, the deadlines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs

from torghut.brokers.alpaca_stream import KEPT_LENGTH_MAX, AlpacaUpdates, stream_url
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.ports import OrderUpdate
from torghut.simulator import SimConfig, Simulator

HEADERS = {"APCA-API-KEY-ID": "key-0123456789", "APCA-API-SECRET-KEY": "secret-0123456789"}
ORDER = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}


class Ends:
    """A simulator and clients of its stream."""

    def __init__(self, sim: Simulator, stack: ExitStack) -> None:
        self.sim = sim
        self._stack = stack

    def client(self, **over: Any) -> AlpacaUpdates:
        keys = {"key_id": "key-0123456789", "secret_key": "secret-0123456789"}
        values = {"base_url": self.sim.url, "timeout_s": 5.0, **keys, **over}
        client = AlpacaUpdates(**values)
        self._stack.callback(client.close)
        return client

    def control(self, path: str, body: Any = None) -> Any:
        answer = requests.post(self.sim.control_url + path, json=body, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    def fault(self, kind: str, **values: Any) -> None:
        self.control("/faults", {"route": "stream", "kind": kind, "count": 1, **values})

    def order(self) -> str:
        answer = requests.post(self.sim.url + "/v2/orders", json=ORDER, headers=HEADERS, timeout=10)
        return str(answer.json()["id"])


@pytest.fixture
def start() -> Iterator[Callable[..., Ends]]:
    with ExitStack() as stack:

        def begin(**settings: Any) -> Ends:
            values = {"port": 0, "partial_fill_probability": 0.0, **settings}
            sim = stack.enter_context(Simulator(SimConfig(**values)))
            return Ends(sim, stack)

        yield begin


def updates(client: AlpacaUpdates, count: int) -> list[OrderUpdate]:
    found = []
    while len(found) < count:
        update = client.receive(5)
        assert update is not None, found
        found.append(update)
    return found


@pytest.mark.parametrize("frames", ["binary", "text"])
def test_every_update_with_its_order(start: Callable[..., Ends], frames: str) -> None:
    ends = start(switches={"stream_frames": frames}, key=HEADERS["APCA-API-KEY-ID"])
    client = ends.client()
    client.connect()
    assert client.receive(0.01) is None
    id_ = ends.order()
    got = updates(client, 3)
    assert [update.event for update in got] == ["pending_new", "new", "fill"]
    orders = [update.order for update in got]
    assert {order.broker_order_id for order in orders if order} == {id_}
    assert orders[-1] is not None and orders[-1].cum_qty == 1
    client.close()
    with pytest.raises(BrokerUnavailable):
        client.receive(0)


@pytest.mark.parametrize(
    ("fault", "keys"),
    [("refuse_authorization", {}), (None, {"secret_key": "another"})],
)
def test_refused_keys_are_an_error_of_their_own(
    start: Callable[..., Ends], fault: str | None, keys: dict[str, str]
) -> None:
    ends = start(secret=HEADERS["APCA-API-SECRET-KEY"])
    if fault:
        ends.fault(fault)
    with pytest.raises(BrokerRefused, match="unauthorized"):
        ends.client(**keys).connect()


def test_no_answer_to_the_keys(start: Callable[..., Ends]) -> None:
    ends = start()
    ends.fault("never_authorize")
    with pytest.raises(BrokerUnavailable, match="keys did not come"):
        ends.client(timeout_s=0.2).connect()
    ends.client().connect()


def test_a_second_connection_is_tried_again_not_refused(start: Callable[..., Ends]) -> None:
    ends = start()
    ends.client().connect()
    with pytest.raises(BrokerUnavailable, match="HTTP 429"):
        ends.client().connect()


def test_nobody_there() -> None:
    client = AlpacaUpdates(key_id="k", secret_key="s", base_url="http://127.0.0.1:9", timeout_s=1.0)
    with pytest.raises(BrokerUnavailable):
        client.connect()


@pytest.mark.parametrize("how", ["broken_json", "missing_field", "wrong_type"])
def test_story_31_a_malformed_message_is_kept_and_skipped(
    start: Callable[..., Ends], how: str
) -> None:
    ends = start()
    ends.fault("malformed", message=how)
    client = ends.client()
    client.connect()
    with capture_logs() as logs:
        ends.order()
        got = updates(client, 3)
    assert [update.order is None for update in got] == [True, False, False]
    assert client.malformed_total == 1
    (entry,) = [entry for entry in logs if entry["event"] == "trade_update_malformed"]
    assert 0 < len(entry["raw"]) <= KEPT_LENGTH_MAX


def test_an_event_nobody_knows_still_has_its_order(start: Callable[..., Ends]) -> None:
    ends = start()
    ends.fault("malformed", message="unknown_event")
    client = ends.client()
    client.connect()
    ends.order()
    (update,) = updates(client, 1)
    assert update.order is not None and update.order.status == "pending_new"


def test_a_cut_is_said(start: Callable[..., Ends]) -> None:
    ends = start()
    client = ends.client()
    client.connect()
    ends.control("/stream/cut")
    with pytest.raises(BrokerUnavailable):
        client.receive(5)


def test_story_10_a_dead_connection_is_told_from_a_quiet_one(start: Callable[..., Ends]) -> None:
    """Pings are answered for as long as it is quiet; frozen, it is over within the deadline."""
    ends = start()
    client = ends.client(ping_every_s=0.05, ping_deadline_s=0.3)
    client.connect()
    assert client.receive(0.8) is None
    ends.fault("freeze", hold_s=30)
    ends.order()
    with pytest.raises(BrokerUnavailable):
        client.receive(10)


def test_closing_a_frozen_connection_is_quick(start: Callable[..., Ends]) -> None:
    ends = start()
    client = ends.client()
    client.connect()
    ends.fault("freeze", hold_s=30)
    ends.order()
    closing = threading.Thread(target=client.close)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://paper-api.alpaca.markets", "wss://paper-api.alpaca.markets/stream"),
        ("http://127.0.0.1:8090", "ws://127.0.0.1:8090/stream"),
        ("http://127.0.0.1:1/under", "ws://127.0.0.1:1/under/stream"),
    ],
)
def test_stream_url(base: str, url: str) -> None:
    assert stream_url(base) == url
