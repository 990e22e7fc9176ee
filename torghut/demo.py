"""`torghut demo`: three years of real daily bars through the whole path, with faults, and a proof.

```
for each session of the bars:
    simulator  to the session's close (orders of the day before fill at its open)
    scheduler  one tick per strategy ─▶ decisions ─▶ risk ─▶ orders, some of them disturbed
    wait       until nothing is on its way; what is in doubt heals by the normal path
    reconcile  fills, positions
at the end: tables, equity, and the two books compared
```

The services are those of `torghut run`. The books live in a database and a state file of their
own under TORGHUT_HOME; pull the plug at any moment, start again, and it goes on where it stood.
A run that came to its end makes the next one begin anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import requests
from sqlalchemy import create_engine, text

from torghut import bootstrap, config, places, proof, telemetry
from torghut.bootstrap import Daemon
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.data import daily_bars_path
from torghut.demo_report import Report, Screen, build_report, print_report
from torghut.domain.errors import BrokerUnavailable, TorghutError
from torghut.services.scheduler import Scheduled
from torghut.serving import serving
from torghut.simulator import SimConfig
from torghut.storage import embedded
from torghut.strategies.loading import load_strategy
from torghut.strategy_settings import StrategyConfig

ACCOUNT = "demo"
DATABASE = "torghut_demo"
SETTLED_WITHIN_S = 60
TICK_TRIES = 20
CONTROL_TIMEOUT_S = 30
SEED = 2010
STATE = "demo-broker.jsonl"
FINISHED = "demo-finished"
ELSEWHERE = {
    "symbol": "AAPL",
    "qty": "1",
    "side": "buy",
    "type": "limit",
    "limit_price": "100",
    "time_in_force": "gtc",
}

STRATEGIES = {
    "crossover": {
        "class": "ma-crossover",
        "schedule": "0 16 * * mon-fri",
        "symbols": ("GOOG", "FB"),
        "params": {"fast": 5, "slow": 20, "target_weight": "0.2"},
    },
    "rebalance": {
        "class": "monthly-rebalance",
        "schedule": "0 16 * * mon-fri",
        "symbols": ("AAPL", "IBM", "MSFT"),
        "params": {"capital_share": "0.5"},
    },
}


def run(
    *,
    sessions: int,
    fault_rate: float,
    fresh: bool,
    serve: bool,
    as_json: bool,
    stop: threading.Event,
) -> int:
    """Replay, report, prove; returns the exit code: 0 if the two books are equal, else 1."""
    settings = _settings()
    directory = places.home(settings)
    directory.mkdir(parents=True, exist_ok=True)
    telemetry.configure_logging(level="critical", form="console")
    screen = Screen(quiet=as_json, strategies=tuple(STRATEGIES))
    finished = directory / FINISHED
    with places.one_at_a_time(directory / "demo.lock"):
        if fresh or finished.exists():
            _forget(settings, directory)
        with _daemon(settings, directory, fault_rate) as (daemon, market):
            replay = _Replay(daemon, market, _scheduled(), screen, stop)
            with screen.live(market.sessions()):
                ended = replay.run(sessions)
                _heal(replay)
            report = replay.report(faults=market.faults())
            print_report(report, as_json=as_json, ended=ended)
            if ended and not sessions:
                finished.touch()
            if serve and report.proof.holds and not stop.is_set():
                if finished.exists():  # the next run begins anew, without it
                    _somebody_elses_order(settings, replay)
                with serving(daemon) as url:
                    screen.next_steps(url)
                    daemon.wait(stop)
        return 0 if report.proof.holds else 1


def _settings() -> Settings:
    """The defaults of `torghut run` with shorter waits; nothing of the user's broker is used."""
    settings = config.load(
        database_url=None,
        broker="sim",
        account=ACCOUNT,
        trading_mode="paper",
        trading_enabled=True,
        session_policy="send",
        risk={},
        strategies={},
        broker_timeout_s=1.0,
        absence_grace_s=1.5,
        reconcile_interval_s=3600,
        broker_rate_per_min=1_000_000,
    )
    return settings.model_copy(update={"http_port": places.free_port(settings.http_port)})


def _forget(settings: Settings, directory: Path) -> None:
    """Begin anew: the demo's own database and state file, and nothing else."""
    url = embedded.start(places.home(settings), database="postgres").url
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
    engine.dispose()
    for name in (STATE, FINISHED):
        (directory / name).unlink(missing_ok=True)


@contextmanager
def _daemon(
    settings: Settings, directory: Path, fault_rate: float
) -> Iterator[tuple[Daemon, _Market]]:
    """The daemon over the replaying simulator; orders meet ten times the faults of questions."""
    faults = (f"submit:any:{fault_rate}", f"by_client_order_id:any:{fault_rate / 3}")
    simulator = SimConfig(
        port=0,
        control_port=0,
        seed=SEED,
        market="replay",
        bars=daily_bars_path(),
        state=directory / STATE,
        faults=faults if fault_rate else (),
        fault_hold_s=3.0,
    )
    with bootstrap.running_daemon(
        settings, migrating=True, simulator=simulator, name=DATABASE
    ) as daemon:
        if not daemon.wait_owner(timeout_s=3 * settings.lease_ttl_s):
            raise TorghutError("another process owns the demo's account; stop it and try again")
        yield daemon, _Market(places.simulator_control(directory))


def _scheduled() -> list[Scheduled]:
    configs = {name: StrategyConfig.model_validate(c) for name, c in STRATEGIES.items()}
    return [
        Scheduled.create(name, c, load_strategy(c.plugin, c.params)) for name, c in configs.items()
    ]


def _heal(replay: _Replay) -> None:
    """The last orders are filled or stand open; what the broker did late is still booked."""
    replay.settle()
    replay.reconcile()


def _somebody_elses_order(settings: Settings, replay: _Replay) -> None:
    """An order of another program on the same account, for a person to look into."""
    at = places.reach(settings)
    answer = requests.post(
        f"{at.base_url}/v2/orders",
        json=ELSEWHERE,
        headers={"APCA-API-KEY-ID": at.key_id, "APCA-API-SECRET-KEY": at.secret_key},
        timeout=CONTROL_TIMEOUT_S,
    )
    answer.raise_for_status()
    replay.reconcile()


@dataclass
class _Market:
    """The replaying simulator, by its control API."""

    url: str

    def advance(self) -> bool:
        """To the next session's close; False when the bars are at their end."""
        answer = requests.post(
            f"{self.url}/market/advance", json={"phase": "close"}, timeout=CONTROL_TIMEOUT_S
        )
        answer.raise_for_status()
        return not answer.json()["finished"]

    def sessions(self) -> tuple[int, int]:
        """(sessions passed, sessions in all)."""
        state = self.state()
        days = state["sessions"]
        assert isinstance(days, list)
        return days.index(state["date"]), len(days)

    def faults(self) -> int:
        """How many requests were disturbed since the start."""
        answer = requests.get(f"{self.url}/faults", timeout=CONTROL_TIMEOUT_S)
        answer.raise_for_status()
        return sum(rule["hits"] for rule in answer.json()["rules"])

    def state(self) -> dict[str, object]:
        """Mode, instant, date, phase and all sessions."""
        answer = requests.get(f"{self.url}/market", timeout=CONTROL_TIMEOUT_S)
        answer.raise_for_status()
        state: dict[str, object] = answer.json()
        return state

    def ledger(self) -> dict[str, object]:
        """The broker's second books."""
        answer = requests.get(f"{self.url}/ledger", timeout=CONTROL_TIMEOUT_S)
        answer.raise_for_status()
        ledger: dict[str, object] = answer.json()
        return ledger


@dataclass
class _Replay:
    """One replay: the daemon, its market and what was seen."""

    daemon: Daemon
    market: _Market
    scheduled: list[Scheduled]
    screen: Screen
    stop: threading.Event
    equity: list[tuple[datetime, Decimal]] = field(default_factory=list)

    def run(self, sessions: int) -> bool:
        """Replay up to `sessions` more (0: all); True if the end was reached."""
        done = 0
        while not self.stop.is_set():
            state = self.market.state()
            if state["phase"] == "close":
                self._trade(datetime.fromisoformat(str(state["now"])))
                done += 1
                equity = self._equity()
                self.equity.append((datetime.fromisoformat(str(state["now"])), equity))
                self.screen.session(str(state["date"]), self._counts(), equity)
                if sessions and done >= sessions:
                    return True
            if not self.market.advance():
                return True
        return False

    def _trade(self, close: datetime) -> None:
        """The ticks of one close, and everything that follows from them."""
        at = close.replace(microsecond=0)
        if self._open_orders():
            self.reconcile()
        fresh = False
        for item in self.scheduled:
            fresh |= bool(self._tick(item, at))
        if fresh:
            self.settle()
        self._look(at)

    def _tick(self, item: Scheduled, at: datetime) -> object:
        for _ in range(TICK_TRIES):
            try:
                expires_at = utc_now() + timedelta(hours=1)
                return self.daemon.units[ACCOUNT].scheduler.run_tick(
                    item, at, expires_at=expires_at
                )
            except BrokerUnavailable as error:
                self.screen.note(f"{item.name}: {error}")
        raise TorghutError(f"strategy {item.name} got no bars for {at:%Y-%m-%d}")

    def report(self, *, faults: int) -> Report:
        """What happened, and the two books compared."""
        orders = proof.ledger_orders(self.market.ledger())
        with self.daemon.database.transaction() as tx:
            return build_report(tx, ACCOUNT, orders, self.equity, faults=faults)

    def settle(self) -> None:
        """Until every decision is sent or final: in_doubt heals by the normal path."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while self._pending() and not self.stop.wait(0.005):
            if time.monotonic() > deadline:
                raise TorghutError(f"decisions did not settle within {SETTLED_WITHIN_S} s")

    def reconcile(self) -> None:
        lease = self.daemon.units[ACCOUNT].supervisor.lease
        if lease is not None:
            self.daemon.units[ACCOUNT].reconciler.run_once(lease, utc_now())

    def _look(self, at: datetime) -> None:
        """The account as the broker sees it, for the next tick's facts; once a week is enough."""
        if not self.equity or at.weekday() == 4:
            self.daemon.units[ACCOUNT].outside.refresh_account()

    def _open_orders(self) -> bool:
        return bool(self._counts().get("submitted"))

    def _equity(self) -> Decimal:
        with self.daemon.database.transaction() as tx:
            row = tx.execute(
                text("SELECT equity, observed_at FROM broker_accounts WHERE account = :account"),
                {"account": ACCOUNT},
            ).one_or_none()
        return Decimal(0) if row is None else Decimal(row.equity)

    def _counts(self) -> dict[str, int]:
        with self.daemon.database.transaction() as tx:
            rows = tx.execute(
                text("""SELECT status, count(*) AS n FROM trade_decisions
                WHERE account = :account GROUP BY status"""),
                {"account": ACCOUNT},
            )
            return {row.status: row.n for row in rows}

    def _pending(self) -> bool:
        moving = ("planned", "approved", "submitting", "in_doubt")
        counts = self._counts()
        return any(counts.get(status) for status in moving)
