"""The steps of a rebalance plan: sells first, then buys, by what the sells really brought.

```
prepare   targets become items, once
sell      every sell becomes a decision ─▶ wait until each is final and its fills are booked
fund      budget = proceeds by the fill ledger + the plan's own cash; buys are funded in order
buy       as sell, with the funded amounts
finish    the finaliser is told, the plan is completed
                                    ◀── a step failed for good: in reverse order
          open orders are canceled, what was filled is kept or undone (on_failure)
```

1. An item's decision and the row that says so are one transaction, so an item has one order however
   often its step is called. Everything behind it is the path of any decision.
2. No buy is placed before every sell is settled: the step before has to be done.
3. Statistics are a fold of the items; nothing is counted beside them.

If power fails anywhere, the step is called again and finds what it has done in the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog
from sqlalchemy import Connection

from torghut.domain.errors import TorghutError
from torghut.domain.events import Event, EventKind
from torghut.domain.orders import Side
from torghut.domain.plans import (
    PLAN_SAGA,
    PLAN_STEPS,
    ItemReason,
    ItemStatus,
    OnFailure,
    PlanStatus,
)
from torghut.domain.sagas import Retry, StepDelayed, StepFailed
from torghut.ports import OrderMonitor, PlanFinaliser, PlanItemChange, PlanReport
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services.outside_facts import OutsideFacts
from torghut.services.plan_items import ACTOR, end_item, leg_of, place_item, settle_items
from torghut.services.plan_sizing import Held, fund_buys, price, size, targets_as_items
from torghut.services.positions import holdings
from torghut.services.saga_orders import Undoing, cancel_open, undo
from torghut.services.sagas import Action, Compensation, Saga, Step, StepRun, Wait
from torghut.storage import control, plan_reads, plans
from torghut.storage.order_outcomes import not_sent, outcomes
from torghut.storage.plans import ItemRow, PlanRow

POLL_S = 0.5
QUOTE_TRIES = 5  # for an item's quote while others have theirs
# some five minutes without the broker's answers; an undoing that is denied makes a decision for
# each fill and try, and may be denied for as long as trading is halted or reducing
RETRY = Retry(failures_max=15, cap_s=30.0, undo_cap_s=300.0)

log = structlog.get_logger(__name__)


class PlanSteps:
    """The saga of plans. `outside` is asked by the runner's thread alone; `wake` tells the executor
    to look."""

    def __init__(
        self,
        outside: OutsideFacts,
        *,
        wake: Callable[[], None],
        monitor: OrderMonitor,
        finaliser: PlanFinaliser,
    ) -> None:
        self._outside = outside
        self._wake = wake
        self._monitor = monitor
        self._finaliser = finaliser

    def saga(self) -> Saga:
        """The kind of saga that carries plans out."""
        steps: tuple[tuple[Action, Compensation | None], ...] = (
            (self.prepare, self.stopped),
            (partial(self.trade, Side.SELL), partial(self.take_back, Side.SELL)),
            (self.fund, None),
            (partial(self.trade, Side.BUY), partial(self.take_back, Side.BUY)),
            (self.finish, None),
        )
        named = zip(PLAN_STEPS, steps, strict=True)
        return Saga(PLAN_SAGA, tuple(Step(name, act, back) for name, (act, back) in named), RETRY)

    # ------------------------------------------------------------------ prepare, fund

    def prepare(self, run: StepRun) -> Mapping[str, object]:
        """Items out of targets; a plan that came with items has them."""
        with run.transaction() as tx:
            plan = _plan(tx, run)
            known = plans.items(tx, plan.plan_id)
        if known or not plan.targets:
            return {"items": len(known)}
        snapshot = self._outside.refresh_account()
        with run.transaction() as tx:
            held = holdings(tx, plan.account)
        items = targets_as_items(plan, self._outside, held, snapshot, run.now())
        with run.transaction() as tx:
            plans.add_items(tx, plan.plan_id, items)
            reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
        reached(RecoveryPoint.PLAN_AFTER_COMMIT)
        return {"items": len(items)}

    def fund(self, run: StepRun) -> None:
        """What the buys may cost."""
        with run.transaction() as tx:
            fund_buys(tx, _plan(tx, run), run.now())
            reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
        reached(RecoveryPoint.PLAN_AFTER_COMMIT)

    # ------------------------------------------------------------------ sell, buy

    def trade(self, phase: Side, run: StepRun) -> Mapping[str, object] | Wait:
        """Place what is not placed, then wait for all of it."""
        with run.transaction() as tx:
            plan = _plan(tx, run)
            items = plans.items(tx, plan.plan_id, phase)
        waiting = [item for item in items if item.status is ItemStatus.PENDING]
        over = run.now() >= plan.expires_at
        if waiting and over:
            raise StepFailed("the plan's time is over (expires_at), and it was not ordered yet")
        if waiting:
            self._place(phase, run, plan, waiting)
        open_, failed = self._settle(phase, run, plan)
        if failed and plan.on_failure is not OnFailure.CONTINUE:
            first = failed[0]
            raise StepFailed(f"{first.phase} {first.symbol} failed: {first.reason}")
        if open_ and over:
            raise StepFailed(f"{len(open_)} orders are open at the plan's end (expires_at)")
        if open_:
            return Wait(POLL_S, f"{len(open_)} orders to end and their fills to be booked")
        return {"failed": len(failed)}

    def _place(self, phase: Side, run: StepRun, plan: PlanRow, waiting: list[ItemRow]) -> None:
        symbols = sorted({item.symbol for item in waiting})
        quotes = self._outside.quotes(symbols, run.now())
        missing = [s for s in symbols if price(quotes, s, phase) is None]
        hopeless = run.failures + 1 >= QUOTE_TRIES and len(missing) < len(symbols)
        if missing and not hopeless:
            raise StepDelayed(f"there is no quote for {', '.join(missing)}")
        closes = phase is Side.SELL or any(item.whole for item in waiting)
        if closes and self._outside.refresh_account() is None:
            raise StepDelayed("the broker did not say what the account holds")
        with run.transaction() as tx:
            # what other plans and requests are about to close is not ours to close a second time
            held = Held(holdings(tx, plan.account), not_sent(tx, plan.account, phase))
            for item in plans.items(tx, plan.plan_id, phase):
                if item.status is not ItemStatus.PENDING:
                    continue
                px = price(quotes, item.symbol, phase)
                sized = size(plan, item, px, held)
                if isinstance(sized, tuple):
                    end_item(tx, plan, item, *sized, self._monitor, now=run.now())
                elif px is not None:
                    place_item(tx, plan, item, sized, px, monitor=self._monitor, clock=run.now)
            reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
        reached(RecoveryPoint.PLAN_AFTER_COMMIT)
        self._wake()

    def _settle(
        self, phase: Side, run: StepRun, plan: PlanRow
    ) -> tuple[list[ItemRow], list[ItemRow]]:
        """Write down what has ended; returns what is still open, and what failed."""
        with run.transaction() as tx:
            items = plans.items(tx, plan.plan_id, phase)
            settle_items(tx, plan, items, self._monitor, now=run.now())
            items = plans.items(tx, plan.plan_id, phase)
            reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
        reached(RecoveryPoint.PLAN_AFTER_COMMIT)
        open_ = [item for item in items if item.status is ItemStatus.PLACED]
        return open_, [item for item in items if item.status is ItemStatus.FAILED]

    # ------------------------------------------------------------------ the way back

    def take_back(self, phase: Side, run: StepRun) -> Wait | None:
        """Cancel what is open, wait for its end, and undo what was filled if that is the policy."""
        with run.transaction() as tx:
            plan = _plan(tx, run)
            items = plans.items(tx, plan.plan_id, phase)
            self._skip(tx, plan, items, run)
            open_ = settle_items(tx, plan, items, self._monitor, now=run.now())
            cancel_open(
                tx,
                plan.account,
                open_,
                key=f"plan-{plan.plan_id}-{phase.value}",
                actor=ACTOR,
                reason=run.failure or "the plan is stopped",
                now=run.now(),
            )
            reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
        reached(RecoveryPoint.PLAN_AFTER_COMMIT)
        if open_:
            return Wait(POLL_S, f"{len(open_)} canceled orders to end")
        return self._undo_fills(phase, run) if plan.on_failure is OnFailure.UNDO else None

    def _skip(self, tx: Connection, plan: PlanRow, items: list[ItemRow], run: StepRun) -> None:
        for item in items:
            if item.status is ItemStatus.PENDING:
                why = ItemReason.PLAN_STOPPED
                end_item(tx, plan, item, ItemStatus.SKIPPED, why, self._monitor, now=run.now())

    def _undo_fills(self, phase: Side, run: StepRun) -> Wait | None:
        waiting, delayed = 0, None
        with run.transaction() as tx:
            plan = _plan(tx, run)
            items = [i for i in plans.items(tx, plan.plan_id, phase) if i.decision_hash]
            found = outcomes(tx, [str(item.decision_hash) for item in items])
            for item in items:  # by the ledger of now: a fill may come after its order's end (P6)
                leg = leg_of(plan, item, found[str(item.decision_hash)].filled_qty)
                try:
                    how_far = undo(tx, leg, rounds=run.failures + 1, source=ACTOR, clock=run.now)
                except StepDelayed as error:  # the others go on
                    delayed = error
                    continue
                waiting += how_far is Undoing.WAITING
            reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
        reached(RecoveryPoint.PLAN_AFTER_COMMIT)
        self._wake()
        if waiting:
            return Wait(POLL_S, f"{waiting} orders that undo fills")
        if delayed is not None:
            raise delayed
        return None

    # ------------------------------------------------------------------ the end

    def finish(self, run: StepRun) -> None:
        """Every item has its end: the plan is completed."""
        self._end(run, PlanStatus.COMPLETED)

    def stopped(self, run: StepRun) -> None:
        """What was begun is canceled, and undone if that is the policy: the plan has ended."""
        with run.transaction() as tx:
            plan = _plan(tx, run)
            self._skip(tx, plan, plans.items(tx, plan.plan_id), run)
        undoes = plan.on_failure is OnFailure.UNDO
        self._end(run, PlanStatus.UNDONE if undoes else PlanStatus.STOPPED)

    def _end(self, run: StepRun, status: PlanStatus) -> None:
        with run.transaction() as tx:
            plan = _plan(tx, run)
            statistics = plan_reads.statistics(tx, plan.plan_id)
        report = PlanReport(
            plan_id=plan.plan_id,
            correlation_id=plan.correlation_id,
            account=plan.account,
            strategy=plan.strategy,
            status=status.value,
            failure=run.failure,
            statistics=statistics,
        )
        noted = self._finalise(run, report)
        now = run.now()
        with run.transaction() as tx:
            detail = "; ".join(part for part in (run.failure, noted) if part) or None
            if plans.finish(tx, plan.plan_id, status, detail=detail, now=now):
                told: dict[str, object] = {
                    "plan_id": plan.plan_id,
                    "correlation_id": plan.correlation_id,
                    "status": status.value,
                    "statistics": statistics,
                    **({} if run.failure is None else {"reason": run.failure}),
                }
                event = Event(EventKind.PLAN_ENDED, ACTOR, plan.account, None, told)
                control.add_events(tx, [event], now=now)
            reached(RecoveryPoint.PLAN_BEFORE_COMMIT)
        reached(RecoveryPoint.PLAN_AFTER_COMMIT)

    def _finalise(self, run: StepRun, report: PlanReport) -> str | None:
        """Tell the finaliser; what it raised for the last time is noted at the plan."""
        try:
            self._finaliser.finalise(report)
        except Exception as error:
            said = (
                str(error)
                if isinstance(error, TorghutError)
                else f"{type(error).__name__}: {error}"
            )
            if not run.last_try and not isinstance(error, StepFailed):
                raise StepDelayed(f"the finaliser failed: {said}") from error
            log.warning("plan finaliser failed for good", plan=report.plan_id, error=said)
            return f"the finaliser failed: {said}"
        return None


def _plan(tx: Connection, run: StepRun) -> PlanRow:
    return plans.get(tx, int(run.payload["plan_id"]))


class PlanLog:
    """The monitor and finaliser of a daemon that was given none: what happens is logged."""

    def item_changed(self, change: PlanItemChange) -> None:
        """A line for an item."""
        log.info(
            "plan item",
            plan=change.plan_id,
            position=change.position,
            status=change.status,
            reason=change.reason,
        )

    def finalise(self, report: PlanReport) -> None:
        """A line for a plan."""
        log.info(
            "plan ended",
            plan=report.plan_id,
            correlation_id=report.correlation_id,
            status=report.status,
            failure=report.failure,
        )
