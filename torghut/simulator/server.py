"""Starts and stops the simulator.

    SimConfig -> Simulator(config)   one thread: trading port + control port + matcher
                 run_simulator       the same in the foreground, until SIGTERM or SIGINT

Both ports are bound before anything else happens, so an ephemeral port (0) is known at once and
a port that is taken is an error of the caller, not of a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn

from torghut.simulator import clock, state
from torghut.simulator.api_account import AccountApi
from torghut.simulator.api_market import MarketApi
from torghut.simulator.api_orders import OrdersApi
from torghut.simulator.assets import AssetList
from torghut.simulator.bars import BarFile
from torghut.simulator.broker import Broker
from torghut.simulator.control import control_app
from torghut.simulator.faults import FaultPlan, parse_fault
from torghut.simulator.gateway import Credentials, Gateway, Pacer, RateLimit
from torghut.simulator.http import Routes
from torghut.simulator.ledger import Ledger
from torghut.simulator.market import Market
from torghut.simulator.orders import Entry
from torghut.simulator.stream import Stream
from torghut.simulator.switches import Switches
from torghut.simulator.wire import SimulatorProtocol

KEEP_ALIVE_S = 120
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
STOP_TASKS_S = 1


@dataclass(frozen=True)
class SimConfig:
    """Settings of a simulator. Port 0 takes a free port; the control port defaults to the next
    after `port`. Without `key` and `secret` any pair is accepted. `faults` are rules in the
    form of `faults.parse_fault`; `rate_limit` is requests per minute."""

    host: str = "127.0.0.1"
    port: int = 8090
    control_port: int | None = None
    key: str | None = None
    secret: str | None = None
    seed: int = 1
    market: str = "open"
    bars: Path | None = None
    state: Path | None = None
    state_fsync: bool = False
    cash: Decimal = Decimal(100_000)
    partial_fill_probability: float = 0.1
    fill_delay_ms: int = 5
    faults: tuple[str, ...] = ()
    fault_hold_s: float = 15.0
    rate_limit: int | None = None
    switches: dict[str, Any] = field(default_factory=dict)

    @property
    def wanted_control_port(self) -> int:
        """The control port to bind."""
        if self.control_port is not None:
            return self.control_port
        return self.port + 1 if self.port else 0


class _Server(uvicorn.Server):
    """A server which leaves signals alone and says when it is up."""

    def __init__(self, app: Any, on_start: Callable[[], object]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=SimulatorProtocol,
                ws="websockets-sansio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        self._on_start = on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to `run_simulator`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and break what is left; requests that hang end with their connection."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=STOP_TASKS_S)


class Simulator:
    """A running simulator: `with Simulator(SimConfig(port=0)) as sim: use(sim.url)`.

    The server runs in a thread of its own; the attributes below must only be changed through
    the control API while it runs. Raises OSError when a port is taken, ValueError for settings
    or files that make no sense.
    """

    def __init__(self, config: SimConfig | None = None) -> None:
        self.config = config or SimConfig()
        self._journal = state.Journal(self.config.state, self.config.state_fsync)
        self._build()
        self._sockets = _bind(self.config.host, self.config.port, self.config.wanted_control_port)
        self.url, self.control_url = (_url(sock) for sock in self._sockets)
        self._servers: list[_Server] = []
        self._thread: threading.Thread | None = None
        self._started = threading.Semaphore(0)
        self._failure: BaseException | None = None

    def _build(self) -> None:
        config = self.config
        bars = BarFile(config.bars) if config.bars else None
        market = Market(
            config.market, config.seed, AssetList(bars.first_prices if bars else None), bars
        )
        switches = Switches().changed(
            {
                "partial_fill_probability": config.partial_fill_probability,
                "fill_delay_ms": config.fill_delay_ms,
                **config.switches,
            }
        )
        self.broker = Broker(market, switches, config.seed, config.cash)
        self.ledger = Ledger(config.cash)
        routes = Routes(
            OrdersApi(self.broker).routes()
            + AccountApi(self.broker, self.note).routes()
            + MarketApi(market).routes()
        )
        self.plan = FaultPlan(config.seed, config.fault_hold_s, routes.names)
        for text in config.faults:
            self.plan.add(parse_fault(text))
        self._pacer = Pacer(self.broker, self._journal.flush)
        credentials = Credentials(config.key, config.secret)
        self.gateway = Gateway(
            self.broker,
            routes,
            self.plan,
            credentials,
            RateLimit(config.rate_limit, clock.wall_now),
            self._pacer.settle,
        )
        self._restore()
        self.stream = Stream(self.broker, credentials, self.plan)
        self.gateway.stream = self.stream
        self.broker.book.listeners += [
            self._journal.observe,
            self.ledger.observe,
            self.stream.observe,
        ]

    # --- state

    def _restore(self) -> None:
        if self.config.state is None:
            return
        saved = state.load(self.config.state)
        for order in saved.orders.values():
            self.ledger.observe_order(order)
        for fill in saved.fills:
            self.ledger.observe_fill(fill)
        for entry in saved.entries:
            self.ledger.observe_entry(entry)
            self.broker.book.adjust(entry)
        reached = saved.documents.get("market")
        if reached and self.broker.market.mode == "replay":
            self.broker.market.enter(date.fromisoformat(reached["date"]), reached["phase"])
        book = self.broker.book
        book.restore(saved.orders.values(), saved.fills, saved.records)
        book.account.configuration |= saved.documents.get("configuration", {})
        self.broker.resume()
        self._journal.start(saved)

    def settle(self) -> None:
        """Save what happened, and go on with what is due."""
        self._pacer.settle()

    def note(self, name: str, value: Any) -> None:
        """Save a document in the state file."""
        self._journal.note(name, value)

    def adjust(self, entry: Entry) -> None:
        """Change cash or a position without a fill, in both books."""
        self.broker.book.adjust(entry)
        self.ledger.observe_entry(entry)
        self._journal.enter(entry)

    def save(self) -> dict[str, Any]:
        """Rewrite the state file with one line for each order and fill, and force it to disk."""
        if self.config.state is None:
            raise ValueError("there is no state file: start the simulator with one")
        self._journal.flush()
        self._journal.start(state.load(self.config.state))
        return {"path": str(self.config.state), "orders": len(self.broker.book.orders)}

    def reset(self) -> None:
        """Empty book, ledger, counters, faults and state file; a replay starts anew."""
        self.broker.reset()
        self.ledger.clear()
        self.plan.remove()
        self.gateway.requests.clear()
        self.gateway.posts_by_client_id.clear()
        self.stream.counts.clear()
        if self.config.state is not None:
            self._journal.start(state.SavedState())

    # --- running

    def __enter__(self) -> Simulator:
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._thread.start()
        for _ in range(2):
            if not self._started.acquire(timeout=START_TIMEOUT_S) or self._failure:
                raise RuntimeError("the simulator did not start") from self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """Ask the servers to end; safe from any thread and from a signal handler."""
        for server in self._servers:
            server.should_exit = True

    def _run(self) -> None:
        try:
            self.serve(self._started.release)
        except BaseException as error:  # noqa: BLE001
            self._failure = error
            self._started.release(2)

    def serve(self, on_start: Callable[[], object]) -> None:
        """Serve until `stop`; `on_start` is called as each of the two ports answers."""
        asyncio.run(self._serve(on_start))

    async def _serve(self, on_start: Callable[[], object]) -> None:
        apps = (self.gateway, control_app(self))
        self._servers = [_Server(app, on_start) for app in apps]
        sweeping = asyncio.create_task(self._pacer.sweep_forever())
        self.settle()
        try:
            pairs = zip(self._servers, self._sockets, strict=True)
            await asyncio.gather(*(server.serve([sock]) for server, sock in pairs))
        finally:
            sweeping.cancel()
            self._journal.close()


def _bind(host: str, *ports: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    for port in ports:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio switches Nagle's algorithm off only on sockets of an explicit protocol
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            for other in (*bound, sock):
                other.close()
            raise OSError(
                error.errno, f"cannot listen on {host}:{port}: {error.strerror}; give another port"
            ) from error
        bound.append(sock)
    return bound


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def banner(url: str, control_url: str, key: str, secret: str) -> str:
    """What `run_simulator` prints when it is ready."""
    return f"""\
Simulated broker at {url}
Control API at      {control_url} (documentation: {control_url}/docs)

Point a client at it:
  export APCA_API_BASE_URL={url}
  export APCA_API_DATA_URL={url}
  export APCA_API_KEY_ID={key}
  export APCA_API_SECRET_KEY={secret}
Try it:
  curl -s {url}/v2/orders -H 'APCA-API-KEY-ID: {key}' -H 'APCA-API-SECRET-KEY: {secret}' \\
    -d '{{"symbol":"AAPL","qty":"1","side":"buy","type":"market","time_in_force":"day"}}'
  curl -s {control_url}/ledger"""


def run_simulator(config: SimConfig) -> None:
    """Serve in the foreground until SIGTERM or SIGINT; call from the main thread."""
    simulator = Simulator(config)
    up = 0

    def ready() -> None:
        nonlocal up
        up += 1
        if up == 2:
            key = config.key or "any-key"
            secret = "$APCA_API_SECRET_KEY" if config.secret else "any-secret"
            sys.stdout.write(banner(simulator.url, simulator.control_url, key, secret) + "\n")
            sys.stdout.flush()

    previous = {
        number: signal.signal(number, lambda *_: simulator.stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        simulator.serve(ready)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
