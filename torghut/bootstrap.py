"""The composition root: the only place that names concrete parts.

```
settings ─▶ database (embedded or URL) ─▶ schema check ─▶ broker (simulator or Alpaca) ─▶ Daemon
Daemon: supervisor(executor, settler, reconciler, live updates, guard, risk watch, order desk,
flattener, stuck orders, key cleanup) · inbox · relays · scheduler · listener;
HTTP around it: torghut.serving
```

Start order is by what must be known first: settings (78), the database (1), the schema (1), the
broker's account (78 when it is the wrong one or the keys are refused; a broker that does not
answer is waited for). Everything is closed in the opposite order.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import psycopg
import structlog

from torghut import telemetry
from torghut.brokers.alpaca_stream import AlpacaUpdates
from torghut.clock import utc_now
from torghut.config import Settings, load, risk_policy
from torghut.parts import (
    SETTLER_THREADS,
    check_tokens,
    inbox_loop,
    open_broker,
    open_relays,
    own_simulator,
    owner_name,
    rate_budget,
    warn_of_lossy_commits,
)
from torghut.places import (
    Reach,
    arm_recovery_point,
    home,
    last_port,
    notify,
    open_database,
    reach,
)
from torghut.services import key_cleanup, limit_reload, operator
from torghut.services.account_check import verify_account
from torghut.services.claiming import Claimer
from torghut.services.executor import Executor
from torghut.services.intake import IntakeDesk
from torghut.services.key_cleanup import KeyCleanup
from torghut.services.knight_guard import KnightGuard
from torghut.services.late_orders import LateOrders
from torghut.services.limit_reload import LimitReload, PolicyInForce
from torghut.services.live_updates import LiveUpdates
from torghut.services.loops import Loop
from torghut.services.order_services import OrderServices
from torghut.services.outside_facts import OutsideFacts
from torghut.services.placing import Placer
from torghut.services.questions import Questions
from torghut.services.reconciler import Reconciler
from torghut.services.scheduler import Scheduled, Scheduler
from torghut.services.session_gate import SessionPolicies
from torghut.services.settler import Settler
from torghut.services.supervisor import Supervisor
from torghut.services.tie_out import TieOut
from torghut.services.trips import RiskWatch
from torghut.simulator import SimConfig
from torghut.sinks.opening import check_clients
from torghut.storage import wake
from torghut.storage.database import Database
from torghut.storage.database_faults import DatabaseFault
from torghut.strategies.loading import load_strategy

SCHEDULER_POLL_S = 5.0
STALLED_AFTER_S = 60.0
RISK_WATCH_S = 2.0
GUARD_POLL_S = 1.0
SIMULATOR_STATE = "simulator-state.jsonl"

log = structlog.get_logger(__name__)


class Daemon:
    """Everything that runs in one process for one account."""

    def __init__(self, settings: Settings, database: Database, at: Reach) -> None:
        self.settings = settings
        self.database = database
        self.owner = owner_name()
        self.broker, self.market = open_broker(at, settings)
        self.budget = rate_budget(settings)
        self._show_own_state()
        self.policy = PolicyInForce(risk_policy(settings))
        self.limits = LimitReload(
            self.owner, database, self.policy, settings, load=load, clock=utc_now
        )
        self._limits_loop = Loop(
            "limits", self.limits.run_once, interval_s=limit_reload.POLL_S, clock=utc_now
        )
        self.desk = IntakeDesk(database, utc_now, self._wake_all)
        self._rng = random.Random()
        self._executor_pool = ThreadPoolExecutor(settings.submit_threads, "submit")
        self._settler_pool = ThreadPoolExecutor(SETTLER_THREADS, "settle")
        self.supervisor = Supervisor(
            settings.account,
            self.owner,
            database,
            lease_ttl_s=settings.lease_ttl_s,
            reconcile_interval_s=settings.reconcile_interval_s,
            verify_account=self._verify_live,
            clock=utc_now,
        )
        self._questions = Questions(self.broker, self.budget, utc_now)
        self.outside = self._outside_facts()
        self._executor_facts = self._outside_facts()
        self.reconciler = Reconciler(
            settings.account,
            database,
            self._questions,
            self.outside,
            TieOut(settings.account, database, self._questions, settings.tolerance, clock=utc_now),
            LateOrders(settings.account, cancel=settings.late_orders == "cancel"),
            clock=utc_now,
        )
        self.live = self._live_updates(at)
        self._orders = self._order_services()
        self.scheduler = self._scheduler()
        self._scheduler_loop = Loop(
            "scheduler", self.scheduler.run_once, interval_s=SCHEDULER_POLL_S, clock=utc_now
        )
        self._inbox_loop = inbox_loop(self.settings, self.database, self._wake_all)
        self.relays = open_relays(settings, database, self.owner, self._rng)
        self._listener = wake.Listener(database)
        self._stopping = threading.Event()
        self._listening = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        """Start all loops; raises ConfigError if the broker's account may not be traded."""
        verify_account(self.settings, self.broker)
        placer = Placer(
            self.broker,
            self.budget,
            utc_now,
            state=partial(operator.state_now, self.database, self.settings.account),
            owns=self.supervisor.owns,
        )
        executor = Executor(
            self.settings.account,
            self.database,
            placer,
            self._executor_facts,
            SessionPolicies(self.settings.session_policy, self.settings.session_policies),
            Claimer(self.settings.account, self.policy, self.settings),
            self.budget,
            self.settings,
            pool=self._executor_pool,
            clock=utc_now,
            rng=self._rng,
            on_placed=self.supervisor.wake,
        )
        settler = Settler(
            self.settings.account,
            self.database,
            placer,
            absence_grace_s=self.settings.absence_grace_s,
            pool=self._settler_pool,
            clock=utc_now,
            rng=self._rng,
        )
        rate = self.settings.broker_rate_per_min
        guard = KnightGuard(
            self.settings.account, self.database, self._questions, rate_per_min=rate
        )
        watch = RiskWatch(self.settings.account, self.database, lambda: self.policy.current)
        more = {
            "guard": (guard.run_once, GUARD_POLL_S),
            "risk-watch": (watch.run_once, RISK_WATCH_S),
            "key-cleanup": (KeyCleanup(self.database).run_once, key_cleanup.POLL_S),
            **self._orders.passes,
        }
        self.supervisor.start(executor, settler, self.live, more=more)
        self._limits_loop.start()
        self.relays.start()
        self._inbox_loop.start()
        if not self.database.pooled:  # LISTEN needs a server process of its own: polling is enough
            self._listening.start()
        if self.settings.strategies:
            self.scheduler.start(self._scheduler_loop.wake)
            self._scheduler_loop.start()

    def stop(self) -> None:
        """Clean shutdown: nothing new, finish what is in flight, hand the account over."""
        self._stopping.set()
        self.scheduler.stop()
        self._limits_loop.stop(5)
        if self.settings.strategies:
            self._scheduler_loop.stop(5)
        self._inbox_loop.stop(5)
        self.supervisor.stop()
        self.relays.stop()
        self._executor_pool.shutdown(wait=False, cancel_futures=True)
        self._settler_pool.shutdown(wait=False, cancel_futures=True)
        self._orders.close()
        self._executor_facts.close()
        self.outside.close()
        self.broker.close()
        self.market.close()

    def health(self) -> Mapping[str, object]:
        """Alive: no loop is overdue by STALLED_AFTER_S. Asks nobody outside."""
        stalled = {
            loop.name: round(loop.overdue_s, 1)
            for loop in [
                *self.supervisor.loops,
                self._limits_loop,
                self._inbox_loop,
                *self.relays.loops,
            ]
            if loop.overdue_s > STALLED_AFTER_S
        }
        return {"alive": not stalled, "stalled_s": stalled}

    def ready(self) -> Mapping[str, object]:
        """Whether this process knows who owns the account; the database is asked elsewhere."""
        return {
            "lease_known": self.supervisor.lease_known,
            "owner": self.owns_account,
            "trade_updates": self.live.connection.state,
        }

    @property
    def owns_account(self) -> bool:
        """True while this process holds the account's lease."""
        return self.supervisor.lease is not None

    def wait_owner(self, timeout_s: float) -> bool:
        """True once this process owns the account; False if it does not within `timeout_s`."""
        return self.supervisor.owned.wait(timeout_s)

    def wait(self, stop: threading.Event) -> None:
        """Run until `stop` is set; raises ConfigError if the account turned out to be wrong."""
        while not stop.wait(0.2):
            if self.supervisor.fatal is not None:
                raise self.supervisor.fatal

    def _show_own_state(self) -> None:
        """Gauges that are read when they are asked for."""
        telemetry.begin(self.settings.account)
        for fault in DatabaseFault:
            telemetry.DATABASE_FAULTS.labels(fault)
        telemetry.RATE_LEFT.set_function(lambda: self.budget.left)
        telemetry.POOL_IN_USE.set_function(lambda: self.database.connections_in_use)
        telemetry.POOL_LIMIT.set(self.database.connections_max)

    def _outside_facts(self) -> OutsideFacts:
        return OutsideFacts(
            self.settings.account, self.database, self._questions, self.market, utc_now
        )

    def _live_updates(self, at: Reach) -> LiveUpdates:
        stream = AlpacaUpdates(
            key_id=at.key_id,
            secret_key=at.secret_key,
            base_url=at.base_url,
            timeout_s=self.settings.broker_timeout_s,
        )
        return LiveUpdates(
            self.settings.account,
            self.database,
            self.reconciler,
            stream,
            self.budget,
            owns=lambda: self.owns_account,
            clock=utc_now,
            rng=self._rng,
        )

    def _order_services(self) -> OrderServices:
        return OrderServices(
            self.settings,
            self.database,
            self.broker,
            self.budget,
            self._questions,
            self.supervisor,
            self.reconciler,
            make_facts=self._outside_facts,
            policy=self.policy,
            clock=utc_now,
            rng=self._rng,
        )

    def _scheduler(self) -> Scheduler:
        scheduled = [
            Scheduled.create(name, config, load_strategy(config.plugin, config.params))
            for name, config in self.settings.strategies.items()
        ]
        return Scheduler(
            self.settings.account,
            self.owner,
            self.database,
            self.market,
            scheduled,
            decision_ttl_s=self.settings.decision_ttl_s,
            clock=utc_now,
            wake=self.supervisor.wake,
        )

    def _verify_live(self) -> None:
        if self.settings.trading_mode == "live":
            verify_account(self.settings, self.broker)

    def _wake_all(self) -> None:
        """There is work: our own loop at once; another replica may be the owner."""
        self.supervisor.wake()
        if self.supervisor.lease is None:
            notify(self.database)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._listener.wait():
                    self.supervisor.wake()
            except psycopg.Error as error:
                log.debug("listener disconnected", error=type(error).__name__)
                self._stopping.wait(1.0)
        self._listener.close()


@contextmanager
def running_daemon(
    settings: Settings,
    *,
    migrating: bool = False,
    simulator: SimConfig | None = None,
    name: str = "torghut",
) -> Iterator[Daemon]:
    """A started daemon with everything it needs, stopped in order at the end.

    `simulator` replaces the default one where the broker is `sim`; `name` is the embedded
    database's.
    """
    arm_recovery_point(settings)
    check_clients(settings.sinks)
    with ExitStack() as stack:
        database = stack.enter_context(open_database(settings, migrating=migrating, name=name))
        warn_of_lossy_commits(database)
        check_tokens(settings, database)
        if settings.broker == "sim":
            directory = home(settings)
            config = simulator or SimConfig(
                port=last_port(directory), control_port=0, state=directory / SIMULATOR_STATE
            )
            stack.enter_context(own_simulator(directory, config))
        daemon = Daemon(settings, database, reach(settings))
        stack.callback(daemon.stop)
        daemon.start()
        yield daemon
