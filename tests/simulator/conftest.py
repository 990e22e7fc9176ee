"""Fixtures: `start(**settings)` gives a `Bench`; `bench` is one with default settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.simulator.bench import Bench, SimConfig, Simulator, eventually


@pytest.fixture
def start() -> Iterator[Callable[..., Bench]]:
    """Starts simulators on free ports; they stop with the test."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> Bench:
            defaults: dict[str, Any] = {"port": 0, "partial_fill_probability": 0.0}
            sim = stack.enter_context(Simulator(SimConfig(**{**defaults, **settings})))
            return Bench(sim)

        yield begin


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """One simulator for the tests of a module; `bench` resets it."""
    with Simulator(SimConfig(port=0, partial_fill_probability=0.0)) as sim:
        yield Bench(sim)


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    """An empty book at default settings."""
    yield Bench(shared.sim)
    eventually(lambda: shared.control("GET", "/stream")["connections"] == 0)
    shared.control("POST", "/reset")
    shared.control("POST", "/market/price", {"symbol": "*"})
    shared.control(
        "POST",
        "/switches",
        {
            "uniqueness": "permanent",
            "duplicate_status": 422,
            "duplicate_code": "auto",
            "repeat_cancel": "success",
            "extended_hours": "day_gtc",
            "client_order_id_max": 128,
            "replace_qty": "original",
            "partial_fill_probability": 0,
            "async_reject_probability": 0,
            "fill_delay_ms": 5,
            "cancel_delay_ms": 5,
            "crypto_fee_bps": 0,
            "hold_fills": False,
            "exit_stop": "held",
            "held_listed": "closed",
            "replace_delay_ms": 0,
            "activity_delay_ms": 0,
            "fill_clock_ms": 0,
            "stuck": "",
            "stream_frames": "binary",
            "stream_connections": "one",
        },
    )
