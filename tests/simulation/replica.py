"""One simulated process: the production objects of a daemon, as bootstrap puts them together, on
the world's clock, database and broker.

Its loops are `passes`: the world decides when which of them runs. What is replaced is what
waits in real time: sleeping, the rate budget's condition, and the pools of threads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from datetime import date, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

from tenacity import wait_fixed

from tests.simulation.book import PX
from torghut.config import Settings
from torghut.ports import Bar, Broker, Quote
from torghut.services import operator
from torghut.services.claiming import Claimer
from torghut.services.executor import Executor
from torghut.services.late_orders import LateOrders
from torghut.services.limit_reload import PolicyInForce
from torghut.services.order_calls import OrderCaller
from torghut.services.order_desk import OrderDesk
from torghut.services.order_intents import IntentWriter
from torghut.services.outside_facts import OutsideFacts
from torghut.services.placing import Placer
from torghut.services.questions import Questions
from torghut.services.rate_budget import RateBudget
from torghut.services.reconciler import Reconciler
from torghut.services.session_gate import SessionPolicies
from torghut.services.settler import Settler
from torghut.services.supervisor import Supervisor
from torghut.services.tie_out import TieOut

Pass = Callable[[datetime], Mapping[str, int]]
RATE_PER_MIN = 100_000


class World(Protocol):
    """What a process needs of the world."""

    def utc(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...

    def spawn(self, process: str, name: str, work: Callable[[], object]) -> None: ...


class Inline(Pool):
    """Runs at once what is submitted to it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: object) -> Iterator[Any]:
        return map(fn, *iterables)


class Beside(Inline):
    """Runs what is submitted as a task of the process, beside its loops."""

    def __init__(self, world: World, process: str) -> None:
        self._world = world
        self._process = process

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        self._world.spawn(self._process, "call", lambda: done.set_result(fn(*args, **kwargs)))
        return done


class Market:
    """Everything costs the same."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def quotes(self, symbols: Iterable[str]) -> Mapping[str, Quote]:
        now = self._clock()
        return {s: Quote(symbol=s, bid_px=PX, ask_px=PX, quoted_at=now) for s in symbols}

    def daily_bars(
        self, symbols: Iterable[str], *, end: date, count: int
    ) -> Mapping[str, list[Bar]]:
        return {}

    def close(self) -> None: ...


class _VirtualCondition:
    """The rate budget's condition where only one task runs at a time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait(self, timeout: float) -> None:
        self._world.sleep(timeout)


class Replica:
    """A process of the account; another one after it is another Replica with another name."""

    def __init__(
        self,
        name: str,
        world: World,
        database: Any,
        broker: Broker,
        settings: Settings,
        policy: PolicyInForce,
        seed: str,
    ) -> None:
        self.name = name
        self.ahead = timedelta(0)  # of the true time, by this machine's clock
        self.frozen = False
        self._world = world
        self._settings = settings
        rng = random.Random(seed)
        account = settings.account
        self.supervisor = Supervisor(
            account,
            name,
            database,
            lease_ttl_s=settings.lease_ttl_s,
            reconcile_interval_s=settings.reconcile_interval_s,
            verify_account=lambda: None,
            clock=self.clock,
        )
        budget = RateBudget(RATE_PER_MIN)
        budget._lock = _VirtualCondition(world)  # type: ignore[assignment]
        self._budget = budget
        questions = Questions(broker, budget, self.clock)
        questions._retrying.wait = wait_fixed(0.2)
        questions._retrying.sleep = world.sleep
        self._market = Market(self.clock)
        self._parts = (account, database, questions)
        placer = Placer(
            broker,
            budget,
            self.clock,
            state=partial(operator.states_now, database, account),
            owns=self.supervisor.owns,
        )
        sessions = SessionPolicies(settings.session_policy, settings.session_policies)
        self.executor = Executor(
            account,
            database,
            placer,
            self._facts(),
            sessions,
            Claimer(account, policy, settings),
            budget,
            settings,
            pool=Beside(world, name),
            clock=self.clock,
            rng=rng,
            on_placed=lambda: None,
        )
        self.settler = Settler(
            account,
            database,
            placer,
            absence_grace_s=settings.absence_grace_s,
            pool=Inline(),
            clock=self.clock,
            rng=rng,
        )
        self.reconciler = Reconciler(
            account,
            database,
            questions,
            self._facts(),
            TieOut(account, database, questions, settings.tolerance, clock=self.clock),
            LateOrders(account, cancel=True),
            clock=self.clock,
        )
        self.desk = OrderDesk(
            account,
            database,
            OrderCaller(
                broker,
                budget,
                self.clock,
                state=partial(operator.states_now, database, account),
                owns=self.supervisor.owns,
            ),
            IntentWriter(account, policy, settings),
            self._facts(),
            budget,
            absence_grace_s=settings.absence_grace_s,
            pool=Inline(),
            clock=self.clock,
            rng=rng,
        )
        woken = SimpleNamespace(wake=lambda: None)
        supervisor: Any = self.supervisor
        supervisor._executor, supervisor._executor_loop = self.executor, woken
        self.passes: Mapping[str, Pass] = {
            "heartbeat": supervisor._beat,
            "executor": supervisor._run_executor,
            "settler": supervisor._owned("settler", self.settler.run_once),
            "reconciler": supervisor._owned("reconciler", self.reconciler.run_once),
            "order desk": supervisor._owned("order_desk", self.desk.run_once),
        }

    def clock(self) -> datetime:
        """This machine's wall clock."""
        return self._world.utc() + self.ahead

    @property
    def owner(self) -> bool:
        return self.supervisor.lease is not None

    def _facts(self) -> OutsideFacts:
        account, database, questions = self._parts
        facts = OutsideFacts(account, database, questions, self._market, self.clock)
        facts.close()
        facts._refresher = Beside(self._world, self.name)  # type: ignore[assignment]
        return facts
