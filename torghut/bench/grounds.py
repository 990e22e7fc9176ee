"""Where the bench runs: a fresh directory with its own database, daemon and broker."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from torghut import config, places
from torghut.bench.figures import Figure
from torghut.bench.null_broker import PRICE, NullBroker, NullMarket
from torghut.bootstrap import Daemon, running_daemon
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.domain.decisions import Decision, parse_decision
from torghut.parts import open_broker
from torghut.places import Reach
from torghut.ports import Broker, MarketData
from torghut.storage import leases, server
from torghut.storage.rows import Lease

SYMBOLS = ("AAPL", "MSFT", "NVDA", "SPY", "AMZN", "GOOGL", "QQQ", "TSLA")
STRATEGIES = ("one", "two", "three", "four")
WIDE = 10**12
ACCOUNT = "bench"
BATCH = 500
DEADLINE_S = 600.0
OPEN = (
    "max_order_notional",
    "max_position_notional",
    "max_gross_exposure",
    "max_net_exposure",
    "max_open_orders",
    "max_orders_per_second",
    "max_orders_per_minute",
    "max_orders_per_day",
)
"""Limits that stay on, so that they are judged, and are wide enough for what is sent."""


@contextmanager
def database_home() -> Iterator[Path]:
    """A directory that is gone afterwards, where the server of the bench keeps its data."""
    with tempfile.TemporaryDirectory(prefix="torghut-bench-", ignore_cleanup_errors=True) as home:
        yield Path(home)


class Grounds:
    """A daemon on an empty database that stands by: decisions are taken in, and wait."""

    def __init__(self, daemon: Daemon, held: Lease) -> None:
        self.daemon = daemon
        self._held = held

    def give_over(self) -> float:
        """The daemon becomes the owner; the instant of it, by time.perf_counter."""
        with self.daemon.database.transaction() as tx:
            leases.release(tx, self._held)
        if not self.daemon.wait_owner(60):
            raise TimeoutError("the account has no owner yet")
        return time.perf_counter()

    def take_in(self, decisions: Sequence[Decision]) -> None:
        """Store the decisions."""
        for start in range(0, len(decisions), BATCH):
            self.daemon.desk.accept(decisions[start : start + BATCH], source="bench")


@contextmanager
def grounds(
    home: Path, name: str, broker: NullBroker | None, *, threads: int = 8
) -> Iterator[Grounds]:
    """Grounds with a database `name` of their own, all in one server below `home`.

    With a NullBroker orders stay in this process; without one they go to a simulated broker.
    """
    settings = _settings(home, threads)
    with (
        places.open_database(settings, migrating=True, name=name) as database,
        database.transaction() as tx,
    ):
        held = leases.acquire(tx, ACCOUNT, "bench", ttl_s=86_400)
    assert held is not None
    adapters = open_broker if broker is None else partial(_within, broker)
    with running_daemon(settings, name=name, adapters=adapters) as daemon:
        yield Grounds(daemon, held)


def _within(broker: NullBroker, _at: Reach, _settings: Settings) -> tuple[Broker, MarketData]:
    return broker, NullMarket()


def _settings(home: Path, threads: int) -> Settings:
    home.mkdir(parents=True, exist_ok=True)
    settings = config.load(
        home=home,
        database_url=None,
        broker="sim",
        account=ACCOUNT,
        trading_mode="paper",
        trading_enabled=True,
        session_policy="send",
        strategies={},
        sinks={},
        api_tokens=None,
        risk={**dict.fromkeys(OPEN, WIDE), "duplicate_window_s": "off"},
        submit_threads=threads,
        reconcile_interval_s=1,
        broker_rate_per_min=1_000_000,
        log_level="error",
    )
    return settings.model_copy(update={"http_port": 0})


def made(count: int, run: str, *, first: int = 0) -> list[Decision]:
    """Different decisions, parsed and hashed; `run` keeps those of two runs apart."""
    ttl = timedelta(days=1)
    return [
        parse_decision(decision_json(number, run), account=ACCOUNT, ttl=ttl)
        for number in range(first, first + count)
    ]


def decision_json(number: int, run: str) -> dict[str, object]:
    """A limit order for one share."""
    return {
        "strategy": STRATEGIES[number % len(STRATEGIES)],
        "symbol": SYMBOLS[number % len(SYMBOLS)],
        "side": "buy",
        "type": "limit",
        "limit_price": str(PRICE),
        "qty": "1",
        "event_ts": utc_now().isoformat(),
        "intent": f"{run}-{number}",
    }


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition`. Raises TimeoutError."""
    never = threading.Event()
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > DEADLINE_S:
            raise TimeoutError(f"{what}: not within {DEADLINE_S:.0f} s")
        never.wait(0.001)


class Cost:
    """Processor time of this process and of its Postgres, in seconds, since the beginning."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._own = time.process_time()
        self._server = self._server_s()

    def figure(self, name: str, count: int) -> Figure:
        """Milliseconds for each of `count` decisions."""
        own, server_s = time.process_time() - self._own, self._server_s() - self._server
        detail = f"{own / count * 1e3:.3f} here, {server_s / count * 1e3:.3f} in Postgres"
        return Figure(f"{name}_cpu", (own + server_s) / count * 1e3, "ms/decision", detail)

    def _server_s(self) -> float:
        with self._daemon.database.transaction() as tx:
            pids = server.processes(tx)
        return sum(_processor_s(pid) for pid in pids)


def _processor_s(pid: int) -> float:
    """By /proc, 0 where there is none (the server is on another machine)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
