"""Flattening: an account without orders and without positions, durably asked for.

```
requested ─▶ canceling ─────────────▶ closing ─────────────────────▶ done
  state       a cancel for each open    per position: one closing       (failed: ROUNDS_MAX rounds
  reducing    order, others' too;       decision, by both books         did not do it)
              until none is open        until final; then look again
                  ▲                         │ an order has appeared
                  └─────────────────────────┘
```

Each pass reads where the request stands and takes the next step in one transaction; cancels are
ordinary order actions, closings ordinary decisions of the strategy `operator`. If power fails
anywhere, the next pass finds the same row and goes on. What is planned is never more than the
smaller of our position and the broker's, both read when nothing is open, and risk judges it as in
a reducing account: it cannot turn a position round. The account stays `reducing` afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from torghut.clock import Clock
from torghut.domain.errors import Fault
from torghut.domain.events import Event, EventKind
from torghut.domain.exposure import TradingState
from torghut.domain.lifecycle import TERMINAL
from torghut.domain.order_actions import OPERATOR, FlattenStatus, Operation
from torghut.domain.orders import Order
from torghut.domain.values import canonical_amount
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services import intake
from torghut.services.order_requests import (
    Asker,
    RequestRefused,
    checked,
    closing_decision,
    record_actions,
)
from torghut.services.outside_facts import OutsideFacts
from torghut.services.positions import Holding, holdings
from torghut.services.questions import Questions
from torghut.storage import control, flattens, order_targets
from torghut.storage.database import Database
from torghut.storage.durability import confirm
from torghut.storage.flattens import FlattenRow
from torghut.storage.leases import fence, lock_books
from torghut.storage.order_actions import NewAction
from torghut.storage.rows import Lease

ACTOR = "flattener"
ROUNDS_MAX = 5
BUDGET_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Flattening:
    """The answer to a request: where the flattening stands; `created` if this request began it."""

    row: FlattenRow
    created: bool

    def as_json(self) -> dict[str, object]:
        """Plain JSON."""
        row = self.row
        return {
            "flatten_id": row.flatten_id,
            "account": row.account,
            "request_key": row.request_key,
            "created": self.created,
            "status": row.status,
            "status_detail": row.status_detail,
            "rounds": row.rounds,
            "ended": row.ended,
        }


def request(database: Database, account: str, asker: Asker) -> Flattening:
    """Ask for the account to be flattened; while one is under way it is the answer.

    Raises RequestRefused (halted: closing orders could not be sent), DatabaseUnavailable.
    """
    asker = checked(asker)
    with database.transaction() as tx:
        state, why = control.trading_state(tx, account, lock=True)
        if state is TradingState.HALTED:
            problem = (
                f"trading is halted ({why}), and closing orders would not be sent; resume first: "
                "flattening makes the account `reducing` before anything else can be sent for it"
            )
            raise RequestRefused([Fault("account", problem)])
        row, created = flattens.request(
            tx,
            account,
            key=asker.key,
            requested_by=asker.actor,
            reason=asker.reason,
            now=asker.now,
        )
        if created:
            # at once, and not by the daemon's next pass: nothing may be opened from now on
            control.set_trading_state(
                tx,
                control.account_scope(account),
                TradingState.REDUCING,
                actor=asker.actor,
                reason=f"{row.name}: {asker.reason}",
                now=asker.now,
            )
        else:
            confirm(tx)
        reached(RecoveryPoint.REQUEST_BEFORE_COMMIT)
    reached(RecoveryPoint.REQUEST_AFTER_COMMIT)
    return Flattening(row, created)


def look(database: Database, row: FlattenRow) -> Flattening:
    """Where a flattening stands now."""
    with database.transaction() as tx:
        found = flattens.of_key(tx, row.account, row.request_key)
    assert found is not None
    return Flattening(found, False)


class Flattener:
    """Works off one account's flattening. `run_once` is called by one thread.

    `see_orders` books orders as the broker shows them; `wake` tells the executor to look.
    """

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        outside: OutsideFacts,
        *,
        see_orders: Callable[[Lease, Sequence[Order]], object],
        wake: Callable[[], None],
        decision_ttl_s: float,
        clock: Clock,
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._outside = outside
        self._see_orders = see_orders
        self._wake = wake
        self._ttl = timedelta(seconds=decision_ttl_s)
        self._clock = clock

    def run_once(self, lease: Lease, now: datetime) -> dict[str, int]:
        """The next step of the flattening under way, if there is one; returns counts.

        Raises BrokerUnavailable, BrokerRefused: then the step is taken by a later pass.
        """
        with self._database.transaction() as tx:
            row = flattens.under_way(tx, self._account)
        if row is None:
            return {}
        if row.status == FlattenStatus.REQUESTED:
            return self._step(lease, self._begin)
        listed = self._questions.ask(
            lambda broker: broker.open_orders(), budget_wait_s=BUDGET_WAIT_S, background=False
        )
        if listed:
            self._see_orders(lease, listed)
        if row.status == FlattenStatus.CANCELING:
            return self._step(lease, self._cancel)
        with self._database.transaction() as tx:
            waiting = self._waiting(tx, row)
        if not waiting and self._outside.refresh_account() is None:
            return {}
        counts = self._step(lease, self._close)
        self._wake()
        return counts

    def _step(
        self,
        lease: Lease,
        take: Callable[[Connection, FlattenRow, Lease, datetime], int],
    ) -> dict[str, int]:
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            row = flattens.under_way(tx, self._account, lock=True)
            done = 0 if row is None else take(tx, row, lease, now)
            reached(RecoveryPoint.FLATTEN_BEFORE_COMMIT)
        reached(RecoveryPoint.FLATTEN_AFTER_COMMIT)
        return {"flatten": done}

    def _begin(self, tx: Connection, row: FlattenRow, lease: Lease, now: datetime) -> int:
        return self._go_on(tx, row, FlattenStatus.CANCELING, "", lease, now)

    def _cancel(self, tx: Connection, row: FlattenRow, lease: Lease, now: datetime) -> int:
        """A cancel for everything open that has none; closing begins when nothing is open."""
        targets = order_targets.open_targets(tx, self._account)
        if not targets:
            return self._go_on(tx, row, FlattenStatus.CLOSING, "no order is open", lease, now)
        count, asked = flattens.cancels(tx, row)
        missing = [
            NewAction(
                operation=Operation.CANCEL,
                decision_id=target.decision_id,
                target=target.key,
                broker_order_id=target.broker_order_id,
            )
            for target in targets
            if target.key not in asked
        ]
        request: dict[str, object] = {"operation": "cancel", "flatten_id": row.flatten_id}
        asker = Asker(row.requested_by, row.reason, f"{row.name}-{count}", now)
        record_actions(tx, self._account, missing, request, asker)
        said = f"{len(targets)} orders are to be canceled"
        return self._go_on(tx, row, FlattenStatus.CANCELING, said, lease, now)

    def _close(self, tx: Connection, row: FlattenRow, lease: Lease, now: datetime) -> int:
        """Plan closings for what is held; done when nothing is."""
        if self._waiting(tx, row):
            return self._go_on(tx, row, FlattenStatus.CLOSING, "closing orders", lease, now)
        if order_targets.open_targets(tx, self._account):
            said = "an order has appeared meanwhile"
            return self._go_on(tx, row, FlattenStatus.CANCELING, said, lease, now)
        held = holdings(tx, self._account)
        if not held:
            return self._go_on(tx, row, FlattenStatus.DONE, "flat", lease, now)
        closable = [one for one in held.values() if one.free_qty]
        if not closable:
            said = f"waits for the books to agree: {_in_words(held.values())}"
            return self._go_on(tx, row, FlattenStatus.CLOSING, said, lease, now)
        if row.rounds >= ROUNDS_MAX:
            ends = ", ".join(f"{n} {s}" for s, n in flattens.closings(tx, row, OPERATOR).items())
            said = f"after {row.rounds} rounds ({ends}) left: {_in_words(held.values())}"
            return self._go_on(tx, row, FlattenStatus.FAILED, said, lease, now)
        batch = [
            closing_decision(
                self._account,
                one,
                one.free_qty,
                intent=f"{row.name}-{row.rounds + 1}",
                at=now,
                ttl=self._ttl,
            )
            for one in closable
        ]
        intake.store(tx, batch, source=ACTOR, clock=self._clock)
        said = f"closes {_in_words(closable)}"
        return self._go_on(tx, row, FlattenStatus.CLOSING, said, lease, now, rounds=row.rounds + 1)

    def _waiting(self, tx: Connection, row: FlattenRow) -> bool:
        return any(status not in TERMINAL for status in flattens.closings(tx, row, OPERATOR))

    def _go_on(
        self,
        tx: Connection,
        row: FlattenRow,
        after: FlattenStatus,
        said: str,
        lease: Lease,
        now: datetime,
        *,
        rounds: int | None = None,
    ) -> int:
        moved = flattens.advance(
            tx,
            row,
            after,
            detail=said,
            rounds=row.rounds if rounds is None else rounds,
            token=lease.fencing_token,
            now=now,
        )
        if moved:
            payload = {"flatten_id": row.flatten_id, "status": after.value, "detail": said}
            event = Event(EventKind.FLATTEN_CHANGED, ACTOR, self._account, None, payload)
            control.add_events(tx, [event], now=now)
        return int(moved)


def _in_words(held: Iterable[Holding]) -> str:
    return ", ".join(
        f"{one.symbol} {canonical_amount(one.ledger_qty)} (broker "
        f"{canonical_amount(one.broker_qty)})"
        for one in held
    )
