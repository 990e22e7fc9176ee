"""One decision as a saga, shipped as an example and of use by itself.

```
validate_signal ─▶ check_risk ─▶ execute_order ─▶ update_records
   it parses, and    the decision    its order has     what was filled,
   is in time        is stored, and  ended, and was    from the fill ledger
                     risk approves   filled
                        ▲ called off    ▲ canceled; what was filled stays, or is undone
```

The decision takes the path of every decision; the saga waits for it and cleans up behind it. Start
one with `torghut order FILE|-`. The same decision again is the same saga.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from torghut.domain.decisions import Decision, parse_decision
from torghut.domain.errors import InvalidDecision
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.sagas import StepFailed
from torghut.domain.values import canonical_amount, canonical_instant
from torghut.services import intake, sagas
from torghut.services.saga_orders import UNDO_TTL, Leg, Undoing, cancel_open, undo
from torghut.services.sagas import Saga, Step, StepRun, Wait
from torghut.storage.database import Database
from torghut.storage.order_outcomes import OrderOutcome, outcomes
from torghut.storage.rows import IntakeResult

ORDER_SAGA = "order"
ACTOR = "order-saga"
POLL_S = 0.25
STEPS = ("validate_signal", "check_risk", "execute_order", "update_records")


@dataclass(frozen=True, slots=True)
class OrderSteps:
    """The saga; `wake` tells the executor that there is a decision."""

    wake: Callable[[], None]

    def saga(self) -> Saga:
        """The kind of saga that carries one decision out."""
        return Saga(
            ORDER_SAGA,
            (
                Step(STEPS[0], self.validate_signal),
                Step(STEPS[1], self.check_risk, self.call_off),
                Step(STEPS[2], self.execute_order, self.take_back),
                Step(STEPS[3], self.update_records),
            ),
        )

    def validate_signal(self, run: StepRun) -> Mapping[str, object]:
        """It is a decision, and may still trade."""
        decision = _decision(run)
        if run.now() >= decision.expires_at:
            raise StepFailed(f"its expires_at, {canonical_instant(decision.expires_at)}, is over")
        return {"decision_hash": decision.decision_hash}

    def check_risk(self, run: StepRun) -> Mapping[str, object] | Wait:
        """Store the decision, and wait for the verdict."""
        decision = _decision(run)
        with run.transaction() as tx:
            answer = intake.store(tx, [decision], source=ACTOR, clock=run.now)[0]
        if answer.result is IntakeResult.CONFLICT:
            raise StepFailed(f"another order has its identity: {', '.join(answer.differing)}")
        if answer.result is IntakeResult.CREATED:
            self.wake()
        found = _outcome(run, decision)
        if found.status is DecisionStatus.PLANNED:
            return Wait(POLL_S, "the verdict of risk")
        if found.status in (DecisionStatus.DENIED, DecisionStatus.EXPIRED):
            raise StepFailed(f"{found.status}: {found.reason}")
        return {"status": found.status.value}

    def execute_order(self, run: StepRun) -> Mapping[str, object] | Wait:
        """Wait until the order has ended and its fills are booked."""
        decision = _decision(run)
        found = _outcome(run, decision)
        if not found.settled:
            if run.now() >= decision.expires_at:
                raise StepFailed("its order is still open at its expires_at")
            return Wait(POLL_S, f"the end of its order; the decision is {found.status}")
        if not found.filled_qty:
            raise StepFailed(f"nothing was filled: {found.status} {found.reason or ''}".rstrip())
        return {"status": found.status.value}

    def update_records(self, run: StepRun) -> Mapping[str, object]:
        """What was filled, and at which price on average."""
        found = _outcome(run, _decision(run))
        return {
            "filled_qty": canonical_amount(found.filled_qty),
            "filled_value": canonical_amount(found.filled_value.normalize()),
            "avg_px": canonical_amount((found.filled_value / found.filled_qty).normalize()),
        }

    def call_off(self, run: StepRun) -> Wait | None:
        """Cancel what may be live, and wait for its end; what has the decision's identity and
        another payload is somebody else's, and stays."""
        decision = _decision(run)
        with run.transaction() as tx:
            found = [
                one
                for one in outcomes(tx, [decision.decision_hash]).values()
                if one.payload_digest == decision.payload_digest
            ]
            cancel_open(
                tx,
                run.account,
                found,
                key=f"saga-{run.saga_id}",
                actor=ACTOR,
                reason=run.failure or "the saga is undone",
                now=run.now(),
            )
        if any(not one.settled for one in found):
            return Wait(POLL_S, "the canceled order to end")
        return None

    def take_back(self, run: StepRun) -> Wait | None:
        """The same, and what was filled is undone if that is the policy."""
        waits = self.call_off(run)
        if waits is not None or run.payload["on_failure"] != "undo":
            return waits
        decision = _decision(run)
        leg = Leg(
            account=decision.account,
            strategy=decision.strategy,
            symbol=decision.order.symbol,
            side=decision.order.side,
            event_ts=decision.event_ts,
            intent=decision.decision_hash,
            correlation_id=decision.correlation_id,
            filled_qty=_outcome(run, decision).filled_qty,
        )
        with run.transaction() as tx:
            how_far = undo(tx, leg, rounds=run.failures + 1, source=ACTOR, clock=run.now)
        self.wake()
        return (
            Wait(POLL_S, "the order that undoes the fill") if how_far is Undoing.WAITING else None
        )


def start_order(
    database: Database, decision: Decision, *, undo_fills: bool, actor: str, now: datetime
) -> tuple[int, bool]:
    """Start the saga of a decision; its id, and True if it is new.

    Raises sagas.SagaConflict, DatabaseUnavailable.
    """
    fields: dict[str, object] = {
        **decision.payload(),
        "strategy": decision.strategy,
        "symbol": decision.order.symbol,
        "side": decision.order.side.value,
        "event_ts": canonical_instant(decision.event_ts),
        "expires_at": canonical_instant(decision.expires_at),
        "intent": decision.intent,
        "correlation_id": decision.correlation_id,
    }
    payload = {"decision": fields, "on_failure": "undo" if undo_fills else "keep"}
    with database.transaction() as tx:
        return sagas.start(
            tx,
            ORDER_SAGA,
            STEPS,
            account=decision.account,
            key=decision.decision_hash,
            payload=payload,
            actor=actor,
            now=now,
        )


def _decision(run: StepRun) -> Decision:
    try:
        return parse_decision(run.payload["decision"], account=run.account, ttl=UNDO_TTL)
    except InvalidDecision as error:
        raise StepFailed(str(error)) from None


def _outcome(run: StepRun, decision: Decision) -> OrderOutcome:
    with run.transaction() as tx:
        return outcomes(tx, [decision.decision_hash])[decision.decision_hash]
