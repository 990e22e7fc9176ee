"""What storage/exposure reads for a batch: every count and window at its edges, on real rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest

from tests.services.rig import ACCOUNT, Rig
from torghut.config import risk_policy
from torghut.domain.exposure_book import Exposure
from torghut.services.risk_engine import day_start
from torghut.storage import exposure

ON = dict.fromkeys(
    ("max_orders_per_second", "max_orders_per_minute", "max_orders_per_day",
     "max_strategy_exposure", "max_gross_exposure", "max_open_orders"),
    "1000000",
)  # fmt: skip
NIGHT = datetime.fromisoformat("2026-01-06T23:59:50-05:00")
MakeRig = Callable[..., Rig]


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """Orders stand until they are filled; time stands still."""
    rig = make_rig(risk={**ON, "duplicate_window_s": "0", "cooldown_s": "0"})
    rig.control("POST", "/switches", {"hold_fills": True})
    rig.time.fixed = NIGHT
    return rig


def read(rig: Rig, after_s: float = 0, judged: Sequence[int] = ()) -> Exposure:
    now = NIGHT + timedelta(seconds=after_s)
    with rig.database.transaction() as tx:
        return exposure.read(
            tx, ACCOUNT, judged=judged, symbols=["AAPL"], wanted=lambda *_: True,
            observed_at=NIGHT, day_start=day_start(now),
            look_back_s=risk_policy(rig.settings).longest("max_open_orders"), rejects_max=100,
            now=now,
        )  # fmt: skip


def sent(rig: Rig, **over: object) -> str:
    hash_ = rig.send(**over)
    rig.execute()
    assert rig.status(hash_)[0] == "submitted"
    return hash_


@pytest.mark.parametrize(
    ("after_s", "second", "minute"), [(0, 1, 1), (0.999, 1, 1), (1, 0, 1), (59.9, 0, 1), (60, 0, 0)]
)
def test_windows_end_at_their_edge(rig: Rig, after_s: float, second: int, minute: int) -> None:
    sent(rig)
    counts = read(rig, after_s).strategy_counts["sample"]
    assert (counts.last_second, counts.last_minute, counts.open_orders) == (second, minute, 1)


def test_a_day_ends_at_midnight_in_new_york(rig: Rig) -> None:
    sent(rig)
    assert read(rig, 9).strategy_counts["sample"].today == 1
    assert read(rig, 10).strategy_counts["sample"].today == 0


def test_the_rows_under_judgement_are_not_counted(rig: Rig) -> None:
    """Story 39; control: they are, if they are not named."""
    hash_ = sent(rig)
    own = read(rig, judged=[rig.row(hash_).decision_id])
    assert own.strategy_counts["sample"].last_minute == 0
    assert own.twins == ()
    assert read(rig).strategy_counts["sample"].last_minute == len(read(rig).twins) == 1


def test_a_decision_that_is_sent_again_is_one_order(rig: Rig) -> None:
    rig.time.fixed = NIGHT - timedelta(seconds=3600)
    rig.fault("rate_limit", rate_limit_headers=False)
    hash_ = rig.send()
    rig.execute()
    rig.time.fixed = NIGHT - timedelta(seconds=3500)
    rig.fill_budget()
    rig.execute(3)
    assert [what for what in rig.attempts(hash_) if what[0] == "submit"] == [
        ("submit", "rate_limited"), ("submit", "accepted"),
    ]  # fmt: skip
    counts = read(rig, -3500).strategy_counts["sample"]
    assert (counts.last_minute, counts.today, counts.open_orders) == (1, 1, 1)


def test_an_order_that_is_sent_again_is_counted_once_a_day(rig: Rig) -> None:
    """Made and sent before midnight, then twice after it: one order of either day."""
    rig.fault("rate_limit", count=3, rate_limit_headers=False)
    hash_ = rig.send()
    for after_s in (0, 20, 60, 100):
        rig.time.fixed = NIGHT + timedelta(seconds=after_s)
        rig.fill_budget()
        rig.execute(2)
    submits = [outcome for what, outcome in rig.attempts(hash_) if what == "submit"]
    assert submits == [*["rate_limited"] * 3, "accepted"]
    days = rig.sql("SELECT day::text, orders FROM order_counts ORDER BY day")
    assert [tuple(day) for day in days] == [("2026-01-06", 1), ("2026-01-07", 1)]


def test_an_order_that_ended_unfilled_needs_no_buying_power(rig: Rig) -> None:
    """Whatever the account's snapshot is from; control: one that filled in part still does."""
    for intent, filled in (("none", None), ("some", "4")):
        rig.time.fixed = NIGHT + timedelta(seconds=1)
        hash_ = sent(rig, intent=intent)
        assert read(rig).notional > 0
        if filled:
            rig.control("POST", f"/orders/{hash_}/fill", {"qty": filled, "price": "100"})
        rig.control("POST", f"/orders/{hash_}/cancel")
        rig.reconcile()
        assert (read(rig).notional > 0) is bool(filled)


def test_a_replaced_order_keeps_its_reservation(rig: Rig) -> None:
    """It ended without a fill, too, but its successor is open."""
    rig.time.fixed = NIGHT + timedelta(seconds=1)
    hash_ = sent(rig, type="limit", limit_price="90")
    before = read(rig).notional
    rig.sql("UPDATE executions SET status = 'replaced', terminal = true, leaves_qty = 0 "
            "WHERE client_order_id = :h", h=hash_)  # fmt: skip
    assert read(rig).notional == before > 0


def test_what_is_open_filled_and_in_doubt_is_counted_once(rig: Rig) -> None:
    """4 of 10 filled at the broker and not booked yet, 5 in doubt, and 7 of somebody else."""
    first = sent(rig)
    rig.control("POST", f"/orders/{first}/fill", {"qty": "4", "price": "100"})
    rig.fault("accept_then_reset")
    rig.send(intent="doubt", qty="5")
    rig.execute()
    rig.place(qty="7")
    found = read(rig).by_symbol["AAPL"]
    assert (found.ledger_qty, found.buy_qty) == (0, 15)  # nothing of it is known yet
    rig.reconcile()
    found = read(rig).by_symbol["AAPL"]
    assert (found.ledger_qty + found.buy_qty, found.sell_qty) == (10 + 5 + 7, 0)
    assert found.ledger_qty in (0, 4)
    counts = read(rig).strategy_counts
    assert (counts["sample"].open_orders, counts[""].open_orders) == (2, 1)


def test_an_order_that_has_ended_leaves_only_what_it_filled(rig: Rig) -> None:
    first = sent(rig)
    rig.control("POST", f"/orders/{first}/fill", {"qty": "4", "price": "100"})
    rig.control("POST", f"/orders/{first}/cancel")
    rig.reconcile()
    found = read(rig).by_symbol["AAPL"]
    assert (found.ledger_qty, found.buy_qty, found.sell_qty) == (4, 0, 0)
    assert read(rig).by_strategy[("sample", "AAPL")].ledger_qty == 4
    assert "AAPL" in read(rig).last_fill_at


def test_only_what_has_a_price_of_its_own_rests(rig: Rig) -> None:
    sent(rig)
    assert read(rig).resting == {}
    sent(rig, intent="limit", type="limit", limit_price="90")
    ((side, own),) = read(rig).resting["AAPL"]
    assert (side, own.limit_px) == ("buy", 90)


def test_a_decision_does_not_keep_itself_back(make_rig: MakeRig) -> None:
    """Story 39, with every window wide open; control: the next decision is kept back by it."""
    wide = {"cooldown_s": "3600", "duplicate_window_s": "3600", "max_orders_per_minute": "1",
            "max_orders_per_day": "1", "max_repeated_executions": "1"}  # fmt: skip
    rig = make_rig(risk=wide)
    rig.fault("rate_limit", count=2, rate_limit_headers=False)
    hash_ = rig.send()
    for _ in range(4):
        rig.execute()
        rig.fill_budget()
        if rig.status(hash_)[0] != "submitted":
            rig.time.pass_s(20)
    submits = [outcome for what, outcome in rig.attempts(hash_) if what == "submit"]
    assert submits == ["rate_limited", "rate_limited", "accepted"]
    rig.reconcile()
    rig.send(intent="next")
    rig.execute()
    (verdict,) = rig.sql("SELECT checks FROM risk_verdicts WHERE outcome = 'denied'")
    kept_back = {check["name"] for check in verdict.checks if not check["passed"]}
    assert {"cooldown_s", "duplicate_window_s", "max_orders_per_minute", "max_orders_per_day",
            "max_repeated_executions"} <= kept_back  # fmt: skip
