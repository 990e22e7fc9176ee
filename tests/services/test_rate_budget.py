"""The token bucket: a share for what must get through, and the broker's word on its own limit."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from torghut.ports import RateState
from torghut.services.rate_budget import PAUSE_CAP_S, PAUSE_UNKNOWN_S, RateBudget

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


class Clock:
    """`time` under the test's hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("torghut.services.rate_budget.time", clock)
    return clock


def test_orders_leave_the_reserve_and_questions_may_take_it(clock: Clock) -> None:
    budget = RateBudget(100)
    assert budget.for_orders(1000) == 80
    assert budget.for_orders(1) == 0
    assert sum(budget.wait_for_one(0) for _ in range(30)) == 20
    assert budget.left == 0


def test_it_fills_with_time_and_no_further(clock: Clock) -> None:
    budget = RateBudget(60)
    assert budget.for_orders(1000) == 48
    clock.at += 10
    assert budget.for_orders(1000) == 10
    clock.at += 10_000
    assert budget.left == 60


@pytest.mark.parametrize("seconds", [60, 90, 600])
def test_over_any_time_no_more_than_allowed(clock: Clock, seconds: int) -> None:
    budget = RateBudget(60)
    taken = 0
    for _ in range(seconds * 10):
        clock.at += 0.1
        taken += budget.for_orders(7) + budget.wait_for_one(0)
    assert taken <= 60 + seconds + 1
    assert taken >= seconds - 1


def test_unused_tokens_come_back_up_to_the_size(clock: Clock) -> None:
    budget = RateBudget(100)
    budget.give_back(budget.for_orders(50))
    assert budget.left == 100
    budget.give_back(50)
    assert budget.left == 100


def test_after_a_429_nothing_before_the_reset(clock: Clock) -> None:
    budget = RateBudget(100)
    assert budget.pause(NOW + timedelta(seconds=20), now=NOW) == 20
    clock.at += 19.9
    assert (budget.left, budget.for_orders(1), budget.wait_for_one(0)) == (0, 0, False)
    clock.at += 0.2
    assert budget.for_orders(1) == 1  # the window is over: a new one


@pytest.mark.parametrize(
    ("until_s", "wait_s"),
    [(None, PAUSE_UNKNOWN_S), (-50, 0.5), (0, 0.5), (1e6, PAUSE_CAP_S), (30, 30)],
)
def test_a_pause_is_bounded(clock: Clock, until_s: float | None, wait_s: float) -> None:
    """An absurd reset neither stops trading for good nor is taken as leave to go on at once."""
    until = None if until_s is None else NOW + timedelta(seconds=until_s)
    assert RateBudget(100).pause(until, now=NOW) == wait_s


def test_a_shorter_pause_does_not_end_a_longer_one(clock: Clock) -> None:
    budget = RateBudget(100)
    budget.pause(NOW + timedelta(seconds=60), now=NOW)
    budget.pause(None, now=NOW)
    clock.at += 30
    assert budget.left == 0


def test_the_brokers_word(clock: Clock) -> None:
    budget = RateBudget(200)
    budget.correct(RateState(limit=1000, remaining=999), now=NOW)
    assert budget.left == 999
    budget.correct(RateState(limit=50, remaining=40), now=NOW)
    assert budget.left == 40
    budget.correct(RateState(remaining=10), now=NOW)
    assert (budget.left, budget.for_orders(100)) == (10, 0)
    clock.at += 60
    assert budget.left == 50


@pytest.mark.parametrize("state", [RateState(), RateState(limit=0), RateState(limit=-5)])
def test_no_word_changes_nothing(clock: Clock, state: RateState) -> None:
    budget = RateBudget(200)
    budget.correct(state, now=NOW)
    assert budget.left == 200


def test_waiting_for_a_token() -> None:
    """In real time: a token comes in, and who waits gets it; who cannot, gives up in time."""
    budget = RateBudget(600)
    budget.pause(None, now=NOW)
    budget._paused_until = 0
    budget._level_after_pause = 0
    assert budget.wait_for_one(5)
    empty = RateBudget(1)
    assert empty.wait_for_one(0)
    assert not empty.wait_for_one(0.05)


def test_threads_take_each_token_once(clock: Clock) -> None:
    budget = RateBudget(1000)
    taken: list[int] = []
    threads = [
        threading.Thread(target=lambda: taken.append(sum(budget.for_orders(1) for _ in range(200))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(taken) == 800


def test_a_number_that_was_set_is_a_ceiling() -> None:
    """Other programs may share the account: the broker's own limit does not lift it."""
    chosen = RateBudget(20, ceiling=True)
    chosen.correct(RateState(limit=1_000, remaining=999), now=NOW)
    assert chosen.left <= 20


def test_control_the_default_follows_the_broker() -> None:
    default = RateBudget(20)
    default.correct(RateState(limit=1_000, remaining=999), now=NOW)
    assert default.left > 900
