"""The scheduler: each tick once, with its decisions or not at all (story 35)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig, eventually
from torghut.domain.errors import ConfigError
from torghut.ports import StrategyFacts
from torghut.services.scheduler import Scheduled, Scheduler
from torghut.strategy_settings import StrategyConfig

START = datetime(2026, 1, 5, 15, 2, tzinfo=UTC)  # 10:02 in New York
FIVE = datetime(2026, 1, 5, 15, 5, tzinfo=UTC)
TTL = timedelta(days=3650)


class Buying:
    """Buys one share at every tick."""

    bars_wanted = 0

    def __init__(self, *proposals: Mapping[str, object]) -> None:
        self.seen: list[StrategyFacts] = []
        self.proposals = proposals or (
            {"symbol": "AAPL", "side": "buy", "type": "market", "qty": "1"},
        )

    def decide(self, facts: StrategyFacts) -> Sequence[Mapping[str, object]]:
        self.seen.append(facts)
        return self.proposals


class Failing(Buying):
    def decide(self, facts: StrategyFacts) -> Sequence[Mapping[str, object]]:
        raise ValueError("no idea")


def item(name: str = "five", strategy: Any = None, **config: Any) -> Scheduled:
    values = {"class": "x:Y", "schedule": "*/5 * * * *", "symbols": ("AAPL",), **config}
    return Scheduled.create(name, StrategyConfig(**values), strategy or Buying())


Make = Callable[..., Scheduler]


@pytest.fixture
def make(rig: Rig) -> Make:
    rig.reconcile()  # the account's snapshot: strategies are told its equity

    def scheduler(*items: Scheduled, owner: str = "one") -> Scheduler:
        return Scheduler(
            ACCOUNT, owner, rig.database, rig.market, items or (item(),),
            decision_ttl_s=TTL.total_seconds(), clock=rig.time, wake=lambda: None,
        )  # fmt: skip

    return scheduler


def ticks(rig: Rig) -> list[tuple[str, datetime, str, int]]:
    rows = rig.sql("SELECT * FROM strategy_ticks ORDER BY strategy, scheduled_for")
    return [(r.strategy, r.scheduled_for, r.outcome, r.decisions) for r in rows]


def test_the_first_look_is_the_beginning_of_time(rig: Rig, make: Make) -> None:
    """Nothing before it was missed: no ticks are made up for a strategy that is new."""
    assert make().run_once(START)["ticks"] == 0
    assert ticks(rig) == [("five", START, "skipped", 0)]
    assert rig.count("trade_decisions") == 0


def test_a_tick_and_its_decision(rig: Rig, make: Make) -> None:
    scheduler = make()
    scheduler.run_once(START)
    assert scheduler.run_once(FIVE - timedelta(seconds=1))["ticks"] == 0
    assert scheduler.run_once(FIVE + timedelta(seconds=3))["ticks"] == 1
    assert scheduler.run_once(FIVE + timedelta(seconds=4))["ticks"] == 0
    assert ticks(rig)[1:] == [("five", FIVE, "ran", 1)]
    (row,) = rig.sql("SELECT * FROM trade_decisions")
    assert (row.event_ts, row.strategy, row.source) == (FIVE, "five", "strategy:five")
    assert row.expires_at == FIVE + TTL


def test_replicas_that_race_run_it_once(rig: Rig, make: Make) -> None:
    """Two schedulers at the same instant, many ticks: each ran once, one decision each."""
    first, second = make(owner="one"), make(owner="two")
    first.run_once(START)
    for n in range(1, 13):
        at = START + timedelta(minutes=5 * n)
        start = threading.Barrier(2)

        def tick(scheduler: Scheduler, at: datetime = at, start: threading.Barrier = start) -> int:
            start.wait(10)
            return scheduler.run_once(at)["ticks"]

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(tick, [first, second])) == [0, 1]
    assert [t[2] for t in ticks(rig)] == ["skipped"] + ["ran"] * 12
    assert rig.count("trade_decisions") == 12


def test_a_restarted_scheduler_does_not_run_it_again(rig: Rig, make: Make) -> None:
    make().run_once(START)
    make().run_once(FIVE)
    assert make(owner="later").run_once(FIVE)["ticks"] == 0
    assert rig.count("trade_decisions") == 1


@pytest.mark.parametrize(("setting", "ran"), [("run_once", 1), ("skip", 0)])
def test_missed_ticks(rig: Rig, make: Make, setting: str, ran: int) -> None:
    """An hour of downtime: the older ones are recorded as skipped, the newest by setting."""
    scheduler = make(item(missed_ticks=setting))
    scheduler.run_once(START)
    counts = scheduler.run_once(START + timedelta(minutes=62))  # 16:00 was the newest
    assert (counts["ticks"], counts["skipped"]) == (ran, 12 - ran)
    newest = ticks(rig)[-1]
    assert newest[1:3] == (datetime(2026, 1, 5, 16, 0, tzinfo=UTC), "ran" if ran else "skipped")
    assert rig.count("trade_decisions") == ran


def test_a_little_late_is_not_missed(rig: Rig, make: Make) -> None:
    scheduler = make(item(missed_ticks="skip"))
    scheduler.run_once(START)
    assert scheduler.run_once(FIVE + timedelta(seconds=50))["ticks"] == 1


def test_the_schedule_is_in_new_york_time(rig: Rig, make: Make) -> None:
    """16:05 there on both sides of the change to summer time."""
    closing = item(schedule="5 16 * * mon-fri")
    due = closing.due(datetime(2026, 3, 6, 0, tzinfo=UTC), datetime(2026, 3, 10, tzinfo=UTC))
    assert [t.astimezone(UTC).hour for t in due] == [21, 20]


@pytest.mark.parametrize("where", ["store", "commit"])
def test_power_fails_between_tick_and_decisions(
    rig: Rig, make: Make, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Neither is there; the next run does both."""

    class Power(BaseException):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Power

    scheduler = make()
    scheduler.run_once(START)
    with monkeypatch.context() as patch, pytest.raises(Power):
        if where == "store":
            patch.setattr("torghut.services.scheduler.store", fail)
        else:
            patch.setattr(rig.database, "_commit", fail)
        scheduler.run_once(FIVE) if where == "store" else scheduler.run_tick(item(), FIVE)
    assert (len(ticks(rig)), rig.count("trade_decisions")) == (1, 0)
    assert scheduler.run_once(FIVE)["ticks"] == 1
    assert (len(ticks(rig)), rig.count("trade_decisions")) == (2, 1)


def test_one_strategy_that_fails_does_not_stop_the_others(rig: Rig, make: Make) -> None:
    scheduler = make(item("bad", Failing()), item("good"))
    scheduler.run_once(START)
    counts = scheduler.run_once(FIVE)
    assert (counts["failed"], counts["ticks"]) == (1, 1)
    assert [t[0] for t in ticks(rig) if t[2] == "ran"] == ["good"]  # the bad one is due still


def test_a_proposal_that_is_no_decision_does_not_stop_the_others(rig: Rig, make: Make) -> None:
    good = {"symbol": "MSFT", "side": "buy", "type": "market", "qty": "1"}
    scheduler = make(item(strategy=Buying({**good, "qty": "-1"}, good)))
    scheduler.run_once(START)
    assert scheduler.run_once(FIVE)["ticks"] == 1
    assert rig.sql("SELECT symbol FROM trade_decisions") == [("MSFT",)]


def test_a_strategy_cannot_change_who_it_is_or_when_it_is(rig: Rig, make: Make) -> None:
    proposal = {"symbol": "AAPL", "side": "buy", "type": "market", "qty": "1",
                "strategy": "another", "event_ts": "2020-01-01T00:00:00Z"}  # fmt: skip
    scheduler = make(item(strategy=Buying(proposal)))
    scheduler.run_once(START)
    scheduler.run_once(FIVE)
    assert rig.sql("SELECT strategy, event_ts FROM trade_decisions") == [("five", FIVE)]


def test_what_a_strategy_is_told(rig: Rig, make: Make) -> None:
    """Its own position (not another's), equity, the tick's time as its now."""
    strategy = Buying()
    scheduler = make(item(strategy=strategy, params={"a": 1}))
    rig.place(qty="5")  # somebody else's
    scheduler.run_once(START)
    scheduler.run_once(FIVE)
    rig.drive([row[0] for row in rig.sql("SELECT decision_hash FROM trade_decisions")])
    eventually(lambda: rig.reconcile() and rig.count("fills") == 2)
    scheduler.run_once(FIVE + timedelta(minutes=5))
    first, second = strategy.seen
    assert (first.scheduled_for, first.positions, first.params) == (FIVE, {}, {"a": 1})
    assert second.positions == {"AAPL": 1}
    assert second.equity > 0


@pytest.mark.parametrize("schedule", ["", "every day", "* * * *", "61 * * * *", "* * * * * *"])
def test_a_schedule_that_is_none(schedule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        item(schedule=schedule)
    assert "[strategies.five] schedule" in str(caught.value)
