"""Fixtures: a scripted server and a broker that speaks to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.brokers.samples import KEY, SECRET
from tests.brokers.wire import Act, WireServer
from torghut.brokers.alpaca import AlpacaBroker


def make_broker(url: str, timeout_s: float = 5.0) -> AlpacaBroker:
    return AlpacaBroker(key_id=KEY, secret_key=SECRET, base_url=url, timeout_s=timeout_s)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[WireServer, AlpacaBroker]]]:
    """`serve(act, timeout_s=…)` → (server, broker), both closed at the end of the test."""
    with ExitStack() as stack:

        def start(act: Act, *, timeout_s: float = 5.0) -> tuple[WireServer, AlpacaBroker]:
            server = stack.enter_context(WireServer(act))
            broker = make_broker(server.url, timeout_s)
            stack.callback(broker.close)
            return server, broker

        yield start
