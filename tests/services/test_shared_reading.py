"""One reading for all who ask at once is never older than the question (P11)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from torghut.services.shared_reading import SharedReading


class Slow:
    """Readings that wait to be let through, one after the other."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.through = threading.Semaphore(0)
        self.count = 0

    def read(self) -> int:
        self.count += 1
        mine = self.count
        self.begun.release()
        assert self.through.acquire(timeout=60)
        return mine


def test_who_comes_during_a_reading_waits_for_the_next_with_all_the_others() -> None:
    slow = Slow()
    shared = SharedReading(slow.read)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(shared.get)
        assert slow.begun.acquire(timeout=60)
        late = [pool.submit(shared.get) for _ in range(8)]
        waiting = shared._turn
        while True:
            with waiting:
                if len(waiting._waiters) == 8:  # type: ignore[attr-defined]
                    break
        slow.through.release(2)
        assert first.result(60) == 1
        assert [one.result(60) for one in late] == [2] * 8
    assert slow.count == 2


def test_a_failure_is_told_to_all_whom_it_concerns_and_to_nobody_after() -> None:
    answers = iter([OSError("away"), 7])

    def read() -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    shared = SharedReading(read)
    with pytest.raises(OSError, match="away"):
        shared.get()
    assert shared.get() == 7
