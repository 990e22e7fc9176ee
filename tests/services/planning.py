"""A rig with the sagas of a daemon: plans and single orders, driven step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from tests.services.rig import ACCOUNT, Rig, eventually
from torghut.domain.plans import parse_plan
from torghut.ports import PlanItemChange, PlanReport
from torghut.services import plans
from torghut.services.order_saga import OrderSteps
from torghut.services.plan_saga import PlanSteps
from torghut.services.plans import PlanAnswer
from torghut.services.sagas import SagaRunner
from torghut.storage import plan_reads

TTL = timedelta(days=3650)


class Heard:
    """A monitor and finaliser that keeps what it was told; `trouble` is raised by the latter."""

    def __init__(self) -> None:
        self.changes: list[PlanItemChange] = []
        self.reports: list[PlanReport] = []
        self.trouble: list[Exception] = []

    def item_changed(self, change: PlanItemChange) -> None:
        self.changes.append(change)

    def finalise(self, report: PlanReport) -> None:
        self.reports.append(report)
        if self.trouble:
            raise self.trouble.pop(0)


class Planning:
    """Plans on a rig; time is the rig's."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.heard = Heard()
        self.runner = self.new_runner()

    def new_runner(self, heard: Heard | None = None) -> SagaRunner:
        """A process that remembers nothing."""
        told = heard or self.heard
        steps = PlanSteps(self.rig._facts(), wake=lambda: None, monitor=told, finaliser=told)
        kinds = (steps.saga(), OrderSteps(lambda: None).saga())
        return SagaRunner(
            kinds, self.rig.database, ACCOUNT, "test", lease_s=600, clock=self.rig.time
        )

    def send(self, *items: tuple[str, str, object], **over: object) -> PlanAnswer:
        """Accept a plan of (action, symbol, amount)."""
        body: dict[str, object] = {"correlation_id": "plan-1", **over}
        if items:
            body["items"] = [
                {"symbol": symbol, "action": action, "trade_amount": amount}
                for action, symbol, amount in items
            ]
        request = parse_plan(body, accounts=(ACCOUNT,), default=ACCOUNT)
        return plans.accept(self.rig.database, request, source="test", ttl=TTL, now=self.rig.time())

    def step(self) -> None:
        """One pass of everything that a daemon runs, and a while."""
        self.runner.run_once(None, self.rig.time())
        self.rig.execute(2)
        self.rig.settle()
        self.rig.act()
        self.rig.reconcile()
        self.rig.time.pass_s(1.0)

    def until(self, done: Callable[[], Any]) -> None:
        def look() -> Any:
            self.step()
            return done()

        eventually(look)

    def finish(self, plan_id: int) -> dict[str, Any]:
        """The plan at its end."""
        self.until(lambda: self.plan(plan_id)["saga"]["finalized_at"])
        return self.plan(plan_id)

    def plan(self, plan_id: int) -> dict[str, Any]:
        with self.rig.database.transaction() as tx:
            found = plan_reads.plan(tx, plan_id)
        assert found is not None
        return found

    def hold(self, *held: tuple[str, str]) -> None:
        """Positions that are in both books before the plan."""
        for symbol, qty in held:
            self.rig.place(symbol=symbol, qty=qty)
        self.until(
            lambda: all(
                self.rig.count("positions", f"symbol = '{symbol}' AND qty = {qty}")
                for symbol, qty in held
            )
        )

    def quote(self, symbol: str, px: str) -> None:
        """What the market asks and bids from now on."""
        self.rig.control("POST", "/market/price", {"symbol": symbol, "price": px})
        self.rig.time.pass_s(5)


def of(plan: dict[str, Any], name: str) -> Sequence[Any]:
    """One field of each item, in order."""
    return [item[name] for item in plan["items"]]
