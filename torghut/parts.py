"""The concrete parts that bootstrap puts together: broker, market, simulator, rate budget.

Apart from it so that a command that needs a broker does not need the daemon.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from torghut.brokers.alpaca import AlpacaBroker
from torghut.brokers.alpaca_data import AlpacaMarketData
from torghut.config import Settings
from torghut.places import SIMULATOR_FILE, Reach
from torghut.ports import Broker, MarketData
from torghut.services.rate_budget import RateBudget
from torghut.simulator import SimConfig, Simulator

SETTLER_THREADS = 4

log = structlog.get_logger(__name__)


@contextmanager
def own_simulator(directory: Path, config: SimConfig) -> Iterator[Simulator]:
    """A simulator inside this process; its address is written where the CLI looks for it."""
    directory.mkdir(parents=True, exist_ok=True)
    with Simulator(config) as simulator:
        address = directory / SIMULATOR_FILE
        draft = address.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"url": simulator.url, "control_url": simulator.control_url}))
        draft.replace(address)
        yield simulator


def open_broker(at: Reach, settings: Settings) -> tuple[Broker, MarketData]:
    """The adapters for trading and for quotes and bars; both hold connections until closed."""
    broker = AlpacaBroker(
        key_id=at.key_id,
        secret_key=at.secret_key,
        base_url=at.base_url,
        timeout_s=settings.broker_timeout_s,
        pool_size=settings.submit_threads + 2 * SETTLER_THREADS + 4,
    )
    market = AlpacaMarketData(
        key_id=at.key_id,
        secret_key=at.secret_key,
        data_url=at.data_url,
        timeout_s=settings.broker_timeout_s,
    )
    return broker, market


def rate_budget(settings: Settings) -> RateBudget:
    """The budget of the account; a rate that was set is a ceiling, the default a beginning."""
    chosen = "broker_rate_per_min" in settings.model_fields_set
    return RateBudget(settings.broker_rate_per_min, ceiling=chosen)


def owner_name() -> str:
    """A name that no other process, and no earlier one on this host, has (story 42)."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
