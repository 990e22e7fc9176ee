"""What goes wrong around a process: the answers of broker and database, drawn from the seed."""

from __future__ import annotations

import random

from tests.simulation.line import SUBMIT_FAULTS
from tests.simulation.plan import HIDDEN_MAX_S, LATE_MAX_S, Plan

DEAF_RATE = 0.85


class Weather:
    """Draws faults; none any more once it is `fair`."""

    def __init__(self, rng: random.Random, plan: Plan) -> None:
        self.rng = rng
        self.plan = plan
        self.fair = False
        self.forced = False  # an order is taken, its answer lost, and no list shows it for long

    def database_fault(self) -> str | None:
        """What the next transaction meets."""
        if self.fair or self.rng.random() >= self.plan.database_fault_rate:
            return None
        return self.rng.choice(("unreachable", "commit lost", "commit in doubt"))

    def submit_fault(self) -> str:
        """What becomes of a POST."""
        if self.forced:
            return "answer_lost"
        if self.fair or self.rng.random() >= self.plan.submit_fault_rate:
            return "accepted"
        return self.rng.choice(SUBMIT_FAULTS)

    def lags_s(self) -> tuple[float, float]:
        """How long an order cannot be looked up, and how long then no list shows it."""
        if self.forced:
            return LATE_MAX_S, 0.0
        if self.fair or self.rng.random() < 0.6:
            return 0.0, 0.0
        hidden = self.rng.choice((0.0, 0.4, 3.0, LATE_MAX_S))
        if self.plan.wild:
            hidden = self.rng.choice((0.0, 3.0, HIDDEN_MAX_S))
        return hidden, self.rng.choice((0.0, 5.0, 15.0))

    def retry_s(self) -> float:
        """After how long a 429 may be tried again."""
        return self.rng.choice((2.0, 20.0))

    def question_fault(self, route: str) -> str | None:
        """What becomes of a question."""
        rate = self.plan.question_fault_rate
        if self.plan.deaf and route in ("lookup", "get_order"):
            rate = DEAF_RATE
        if self.fair or self.rng.random() >= rate:
            return None
        return "refused" if self.rng.random() < 0.15 else "unavailable"

    def late_s(self) -> float:
        """How long a POST is on its way whose sender waits no more."""
        return self.rng.choice((0.5, 5.0, 90.0 if self.plan.wild else LATE_MAX_S))

    def fill_lag_s(self) -> float:
        """How long the activities do not show a fill."""
        return 0.0 if self.fair else self.rng.choice((0.0, 0.0, 4.0))
