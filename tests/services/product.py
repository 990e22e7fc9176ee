"""Every state of one order in both books at once: the combinations, their rows, and a broker that
answers from memory, because the simulated one does not let an order be `suspended` at will."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

from sqlalchemy import Connection, text

from torghut.clock import utc_now
from torghut.domain.executions import ExecutionState, event_key, observe
from torghut.domain.lifecycle import TERMINAL, DecisionStatus
from torghut.domain.orders import Order, OrderStatus
from torghut.ports import Broker, BrokerPosition, FillActivity, Page

ACCOUNT = "paper"
BEGAN = utc_now() - timedelta(hours=1)
PX = Decimal(10)
QTY = Decimal(10)
AHEAD = ("canceled", 2)  # our row, terminal already, whatever the broker says
ABSENT = ("partially_filled", 4)  # our row, of an order that the broker does not show
OPEN = frozenset(map(DecisionStatus, ("planned", "approved", "submitting", "in_doubt")))

# how the order stands at the broker: name → status and filled shares
BROKER: dict[str, tuple[str, int] | None] = {
    "absent": None,
    "new": ("new", 0),
    "accepted": ("accepted", 0),
    "pending_new": ("pending_new", 0),
    "accepted_for_bidding": ("accepted_for_bidding", 0),
    "partially_filled": ("partially_filled", 4),
    "filled": ("filled", 10),
    "canceled": ("canceled", 0),
    "canceled in part": ("canceled", 4),
    "expired": ("expired", 0),
    "rejected": ("rejected", 0),
    "done_for_day": ("done_for_day", 4),
    "held": ("held", 0),
    "pending_cancel": ("pending_cancel", 4),
    "pending_replace": ("pending_replace", 0),
    "replaced": ("replaced", 4),
    "suspended": ("suspended", 0),
    "stopped": ("stopped", 4),
    "calculated": ("calculated", 10),
}
ROWS = ("none", "equal", "behind", "ahead", "external")
FILLS = ("none", "part", "all")

# what the database refuses, so that it need not be converged from: rule → why
NO_ROW = "a fill names its execution: fills.execution_id is NOT NULL"
NOTHING_FILLED = "there is no fill of nothing: CHECK (last_qty > 0)"


@dataclass(frozen=True, slots=True)
class Case:
    """One combination; the order has its own symbol, and `client_order_id` is the decision's hash
    where there is a decision."""

    n: int
    decision: DecisionStatus | None
    broker: str
    row: str
    fills: str

    @property
    def refused(self) -> str | None:
        """The rule by which the database refuses it."""
        if self.fills == "none":
            return None
        if self.row == "none":
            return NO_ROW
        return None if self.filled else NOTHING_FILLED

    @property
    def filled(self) -> int:
        """Shares that were filled, as the broker says, or else as our row does."""
        if (seen := BROKER[self.broker]) is not None:
            return seen[1]
        return {"none": 0, "behind": 0, "ahead": AHEAD[1]}.get(self.row, ABSENT[1])

    @property
    def booked(self) -> list[int]:
        """Our fills, in shares."""
        parts = self.parts
        return {"none": [], "part": parts[:1], "all": parts}[self.fills]

    @property
    def parts(self) -> list[int]:
        return [1, self.filled - 1] if self.filled else []

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"case {self.n}".encode()).hexdigest()

    @property
    def coid(self) -> str:
        return f"stranger-{self.n}" if self.decision is None else self.hash

    @property
    def symbol(self) -> str:
        return f"S{self.n}"

    @property
    def attached(self) -> bool:
        return self.decision is not None and self.row not in ("none", "external")

    def order(self, status: str, cum: int, age_s: int) -> Order:
        at = BEGAN + timedelta(milliseconds=self.n)
        return Order(
            broker_order_id=f"b-{self.n}",
            client_order_id=self.coid,
            symbol=self.symbol,
            side="buy",
            order_type="market",
            time_in_force="day",
            status=status,
            qty=QTY,
            notional=None,
            limit_price=None,
            stop_price=None,
            cum_qty=Decimal(cum),
            avg_px=PX if cum else None,
            created_at=at,
            updated_at=at + timedelta(seconds=age_s),
            submitted_at=at,
            replaces=None,
            replaced_by=f"b-{self.n}-next" if status == "replaced" else None,
            raw={"id": f"b-{self.n}"},
        )

    @property
    def at_broker(self) -> Order | None:
        seen = BROKER[self.broker]
        return None if seen is None else self.order(*seen, 5)

    @property
    def successor(self) -> Order | None:
        """What a replaced order was replaced by: an order with an id of somebody else's making."""
        if (old := self.at_broker) is None or old.replaced_by is None:
            return None
        return replace(
            self.order("canceled", 0, 6),
            broker_order_id=old.replaced_by,
            client_order_id=f"next-{self.n}",
            replaces=old.broker_order_id,
            qty=QTY - old.cum_qty,
        )

    @property
    def ours(self) -> Order | None:
        """The order as our books saw it last."""
        if self.row == "none":
            return None
        if self.row == "behind":
            return self.order("new", 0, 1)
        if self.row == "ahead":
            return self.order(*AHEAD, 3)
        return self.at_broker or self.order(*ABSENT, 2)


def cases() -> list[Case]:
    """The whole product, refused combinations included."""
    whole = product([None, *DecisionStatus], BROKER, ROWS, FILLS)
    return [Case(n, *values) for n, values in enumerate(whole)]


# ---------------------------------------------------------------------- our side


def seed(tx: Connection, some: Iterable[Case]) -> None:
    """The rows of the combinations, as if written long ago. CHECKs are in force, triggers are not:
    a decision could not be born `submitted`."""
    tx.execute(text("SET LOCAL session_replication_role = replica"))
    written = list(some)
    decisions = [_decision(case) for case in written if case.decision is not None]
    _insert(tx, "trade_decisions", decisions)
    ids = dict(tx.execute(text("SELECT decision_hash, decision_id FROM trade_decisions")).all())
    _insert(tx, "executions", [_execution(c, o, ids) for c in written if (o := c.ours)])
    known = dict(tx.execute(text("SELECT broker_order_id, execution_id FROM executions")).all())
    _insert(tx, "execution_events", [_seen(o, known) for c in written if (o := c.ours)])
    fills = [f for c in written for f in _fills(c, ids, known)]
    _insert(tx, "fills", fills)
    for table, strategy in (("positions", False), ("strategy_positions", True)):
        _insert(tx, table, [_position(c, strategy) for c in written if c.booked])
    tx.execute(text("SET LOCAL session_replication_role = origin"))
    for table in ("trade_decisions", "executions", "fills"):
        tx.execute(text(f"ANALYZE {table}"))


def _insert(tx: Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    names = ", ".join(rows[0])
    tx.execute(
        text(f"""INSERT INTO {table} ({names})
        SELECT {names} FROM jsonb_populate_recordset(NULL::{table}, CAST(:rows AS jsonb))"""),
        {"rows": json.dumps(rows, default=str)},
    )


def _decision(case: Case) -> dict[str, Any]:
    status = case.decision
    assert status is not None
    payload = {"type": "market", "time_in_force": "day", "extended_hours": False,
               "order_class": "simple", "qty": "10"}  # fmt: skip
    return {
        "decision_hash": case.hash,
        "hash_version": 1,
        "payload_digest": case.hash,
        "account": ACCOUNT,
        "strategy": "sample",
        "symbol": case.symbol,
        "side": "buy",
        "event_ts": BEGAN,
        "intent": str(case.n),
        "payload": payload,
        "source": "test",
        "status": status.value,
        "status_reason": "accepted",
        "attempts": 0 if status.value in ("planned", "denied") else 1,
        "fencing_token": 1,
        "lookups": 0,
        "lookup_misses": 0,
        "due_at": BEGAN,
        "in_doubt_since": BEGAN if status is DecisionStatus.IN_DOUBT else None,
        "expires_at": BEGAN + timedelta(minutes=1),  # long ago: what has an order never expires
        "created_at": BEGAN,
        "updated_at": BEGAN,
        "finalized_at": BEGAN if status in TERMINAL else None,
    }


def _execution(case: Case, order: Order, ids: dict[str, int]) -> dict[str, Any]:
    state = observe(None, order)
    return {
        "decision_id": ids[case.hash] if case.attached else None,
        "account": ACCOUNT,
        "client_order_id": order.client_order_id,
        "broker_order_id": order.broker_order_id,
        "origin": "submitted" if case.attached else "external",
        "symbol": order.symbol,
        "side": order.side,
        "order_type": order.order_type,
        "time_in_force": order.time_in_force,
        "qty": order.qty,
        "status": state.status,
        "terminal": state.terminal,
        "cum_qty": state.cum_qty,
        "leaves_qty": state.leaves_qty,
        "avg_px": state.avg_px,
        "ledger_qty": sum(case.booked),
        "replaced_by": state.replaced_by,
        "broker_created_at": order.created_at,
        "broker_updated_at": order.updated_at,
        "created_at": BEGAN,
        "updated_at": BEGAN,
    }


def _seen(order: Order, known: dict[str, int]) -> dict[str, Any]:
    return {
        "execution_id": known[order.broker_order_id],
        "event_key": event_key(order),
        "source": "rest",
        "status": order.status,
        "cum_qty": order.cum_qty,
        "avg_px": order.avg_px,
        "broker_updated_at": order.updated_at,
        "observed_at": BEGAN,
        "raw": dict(order.raw),
    }


def _fills(case: Case, ids: dict[str, int], known: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "activity_id": fill.activity_id,
            "execution_id": known[fill.broker_order_id],
            "decision_id": ids[case.hash] if case.attached else None,
            "account": ACCOUNT,
            "strategy": "sample" if case.attached else "",
            "symbol": case.symbol,
            "side": "buy",
            "last_qty": fill.last_qty,
            "last_px": fill.last_px,
            "cum_qty": fill.cum_qty,
            "leaves_qty": fill.leaves_qty,
            "transact_time": fill.transact_time,
            "recorded_at": BEGAN,
            "raw": {},
        }
        for fill in activities(case)[: len(case.booked)]
    ]


def _position(case: Case, strategy: bool) -> dict[str, Any]:
    qty = sum(case.booked)
    named = {"strategy": "sample" if case.attached else ""} if strategy else {}
    return {"account": ACCOUNT, **named, "symbol": case.symbol, "qty": qty, "cost_basis": qty * PX,
            "avg_px": PX, "realized_pl": 0, "updated_at": BEGAN}  # fmt: skip


# ---------------------------------------------------------------------- the broker's side


def activities(case: Case) -> list[FillActivity]:
    """The order's fills, oldest first."""
    done = Decimal(0)
    found: list[FillActivity] = []
    for number, shares in enumerate(case.parts):
        done += shares
        at = BEGAN + timedelta(seconds=number, milliseconds=case.n)
        found.append(
            FillActivity(
                activity_id=f"{at:%Y%m%d%H%M%S%f}::{case.n}-{number}",
                broker_order_id=f"b-{case.n}",
                symbol=case.symbol,
                side="buy",
                last_qty=Decimal(shares),
                last_px=PX,
                cum_qty=done,
                leaves_qty=QTY - done,
                transact_time=at,
                raw={},
            )
        )
    return found


class Remembered:
    """A broker whose orders and fills are those of the combinations; the rest is the real one's."""

    def __init__(self, real: Broker) -> None:
        self._real = real
        self._orders: list[Order] = []
        self._fills: list[FillActivity] = []
        self._positions: list[BrokerPosition] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def remember(self, some: Sequence[Case]) -> None:
        orders = [order for case in some for order in (case.at_broker, case.successor) if order]
        self._orders = sorted(orders, key=lambda o: (o.submitted_at, o.broker_order_id))
        there = [case for case in some if case.at_broker]
        self._fills = sorted((f for c in there for f in activities(c)), key=lambda f: f.activity_id)
        self._positions = [
            BrokerPosition(symbol=c.symbol, qty=Decimal(q), avg_px=PX, current_price=PX)
            for c in some
            if (q := c.filled if c.at_broker else sum(c.booked))
        ]

    def orders(self, *, after: datetime | None, limit: int) -> Page[Order]:
        later = [o for o in self._orders if after is None or o.submitted_at > after]  # type: ignore[operator]
        page = later[:limit]
        return Page(page, full=len(page) == limit)

    def open_orders(self) -> Sequence[Order]:
        return [order for order in self._orders if not OrderStatus.is_terminal(order.status)]

    def get_order(self, broker_order_id: str) -> Order | None:
        found = [order for order in self._orders if order.broker_order_id == broker_order_id]
        return found[0] if found else None

    def fills(self, *, page_token: str | None, after: datetime | None) -> Page[FillActivity]:
        later = [
            fill
            for fill in self._fills
            if (after is None or fill.transact_time > after)
            and fill.activity_id > (page_token or "")
        ]
        page = later[:100]
        return Page(page, full=len(page) == 100, last_id=page[-1].activity_id if page else None)

    def positions(self) -> Sequence[BrokerPosition]:
        return list(self._positions)


def expected(case: Case) -> ExecutionState | None:
    """What the execution must have come to, said without the fold: the broker's, unless ours had
    ended before, which it stays, with the larger quantity."""
    theirs, ours = case.at_broker, case.ours
    if theirs is None or case.row != "ahead":
        last = theirs or ours
        return None if last is None else observe(None, last)
    assert ours is not None
    cum = max(theirs.cum_qty, ours.cum_qty)
    return replace(observe(None, ours), cum_qty=cum, replaced_by=theirs.replaced_by)
