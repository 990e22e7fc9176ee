"""One at a time: the threads of simulated processes, who hand a baton to each other.

```
scheduler ──resume──▶ task ──pause, sleep or end──▶ scheduler ──resume──▶ another task …
```

A task runs on a thread of its own until it pauses; only the scheduler decides who is next, so a
run is a function of its decisions. What is thrown into a paused task is how a process dies: all
its tasks end where they stand, and nothing of them is executed any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class PowerFailure(BaseException):
    """The process is gone; nothing may catch this and go on."""


class Task:
    """Something that a process is doing; `error` is what it ended with."""

    def __init__(self, name: str, process: str, work: Callable[[], object]) -> None:
        self.name = name
        self.process = process
        self.work = work
        self.wake_at = 0.0
        self.done = False
        self.killed = False
        self.error: Exception | None = None
        self.worker: _Worker | None = None


class Baton:
    """Resumes tasks, one at a time; `close` when done."""

    def __init__(self) -> None:
        self.current: Task | None = None
        self._returned = threading.Lock()
        self._returned.acquire()
        self._free: list[_Worker] = []
        self._all: list[_Worker] = []

    def resume(self, task: Task) -> None:
        """Let a task run until it pauses or ends."""
        if task.worker is None:
            task.worker = self._free.pop() if self._free else self._new_worker()
            task.worker.task = task
        worker = task.worker
        self.current = task
        worker.go.release()
        self._returned.acquire()
        self.current = None
        if task.done:
            self._free.append(worker)

    def pause(self) -> None:
        """Called by a task: give the baton back until resumed. Raises PowerFailure."""
        task = self.current
        assert task is not None and task.worker is not None
        if not task.killed:
            self._returned.release()
            task.worker.go.acquire()
        if task.killed:
            raise PowerFailure

    def kill(self, task: Task) -> None:
        """End a paused task where it stands; one that has not begun never does."""
        task.killed = True
        if task.worker is None:
            task.done = True
        elif not task.done:
            self.resume(task)

    def close(self) -> None:
        """End the threads; no task may be under way."""
        for worker in self._all:
            worker.task = None
            worker.go.release()
            worker.join()

    def returned(self) -> None:
        """Called by a worker whose task has ended."""
        self._returned.release()

    def _new_worker(self) -> _Worker:
        worker = _Worker(self)
        self._all.append(worker)
        worker.start()
        return worker


class _Worker(threading.Thread):
    def __init__(self, baton: Baton) -> None:
        super().__init__(daemon=True)
        self.go = threading.Lock()
        self.go.acquire()
        self.task: Task | None = None
        self._baton = baton

    def run(self) -> None:
        while True:
            self.go.acquire()
            task = self.task
            if task is None:
                return
            try:
                task.work()
            except PowerFailure:
                pass
            except Exception as error:  # noqa: BLE001  the scheduler judges it
                task.error = error
            task.done = True
            self._baton.returned()
