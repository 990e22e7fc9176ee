"""The runner: goes on after any exception, wakes at once, stops at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime

import pytest

from tests.services.rig import eventually
from torghut.clock import utc_now
from torghut.domain.errors import DatabaseUnavailable
from torghut.services.loops import BACKOFF_CAP_S, BACKOFF_FIRST_S, Loop

Start = Callable[..., Loop]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(run_once: Callable[[datetime], dict[str, int]], interval_s: float = 60) -> Loop:
            loop = Loop("test", run_once, interval_s=interval_s, clock=utc_now)
            loop.start()
            stack.callback(loop.stop, 5)
            return loop

        yield begin


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), ZeroDivisionError(), KeyError("x")])
def test_it_goes_on_after_an_exception(start: Start, error: Exception) -> None:
    runs: list[datetime] = []

    def run(now: datetime) -> dict[str, int]:
        runs.append(now)
        if len(runs) < 3:
            raise error
        return {"n": 1}

    loop = start(run, 0.01)
    began = time.monotonic()
    eventually(lambda: len(runs) >= 4)
    assert time.monotonic() - began >= 3 * BACKOFF_FIRST_S - 0.05  # 0.2 + 0.4 before the third
    assert loop.failures == 0


def test_the_backoff_doubles_up_to_its_cap() -> None:
    loop = Loop("test", lambda _: {}, interval_s=1, clock=utc_now)
    waits = [loop._failed(ValueError()) for _ in range(40)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == BACKOFF_CAP_S


def test_a_wake_up_does_not_cut_the_backoff_short(start: Start) -> None:
    """A sender that wakes us in a burst must not turn a failing database into a busy loop."""
    runs: list[int] = []

    def run(_: datetime) -> dict[str, int]:
        runs.append(1)
        raise DatabaseUnavailable("away")

    loop = start(run, 0.001)
    eventually(lambda: runs)
    pause = threading.Event()
    for _ in range(50):
        loop.wake()
        pause.wait(0.001)
    assert len(runs) <= 2


def test_a_wake_up_runs_at_once_and_none_is_lost(start: Start) -> None:
    runs: list[int] = []
    inside, go_on = threading.Event(), threading.Event()

    def run(_: datetime) -> dict[str, int]:
        runs.append(1)
        inside.set()
        go_on.wait(5)
        return {}

    loop = start(run)
    assert inside.wait(5)
    loop.wake()  # while it runs: it runs once more
    go_on.set()
    eventually(lambda: len(runs) == 2, 5)


def test_polling_goes_on_without_wake_ups(start: Start) -> None:
    """Story 44: a lost wake-up costs latency and nothing else."""
    runs: list[int] = []
    start(lambda _: runs.append(1) or {}, 0.01)
    eventually(lambda: len(runs) >= 5, 5)


@pytest.mark.parametrize("failing", [True, False])
def test_it_stops_quickly(start: Start, failing: bool) -> None:
    ran = threading.Event()

    def run(_: datetime) -> dict[str, int]:
        ran.set()
        if failing:
            raise DatabaseUnavailable("away")
        return {}

    loop = start(run, 3600)
    loop.failures = 10  # its pause would be the longest
    assert ran.wait(5)
    began = time.monotonic()
    assert loop.stop(5)
    assert time.monotonic() - began < 1


def test_a_run_under_way_is_not_cut_off(start: Start) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def run(_: datetime) -> dict[str, int]:
        inside.set()
        go_on.wait(10)
        return {}

    loop = start(run)
    assert inside.wait(5)
    assert not loop.stop(0.05)
    go_on.set()
    assert loop.stop(5)


def test_a_loop_that_stands_still_shows(start: Start) -> None:
    """What /healthz reads; control: one that comes round does not."""
    go_on = threading.Event()
    stuck = start(lambda _: {"waited": int(go_on.wait(10))}, 0.01)
    turning = start(lambda _: {}, 0.01)
    eventually(lambda: stuck.stalled_s > 0.3)
    assert turning.stalled_s < 0.3
    go_on.set()
    eventually(lambda: stuck.stalled_s < 0.1)


def test_a_loop_that_rests_until_its_time_is_not_overdue(start: Start) -> None:
    """An interval of an hour is no hour of standing still. Control: one that should run is."""
    release = threading.Event()
    resting = start(lambda _: {}, 3600)
    stuck = start(lambda _: {"waited": release.wait(60)}, 0.01)
    eventually(lambda: stuck.overdue_s > 0.3 and resting.stalled_s > 0.3)
    assert resting.overdue_s == 0
    release.set()


def test_a_loop_that_was_never_started_can_be_stopped() -> None:
    assert Loop("test", lambda _: {}, interval_s=1, clock=utc_now).stop(1)
