"""The production parts of one account, wired by hand: real Postgres, simulator, adapter, services.

Calls run inline and time is the test's, so that each step of a story is one line; what needs
threads or real time says so.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import requests
from sqlalchemy import text

from tests.event_faults import event_faults
from tests.factories import decision
from torghut.brokers.alpaca import AlpacaBroker
from torghut.brokers.alpaca_data import AlpacaMarketData
from torghut.clock import utc_now
from torghut.config import Settings, risk_policy
from torghut.domain.decisions import Decision
from torghut.domain.errors import DatabaseUnavailable
from torghut.ports import Broker
from torghut.services import operator, order_requests
from torghut.services.claiming import Claimer
from torghut.services.executor import Executor
from torghut.services.flattening import Flattener
from torghut.services.intake import IntakeDesk
from torghut.services.knight_guard import KnightGuard
from torghut.services.late_orders import LateOrders
from torghut.services.limit_reload import PolicyInForce
from torghut.services.order_calls import OrderCaller
from torghut.services.order_desk import OrderDesk
from torghut.services.order_intents import IntentWriter
from torghut.services.order_requests import Asker, Requested
from torghut.services.outside_facts import OutsideFacts
from torghut.services.placing import Placer
from torghut.services.questions import Questions
from torghut.services.rate_budget import RateBudget
from torghut.services.reconciler import Reconciler
from torghut.services.session_gate import SessionPolicies
from torghut.services.settler import Settler
from torghut.services.tie_out import TieOut
from torghut.simulator import Simulator
from torghut.storage import control, leases
from torghut.storage.control import TradingStates
from torghut.storage.database import Database
from torghut.storage.rows import Lease

ACCOUNT = "paper"
DEADLINE_S = 60
OPEN = ("planned", "approved", "submitting", "in_doubt")


def eventually(condition: Callable[[], Any], timeout_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`, asked again and again; fails after the deadline."""
    pause = threading.Event()
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        pause.wait(0.01)
    raise AssertionError(f"not within {timeout_s} s")


class Time:
    """The clock of the services: real, some way ahead of it, or fixed."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)
        self.fixed: datetime | None = None

    def __call__(self) -> datetime:
        return self.fixed or utc_now() + self._ahead

    def pass_s(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


class Inline(Pool):
    """Runs at once what is submitted to it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: object) -> Iterator[Any]:
        return map(fn, *iterables)


class Rig:
    """One replica of one account."""

    def __init__(
        self,
        url: str,
        sim: Simulator,
        *,
        timeout_s: float = 0.4,
        rate_per_min: int = 100_000,
        broker: Callable[[Broker], Broker] | None = None,
        pool: Pool | None = None,
        **settings: Any,
    ) -> None:
        self.sim = sim
        self.time = Time()
        self.settings = Settings(
            **{
                "account": ACCOUNT,
                "broker": "alpaca",
                "apca_api_base_url": sim.url,
                "lease_ttl_s": 600,
                "broker_rate_per_min": rate_per_min,
                **settings,
            }
        )
        self.database = Database(url, pool_size=24)
        real = AlpacaBroker(
            key_id="key", secret_key="secret", base_url=sim.url, timeout_s=timeout_s
        )
        self.broker: Broker = broker(real) if broker else real
        self.market = AlpacaMarketData(
            key_id="key", secret_key="secret", data_url=sim.url, timeout_s=timeout_s
        )
        self.budget = RateBudget(rate_per_min)
        self.desk = IntakeDesk(self.database, self.time, lambda _: None)
        self.policy = PolicyInForce(risk_policy(self.settings))
        self.placer = self.new_placer()
        self.questions = Questions(self.broker, self.budget, self.time)
        self.questions._retrying.sleep = lambda _: None
        self.pool = pool or Inline()
        self._all_facts: list[OutsideFacts] = []
        self.executor = self.new_executor()
        self.settler = Settler(
            ACCOUNT,
            self.database,
            self.placer,
            retries=self.settings.retries,
            absence_grace_s=self.settings.absence_grace_s,
            pool=Inline(),
            clock=self.time,
            rng=random.Random(1),
        )
        self.tie_out = TieOut(
            ACCOUNT, self.database, self.questions, self.settings.tolerance, clock=self.time
        )
        self.reconciler = self.new_reconciler()
        self.guard = self.new_guard()
        self.desk_of_orders = self.new_order_desk()
        self.flattener = Flattener(
            ACCOUNT,
            self.database,
            self.questions,
            self._facts(),
            see_orders=self.reconciler.see_orders,
            wake=lambda: None,
            decision_ttl_s=86_400,
            clock=self.time,
        )
        self.lease = self.take_lease("rig")

    def new_reconciler(
        self, *, on_page: Callable[[str, int], None] = lambda _list, _rows: None
    ) -> Reconciler:
        """Another reconciler: a process that remembers nothing."""
        return Reconciler(
            ACCOUNT,
            self.database,
            self.questions,
            self._facts(),
            self.tie_out,
            LateOrders(ACCOUNT, cancel=self.settings.late_orders == "cancel"),
            clock=self.time,
            on_page=on_page,
        )

    def new_executor(self) -> Executor:
        """Another executor: a process that remembers nothing."""
        return Executor(
            ACCOUNT,
            self.database,
            self.placer,
            self._facts(),
            SessionPolicies(self.settings.session_policy, self.settings.session_policies),
            Claimer(ACCOUNT, self.policy, self.settings),
            self.budget,
            self.settings,
            pool=self.pool,
            clock=self.time,
            rng=random.Random(1),
            on_placed=lambda: None,
        )

    def new_placer(self, state: Callable[[], TradingStates] | None = None) -> Placer:
        """The calls to the broker; `state` replaces the look at the trading state."""
        return Placer(
            self.broker,
            self.budget,
            self.time,
            state=state or partial(operator.states_now, self.database, ACCOUNT),
            owns=lambda _token: True,
        )

    def new_guard(self) -> KnightGuard:
        """Another guard: a process that remembers nothing."""
        return KnightGuard(ACCOUNT, self.database, self.questions, rate_per_min=100_000)

    def new_order_desk(self) -> OrderDesk:
        """Another order desk: a process that remembers nothing."""
        return OrderDesk(
            ACCOUNT,
            self.database,
            OrderCaller(
                self.broker,
                self.budget,
                self.time,
                state=partial(operator.states_now, self.database, ACCOUNT),
                owns=lambda _token: True,
            ),
            IntentWriter(ACCOUNT, self.policy, self.settings),
            self._facts(),
            self.budget,
            absence_grace_s=self.settings.absence_grace_s,
            pool=Inline(),
            clock=self.time,
            rng=random.Random(1),
        )

    def _facts(self) -> OutsideFacts:
        facts = OutsideFacts(ACCOUNT, self.database, self.questions, self.market, self.time)
        self._all_facts.append(facts)
        return facts

    def fill_budget(self) -> None:
        """The minute of the rate limit is over."""
        self.budget._paused_until = 0.0
        self.budget._level = self.budget._per_min

    def close(self) -> None:
        self.fill_budget()
        with suppress(DatabaseUnavailable):  # some tests take it away
            assert event_faults(self.database) == []
        for facts in self._all_facts:
            facts._refresher.shutdown(wait=True, cancel_futures=True)
        self.broker.close()
        self.market.close()
        self.database.close()

    # ------------------------------------------------------------------ steps

    def take_lease(self, owner: str) -> Lease:
        """The account's lease, taken over from whoever has it."""
        self.sql("UPDATE account_leases SET expires_at = clock_timestamp() - interval '1 s'")
        with self.database.transaction() as tx:
            lease = leases.acquire(tx, ACCOUNT, owner, ttl_s=600)
            control.ensure_scopes(tx, ACCOUNT, now=self.time())
        assert lease is not None
        return lease

    def send(self, **over: object) -> str:
        """Submit one decision; its hash."""
        return self.send_all([decision(**over)])[0]

    def send_many(self, count: int, **over: object) -> list[str]:
        return self.send_all([decision(intent=f"n{n}", **over) for n in range(count)])

    def send_all(self, batch: list[Decision]) -> list[str]:
        return [answer.decision_hash for answer in self.desk.accept(batch, source="test")]

    def execute(self, passes: int = 2) -> dict[str, int]:
        """Passes of the executor: what one pass places the next one records. Counts, added up."""
        total: dict[str, int] = {}
        for _ in range(passes):
            for what, count in self.executor.run_once(self.lease, self.time()).items():
                total[what] = total.get(what, 0) + count
        return total

    def settle(self) -> dict[str, int]:
        return dict(self.settler.run_once(self.lease, self.time()))

    def reconcile(self) -> dict[str, int]:
        return dict(self.reconciler.run_once(self.lease, self.time()))

    def act(self, passes: int = 1, *, step_s: float = 0.0) -> dict[str, int]:
        """Passes of the order desk, with time passing after each; the last one's counts."""
        counts: dict[str, int] = {}
        for _ in range(passes):
            counts = self.desk_of_orders.run_once(self.lease, self.time())
            self.time.pass_s(step_s)
        return counts

    def finish(self, asked: Requested, *, step_s: float = 2.0) -> list[tuple[str, str | None]]:
        """The order desk at work until the request is settled: (status, reason) of its actions."""

        def step() -> Requested | None:
            self.act()
            self.time.pass_s(step_s)
            found = order_requests.look(self.database, ACCOUNT, asked.key)
            return found if found.settled else None

        found = eventually(step, 30)
        return [(one.status.value, one.status_reason) for one in found.actions]

    def asker(self, key: str = "key") -> Asker:
        """Somebody who asks for something to be done."""
        return Asker("test", "a test", key, self.time())

    def drive(self, hashes: Iterable[str], *, step_s: float = 2.0) -> None:
        """Execute and settle, with time passing, until none of the decisions is open."""
        wanted = list(hashes)

        def step() -> bool:
            self.execute(1)
            self.settle()
            self.time.pass_s(step_s)
            return not self.open(wanted)

        eventually(step)

    # ------------------------------------------------------------------ what there is

    def sql(self, query: str, **values: object) -> list[Any]:
        """Rows of a query, or nothing for a statement; committed."""
        with self.database.transaction() as tx:
            result = tx.execute(text(query), values)
            return list(result) if result.returns_rows else []

    def row(self, hash_: str) -> Any:
        return self.sql("SELECT * FROM trade_decisions WHERE decision_hash = :h", h=hash_)[0]

    def status(self, hash_: str) -> tuple[str, str | None]:
        """(status, reason) of a decision."""
        row = self.row(hash_)
        return row.status, row.status_reason

    def open(self, hashes: list[str]) -> int:
        query = """SELECT count(*) FROM trade_decisions
            WHERE decision_hash = ANY(:hashes) AND status = ANY(:open)"""
        return int(self.sql(query, hashes=hashes, open=list(OPEN))[0][0])

    def count(self, table: str, condition: str = "true") -> int:
        return int(self.sql(f"SELECT count(*) FROM {table} WHERE {condition}")[0][0])

    def attempts(self, hash_: str) -> list[tuple[str, str | None]]:
        """(operation, outcome) of a decision's attempts, oldest first."""
        rows = self.sql(
            """SELECT operation, outcome FROM submission_attempts
            WHERE client_order_id = :h ORDER BY attempt_id""",
            h=hash_,
        )
        return [(row.operation, row.outcome) for row in rows]

    def events(self, hash_: str) -> list[str]:
        query = "SELECT kind FROM events WHERE decision_hash = :h ORDER BY event_seq"
        return [row.kind for row in self.sql(query, h=hash_)]

    def discrepancies(self) -> list[tuple[str, str]]:
        rows = self.sql("SELECT kind, subject FROM discrepancies ORDER BY discrepancy_id")
        return [(row.kind, row.subject) for row in rows]

    def state(self) -> tuple[str, str]:
        with self.database.transaction() as tx:
            state, reason = control.trading_state(tx, ACCOUNT)
        return state.value, reason

    # ------------------------------------------------------------------ the other side

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Call the simulator's control API."""
        answer = requests.request(method, self.sim.control_url + path, json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def fault(self, kind: str, route: str = "submit", **values: Any) -> None:
        """A fault rule that strikes once, or as `values` say."""
        rule = {"route": route, "kind": kind, "count": 1, **values}
        if values.get("count") == 0:
            del rule["count"]
        self.control("POST", "/faults", rule)

    def clear_faults(self) -> None:
        self.control("DELETE", "/faults")

    def place(self, **over: object) -> Any:
        """An order put at the broker by somebody else."""
        body = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market",
                "time_in_force": "day", **over}  # fmt: skip
        keys = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
        answer = requests.post(f"{self.sim.url}/v2/orders", json=body, headers=keys, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def broker_orders(self, client_order_id: str) -> list[Any]:
        """The broker orders that the simulator's second books have for an id."""
        return list(self.control("GET", "/ledger")["orders"].get(client_order_id, []))

    def totals(self) -> Any:
        return self.control("GET", "/ledger")["totals"]

    def posts(self, client_order_id: str | None = None) -> int:
        """POSTs of orders that reached the broker: of one id, or all."""
        asked = self.control("GET", "/requests")
        if client_order_id is None:
            return int(asked["routes"].get("submit", 0))
        return int(asked["posts_by_client_order_id"].get(client_order_id, 0))
