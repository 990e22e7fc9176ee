"""The conformance suite against the simulated broker, or against another one by environment.

`TORGHUT_CONFORMANCE_URL=https://paper-api.alpaca.markets` with `APCA_API_KEY_ID` and
`APCA_API_SECRET_KEY` runs the same checks against Alpaca's paper account; it places paper orders.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.brokers.conformance import CHECKS, UNIQUENESS_CHECKS, fresh_ids
from tests.brokers.samples import KEY, SECRET
from torghut.brokers.alpaca import AlpacaBroker
from torghut.ports import Broker
from torghut.simulator.server import SimConfig, Simulator


def connect(url: str) -> AlpacaBroker:
    return AlpacaBroker(
        key_id=os.environ.get("APCA_API_KEY_ID", KEY),
        secret_key=os.environ.get("APCA_API_SECRET_KEY", SECRET),
        base_url=url,
        timeout_s=10,
    )


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    url = os.environ.get("TORGHUT_CONFORMANCE_URL")
    if url:
        broker = connect(url)
        yield broker
        broker.close()
        return
    with Simulator(SimConfig(port=0, control_port=0)) as simulator:
        broker = connect(simulator.url)
        yield broker
        broker.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(broker: Broker, check: object) -> None:
    check(broker, fresh_ids(secrets.token_hex(8)))  # type: ignore[operator]


@pytest.mark.parametrize("check", UNIQUENESS_CHECKS, ids=lambda check: check.__name__)
def test_control_uniqueness_off_is_noticed(check: object) -> None:
    """The control: against a broker without uniqueness these checks must fail."""
    config = SimConfig(port=0, control_port=0, switches={"uniqueness": "off"})
    with Simulator(config) as simulator:
        broker = connect(simulator.url)
        with pytest.raises(AssertionError):
            check(broker, fresh_ids("control"))  # type: ignore[operator]
        broker.close()
