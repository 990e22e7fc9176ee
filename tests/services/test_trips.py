"""Trips: a loss or a row of refusals holds the account back, over restarts, until a person resumes.

The equity is moved at the broker: a position is bought, and the price changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig
from torghut.config import risk_policy
from torghut.domain.deny_reasons import DenyReason
from torghut.services import operator, trips
from torghut.services.trips import RiskWatch
from torghut.storage import control, facts
from torghut.storage.leases import LeaseLost

SCOPE = control.account_scope(ACCOUNT)
MakeRig = Callable[..., Rig]
Losing = Callable[..., Rig]


def price(rig: Rig, px: int) -> None:
    """Where 100 is what was paid, or, for a daily loss, what the day began with."""
    daily = "max_daily_loss" in rig.settings.risk
    level = px + (last_close(rig) - 100 if daily and rig.count("fills") else 0)
    pin(rig, level)


def last_close(rig: Rig) -> Decimal:
    """What the broker values the 100 shares at in `last_equity`."""
    with rig.database.transaction() as tx:
        snapshot = facts.account_snapshot(tx, ACCOUNT)
    assert snapshot is not None and snapshot.last_equity is not None and snapshot.cash is not None
    return (snapshot.last_equity - snapshot.cash) / 100


def pin(rig: Rig, px: Decimal | int) -> None:
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": str(px), "bid": str(px),
                                          "ask": str(px)})  # fmt: skip


def look(rig: Rig, seconds: float = 10) -> int:
    """Time passes, the account is asked for, and the watch looks; trips made."""
    rig.time.pass_s(seconds)
    rig.fill_budget()
    assert rig._all_facts[0].refresh_account() is not None
    return watch(rig).run_once(rig.lease, rig.time()).get("tripped", 0)


def watch(rig: Rig) -> RiskWatch:
    return RiskWatch(ACCOUNT, rig.database, lambda: risk_policy(rig.settings))


def resume(rig: Rig) -> None:
    operator.resume(
        rig.database, SCOPE, actor="ann", reason="seen", now=rig.time(), settings=rig.settings
    )


def send(rig: Rig, intent: str, **over: object) -> tuple[str, str | None]:
    hash_ = rig.send(intent=intent, **over)
    rig.execute()
    return rig.status(hash_)


@pytest.fixture
def losing(make_rig: MakeRig) -> Iterator[Losing]:
    """Rigs whose account holds 100 AAPL bought at 100; the next ones find what is there."""

    def make(**risk: Any) -> Rig:
        rig = make_rig(risk={"max_order_notional": 50_000, **risk})
        if not rig.count("trade_decisions"):
            price(rig, 100)
            assert send(rig, "first", qty="100")[0] == "submitted"
            rig.time.pass_s(1)
            rig.reconcile()
            rig._all_facts[0].refresh_account()
            price(rig, 100)
        return rig

    yield make


@pytest.mark.parametrize("trip_state", ["reducing", "halted"])
@pytest.mark.parametrize(("limit", "value"), [("max_daily_loss", 1000), ("max_drawdown_pct", "1")])
def test_a_loss_trips_without_any_decision(
    losing: Losing, limit: str, value: object, trip_state: str
) -> None:
    """100 shares x 20 = 2,000 of 100,000, over either limit; at the limit nothing happens."""
    rig = losing(**{limit: value, "trip_state": trip_state})
    price(rig, 90)
    assert look(rig) == 0  # exactly at it
    assert rig.state()[0] == "active"
    price(rig, 80)
    assert look(rig) == 1
    state, reason = rig.state()
    assert state == trip_state
    assert reason.startswith(f"{SCOPE} by risk: {limit}: ")
    assert look(rig) == 0  # once is enough
    again = losing(**{limit: value, "trip_state": trip_state})
    assert again.state()[0] == trip_state  # it survives the process
    again.time.pass_s(300)
    expected = "reducing_only" if trip_state == "reducing" else "trading_halted"
    assert send(again, "more") == ("denied", expected)


def test_control_without_limits_a_loss_trips_nothing(losing: Losing) -> None:
    rig = losing()
    price(rig, 10)
    assert look(rig) == 0
    assert (rig.state()[0], send(rig, "more")[0]) == ("active", "submitted")


def test_a_denied_decision_trips_too(losing: Losing) -> None:
    rig = losing(max_daily_loss=1000)
    price(rig, 80)
    rig.time.pass_s(10)
    rig._all_facts[0].refresh_account()
    assert send(rig, "more") == ("denied", "daily_loss")
    assert rig.state()[0] == "reducing"
    assert "max_daily_loss: 2000 is over 1000 currency" in rig.state()[1]


def test_what_reduces_still_leaves_while_reducing(losing: Losing) -> None:
    """P11; control: what opens does not."""
    rig = losing(max_daily_loss=1000)
    price(rig, 80)
    assert look(rig) == 1
    assert send(rig, "close", side="sell", qty="40")[0] == "submitted"
    assert send(rig, "open") == ("denied", "reducing_only")
    assert send(rig, "beyond", side="sell", qty="100") == ("denied", "reducing_only")


def test_after_a_resume_the_same_day_does_not_trip_again(losing: Losing) -> None:
    """But its limit denies what opens; the next day trips again."""
    rig = losing(max_daily_loss=1000)
    price(rig, 80)
    assert look(rig) == 1
    resume(rig)
    assert look(rig) == 0
    assert rig.state()[0] == "active"
    assert send(rig, "open") == ("denied", "daily_loss")
    assert rig.state()[0] == "active"
    assert send(rig, "close", side="sell", qty="40")[0] == "submitted"
    with rig.database.transaction() as tx:
        next_day = rig.time() + timedelta(days=1)
        assert trips.trip_account(tx, ACCOUNT, DenyReason.DAILY_LOSS, "x",
                                  risk_policy(rig.settings), now=next_day)  # fmt: skip


def test_a_resume_begins_the_drawdown_anew(losing: Losing) -> None:
    """From the equity of then; the peak rises with the equity, and never falls by itself."""
    rig = losing(max_drawdown_pct="1")
    price(rig, 120)
    look(rig)
    price(rig, 111)
    assert look(rig) == 0  # 900 of 102,000 are less than 1 %
    assert peak(rig) == 102_000
    again = losing(max_drawdown_pct="1")  # a restart forgets no peak
    again.time.pass_s(300)
    price(again, 109)
    assert look(again) == 1
    assert "max_drawdown_pct" in again.state()[1]
    resume(again)
    assert peak(again) == 100_900
    assert look(again) == 0
    price(again, 98)
    assert look(again) == 1


def peak(rig: Rig) -> object:
    with rig.database.transaction() as tx:
        snapshot = facts.account_snapshot(tx, ACCOUNT)
    assert snapshot is not None
    return snapshot.peak_equity


def test_marks_and_positions_are_the_newest(losing: Losing) -> None:
    rig = losing()
    for px in (90, 130):
        price(rig, px)
        look(rig)
        with rig.database.transaction() as tx:
            snapshot = facts.account_snapshot(tx, ACCOUNT)
        assert snapshot is not None
        assert (snapshot.marks, snapshot.positions) == ({"AAPL": px}, {"AAPL": 100})


def test_a_watch_that_lost_the_account_trips_nothing(losing: Losing) -> None:
    rig = losing(max_daily_loss=1000)
    price(rig, 80)
    rig.time.pass_s(10)
    rig._all_facts[0].refresh_account()
    old, _ = rig.lease, rig.take_lease("another")
    with pytest.raises(LeaseLost):
        watch(rig).run_once(old, rig.time())
    assert rig.state()[0] == "active"


# ---------------------------------------------------------------------- refusals in a row


def refuse(rig: Rig, intent: str) -> tuple[str, str | None]:
    rig.fault("reject", status=403, code=40310000, message="insufficient buying power")
    rig.time.pass_s(1)
    found = send(rig, intent)
    rig.clear_faults()
    return found


def test_refusals_in_a_row_trip_and_a_person_begins_anew(make_rig: MakeRig) -> None:
    rig = make_rig(risk={"max_consecutive_rejects": 2, "trip_state": "halted"})
    assert refuse(rig, "1")[0] == "rejected"
    rig.time.pass_s(1)
    assert send(rig, "good")[0] == "submitted"  # an order in between ends the row
    for n in range(3):
        assert refuse(rig, f"r{n}")[0] == "rejected"
    rig.time.pass_s(1)
    assert send(rig, "more") == ("denied", "consecutive_rejects")
    state, reason = rig.state()
    assert (state, "max_consecutive_rejects: 3 is over 2 rejects" in reason) == ("halted", True)
    again = make_rig(risk={"max_consecutive_rejects": 2, "trip_state": "halted"})
    assert again.state()[0] == "halted"
    again.time.pass_s(300)
    resume(again)
    again = make_rig(risk={"max_consecutive_rejects": 2, "trip_state": "halted"})
    again.time.pass_s(360)
    assert send(again, "resumed")[0] == "submitted"


def test_control_without_that_limit_refusals_go_on(make_rig: MakeRig) -> None:
    rig = make_rig(risk={"max_consecutive_rejects": "off"})
    for n in range(4):
        assert refuse(rig, f"r{n}")[0] == "rejected"
    assert rig.state()[0] == "active"
