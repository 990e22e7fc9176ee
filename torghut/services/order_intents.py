"""What a requested action leads to: the one transaction before its call.

```
cancel   an order stands ──────────────▶ sending        replace  halted, shadow mode ─▶ refused
         planned, approved ────────────▶ called off              enlarges ─ judge ─ no ▶ refused
         submitting, in doubt ─────────▶ waits                   another one in doubt ─▶ waits
         ended ────────────────────────▶ done, moot              else ─▶ -rN recorded, sending
```

Runs inside the order desk's transaction, with the books, the judges and the lease locked, and
leaves committing to it. A replacement keeps the order and the client_order_id that its first
call had: those two together are why it can be sent again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from torghut.config import Settings
from torghut.domain.deny_reasons import DenyReason
from torghut.domain.events import Event, EventKind
from torghut.domain.exposure import TradingState
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.order_actions import (
    ActionReason,
    ActionStatus,
    ActionStep,
    Operation,
    Seen,
    changed,
    enlarges,
    replacement_id,
    seen,
)
from torghut.domain.order_rules import broken_rules
from torghut.domain.orders import OrderRequest, TimeInForce
from torghut.domain.values import canonical_amount
from torghut.services import risk_engine
from torghut.services.limit_reload import PolicyInForce
from torghut.services.order_calls import Task
from torghut.services.risk_engine import FACTS_RETRY_S, Outside
from torghut.storage import control, decisions, executions, order_actions
from torghut.storage.decisions import Advance
from torghut.storage.order_actions import ActionRow, Standing
from torghut.storage.rows import DecisionRow, Lease

ACTOR = "order_desk"
WAIT_S = 0.25
_UNSENT = (DecisionStatus.PLANNED, DecisionStatus.APPROVED)
_UNKNOWN = (DecisionStatus.SUBMITTING, DecisionStatus.IN_DOUBT)

Said = tuple[ActionStep, str]


class IntentWriter:
    """Takes up requested actions of one account."""

    def __init__(self, account: str, policy: PolicyInForce, settings: Settings) -> None:
        self._account = account
        self._policy = policy
        self._settings = settings

    def wants(self, *names: str) -> bool:
        """True if one of these limits is on: its facts are needed."""
        return self._policy.current.uses(*names)

    def take_up(
        self, tx: Connection, row: ActionRow, outside: Outside, lease: Lease, now: datetime
    ) -> Task | Said:
        """The call to make, its intent written; or the step that the action takes without one."""
        decision = None
        if row.decision_hash is not None:
            decision = decisions.by_hashes(tx, [row.decision_hash])[row.decision_hash]
        if row.operation is Operation.CANCEL:
            return self._cancel(tx, row, decision, lease, now)
        assert decision is not None
        return self._replace(tx, row, decision, outside, lease, now)

    # ------------------------------------------------------------------ cancel

    def _cancel(
        self,
        tx: Connection,
        row: ActionRow,
        decision: DecisionRow | None,
        lease: Lease,
        now: datetime,
    ) -> Task | Said:
        orders = self._orders(tx, row, decision)
        open_ = [order for order in orders if not order.terminal]
        # one that was replaced and whose successor we do not know is asked for, and so followed
        target = open_[-1] if open_ else _unknown_successor(orders)
        if target is not None:
            return self._send(tx, row, target.broker_order_id, None, None, lease, now)
        if orders:
            return ended(orders[-1].status, orders[-1].cum_qty)
        if decision is None:
            return ActionStep(ActionStatus.MOOT, ActionReason.ORDER_UNKNOWN), "not in our books"
        # an order that was adopted before its decision came is no reason to say it was not sent
        found = executions.existing(tx, [decision.decision_hash])
        if decision.status in _UNSENT and not found:
            return self._call_off(tx, row, decision, lease, now)
        if decision.status in (*_UNSENT, *_UNKNOWN, DecisionStatus.SUBMITTED):
            return _wait(ActionReason.WAITS_FOR_DECISION, f"it is {decision.status}")
        step = ActionStep(ActionStatus.MOOT, ActionReason.DECISION_ENDED)
        return step, f"the decision is {decision.status}"

    def _orders(
        self, tx: Connection, row: ActionRow, decision: DecisionRow | None
    ) -> list[Standing]:
        if decision is not None:
            return order_actions.standing_of_decision(tx, decision.decision_id)
        order = order_actions.standing_of_order(tx, row.broker_order_id or row.target)
        if (
            order is not None and order.decision_id is not None
        ):  # adopted, and then found to be ours
            return order_actions.standing_of_decision(tx, order.decision_id)
        return [] if order is None else [order]

    def _call_off(
        self, tx: Connection, row: ActionRow, decision: DecisionRow, lease: Lease, now: datetime
    ) -> Said:
        """planned → approved → canceled in one transaction: nobody sees it approved."""
        status, path = decision.status, (DecisionStatus.APPROVED, DecisionStatus.CANCELED)
        for after in path[path.index(status) + 1 :] if status in path else path:
            step = Advance(
                decision_id=decision.decision_id,
                before=status,
                after=after,
                reason=Reason.CANCELED_BY_OPERATOR.value,
                detail=f"{row.requested_by}: {row.reason}",
                due_at=now,
            )
            if not decisions.advance(tx, [step], token=lease.fencing_token, now=now):
                return _wait(ActionReason.WAITS_FOR_DECISION, "it moved meanwhile")
            status = after
        event = Event(
            EventKind.DECISION_CANCELED,
            row.requested_by,
            self._account,
            decision.decision_hash,
            {"reason": Reason.CANCELED_BY_OPERATOR.value},
        )
        control.add_events(tx, [event], now=now)
        return ActionStep(ActionStatus.DONE, ActionReason.CALLED_OFF), "it had not been sent"

    # ------------------------------------------------------------------ replace

    def _replace(
        self,
        tx: Connection,
        row: ActionRow,
        decision: DecisionRow,
        outside: Outside,
        lease: Lease,
        now: datetime,
    ) -> Task | Said:
        if order_actions.replacing(tx, decision.decision_id):
            return _wait(ActionReason.WAITS_FOR_REPLACE, "")
        orders = order_actions.standing_of_decision(tx, decision.decision_id)
        orders = [order for order in orders if not order.exit]
        if row.client_order_id is not None:
            made = [o for o in orders if o.client_order_id == row.client_order_id]
            if made:
                step = ActionStep(ActionStatus.DONE, ActionReason.ORDER_REPLACED)
                return step, f"by {made[0].broker_order_id}"
            orders = [o for o in orders if o.broker_order_id == row.broker_order_id]
        open_ = [order for order in orders if not order.terminal]
        if open_:
            return self._judge(tx, row, decision, open_[-1], outside, lease, now)
        if orders and row.client_order_id is not None and orders[-1].status == "replaced":
            return ActionStep(ActionStatus.MOOT, ActionReason.REPLACED_BY_OTHER), ""
        if _unknown_successor(orders) is not None:
            return _wait(ActionReason.WAITS_FOR_REPLACE, "its successor is not known yet")
        if orders:
            said = f"the order is {orders[-1].status}"
            return ActionStep(ActionStatus.MOOT, ActionReason.ORDER_ENDED), said
        if decision.status in (*_UNSENT, *_UNKNOWN, DecisionStatus.SUBMITTED):
            return _wait(ActionReason.WAITS_FOR_DECISION, f"it is {decision.status}")
        step = ActionStep(ActionStatus.MOOT, ActionReason.DECISION_ENDED)
        return step, f"the decision is {decision.status}"

    def _judge(
        self,
        tx: Connection,
        row: ActionRow,
        decision: DecisionRow,
        order: Standing,
        outside: Outside,
        lease: Lease,
        now: datetime,
    ) -> Task | Said:
        states = control.trading_states(tx, self._account, lock=True)
        state = states.of(decision.strategy)
        if state[0] is TradingState.HALTED:
            return _denied(DenyReason.TRADING_HALTED, state[1])
        if not self._settings.trading_enabled:
            return _denied(DenyReason.TRADING_HALTED, "TORGHUT_TRADING_ENABLED is false")
        if not order.leaves_qty:
            step = ActionStep(ActionStatus.REFUSED, ActionReason.NOT_REPLACEABLE)
            return step, "its open quantity is not known"
        assert row.changes is not None
        changes = dict(row.changes)
        if order.cum_qty:
            # else the broker would take the original quantity, filled shares once more
            changes.setdefault("qty", canonical_amount(order.leaves_qty))
        before = _as_it_stands(decision.order, order)
        wanted = changed(before, changes)
        assert wanted.qty is not None
        if wanted == before:
            step = ActionStep(ActionStatus.REFUSED, ActionReason.NOT_REPLACEABLE)
            return step, "it has these values already"
        if self._policy.current.switches.check_order_rules and (
            broken := _newly_broken(before, wanted, now)
        ):
            return _denied(DenyReason.ORDER_RULE, broken)
        if enlarges(before, wanted):
            verdict = risk_engine.judge_replacement(
                tx,
                self._account,
                decision,
                wanted,
                order.leaves_qty,
                row.action_id,
                outside,
                self._policy.current,
                states,
                settings=self._settings,
                now=now,
            )
            wait = timedelta(seconds=self._settings.facts_wait_s)
            if verdict.deny_reason is DenyReason.FACTS_UNAVAILABLE and now - row.created_at < wait:
                return ActionStep(
                    ActionStatus.REQUESTED, ActionReason.FACTS_AWAITED, FACTS_RETRY_S
                ), ""
            if verdict.deny_reason is not None:
                return _denied(verdict.deny_reason, "")
        sending = self._send(tx, row, order.broker_order_id, wanted.qty, changes, lease, now)
        if not isinstance(sending, Task):
            return sending
        return replace(sending, judged=(decision.strategy, state[0]))

    def _send(
        self,
        tx: Connection,
        row: ActionRow,
        broker_order_id: str,
        open_qty: Decimal | None,
        changes: dict[str, object] | None,
        lease: Lease,
        now: datetime,
    ) -> Task | Said:
        client_order_id = row.client_order_id
        if row.operation is Operation.REPLACE and client_order_id is None:
            assert row.decision_id is not None and row.decision_hash is not None
            number = order_actions.replaces_recorded(tx, row.decision_id) + 1
            client_order_id = replacement_id(row.decision_hash, number)
        if not order_actions.begin(
            tx,
            row,
            broker_order_id=broker_order_id,
            client_order_id=client_order_id,
            open_qty=open_qty,
            token=lease.fencing_token,
            now=now,
        ):
            return _wait(ActionReason.WAITS_FOR_DECISION, "it moved meanwhile")
        payload: dict[str, object] = {
            "action_id": row.action_id,
            "operation": row.operation.value,
            "broker_order_id": broker_order_id,
            "attempt_no": row.attempts + 1,
        }
        if client_order_id is not None:
            payload["client_order_id"] = client_order_id
        event = Event(EventKind.ACTION_STARTED, ACTOR, self._account, row.decision_hash, payload)
        control.add_events(tx, [event], now=now)
        sent = replace(
            row,
            status=ActionStatus.SENDING,
            attempts=row.attempts + 1,
            looks=0,
            misses=0,
            outcome=None,
            broker_order_id=broker_order_id,
            client_order_id=client_order_id,
            open_qty=open_qty,
            fencing_token=lease.fencing_token,
        )
        return Task(sent, call=True, changes=changes)


def ended(status: str, cum_qty: Decimal) -> Said:
    """The end of a cancel whose order has ended as `status`."""
    said = f"the order is {status}, {canonical_amount(cum_qty)} filled"
    if seen(status) is Seen.CANCELED:
        return ActionStep(ActionStatus.DONE, ActionReason.ORDER_CANCELED), said
    return ActionStep(ActionStatus.MOOT, ActionReason.ORDER_ENDED), said


def _as_it_stands(asked: OrderRequest, order: Standing) -> OrderRequest:
    """The decision's order with what is open of it, and the prices of the replacement it may be."""
    return replace(
        asked,
        qty=order.leaves_qty,
        notional=None,
        limit_price=order.limit_price or asked.limit_price,
        stop_price=order.stop_price or asked.stop_price,
        time_in_force=(
            TimeInForce(order.time_in_force)
            if order.time_in_force in set(TimeInForce)
            else asked.time_in_force
        ),
    )


def _newly_broken(before: OrderRequest, wanted: OrderRequest, now: datetime) -> str:
    """The broker's rules that the replacement breaks and the order does not, in words."""
    kept = {rule.code for rule in broken_rules(before, now)}
    broken = [rule for rule in broken_rules(wanted, now) if rule.code not in kept]
    return "; ".join(f"{rule.code}: {rule.measured}, wanted {rule.limit}" for rule in broken)


def _unknown_successor(orders: list[Standing]) -> Standing | None:
    """The newest order, if it was replaced: a known successor would be newer."""
    return orders[-1] if orders and orders[-1].status == "replaced" else None


def _wait(reason: ActionReason, said: str) -> Said:
    return ActionStep(ActionStatus.REQUESTED, reason, WAIT_S), said


def _denied(reason: DenyReason, said: str) -> Said:
    step = ActionStep(ActionStatus.REFUSED, ActionReason.DENIED_BY_RISK)
    return step, f"{reason.value} {said}".strip()
