"""Does it hold? The broker's book and what it answered, against the history of the database.

The history is written by triggers, one row for each step, with the process that took it, the lease
as it was then, and a stamp that orders it among what happened at the broker. So each step is judged
by what was known in that instant, though all are looked at when the run is over.

| promise | what is looked at |
|---|---|
| P1 | one order for each decision, whatever its id |
| P2 | what was acknowledged is there; what ended without an order has none that was there before |
| P4 | a step that says "no order" rests on answers that the broker gave |
| P5 | steps of the table, by the lease's owner, under its token; a lease ends before the next |
| P7 | orders live at once, and positions that they may become, against the limits |
| P12, P6 | in the end every order and position is in our books; late orders are shown |
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tests.simulation.book import Booked
from tests.simulation.driver import Session
from tests.simulation.line import Post
from tests.simulation.plan import GRACE_S, qty_of
from torghut.domain.orders import OrderStatus
from torghut.ports import Outcome

if TYPE_CHECKING:
    from tests.simulation.world import World

STEPS = {
    "planned": {"approved", "denied", "expired"},
    "approved": {"submitting", "expired", "canceled"},
    "submitting": {"submitted", "rejected", "in_doubt", "approved"},
    "in_doubt": {"submitted", "rejected", "approved", "expired"},
    "submitted": {"closed"},
}
"""The life cycle as the design says it, not as the code does."""

TERMINAL = frozenset({"closed", "denied", "rejected", "expired", "canceled"})
WITHOUT_ORDER = TERMINAL - {"closed"}
MISSES = 3
NOT_TAKEN = frozenset({Outcome.NEVER_LEFT, Outcome.RATE_LIMITED, Outcome.ACCOUNT_REFUSED})

_HISTORY = text("SELECT * FROM virtual.history WHERE account = :account ORDER BY seq")
_DECISIONS = text("""SELECT decision_hash, status, status_reason, expires_at
FROM trade_decisions WHERE account = :account ORDER BY decision_id""")
_ATTEMPTS = text("""SELECT client_order_id, attempt_no, outcome FROM submission_attempts
JOIN trade_decisions d USING (decision_id)
WHERE d.account = :account AND operation = 'submit' ORDER BY attempt_id""")
_EXECUTIONS = text("""SELECT e.broker_order_id, e.client_order_id, e.status, e.cum_qty,
  e.ledger_qty, d.decision_hash, (SELECT v.status FROM execution_events v
    WHERE v.execution_id = e.execution_id ORDER BY v.execution_event_id LIMIT 1) AS first_seen
FROM executions e LEFT JOIN trade_decisions d USING (decision_id) WHERE e.account = :account""")
_DISCREPANCIES = text("""SELECT kind, subject FROM discrepancies
WHERE account = :account AND (resolved_at IS NULL OR kind = 'order_after_end')
ORDER BY discrepancy_id""")
_POSITIONS = text("SELECT symbol, qty FROM positions WHERE account = :account")
_ACTIONS = text("""SELECT decision_hash FROM order_actions a JOIN trade_decisions d
USING (decision_id) WHERE a.account = :account AND a.operation = 'cancel'""")


class Judge:
    """Looks at one run; what does not hold goes to the world's violations."""

    def __init__(self, world: World, session: Session) -> None:
        self._world = world
        self._session = session
        self._history: dict[str, list[Any]] = {}
        self._outcomes: dict[tuple[str, int], str | None] = {}

    def look(self, *, ended: bool) -> None:
        """Everything; with `ended` also what must hold only when all is over."""
        world = self._world
        rows = self._rows(_HISTORY)
        for row in rows:
            if row.kind == "decision":
                self._history.setdefault(row.subject, []).append(row)
        self._outcomes = {
            (row.client_order_id, row.attempt_no): row.outcome for row in self._rows(_ATTEMPTS)
        }
        for row in rows:
            if row.kind == "lease":
                self._lease(row)
            else:
                self._writer(row)
        for hash_, steps in self._history.items():
            before: Any = None
            for row in steps:
                if row.before != row.after and row.before is not None:
                    self._step(hash_, row, before)
                if row.before != row.after:
                    before = row
        self._orders()
        self._limits()
        for hash_ in world.seen.acknowledged - self._history.keys():
            world.violated("P2", f"{world.name(hash_)} was acknowledged and is not there")
        if ended:
            self._end()

    def _rows(self, query: Any) -> Sequence[Any]:
        return self._session.execute(query, {"account": self._world.account}).all()

    # ------------------------------------------------------------------ P5: who writes

    def _lease(self, row: Any) -> None:
        violated = self._world.violated
        if row.before is not None and row.after is not None and row.lease_valid:
            violated("P5", f"{row.after} took the lease of {row.before}, which was valid")
        if row.after is None and row.process != row.before:
            violated("P5", f"{row.process} released the lease of {row.before}")
        if row.after is not None and row.token <= (row.token_before or 0):
            violated("P5", f"{row.after} has the lease under the old token {row.token}")

    def _writer(self, row: Any) -> None:
        if row.kind == "decision" and row.before is None:
            return  # intake is open on every replica
        if row.process != row.lease_owner or not row.lease_valid:
            what = f"{row.before} → {row.after} of {self._world.name(row.subject)}"
            self._world.violated("P5", f"{row.process} wrote {what}; owner: {row.lease_owner}")
        elif row.token != row.lease_token and row.before != "submitted":
            self._world.violated("P5", f"{row.process} wrote under the token {row.token}")

    # ------------------------------------------------------------------ P4, P5: each step

    def _step(self, hash_: str, row: Any, entered: Any) -> None:
        world = self._world
        what = f"{world.name(hash_)} {row.before} → {row.after}"
        if row.after not in STEPS.get(row.before, ()):
            world.violated("P5", f"{what} is no step")
            return
        order = self._order(hash_, row.stamp)
        match row.before, row.after:
            case (("submitting" | "in_doubt"), "submitted"):
                if order is None:
                    world.violated("P4", f"{what}, but no such order is there")
            case "submitted", "closed":
                live = [o for o in self._orders_of(hash_) if o.ended is None or o.ended > row.stamp]
                if live or order is None:
                    world.violated("P2", f"{what} while its order lives")
            case "submitting", "approved":
                post = self._post(hash_, entered, row)
                if post is not None and post.outcome not in NOT_TAKEN:
                    world.violated("P4", f"{what} after a POST that came to {post.outcome}")
            case "submitting", "rejected":
                self._refused(what, hash_, row, self._post(hash_, entered, row))
            case "in_doubt", _:
                self._absence(what, hash_, row, entered)
            case _, "expired":
                expires_at = self._expires_at(hash_)
                if row.due_at < expires_at:
                    world.violated("P4", f"{what} before its time")

    def _refused(self, what: str, hash_: str, row: Any, post: Post | None) -> None:
        """A refusal is believed when the broker also says that there is no order."""
        world = self._world
        if post is None or post.outcome is not Outcome.REFUSED or post.answered is None:
            world.violated("P4", f"{what}, but the broker refused nothing")
        elif not any(post.answered < a.stamp < row.stamp for a in self._absents(hash_)):
            world.violated("P4", f"{what} without asking whether the order lives")

    def _absence(self, what: str, hash_: str, row: Any, entered: Any) -> None:
        """Absent: three times since the doubt began, the last one after the grace."""
        world = self._world
        absents = [a for a in self._absents(hash_) if entered.stamp < a.stamp < row.stamp]
        graced = row.doubt_since + timedelta(seconds=GRACE_S)
        if len(absents) < MISSES:
            world.violated("P4", f"{what} after {len(absents)} misses")
        elif not world.plan.skewed and absents[-1].at < graced:
            world.violated("P4", f"{what} within the grace")
        outcome = self._outcomes.get((hash_, row.attempts))
        if outcome == "exists":
            world.violated("P4", f"{what} although the broker said that it has the order")
        if row.after == "rejected" and outcome != "refused":
            world.violated("P4", f"{what}, but the broker refused nothing")

    def _post(self, hash_: str, entered: Any, row: Any) -> Post | None:
        """The POST of the attempt that began with `entered`, by the process that began it."""
        for post in self._world.seen.posts:
            mine = (post.client_order_id, post.process) == (hash_, entered.process)
            if mine and entered.stamp < post.sent < row.stamp:
                return post
        return None

    def _absents(self, hash_: str) -> list[Any]:
        return [a for a in self._world.seen.absents if a.client_order_id == hash_]

    def _expires_at(self, hash_: str) -> Any:
        (decision,) = [d for d in self._world.plan.decisions if d.decision_hash == hash_]
        return decision.expires_at

    # ------------------------------------------------------------------ P1, P2, P7: the broker

    def _orders_of(self, hash_: str) -> list[Booked]:
        """All orders that are the decision's, whatever id they came under."""
        (decision,) = [d for d in self._world.plan.decisions if d.decision_hash == hash_]
        return [
            order
            for order in self._world.book.orders
            if not order.external and order.qty == qty_of(decision)
        ]

    def _order(self, hash_: str, stamp: int) -> Booked | None:
        order = self._world.book.by_client_id.get(hash_)
        return order if order is not None and order.arrived < stamp else None

    def _orders(self) -> None:
        for decision in self._world.plan.decisions:
            orders = self._orders_of(decision.decision_hash)
            if len(orders) > 1:
                name = self._world.name(decision.decision_hash)
                self._world.violated("P1", f"{name} has {len(orders)} orders")

    def status_at(self, hash_: str, stamp: int) -> str:
        """The decision's status when the stamp was given."""
        status = ""
        for row in self._history.get(hash_, ()):
            if row.stamp < stamp:
                status = row.after
        return status

    def late(self, order: Booked) -> bool:
        """It came when the broker had been believed that there is none: a named assumption."""
        status = self.status_at(order.client_order_id, order.arrived)
        return status not in ("submitting", "in_doubt", "submitted", "closed")

    def _limits(self) -> None:
        """At each arrival: what is live, and what the position may become, within the limits."""
        plan, book = self._world.plan, self._world.book
        own = [o for o in book.orders if not o.external and not self.late(o)]
        for order in own:
            live = [o for o in own if o.arrived <= order.arrived and _lives(o, order.arrived)]
            if plan.max_open_orders is not None and len(live) > plan.max_open_orders:
                self._world.violated("P7", f"{len(live)} orders live at once")
            ids = {o.broker_order_id for o in own if o.request.symbol == order.request.symbol}
            held = sum(
                (
                    trade.activity.last_qty
                    for trade in book.trades
                    if trade.stamp < order.arrived and trade.activity.broker_order_id in ids
                ),
                Decimal(0),
            )
            held += sum((_leaves(book, o, order.arrived) for o in live if o.broker_order_id in ids),
                        Decimal(0))  # fmt: skip
            if plan.max_position_qty is not None and held > plan.max_position_qty:
                self._world.violated("P7", f"{order.request.symbol} may become {held}")

    # ------------------------------------------------------------------ when all is over

    def _end(self) -> None:
        world = self._world
        known = {row.broker_order_id: row for row in self._rows(_EXECUTIONS)}
        shown = {(row.kind, row.subject) for row in self._rows(_DISCREPANCIES)}
        canceled = {row.decision_hash for row in self._rows(_ACTIONS)}
        self._positions()
        for order in world.book.orders:
            self._booked(order, known.get(order.broker_order_id))
        for row in self._rows(_DECISIONS):
            name, hash_ = world.name(row.decision_hash), row.decision_hash
            if row.status not in TERMINAL or not row.status_reason:
                world.violated("P2", f"{name} stands {row.status} for ever")
            orders = self._orders_of(hash_)
            status = row.status
            if status in WITHOUT_ORDER and orders:
                if ("order_after_end", hash_) not in shown:
                    world.violated("P12", f"{name} is {status}, and nobody is told of its order")
                row = known.get(orders[0].broker_order_id)
                alive = row is not None and not OrderStatus.is_terminal(row.first_seen)
                if alive and hash_ not in canceled:
                    world.violated("P12", f"the late order of {name} is not canceled")
            elif status == "closed" and len(orders) != 1:
                world.violated("P2", f"{name} is closed with {len(orders)} orders")
        for kind, subject in sorted(shown - {("order_after_end", h) for h in self._history}):
            world.violated("P12", f"a difference {kind} about {world.name(subject)}")

    def _positions(self) -> None:
        """A difference would be shown after several looks: here it must not be there at all."""
        ours = {row.symbol: row.qty for row in self._rows(_POSITIONS)}
        theirs = {one.symbol: one.qty for one in self._world.book.positions()}
        for symbol in sorted(ours.keys() | theirs.keys()):
            held, there = ours.get(symbol, Decimal(0)), theirs.get(symbol, Decimal(0))
            if held != there:
                self._world.violated("P12", f"{symbol}: {held} here, {there} at the broker")

    def _booked(self, order: Booked, row: Any) -> None:
        world = self._world
        name = world.name(order.client_order_id)
        if row is None:
            world.violated("P12", f"the order {name} is in no book of ours")
            return
        ours = (row.status, row.cum_qty, row.ledger_qty)
        if ours != (order.status, order.cum_qty, order.cum_qty):
            world.violated("P6", f"{name} is {ours} here, {order.status} {order.cum_qty} there")
        mine = None if order.external else order.client_order_id
        if row.decision_hash != mine:
            world.violated("P12", f"{name} is booked as the order of another")


def _lives(order: Booked, stamp: int) -> bool:
    return order.ended is None or order.ended > stamp


def _leaves(book: Any, order: Booked, stamp: int) -> Decimal:
    traded = sum(
        (
            trade.activity.last_qty
            for trade in book.trades
            if trade.stamp < stamp and trade.activity.broker_order_id == order.broker_order_id
        ),
        Decimal(0),
    )
    return order.qty - traded
