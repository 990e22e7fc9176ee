"""A runaway strategy is stopped by its pace, and stays stopped until a person resumes it.

The whole size is `TORGHUT_TEST_RUNAWAY=10000`; the normal run sends fewer. What left is counted
at the simulator (story 40).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from sqlalchemy import event

from tests.factories import decision
from tests.services.rig import Rig
from torghut.config import risk_policy
from torghut.services import operator
from torghut.services.executor import LOOK_MAX
from torghut.storage import control

DECISIONS = int(os.environ.get("TORGHUT_TEST_RUNAWAY", "1000"))
PER_MINUTE = 20
MakeRig = Callable[..., Rig]
STRATEGY = "sample"
SCOPE = control.strategy_scope(STRATEGY)
NOTHING = {"recorded": 0, "swept": 0, "expired": 0}


def run_away(rig: Rig, count: int, *, tag: str = "r", **over: object) -> float:
    """Send as fast as it goes, then judge until nothing is left; decisions sent per second."""
    batch = [decision(intent=f"{tag}{n}", qty="1", **over) for n in range(count)]
    began = time.monotonic()
    for start in range(0, count, 500):
        rig.send_all(batch[start : start + 500])
    rate = count / (time.monotonic() - began)
    for _ in range(count):
        rig.execute(1)
        if not rig.sql("SELECT 1 FROM trade_decisions WHERE status IN "
                       "('planned', 'approved', 'submitting', 'in_doubt') LIMIT 1"):  # fmt: skip
            break
    return rate


def reasons(rig: Rig) -> dict[str, int]:
    rows = rig.sql("SELECT status_reason, count(*) FROM trade_decisions WHERE status = 'denied' "
                   "GROUP BY 1")  # fmt: skip
    return {row[0]: row[1] for row in rows}


def scope_state(rig: Rig) -> str:
    rows = rig.sql("SELECT state FROM trading_states WHERE scope = :s", s=SCOPE)
    return str(rows[0].state) if rows else "active"


@pytest.fixture
def throttled(make_rig: MakeRig) -> Callable[..., Rig]:
    """Rigs that limit nothing but the orders of a minute."""

    def make(**risk: object) -> Rig:
        rig = make_rig(
            submit_threads=64,
            risk={"max_orders_per_minute": PER_MINUTE, "max_order_notional": "off",
                  "max_position_notional": "off", "buying_power_reserve_pct": "off", **risk},
        )  # fmt: skip
        rig.time.fixed = rig.time()  # however slow the machine: it is all the same minute
        return rig

    return make


@pytest.mark.timeout(600)
def test_a_runaway_strategy_is_stopped(
    throttled: Callable[..., Rig], record_property: Callable[[str, object], None]
) -> None:
    rig = throttled()
    rate = run_away(rig, DECISIONS)
    record_property("decisions_per_s", round(rate))
    print(f"\n{DECISIONS} decisions, sent at {rate:,.0f}/s")
    assert rig.totals()["orders"] == rig.posts() == PER_MINUTE
    denied = reasons(rig)
    assert sum(denied.values()) == DECISIONS - PER_MINUTE  # everything ends, with a reason
    assert denied["order_rate"] >= 100
    assert set(denied) <= {"order_rate", "repeated_execution", "trading_halted"}
    assert scope_state(rig) == "halted"
    assert rig.state()[0] == "active"  # the others go on
    (trip,) = rig.sql("SELECT * FROM events WHERE kind = 'trading_state.changed'")
    assert trip.payload["scope"] == SCOPE
    assert "max_rate_denials" in trip.payload["reason"]


def test_control_without_the_throttle_all_of_them_leave(throttled: Callable[..., Rig]) -> None:
    rig = throttled(max_orders_per_minute="off")
    run_away(rig, 150)
    assert rig.totals()["orders"] == 150
    assert scope_state(rig) == "active"


def test_control_without_the_trip_it_goes_on_in_the_next_minute(
    throttled: Callable[..., Rig],
) -> None:
    rig = throttled(max_rate_denials="off")
    run_away(rig, 150)
    assert (rig.totals()["orders"], scope_state(rig)) == (PER_MINUTE, "active")
    later(rig, 61)
    run_away(rig, 30, tag="s")
    assert rig.totals()["orders"] == 2 * PER_MINUTE


def later(rig: Rig, seconds: float) -> None:
    assert rig.time.fixed is not None
    rig.time.fixed = None
    rig.time.pass_s(seconds)
    rig.time.fixed = rig.time()
    rig.fill_budget()


def test_it_stays_stopped_after_a_restart_until_a_person_resumes(
    throttled: Callable[..., Rig],
) -> None:
    run_away(throttled(), 200)
    rig = throttled()  # a process that remembers nothing
    rig.reconcile()
    later(rig, 61)
    run_away(rig, 30, tag="after")
    assert rig.totals()["orders"] == PER_MINUTE
    assert scope_state(rig) == "halted"
    assert reasons(rig).get("trading_halted", 0) >= 30
    other = rig.send_all([decision(intent="o", strategy="another")])
    rig.execute()
    assert rig.status(other[0])[0] == "submitted"  # only this strategy is stopped
    operator.resume(rig.database, SCOPE, actor="ann", reason="mended", now=rig.time(),
                    settings=rig.settings)  # fmt: skip
    run_away(rig, 5, tag="resumed")
    assert rig.totals()["orders"] == PER_MINUTE + 1 + 5


def test_denials_before_a_resume_are_not_counted_again(throttled: Callable[..., Rig]) -> None:
    """Who resumes begins anew: one denial more does not halt the strategy again."""
    rig = throttled()
    run_away(rig, 200)
    assert scope_state(rig) == "halted"
    later(rig, 1)
    with rig.database.transaction() as tx:
        control.set_trading_state(tx, SCOPE, control.TradingState.ACTIVE, actor="ann",
                                  reason="mended", now=rig.time())  # fmt: skip
    later(rig, 1)
    run_away(rig, 3, tag="again")
    assert scope_state(rig) == "active"
    assert reasons(rig)["order_rate"] > 3


def test_repeated_executions_halt_the_strategy_and_no_other(throttled: Callable[..., Rig]) -> None:
    """12 orders of one strategy in a minute are too many, those of two strategies are not."""
    rig = throttled(max_orders_per_minute="off", max_repeated_executions=10)
    run_away(rig, 10)
    run_away(rig, 10, tag="o", strategy="another")
    assert rig.totals()["orders"] == 20
    assert scope_state(rig) == "active"
    run_away(rig, 2, tag="more")
    assert rig.totals()["orders"] == 20
    assert reasons(rig).keys() <= {"repeated_execution", "trading_halted"}
    assert scope_state(rig) == "halted"
    assert not rig.sql("SELECT 1 FROM trading_states WHERE scope = 'strategy:another'")


def test_what_can_only_be_denied_is_judged_by_the_hundred(make_rig: MakeRig) -> None:
    """A flood drains quickly; what may leave is claimed by as many as there are callers."""
    rig = make_rig(submit_threads=4)
    rig.control("POST", "/switches", {"hold_fills": True})
    with rig.database.transaction() as tx:
        control.set_trading_state(tx, SCOPE, control.TradingState.HALTED, actor="ann",
                                  reason="runaway", now=rig.time())  # fmt: skip
    rig.send_many(300, qty="1")
    rig.send_many(30, qty="1", strategy="another")
    assert rig.execute(1) == {**NOTHING, "claimed": 4, "submitting": 0}
    assert rig.execute(1) == {**NOTHING, "claimed": LOOK_MAX, "submitting": 0}
    # 96 more of the halted one are denied, and of the other four leave: the rest is left alone
    assert rig.execute(1) == {**NOTHING, "claimed": 126, "submitting": 4}
    assert rig.totals()["orders"] == 4
    assert rig.count("risk_verdicts") == 300 + 4
    assert rig.execute(1) == {**NOTHING, "recorded": 4, "claimed": 4, "submitting": 4}
    rig.execute(10)
    assert rig.totals()["orders"] == 30


def test_the_policy_is_stored_with_the_first_claim_that_lasts(make_rig: MakeRig) -> None:
    """Not asked for with every claim; and a claim that failed has stored nothing."""
    rig = make_rig()
    asked: list[str] = []
    event.listen(rig.database._engine, "before_cursor_execute",
                 lambda _conn, _cursor, statement, *_: asked.append(statement))  # fmt: skip

    def about_policies() -> int:
        return sum("risk_policies" in statement for statement in asked)

    rig.send(intent="first")
    with pytest.raises(ZeroDivisionError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("torghut.services.executor.reached", lambda _point: 1 / 0)
        rig.execute(1)
    assert rig.count("risk_policies") == rig.count("risk_verdicts") == 0
    rig.execute(2)
    assert rig.count("risk_policies") == 1
    for number in range(3):
        rig.send(intent=f"n{number}")
        rig.execute(2)
    before = about_policies()
    rig.send(intent="more")
    rig.execute(2)
    assert about_policies() == before
    assert rig.count("risk_verdicts") == 5
    rig.policy.current = risk_policy(rig.settings.model_copy(update={"risk": {"max_order_qty": 5}}))
    rig.send(intent="after the reload")
    rig.execute(2)
    assert rig.count("risk_policies") == 2


def test_a_policy_of_its_own_throttles_one_strategy(throttled: Callable[..., Rig]) -> None:
    """Its own count, beside the account's."""
    rig = throttled(strategy={STRATEGY: {"max_orders_per_minute": 3}})
    run_away(rig, 10)
    run_away(rig, 10, tag="o", strategy="another")
    assert rig.totals()["orders"] == 13
