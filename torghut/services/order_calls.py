"""The calls of an order action, with no transaction open (P3): DELETE or PATCH, and the looks.

```
cancel    DELETE ─ refused ─▶ look at the order          later: look at the order
replace   halted since: no PATCH; it is judged anew
          PATCH ─ taken ────▶ look at the old order      later: look at the old order, then ask
                └ not clear ▶ the same                          for the new client_order_id
```

A look at an order that was replaced takes its successor along. `act` never raises: whatever
happens becomes an outcome, and a question that fails proves nothing (P4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from torghut.clock import Clock
from torghut.domain.errors import BrokerRefused, BrokerUnavailable, DatabaseUnavailable
from torghut.domain.exposure import TradingState
from torghut.domain.order_actions import Operation, Seen, seen
from torghut.domain.orders import Order
from torghut.domain.submission import Proof
from torghut.ports import Answer, Broker, Outcome
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services.rate_budget import RateBudget
from torghut.storage.control import TradingStates, stricter
from torghut.storage.order_actions import ActionRow

BUDGET_WAIT_S = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What to do for one action: call (its row is `sending`) with `changes`, or only look.

    `judged` is the strategy of a replacement, and the trading state under which it was judged.
    """

    row: ActionRow
    call: bool
    changes: Mapping[str, object] | None = None
    judged: tuple[str, TradingState] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What became of one task: the answer, how the order was seen, the orders to book."""

    row: ActionRow
    proof: Proof | None = None
    answer: Answer | None = None
    order: Seen = Seen.UNANSWERED
    successor: Proof | None = None
    new_order_id: str | None = None
    orders: tuple[Order, ...] = ()
    message: str = ""


class OrderCaller:
    """Makes the calls; thread-safe. `state` reads the trading states: a replacement does not leave
    when they have become stricter since it was judged, or cannot be read. `owns` says whether the
    account is ours under a token."""

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

    def act(self, task: Task) -> Acted:
        """Call, if it is to be called, and look; see the module's table."""
        try:
            return self._act(task)
        except Exception as error:
            log.exception("order action failed", action_id=task.row.action_id)
            message = f"internal: {type(error).__name__}"
            proof = Proof.IN_DOUBT if task.call else None
            return Acted(row=task.row, proof=proof, message=message)

    def _act(self, task: Task) -> Acted:
        if not task.call:
            return self._look(Acted(row=task.row))
        row = task.row
        held = self._held_back(task)
        if held is not None:
            message = f"not sent: {held}"
            answer = Answer(outcome=Outcome.NEVER_LEFT, message=message)
            return Acted(row=row, proof=Proof.NOT_SENT, answer=answer, message=message)
        # from here on nothing of ours can stop the call: a cancel may come twice, a replacement
        # is stopped by its client_order_id and by the old order's end (P1)
        reached(RecoveryPoint.ACTION_BEFORE_CALL)
        answer = self._send(task)
        reached(RecoveryPoint.ACTION_AFTER_CALL)
        self._budget.correct(self._broker.rate_state(), now=self._clock())
        proof = Proof(answer.outcome.value)
        acted = Acted(row=row, proof=proof, answer=answer, message=_words(answer))
        if proof in (Proof.RATE_LIMITED, Proof.NEVER_LEFT):
            return acted
        if row.operation is Operation.CANCEL and proof in (Proof.ACCEPTED, Proof.IN_DOUBT):
            return acted
        if answer.order is not None:
            acted = replace(
                acted,
                orders=(answer.order,),
                successor=Proof.FOUND,
                new_order_id=answer.order.broker_order_id,
            )
        return self._look(acted)

    def _held_back(self, task: Task) -> str | None:
        """Why the call must not be made after all; the lease last: the other looks take time."""
        if not self._budget.wait_for_one(BUDGET_WAIT_S):
            return "the rate budget left no room"
        if task.judged is not None:
            strategy, judged_under = task.judged
            try:
                state, _ = self._state().of(strategy)
            except DatabaseUnavailable as error:
                return f"the trading state could not be read: {error}"
            if stricter(state, judged_under):
                return f"trading became {state} when it came to sending"
        return None if self._owns(task.row.fencing_token) else "our lease was over"

    def _send(self, task: Task) -> Answer:
        row = task.row
        assert row.broker_order_id is not None
        if row.operation is Operation.CANCEL:
            return self._broker.cancel(row.broker_order_id)
        assert row.client_order_id is not None and task.changes is not None
        return self._broker.replace(row.broker_order_id, task.changes, row.client_order_id)

    def _look(self, acted: Acted) -> Acted:
        """The order, its successor if it was replaced, and what a replacement's id stands for."""
        row = acted.row
        id_ = row.broker_order_id
        assert id_ is not None
        order, message = self._ask(lambda broker: broker.get_order(id_))
        found = [] if order is None else [order]
        acted = replace(
            acted,
            order=seen(order.status if order else None, answered=not message),
            message=acted.message or message,
        )
        if order is not None and order.replaced_by is not None:
            by = order.replaced_by
            successor, _ = self._ask(lambda broker: broker.get_order(by))
            found += [] if successor is None else [successor]
        if row.operation is Operation.REPLACE and acted.successor is None:
            acted = self._settle_successor(acted, found)
        return replace(acted, orders=(*acted.orders, *found))

    def _settle_successor(self, acted: Acted, found: list[Order]) -> Acted:
        wanted = acted.row.client_order_id
        assert wanted is not None
        named = [order for order in found if order.client_order_id == wanted]
        proof = Proof.FOUND
        if not named:
            order, message = self._ask(lambda broker: broker.lookup(wanted).order)
            if order is not None:
                found.append(order)
                named = [order]
            else:
                proof = Proof.UNANSWERED if message else Proof.ABSENT
                acted = replace(acted, message=acted.message or message)
        new_id = named[0].broker_order_id if named else None
        return replace(acted, successor=proof, new_order_id=new_id)

    def _ask(self, question: Callable[[Broker], Order | None]) -> tuple[Order | None, str]:
        """The answer, and why there is none: empty text is a definite "no such order"."""
        try:
            if not self._budget.wait_for_one(BUDGET_WAIT_S):
                return None, "the rate budget left no room for the question"
            return question(self._broker), ""
        except (BrokerUnavailable, BrokerRefused) as error:
            return None, str(error) or "not answered"
        finally:
            self._budget.correct(self._broker.rate_state(), now=self._clock())


def _words(answer: Answer) -> str:
    parts = [str(answer.http_status or ""), answer.broker_code or "", answer.message]
    return " ".join(part for part in parts if part)
