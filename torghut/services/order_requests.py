"""Requests of an operator about orders, the same from the CLI and over HTTP.

    cancel   one decision's order, or every one under a filter, orders of others included
    replace  one decision's order by one with other values
    close    a position, or a part of it, by a decision of the strategy `operator`

A request is recorded in one transaction and worked off by whoever owns the account. Each has a
key: the same request under the same key is answered with the same rows, and does nothing again;
another one under that key is a conflict. What is asked for under a filter is what stands at that
instant: a request that found nothing leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from torghut.domain.decisions import Decision, parse_decision
from torghut.domain.errors import Fault, TorghutError
from torghut.domain.events import Event, EventKind
from torghut.domain.order_actions import (
    ACTION_ENDED,
    CHANGE_FIELDS,
    OPERATOR,
    Operation,
    parse_changes,
)
from torghut.domain.orders import Side, order_from_payload
from torghut.domain.sessions import is_crypto
from torghut.domain.values import canonical_amount, canonical_instant, parse_symbol, parse_text
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services import intake
from torghut.services.operator import REASON_LENGTH_MAX
from torghut.services.positions import Holding, holdings
from torghut.storage import control, decisions, order_actions, order_targets, queries
from torghut.storage.database import Database
from torghut.storage.durability import confirm
from torghut.storage.order_actions import ActionRow, NewAction
from torghut.storage.rows import Intake

KEY_LENGTH_MAX = 255


class RequestRefused(TorghutError):
    """The request is not usable: `faults` says why; `conflict` that its key was used otherwise."""

    def __init__(self, faults: Sequence[Fault], *, conflict: bool = False) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)
        self.conflict = conflict


class UnknownDecision(TorghutError):
    """There is no decision of this hash."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, why, under which key, and when."""

    actor: str
    reason: str
    key: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Requested:
    """The actions that a request led to, as they stand; `replayed` if it had been made before."""

    key: str
    actions: tuple[ActionRow, ...]
    replayed: bool

    @property
    def settled(self) -> bool:
        return all(action.status in ACTION_ENDED for action in self.actions)

    def as_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {
            "request_key": self.key,
            "replayed": self.replayed,
            "settled": self.settled,
            "actions": [action_json(action) for action in self.actions],
        }


def action_json(row: ActionRow) -> dict[str, object]:
    """An action as plain JSON."""
    return {
        "action_id": row.action_id,
        "operation": row.operation.value,
        "account": row.account,
        "decision_hash": row.decision_hash,
        "broker_order_id": row.broker_order_id,
        "client_order_id": row.client_order_id,
        "changes": None if row.changes is None else dict(row.changes),
        "status": row.status.value,
        "status_reason": row.status_reason,
        "status_detail": row.status_detail,
        "attempts": row.attempts,
        "new_order_id": row.new_order_id,
    }


def cancel(database: Database, decision_hash: str, asker: Asker) -> Requested:
    """Ask for one decision's order to be canceled; one not sent yet is called off.

    Raises RequestRefused, UnknownDecision, queries.HashNotUsable, DatabaseUnavailable.
    """
    asker = checked(asker)
    with database.transaction() as tx:
        found = _decision(tx, decision_hash)
        request: dict[str, object] = {
            "operation": "cancel",
            "decision_hash": found["decision_hash"],
            "symbol": found["symbol"],
        }
        action = NewAction(
            operation=Operation.CANCEL, decision_id=found["id"], target=found["decision_hash"]
        )
        answer = _record(tx, found["account"], [action], request, asker)
        reached(RecoveryPoint.REQUEST_BEFORE_COMMIT)
    reached(RecoveryPoint.REQUEST_AFTER_COMMIT)
    return answer


def cancel_all(
    database: Database,
    account: str,
    asker: Asker,
    *,
    symbol: str | None = None,
    strategy: str | None = None,
) -> Requested:
    """Ask for everything under the filter to be canceled, all of the account without one.

    Orders that are not ours are among them unless a strategy is named. Errors as `cancel`.
    """
    asker = checked(asker)
    try:
        symbol = None if symbol is None else parse_symbol(symbol)
    except ValueError as error:
        raise RequestRefused([Fault("symbol", str(error))]) from None
    request: dict[str, object] = {"operation": "cancel", "symbol": symbol, "strategy": strategy}
    with database.transaction() as tx:
        targets = order_targets.open_targets(tx, account, symbol=symbol, strategy=strategy)
        actions = [
            NewAction(
                operation=Operation.CANCEL,
                decision_id=target.decision_id,
                target=target.key,
                broker_order_id=target.broker_order_id,
            )
            for target in targets
        ]
        answer = _record(tx, account, actions, request, asker)
        reached(RecoveryPoint.REQUEST_BEFORE_COMMIT)
    reached(RecoveryPoint.REQUEST_AFTER_COMMIT)
    return answer


def cancel_order(database: Database, account: str, broker_order_id: str, asker: Asker) -> Requested:
    """Ask for one open broker order that is not ours to be canceled. Errors as `cancel`."""
    asker = checked(asker)
    request: dict[str, object] = {"operation": "cancel", "broker_order_id": broker_order_id}
    action = NewAction(
        operation=Operation.CANCEL,
        decision_id=None,
        target=broker_order_id,
        broker_order_id=broker_order_id,
    )
    with database.transaction() as tx:
        known = {target.broker_order_id for target in order_targets.open_targets(tx, account)}
        if broker_order_id not in known:
            raise RequestRefused([Fault("broker_order_id", "is no open order of somebody else")])
        answer = _record(tx, account, [action], request, asker)
        reached(RecoveryPoint.REQUEST_BEFORE_COMMIT)
    reached(RecoveryPoint.REQUEST_AFTER_COMMIT)
    return answer


def replace(
    database: Database, decision_hash: str, changes: Mapping[str, object], asker: Asker
) -> Requested:
    """Ask for a decision's order to be replaced by one with `changes` (CHANGE_FIELDS); `qty` is
    what the new order has open, shares filled before not counted. Errors as `cancel`.
    """
    asker = checked(asker)
    with database.transaction() as tx:
        found = _decision(tx, decision_hash)
        order = order_from_payload(found["symbol"], found["side"], found["payload"])
        faults = [
            Fault(str(name), "is not a known field")
            for name in changes
            if name not in CHANGE_FIELDS
        ]
        wanted = parse_changes(changes, order, faults)
        if faults:
            raise RequestRefused(faults)
        request: dict[str, object] = {
            "operation": "replace",
            "decision_hash": found["decision_hash"],
            "symbol": found["symbol"],
            "changes": wanted,
        }
        action = NewAction(
            operation=Operation.REPLACE,
            decision_id=found["id"],
            target=found["decision_hash"],
            changes=wanted,
        )
        answer = _record(tx, found["account"], [action], request, asker)
        reached(RecoveryPoint.REQUEST_BEFORE_COMMIT)
    reached(RecoveryPoint.REQUEST_AFTER_COMMIT)
    return answer


def look(database: Database, account: str, key: str) -> Requested:
    """A request's actions as they stand now."""
    with database.transaction() as tx:
        return Requested(key, tuple(order_actions.of_key(tx, account, key)), True)


def close(
    database: Database,
    account: str,
    symbol: str,
    asker: Asker,
    *,
    qty: Decimal | None,
    ttl: timedelta,
) -> Intake:
    """Plan the decision that closes a position, or `qty` of it; never more than both books hold
    and is not being closed already. The same key is answered with the same decision.
    """
    asker = checked(asker)
    with database.transaction() as tx:
        order_actions.lock_key(tx, account, asker.key)
        try:
            symbol = parse_symbol(symbol)
        except ValueError as error:
            raise RequestRefused([Fault("symbol", str(error))]) from None
        earlier = decisions.of_intent(tx, account, OPERATOR, asker.key)
        if earlier is not None:
            answer, closed, closed_qty = earlier
            if closed != symbol or qty not in (None, closed_qty):
                raise _conflict(asker.key)
            confirm(tx)
            return answer
        held = holdings(tx, account).get(symbol)
        if held is None or not held.free_qty:
            raise RequestRefused([Fault("symbol", _nothing(symbol, held))])
        if qty is not None and not 0 < qty <= held.free_qty:
            problem = f"must be more than 0 and at most {canonical_amount(held.free_qty)}"
            raise RequestRefused([Fault("qty", problem)])
        decision = closing_decision(
            account, held, qty or held.free_qty, intent=asker.key, at=asker.now, ttl=ttl
        )
        source = f"{asker.actor}: {asker.reason}"
        answer = intake.store(tx, [decision], source=source, clock=lambda: asker.now)[0]
        reached(RecoveryPoint.REQUEST_BEFORE_COMMIT)
    reached(RecoveryPoint.REQUEST_AFTER_COMMIT)
    return answer


def closing_decision(
    account: str, held: Holding, qty: Decimal, *, intent: str, at: datetime, ttl: timedelta
) -> Decision:
    """A market order against a position; `at` is when it was asked for."""
    return parse_decision(
        {
            "strategy": OPERATOR,
            "symbol": held.symbol,
            "side": (Side.SELL if held.qty > 0 else Side.BUY).value,
            "type": "market",
            "qty": canonical_amount(qty),
            "time_in_force": "gtc" if is_crypto(held.symbol) else "day",
            "event_ts": canonical_instant(at),
            "intent": intent,
        },
        account=account,
        ttl=ttl,
    )


def _record(
    tx: Connection,
    account: str,
    actions: Sequence[NewAction],
    request: Mapping[str, object],
    asker: Asker,
) -> Requested:
    order_actions.lock_key(tx, account, asker.key)
    earlier = order_actions.of_key(tx, account, asker.key)
    if earlier:
        if dict(earlier[0].request) != dict(request):
            raise _conflict(asker.key)
        confirm(tx)
        return Requested(asker.key, tuple(earlier), True)
    record_actions(tx, account, actions, request, asker)
    return Requested(asker.key, tuple(order_actions.of_key(tx, account, asker.key)), False)


def record_actions(
    tx: Connection,
    account: str,
    actions: Sequence[NewAction],
    request: Mapping[str, object],
    asker: Asker,
) -> int:
    """Insert actions with their events; returns how many were new under the asker's key."""
    created = order_actions.insert(
        tx,
        account,
        actions,
        request_key=asker.key,
        request=request,
        requested_by=asker.actor,
        reason=asker.reason,
        now=asker.now,
    )
    rows = [row for row in order_actions.of_key(tx, account, asker.key) if row.action_id in created]
    events = [
        Event(
            EventKind.ACTION_REQUESTED,
            asker.actor,
            account,
            row.decision_hash,
            {"action_id": row.action_id, "request": dict(request), "reason": asker.reason},
        )
        for row in rows
    ]
    control.add_events(tx, events, now=asker.now)
    return len(created)


def checked(asker: Asker) -> Asker:
    """The asker with clean texts. Raises RequestRefused."""
    faults: list[Fault] = []
    texts: dict[str, str] = {}
    for name, value, length_max in (
        ("reason", asker.reason.strip(), REASON_LENGTH_MAX),
        ("request_key", asker.key, KEY_LENGTH_MAX),
    ):
        try:
            texts[name] = parse_text(value, length_max=length_max)
        except ValueError as error:
            faults.append(Fault(name, str(error)))
    if faults:
        raise RequestRefused(faults)
    return Asker(actor=asker.actor, reason=texts["reason"], key=texts["request_key"], now=asker.now)


def _decision(tx: Connection, decision_hash: str) -> dict[str, Any]:
    found = queries.decision(tx, decision_hash)
    if found is None:
        raise UnknownDecision(f"no decision {decision_hash[:64]!r}; list them: torghut decisions")
    return found


def _conflict(key: str) -> RequestRefused:
    problem = f"{key!r} was used for another request; give each request its own"
    return RequestRefused([Fault("request_key", problem)], conflict=True)


def _nothing(symbol: str, held: Holding | None) -> str:
    if held is None:
        return f"{symbol} has no position"
    return (
        f"{symbol}: nothing to close: {canonical_amount(held.ledger_qty)} in our books, "
        f"{canonical_amount(held.broker_qty)} at the broker when it was last asked; the rest is "
        "being closed, or the broker's answer is old: then ask again in some seconds"
    )
