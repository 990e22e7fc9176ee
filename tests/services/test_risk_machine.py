"""Whatever happens, filled + open + in doubt stays within every limit (P7), at the broker's ledger.

    send · execute · settle · reconcile · time passes      our side, in any order
    fill (in parts) · cancel · lost answers · an order of somebody else      the broker's
    limits change · crash and restart                                        in between

A step may leave an exposure where it was, over a limit that has just been lowered; it may never
raise one beyond its limit. The simulator's own ledger is measured, and when orders came to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.services.rig import Rig
from torghut.domain.exposure import Reservations
from torghut.domain.exposure_book import ExposureBook
from torghut.domain.risk_policy import RiskPolicy
from torghut.domain.sessions import NEW_YORK
from torghut.simulator import Simulator

PRICE = Decimal(100)
SYMBOLS = ("AAPL", "MSFT")
EXAMPLES = int(os.environ.get("TORGHUT_TEST_STORIES", "8"))
STEPS = 30
NOON = datetime.fromisoformat("2026-01-06T12:00:00-05:00")
NOT_OURS = NOON - timedelta(days=9)  # its pace is not ours
POLICIES: list[dict[str, int]] = [
    {"max_position_qty": qty, "max_position_notional": qty * 90, "max_gross_exposure": qty * 150,
     "max_net_exposure": qty * 120, "max_open_orders": orders, "max_orders_per_minute": orders + 2,
     "max_orders_per_day": 4 * orders}
    for qty, orders in ((30, 4), (60, 3), (15, 6), (40, 2))
]  # fmt: skip
CONTROLS = [("DELETE", "/faults", None), ("POST", "/reset", None),
            ("POST", "/switches", {"hold_fills": True})]  # fmt: skip


class Machine(RuleBasedStateMachine):
    """One account from empty books on; `world` makes rigs."""

    def __init__(self, world: Callable[[dict[str, Any]], Rig]) -> None:
        super().__init__()
        self._world = world
        self.policy: dict[str, int] = POLICIES[0]
        self.now = NOON
        self.sent = 0
        self.seen: dict[str, datetime] = {}
        self.rig = self._start()
        _forget_all(self.rig)
        self.rig.lease = self.rig.take_lease("first")
        for method, path, body in CONTROLS:
            self.rig.control(method, path, body)
        for symbol in SYMBOLS:
            pin = {"symbol": symbol, "price": "100", "bid": "100", "ask": "100"}
            self.rig.control("POST", "/market/price", pin)
        self.before = self.measured()

    def _start(self) -> Rig:
        rig = self._world(self._risk())
        rig.time.fixed = self.now
        return rig

    def _risk(self) -> dict[str, Any]:
        return {**self.policy, "check_self_match": False}

    # ------------------------------------------------------------------ our side

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(["buy", "buy", "sell"]),
        qty=st.integers(1, 20),
        count=st.integers(1, 3),
        limit=st.booleans(),
    )
    def send(self, symbol: str, side: str, qty: int, count: int, limit: bool) -> None:
        price = {"type": "limit", "limit_price": "100"} if limit else {}
        for _ in range(count):
            self.sent += 1
            self.rig.send(intent=str(self.sent), symbol=symbol, side=side, qty=str(qty), **price)
        self.rig.execute(1)

    @rule()
    def execute(self) -> None:
        self.rig.execute(2)

    @rule()
    def settle(self) -> None:
        self.rig.settle()

    @rule()
    def reconcile(self) -> None:
        self.rig.reconcile()

    @rule(seconds=st.sampled_from([1, 20, 20, 61, 61, 6 * 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.rig.time.fixed = self.now
        self.rig.fill_budget()
        self.rig.execute(1)

    # ------------------------------------------------------------------ the broker's side

    @rule(number=st.integers(0, 9), part=st.sampled_from([2, 1, 1]))
    def fill(self, number: int, part: int) -> None:
        """A half, or all, of the rest of an open order."""
        if line := self._open_order(number):
            rest = Decimal(line["qty"]) - Decimal(line["filled_qty"])
            body = {"qty": str((rest / part).quantize(Decimal("1e-6"))), "price": "100"}
            self.rig.control("POST", f"/orders/{line['order_id']}/fill", body)

    @rule(number=st.integers(0, 9))
    def cancel(self, number: int) -> None:
        if line := self._open_order(number):
            self.rig.control("POST", f"/orders/{line['order_id']}/cancel")

    @rule(kind=st.sampled_from(["accept_then_reset", "accept_then_5xx", "refuse_5xx"]))
    def lose_an_answer(self, kind: str) -> None:
        self.rig.fault(kind)

    @rule(qty=st.integers(1, 10))
    def somebody_else_orders(self, qty: int) -> None:
        """Seen when the lists are read: from then on it counts, and what it passed is not ours."""
        self.rig.clear_faults()  # those are for our orders
        self.rig.place(qty=str(qty), client_order_id=f"else-{len(self.seen)}-{self.now}")
        self.rig.reconcile()
        self.seen |= dict.fromkeys(self._ledger().keys() - self.seen.keys(), NOT_OURS)
        self.before = self.measured()

    # ------------------------------------------------------------------ in between

    @rule(policy=st.sampled_from(POLICIES))
    def limits_change(self, policy: dict[str, int]) -> None:
        self.policy = policy
        claimer = self.rig.executor._claimer
        claimer.policy = RiskPolicy(self._risk(), account="paper", live=False)

    @rule()
    def crash(self) -> None:
        """What was posted and not recorded is forgotten; a newer token takes over."""
        self.rig.close()
        self.rig = self._start()
        self.rig.execute(1)

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def within_every_limit(self) -> None:
        now = self.measured()
        for name, value in now.items():
            limit = self.policy[name]
            assert value <= max(limit, self.before[name]), f"{name}: {value}, limit {limit}"
        self.before = now

    def measured(self) -> dict[str, Decimal]:
        """The worst that may come of the broker's ledger, by the limit that bounds it."""
        ends = {symbol: [Decimal(0), Decimal(0)] for symbol in SYMBOLS}
        standing = 0
        for client_order_id, lines in self._ledger().items():
            assert len(lines) == 1, f"two orders of one id: {lines}"  # P1
            self.seen.setdefault(client_order_id, self.now)
            for line in lines:
                filled, rest = Decimal(line["filled_qty"]), Decimal(0)
                if _is_open(line):
                    rest = Decimal(line["qty"]) - filled
                    standing += 1
                high, low = ends[line["symbol"]]
                sign = 1 if line["side"] == "buy" else -1
                high, low = high + sign * filled, low + sign * filled
                ends[line["symbol"]] = [
                    high + (rest if sign > 0 else 0), low - (rest if sign < 0 else 0)
                ]  # fmt: skip
        worst = [max(high, -low, Decimal(0)) for high, low in ends.values()]
        net = max(abs(sum(e[0] for e in ends.values())), abs(sum(e[1] for e in ends.values())))
        return {
            "max_position_qty": max(worst),
            "max_position_notional": max(worst) * PRICE,
            "max_gross_exposure": sum(worst) * PRICE,
            "max_net_exposure": net * PRICE,
            "max_open_orders": Decimal(standing),
            "max_orders_per_minute": Decimal(self._since(self.now - timedelta(seconds=60))),
            "max_orders_per_day": Decimal(self._since(_midnight(self.now))),
        }

    def _since(self, instant: datetime) -> int:
        return sum(1 for at in self.seen.values() if at > instant)

    def _ledger(self) -> dict[str, list[Any]]:
        return dict(self.rig.control("GET", "/ledger")["orders"])

    def _open_order(self, number: int) -> Any:
        lines = [line for lines in self._ledger().values() for line in lines if _is_open(line)]
        return lines[number % len(lines)] if lines else None

    def teardown(self) -> None:
        self.rig.clear_faults()
        self.rig.close()


def _is_open(line: Any) -> bool:
    return line["status"] not in ("filled", "canceled", "expired", "rejected", "replaced")


def _midnight(now: datetime) -> datetime:
    return now.astimezone(NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)


def _forget_all(rig: Rig) -> None:
    """Empty tables, quicker than another database for each example."""
    tables = [row[0] for row in rig.sql(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' "
        "AND tablename <> 'alembic_version'"
    )]  # fmt: skip
    rig.sql(f"SET LOCAL session_replication_role = replica; TRUNCATE {', '.join(tables)}")


def run(database_url: str, sim: Simulator, examples: int, steps: int) -> None:
    def world(risk: dict[str, Any]) -> Rig:
        return Rig(database_url, sim, risk=risk, absence_grace_s=0, submit_threads=8)

    run_state_machine_as_test(
        lambda: Machine(world),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),  # a shorter story would cost minutes
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_story_passes_a_limit(database_url: str, sim: Simulator) -> None:
    run(database_url, sim, examples=EXAMPLES, steps=STEPS)


@pytest.mark.parametrize("part", ["reservations", "counts"])
def test_control_without_what_may_be_live_one_does(
    database_url: str, sim: Simulator, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Nothing in flight counted, or no pace: the same stories pass a limit."""
    whole = ExposureBook.reservations

    def forgetful(*args: Any, **kwargs: Any) -> Reservations:
        found = whole(*args, **kwargs)
        if part == "reservations":
            return Reservations(counts=found.counts, strategy_counts=found.strategy_counts)
        return Reservations(**{**_fields(found), "counts": Reservations().counts})

    monkeypatch.setattr(ExposureBook, "reservations", forgetful)
    wanted = "max_(open_orders|orders)" if part == "counts" else "max_(position|gross|net)"
    with pytest.raises(AssertionError, match=wanted):
        run(database_url, sim, examples=EXAMPLES, steps=STEPS)


def _fields(found: Reservations) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}
