"""Questions to the broker: within the rate budget, and asked again when the answer is unusable.

For whatever only asks. Never for a submission: that is sent once per attempt, and its doubt is
settled by asking (services/placing).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from torghut.clock import Clock
from torghut.domain.errors import BrokerUnavailable
from torghut.domain.orders import Order
from torghut.ports import Broker
from torghut.services.rate_budget import RateBudget

TRIES = 3
PAUSE_CAP_S = 1.0

T = TypeVar("T")


class Questions:
    """Asks one broker; thread-safe."""

    def __init__(self, broker: Broker, budget: RateBudget, clock: Clock) -> None:
        self._broker = broker
        self._budget = budget
        self._clock = clock
        self._retrying = Retrying(
            retry=retry_if_exception_type(BrokerUnavailable),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=0.1, max=PAUSE_CAP_S),
            reraise=True,
        )

    def ask(
        self, question: Callable[[Broker], T], *, budget_wait_s: float, background: bool = True
    ) -> T:
        """The answer; each try waits up to `budget_wait_s` for the rate budget.

        `background` questions, those of reconciliation, leave room for orders.
        Raises BrokerUnavailable after TRIES unusable answers, BrokerRefused at once.
        """
        answer: T = self._retrying.copy()(self._once, question, budget_wait_s, background)
        return answer

    def order(self, broker_order_id: str, *, budget_wait_s: float) -> Order | None:
        """One order by the broker's id, None if there is none. Raises as `ask`."""
        return self.ask(lambda b: b.get_order(broker_order_id), budget_wait_s=budget_wait_s)

    def _once(self, question: Callable[[Broker], T], budget_wait_s: float, background: bool) -> T:
        if not self._budget.wait_for_one(budget_wait_s, background=background):
            raise BrokerUnavailable("the rate budget left no room for the question")
        try:
            return question(self._broker)
        finally:
            self._budget.correct(self._broker.rate_state(), now=self._clock())
