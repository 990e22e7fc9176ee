"""Fixtures: `make_rig(**settings)` gives a `Rig`; `rig` is one with default settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from tests.services.rig import Rig
from torghut.simulator import SimConfig, Simulator

SWITCHES = {"uniqueness": "permanent", "duplicate_status": 422, "hold_fills": False}


@pytest.fixture(scope="session")
def shared_sim() -> Iterator[Simulator]:
    """One simulator for all tests of a worker; `sim` is an empty book in it."""
    with Simulator(SimConfig(port=0, control_port=0, partial_fill_probability=0.0)) as sim:
        yield sim


@pytest.fixture
def sim(shared_sim: Simulator) -> Iterator[Simulator]:
    yield shared_sim
    for path, body in (
        ("/reset", None),
        ("/market/price", {"symbol": "*"}),
        ("/switches", SWITCHES),
    ):
        answer = requests.post(shared_sim.control_url + path, json=body, timeout=10)
        assert answer.ok, answer.text


@pytest.fixture
def make_rig(database_url: str, sim: Simulator) -> Iterator[Callable[..., Rig]]:
    """Rigs on one database and one simulator."""
    with ExitStack() as stack:

        def make(url: str = database_url, **settings: Any) -> Rig:
            rig = Rig(url, sim, **settings)
            stack.callback(rig.close)
            return rig

        yield make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()
