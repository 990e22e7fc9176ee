"""The sagas of a daemon, put together: plans, and single orders; the account's owner runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torghut.clock import Clock
from torghut.config import Settings
from torghut.ports import OrderMonitor, PlanFinaliser
from torghut.services.order_saga import OrderSteps
from torghut.services.outside_facts import OutsideFacts
from torghut.services.plan_saga import PlanLog, PlanSteps
from torghut.services.sagas import POLL_S, SagaRunner
from torghut.services.supervisor import Pass
from torghut.storage.database import Database


class SagaServices:
    """Made once per process; `passes` are for the supervisor."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        owner: str,
        *,
        make_facts: Callable[[], OutsideFacts],
        wake: Callable[[], None],
        clock: Clock,
        monitor: OrderMonitor | None = None,
        finaliser: PlanFinaliser | None = None,
    ) -> None:
        self._facts = make_facts()
        log = PlanLog()
        plans = PlanSteps(
            self._facts, wake=wake, monitor=monitor or log, finaliser=finaliser or log
        )
        self._runner = SagaRunner(
            (plans.saga(), OrderSteps(wake).saga()),
            database,
            settings.account,
            owner,
            lease_s=settings.lease_ttl_s,
            clock=clock,
        )

    @property
    def passes(self) -> Mapping[str, tuple[Pass, float]]:
        """Name → what the owner of the account runs, and the seconds between."""
        return {"sagas": (self._runner.run_once, POLL_S)}

    def close(self) -> None:
        """End the thread that asks beside the work."""
        self._facts.close()
