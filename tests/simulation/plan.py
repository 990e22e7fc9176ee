"""What a seed stands for: how many processes, which decisions, how much goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from torghut.domain.decisions import Decision, parse_decision

BEGAN = datetime(2026, 3, 3, 15, 0, tzinfo=UTC)
GRACE_S = 30.0
LEASE_TTL_S = 10.0
LATE_MAX_S = 25.0
"""By when a well-behaved broker shows what it took: within the grace in which nothing is absent."""

HIDDEN_MAX_S = 40.0
"""With the longest lag of the lists less than the reconciler's overlap: what it promises to see."""


@dataclass(frozen=True)
class Plan:
    """Everything about a run that is drawn before it begins; the rest is drawn on the way."""

    replicas: int
    opened: bool  # the books of the account began before it is traded
    head_start: bool  # chaos begins when decisions are there, and an owner
    one_by_one: bool  # … and only the first decision
    placed_before: bool  # an order of ours that our books lost, as after a restored backup
    steps: int
    pause_rate: float
    submit_fault_rate: float
    question_fault_rate: float
    database_fault_rate: float
    trouble_rate: float
    wild: bool  # orders may arrive, or show, after the grace
    skewed: bool  # the clocks of machines and of Postgres jump
    strangers: bool  # somebody else trades on the account, too
    small_pages: bool
    first_look: bool  # chaos begins in the middle of a fill that only positions show
    doubt_first: bool  # … or of a decision whose order lives and is not found
    deaf: bool  # the broker hardly answers what is asked about one order
    quick: bool  # orders are filled, in part or whole, the moment they arrive
    max_open_orders: int | None
    max_position_qty: int | None
    decisions: tuple[Decision, ...]

    @property
    def strict(self) -> bool:
        """Nothing but the protocol may be late: no order can come after its proof of absence."""
        return not self.wild and not self.skewed

    def risk(self) -> dict[str, object]:
        """The `[risk]` table: what the checks look at is on, what costs statements is off."""
        limits: dict[str, object] = dict.fromkeys(
            ("max_consecutive_rejects", "max_rate_denials", "max_open_discrepancies"), "off"
        )
        limits |= {"check_assets": False, "check_self_match": False}
        if self.max_open_orders is not None:
            limits["max_open_orders"] = self.max_open_orders
        if self.max_position_qty is not None:
            limits["max_position_qty"] = self.max_position_qty
        return limits


def draw(rng: random.Random, account: str) -> Plan:
    """The plan of a seed."""
    count = rng.choice((1, 2, 2, 3))
    plan = Plan(
        replicas=rng.choice((2, 2, 2, 3)),
        opened=rng.random() < 0.7,
        head_start=rng.random() < 0.85,
        one_by_one=rng.random() < 0.6,
        placed_before=rng.random() < 0.06,
        steps=rng.randint(14, 34),
        pause_rate=rng.choice((0.04, 0.12, 0.3)),
        submit_fault_rate=rng.choice((0.0, 0.5, 0.8, 0.8)),
        question_fault_rate=rng.choice((0.0, 0.1, 0.4)),
        database_fault_rate=rng.choice((0.0, 0.0, 0.03, 0.1)),
        trouble_rate=rng.choice((0.0, 0.06, 0.15)),
        wild=rng.random() < 0.2,
        skewed=rng.random() < 0.15,
        strangers=rng.random() < 0.3,
        small_pages=rng.random() < 0.2,
        deaf=rng.random() < 0.15,
        quick=rng.random() < 0.4,
        max_open_orders=rng.choice((None, 1, 1, 2)),
        max_position_qty=rng.choice((None, 100, 200)),
        first_look=rng.random() < 0.3,
        doubt_first=rng.random() < 0.2,
        decisions=tuple(_decision(rng, account, number) for number in range(count)),
    )
    begun = plan.opened or plan.strangers or plan.placed_before
    return replace(plan, first_look=plan.first_look and not begun)


def _decision(rng: random.Random, account: str, number: int) -> Decision:
    data: dict[str, object] = {
        "strategy": account,
        "symbol": rng.choice(("AAPL", "AAPL", "MSFT")),
        "side": "buy",
        "type": rng.choice(("market", "limit")),
        "qty": str(61 + number),  # tells the orders of one run apart, whatever their ids
        "event_ts": BEGAN.isoformat(),
        "intent": f"n{number}",
        "expires_at": (BEGAN + timedelta(seconds=rng.choice((15, 60, 3600, 3600)))).isoformat(),
    }
    if data["type"] == "limit":
        data["limit_price"] = "10"
    return parse_decision(data, account=account, ttl=timedelta(days=1))


def qty_of(decision: Decision) -> Decimal:
    """Its order's quantity, by which the checks know whose an order is."""
    assert decision.order.qty is not None
    return decision.order.qty
