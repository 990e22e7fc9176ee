"""The owner's services about orders that stand, put together: desk, flattener, stuck orders."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from torghut.clock import Clock
from torghut.config import Settings
from torghut.ports import Broker
from torghut.services import operator
from torghut.services.flattening import Flattener
from torghut.services.limit_reload import PolicyInForce
from torghut.services.order_calls import OrderCaller
from torghut.services.order_desk import OrderDesk
from torghut.services.order_intents import IntentWriter
from torghut.services.outside_facts import OutsideFacts
from torghut.services.pulse import REST_S
from torghut.services.questions import Questions
from torghut.services.rate_budget import RateBudget
from torghut.services.reconciler import Reconciler
from torghut.services.shared_reading import SharedReading
from torghut.services.stuck_orders import StuckOrders
from torghut.services.supervisor import Pass, Supervisor
from torghut.storage.database import Database

ORDER_THREADS = 4
STUCK_ORDERS_POLL_S = 5.0


class OrderServices:
    """Made once per process; `passes` are for the supervisor."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        broker: Broker,
        budget: RateBudget,
        questions: Questions,
        supervisor: Supervisor,
        reconciler: Reconciler,
        *,
        make_facts: Callable[[], OutsideFacts],
        policy: PolicyInForce,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        account = settings.account
        self._pool = ThreadPoolExecutor(ORDER_THREADS, "orders")
        self._facts = (make_facts(), make_facts())  # each is asked by one thread
        self._desk = OrderDesk(
            account,
            database,
            OrderCaller(
                broker,
                budget,
                clock,
                state=SharedReading(partial(operator.states_now, database, account)).get,
                owns=supervisor.owns,
            ),
            IntentWriter(account, policy, settings),
            self._facts[0],
            budget,
            absence_grace_s=settings.absence_grace_s,
            pool=self._pool,
            clock=clock,
            rng=rng,
        )
        self._flattener = Flattener(
            account,
            database,
            questions,
            self._facts[1],
            see_orders=reconciler.see_orders,
            wake=supervisor.wake,
            decision_ttl_s=settings.decision_ttl_s,
            clock=clock,
        )
        self._stuck = StuckOrders(account, database, stuck_after_s=settings.order_stuck_s)

    @property
    def passes(self) -> Mapping[str, tuple[Pass, float]]:
        """Name → what the owner of the account runs, and the seconds between."""
        return {
            "order_desk": (self._desk.run_once, REST_S),
            "flattener": (self._flattener.run_once, REST_S),
            "stuck_orders": (self._stuck.run_once, STUCK_ORDERS_POLL_S),
        }

    def close(self) -> None:
        """End the threads as soon as they have nothing under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for facts in self._facts:
            facts.close()
