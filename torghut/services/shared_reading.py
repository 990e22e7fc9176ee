"""One reading for all who ask at the same time.

Whoever asks gets a reading that began after it asked, so it is as fresh as one of its own; who
comes while one is under way waits for the next, together with all the others that do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReading(Generic[T]):
    """Thread-safe. An exception of `read` is raised to everybody whom that reading was for."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._turn = threading.Condition()
        self._begun = 0
        self._ended = 0
        self._value: T
        self._error: BaseException | None = None

    def get(self) -> T:
        """The value of a reading that began after this call."""
        with self._turn:
            wanted = self._begun + 1
            while self._begun > self._ended:  # somebody reads
                self._turn.wait()
                if self._ended >= wanted:
                    return self._answer()
            self._begun += 1
        return self._lead()

    def _lead(self) -> T:
        error: BaseException | None = None
        try:
            value = self._read()
        except Exception as raised:  # noqa: BLE001 - it is handed to those who wait
            error = raised
        with self._turn:
            self._ended, self._error = self._begun, error
            if error is None:
                self._value = value
            self._turn.notify_all()
            return self._answer()

    def _answer(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value
