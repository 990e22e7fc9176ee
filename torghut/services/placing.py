"""Placing one order: the calls to the broker, with no transaction open (P3).

```
waited too long for a caller        no POST: it is judged anew
just before any POST                trading state, lease, time: over or stricter ─▶ no POST
first attempt, no execution known   POST
a repeated attempt                  lookup ─ absent ─▶ POST      found or unanswered ─▶ no POST
answer "refused" or "exists"        … ─▶ lookup once
```

Runs on a pool thread. `place` never raises: whatever happens becomes an outcome, and a defect in
here becomes "in doubt", never "not sent".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.errors import BrokerRefused, BrokerUnavailable, DatabaseUnavailable
from torghut.domain.exposure import TradingState
from torghut.domain.orders import Order
from torghut.domain.submission import Proof
from torghut.ports import Answer, Broker, Outcome
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services.rate_budget import RateBudget
from torghut.storage.attempts import Asked
from torghut.storage.control import TradingStates, stricter
from torghut.storage.rows import DecisionRow

LOOKUP_BUDGET_WAIT_S = 5.0
WAITED_MAX_S = 10.0  # for a caller: the quote and the limits that it was judged by are older then

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A decision claimed for submission: its row is `submitting` and its attempt recorded."""

    row: DecisionRow
    attempt_no: int
    check_first: bool
    fencing_token: int
    state: TradingState  # under which it was judged
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of one claim: the answer, the lookups around it, the order if there is one."""

    row: DecisionRow
    attempt_no: int
    proof: Proof
    answer: Answer
    order: Order | None = None
    lookup: Proof | None = None
    asked: tuple[Asked, ...] = ()


class Placer:
    """Makes the calls; thread-safe, because broker and budget are.

    `state` reads the trading states: what has become stricter since the claim, by whatever process,
    keeps the order back, and so does not being able to know. `owns` says whether the account is
    still ours under a fencing token: a process that was frozen asks once more before it sends, and
    so does one whose decision ran out of time meanwhile.
    """

    def __init__(
        self,
        broker: Broker,
        budget: RateBudget,
        clock: Clock,
        *,
        state: Callable[[], TradingStates],
        owns: Callable[[int], bool],
    ) -> None:
        self._broker = broker
        self._budget = budget
        self._clock = clock
        self._state = state
        self._owns = owns

    def place(self, claim: Claim) -> Placed:
        """Ask, post, ask; see the module's table."""
        try:
            return self._place(claim)
        except Exception as error:
            log.exception("placing failed", decision_hash=claim.row.decision_hash)
            answer = Answer(outcome=Outcome.IN_DOUBT, message=f"internal: {type(error).__name__}")
            return Placed(claim.row, claim.attempt_no, Proof.IN_DOUBT, answer)

    def ask(self, row: DecisionRow, attempt_no: int) -> tuple[Asked, Order | None]:
        """Is there an order of this client_order_id? Not being able to ask proves nothing."""
        asked_at = self._clock()
        order: Order | None = None
        message = ""
        try:
            if not self._budget.wait_for_one(LOOKUP_BUDGET_WAIT_S):
                raise BrokerUnavailable("the rate budget left no room for the question")
            order = self._broker.lookup(row.decision_hash).order
            self._budget.correct(self._broker.rate_state(), now=self._clock())
            proof = Proof.ABSENT if order is None else Proof.FOUND
        except (BrokerUnavailable, BrokerRefused) as error:
            proof, message = Proof.UNANSWERED, str(error)
        asked = Asked(
            decision_id=row.decision_id,
            attempt_no=attempt_no,
            client_order_id=row.decision_hash,
            proof=proof,
            message=message,
            asked_at=asked_at,
            broker_order_id=order.broker_order_id if order else None,
        )
        return asked, order

    def _place(self, claim: Claim) -> Placed:
        row, number = claim.row, claim.attempt_no
        checks: tuple[Asked, ...] = ()
        waited_s = (self._clock() - claim.claimed_at).total_seconds()
        if waited_s > WAITED_MAX_S:
            message = f"not sent: it waited {waited_s:.1f} s for a caller, and is judged anew"
            answer = Answer(outcome=Outcome.NEVER_LEFT, message=message)
            return Placed(row, number, Proof.NOT_SENT, answer)
        if claim.check_first:
            check, order = self._check(row, number)
            if check.proof is not Proof.ABSENT:
                message = f"not sent: the lookup before it was {check.proof}"
                answer = Answer(outcome=Outcome.NEVER_LEFT, message=message)
                return Placed(row, number, Proof.NOT_SENT, answer, order, check.proof, (check,))
            checks = (check,)
        held = self._held_back(claim)
        if held is not None:
            answer = Answer(outcome=Outcome.NEVER_LEFT, message=f"not sent: {held}")
            return Placed(row, number, Proof.NOT_SENT, answer, asked=checks)
        # from here on nothing of ours can stop the call: the broker's uniqueness must (P1)
        reached(RecoveryPoint.SUBMIT_BEFORE_CALL)
        telemetry.ORDERS_SENT.labels(row.account).inc()
        answer = self._broker.submit(row.order, row.decision_hash)
        reached(RecoveryPoint.SUBMIT_AFTER_CALL)
        self._budget.correct(self._broker.rate_state(), now=self._clock())
        proof = Proof(answer.outcome.value)
        if proof not in (Proof.EXISTS, Proof.REFUSED):
            return Placed(row, number, proof, answer, answer.order, None, checks)
        check, order = self._check(row, number)
        return Placed(row, number, proof, answer, order, check.proof, (*checks, check))

    def _held_back(self, claim: Claim) -> str | None:
        """Why the order must not leave after all; the clocks last: the question takes time."""
        try:
            state, _ = self._state().of(claim.row.strategy)
        except DatabaseUnavailable as error:
            return f"the trading state could not be read: {error}"
        if stricter(state, claim.state):
            return f"trading became {state} when it came to sending"
        if not self._owns(claim.fencing_token) or claim.row.expires_at <= self._clock():
            return "its time or our lease was over when it came to sending"
        return None

    def _check(self, row: DecisionRow, attempt_no: int) -> tuple[Asked, Order | None]:
        reached(RecoveryPoint.CHECK_BEFORE_CALL)
        answer = self.ask(row, attempt_no)
        reached(RecoveryPoint.CHECK_AFTER_CALL)
        return answer
