"""The concrete parts that bootstrap puts together: broker, market, simulator, budget, sinks,
streams.

Apart from it so that a command that needs a broker does not need the daemon.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from torghut.brokers.alpaca import AlpacaBroker
from torghut.brokers.alpaca_data import AlpacaMarketData
from torghut.clock import utc_now
from torghut.config import Settings, is_loopback
from torghut.domain.errors import ConfigError
from torghut.places import SIMULATOR_FILE, Reach, decision_ttl
from torghut.ports import Broker, MarketData
from torghut.services import batch, inbox
from torghut.services.intake import IntakeDesk
from torghut.services.loops import Loop
from torghut.services.pulse import REST_S
from torghut.services.rate_budget import RateBudget
from torghut.services.relay import Relay
from torghut.services.relays import Relays
from torghut.services.stream_intake import StreamIntake, StreamIntakes
from torghut.simulator import SimConfig, Simulator
from torghut.sinks.opening import open_sink
from torghut.storage import durability, outbox, tokens
from torghut.storage.database import Database
from torghut.streams.opening import open_stream

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


Adapters = Callable[[Reach, Settings], tuple[Broker, MarketData]]


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


def open_relays(settings: Settings, database: Database, owner: str, rng: random.Random) -> Relays:
    """A relay with its sink for each `[sinks.NAME]` table."""

    def notify(channel: str, payload: str) -> None:
        with database.transaction() as tx:
            outbox.notify(tx, channel, payload)

    relays = []
    for name, table in settings.sinks.items():
        publisher = open_sink(table, utc_now, notify=notify)
        relay = Relay(
            name,
            publisher,
            database,
            owner,
            lease_ttl_s=settings.lease_ttl_s,
            from_now=table.start == "now",
            rng=rng,
            secrets=tuple(table.secrets()),
        )
        relays.append((relay, publisher))
    return Relays(relays, utc_now)


def open_intakes(settings: Settings, database: Database, desk: IntakeDesk) -> StreamIntakes:
    """An intake with its stream for each `[intakes.NAME]` table."""
    return StreamIntakes(
        [
            StreamIntake(
                name,
                open_stream(table),
                desk,
                database,
                batch.Accounts(settings.labels, settings.default_account),
                ttl=decision_ttl(settings),
            )
            for name, table in settings.intakes.items()
        ],
        utc_now,
    )


def owner_name() -> str:
    """A name that no other process, and no earlier one on this host, has (story 42)."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"


def inbox_loop(
    settings: Settings, database: Database, wake: Callable[[Collection[str]], None]
) -> Loop:
    """The loop that takes decisions from rows of `decision_inbox`; `wake` hears of new ones."""
    taking = inbox.Inbox(settings.labels, database, ttl=decision_ttl(settings), wake=wake)
    return Loop("inbox", taking.run_once, interval_s=REST_S, clock=utc_now)


def check_tokens(settings: Settings, database: Database) -> None:
    """An address that others reach needs a token that is known. Raises ConfigError."""
    if settings.tokens() or is_loopback(settings.http_host):
        return
    with database.transaction() as tx:
        if tokens.listed(tx, all_=False, now=utc_now()):
            return
    raise ConfigError(
        "TORGHUT_HTTP_HOST",
        f"is {settings.http_host!r}, which others can reach, and there is no token to ask for",
        "make one first: torghut token create NAME --scope read",
    )


def warn_of_lossy_commits(database: Database) -> None:
    """Say loudly that the server may lose commits that it has confirmed (P2)."""
    with database.transaction() as tx:
        found = durability.settings(tx)
    for name, (value, durable) in found.items():
        if not durable:
            log.error("commits may be lost in a crash", setting=name, value=value, wanted="on")
