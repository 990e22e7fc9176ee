"""One account's part of a daemon: whatever runs for it, and shares only the process and its
database with the other accounts.

```
settings of the account ─▶ broker · market · rate budget · limits
   └▶ supervisor(executor, settler, reconciler, live updates, guard, risk watch, order desk,
      flattener, stuck orders) · scheduler
```

Each has threads and a client of its broker, and holds no connection to the database while it asks
it: a broker that does not answer, or refuses, or a halt, is felt by this account alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType

from torghut import telemetry
from torghut.brokers.alpaca_stream import AlpacaUpdates
from torghut.clock import utc_now
from torghut.config import Settings, risk_policy
from torghut.parts import SETTLER_THREADS, Adapters, rate_budget
from torghut.places import Reach, notify_released
from torghut.services import operator
from torghut.services.account_check import verify_account
from torghut.services.claiming import Claimer
from torghut.services.executor import Executor
from torghut.services.knight_guard import KnightGuard
from torghut.services.late_orders import LateOrders
from torghut.services.limit_reload import PolicyInForce
from torghut.services.live_updates import LiveUpdates
from torghut.services.loops import Loop
from torghut.services.order_services import OrderServices
from torghut.services.outside_facts import OutsideFacts
from torghut.services.placing import Placer
from torghut.services.questions import Questions
from torghut.services.reconciler import Reconciler
from torghut.services.saga_services import SagaServices
from torghut.services.scheduler import Scheduled, Scheduler
from torghut.services.session_gate import SessionPolicies
from torghut.services.settler import Settler
from torghut.services.shared_reading import SharedReading
from torghut.services.supervisor import Pass, Supervisor
from torghut.services.tie_out import TieOut
from torghut.services.trips import RiskWatch
from torghut.storage.database import Database
from torghut.storage.pulse import Work
from torghut.strategies.loading import load_strategy

SCHEDULER_POLL_S = 5.0
RISK_WATCH_S = 2.0
GUARD_POLL_S = 1.0

_LOOPS = {
    Work.DECISIONS: "executor",
    Work.DOUBTS: "settler",
    Work.ACTIONS: "order_desk",
    Work.FLATTENING: "flattener",
}


class AccountUnit:
    """Everything that runs for one account. `settings` are that account's (`Settings.of`)."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        owner: str,
        at: Reach,
        *,
        alone: bool,
        adapters: Adapters,
    ) -> None:
        """`alone`: there is no other account, so its keys were checked when it is started.
        `adapters` makes those to the broker and its market."""
        self.settings = settings
        self.account = settings.account
        self.database = database
        self.broker, self.market = adapters(at, settings)
        self.budget = rate_budget(settings)
        self.policy = PolicyInForce(risk_policy(settings))
        self._rng = random.Random()
        self._executor_pool = ThreadPoolExecutor(settings.submit_threads, "submit")
        self._settler_pool = ThreadPoolExecutor(SETTLER_THREADS, "settle")
        self.supervisor = Supervisor(
            settings.account,
            owner,
            database,
            lease_ttl_s=settings.lease_ttl_s,
            reconcile_interval_s=settings.reconcile_interval_s,
            verify_account=self._verify_live,
            first_check=None if alone else self.verify,
            clock=utc_now,
            guided=True,
            released=partial(notify_released, database),
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
        self._sagas = self._saga_services(owner)
        self.scheduler = self._scheduler(owner)
        self._scheduler_loop = Loop(
            "scheduler",
            self.scheduler.run_once,
            interval_s=SCHEDULER_POLL_S,
            clock=utc_now,
            account=settings.account,
        )
        telemetry.begin(settings.account)
        telemetry.RATE_LEFT.labels(settings.account).set_function(lambda: self.budget.left)

    def verify(self) -> None:
        """Ask the broker whether this account may be traded; raises ConfigError if not, and in
        live mode BrokerUnavailable."""
        verify_account(self.settings, self.broker)

    def start(self, more: Mapping[str, tuple[Pass, float]] = MappingProxyType({})) -> None:
        """Start all loops; `more` are further passes of the owner."""
        placer = Placer(
            self.broker,
            self.budget,
            utc_now,
            state=SharedReading(partial(operator.states_now, self.database, self.account)).get,
            owns=self.supervisor.owns,
        )
        executor = Executor(
            self.account,
            self.database,
            placer,
            self._executor_facts,
            SessionPolicies(self.settings.session_policy, self.settings.session_policies),
            Claimer(self.account, self.policy, self.settings),
            self.budget,
            self.settings,
            pool=self._executor_pool,
            clock=utc_now,
            rng=self._rng,
            on_placed=self.supervisor.wake,
        )
        settler = Settler(
            self.account,
            self.database,
            placer,
            absence_grace_s=self.settings.absence_grace_s,
            retries=self.settings.retries,
            pool=self._settler_pool,
            clock=utc_now,
            rng=self._rng,
        )
        rate = self.settings.broker_rate_per_min
        guard = KnightGuard(self.account, self.database, self._questions, rate_per_min=rate)
        watch = RiskWatch(self.account, self.database, lambda: self.policy.current)
        passes = {
            "guard": (guard.run_once, GUARD_POLL_S),
            "risk-watch": (watch.run_once, RISK_WATCH_S),
            **more,
            **self._orders.passes,
            **self._sagas.passes,
        }
        self.supervisor.start(executor, settler, self.live, more=passes)
        if self.settings.strategies:
            self.scheduler.start(self._scheduler_loop.wake)
            self._scheduler_loop.start()

    def stop(self) -> None:
        """Nothing new, finish what is in flight, hand the account over. Returns when done."""
        self.scheduler.stop()
        if self.settings.strategies:
            self._scheduler_loop.stop(5)
        self.supervisor.stop()
        self._executor_pool.shutdown(wait=False, cancel_futures=True)
        self._settler_pool.shutdown(wait=False, cancel_futures=True)
        self._orders.close()
        self._sagas.close()
        self._executor_facts.close()
        self.outside.close()
        self.broker.close()
        self.market.close()

    @property
    def owned(self) -> bool:
        """True while this process holds the account's lease."""
        return self.supervisor.lease is not None

    def state(self) -> Mapping[str, object]:
        """How the account stands in this process, for /readyz. Asks nobody."""
        refused = self.supervisor.refused
        return {
            "lease_known": self.supervisor.lease_known,
            "owner": self.owned,
            "trade_updates": self.live.connection.state,
            **({} if refused is None else {"refused": str(refused)}),
        }

    def wake(self, work: Work) -> None:
        """There is work of this kind."""
        self.supervisor.wake_loop(_LOOPS[work])

    def _outside_facts(self) -> OutsideFacts:
        return OutsideFacts(self.account, self.database, self._questions, self.market, utc_now)

    def _live_updates(self, at: Reach) -> LiveUpdates:
        stream = AlpacaUpdates(
            key_id=at.key_id,
            secret_key=at.secret_key,
            base_url=at.base_url,
            timeout_s=self.settings.broker_timeout_s,
        )
        return LiveUpdates(
            self.account,
            self.database,
            self.reconciler,
            stream,
            self.budget,
            owns=lambda: self.owned,
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

    def _saga_services(self, owner: str) -> SagaServices:
        return SagaServices(
            self.settings,
            self.database,
            owner,
            make_facts=self._outside_facts,
            wake=self.supervisor.wake,
            clock=utc_now,
        )

    def _scheduler(self, owner: str) -> Scheduler:
        scheduled = [
            Scheduled.create(name, config, load_strategy(config.plugin, config.params))
            for name, config in self.settings.strategies.items()
        ]
        return Scheduler(
            self.account,
            owner,
            self.database,
            self.market,
            scheduled,
            decision_ttl_s=self.settings.decision_ttl_s,
            clock=utc_now,
            wake=self.supervisor.wake,
        )

    def _verify_live(self) -> None:
        if self.settings.trading_mode == "live":
            self.verify()
