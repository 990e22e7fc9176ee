"""One at a time: the tasks of simulated processes, who hand a baton to each other.

```
scheduler ──resume──▶ task ──pause, sleep or end──▶ scheduler ──resume──▶ another task …
```

A task runs on a stack of its own until it pauses; only the scheduler decides who is next, so a
run is a function of its decisions. What is thrown into a paused task is how a process dies: all
its tasks end where they stand, and nothing of them is executed any more.
"""

from __future__ import annotations

from collections.abc import Callable

from greenlet import getcurrent, greenlet


class PowerFailure(BaseException):
    """The process is gone; nothing may catch this and go on."""


class Task:
    """Something that a process is doing; `error` is what it ended with."""

    def __init__(self, name: str, process: str, work: Callable[[], object]) -> None:
        self.name = name
        self.process = process
        self.wake_at = 0.0
        self.done = False
        self.killed = False
        self.error: Exception | None = None
        self._work = work
        self.stack = greenlet(self._run)

    def _run(self) -> None:
        try:
            self._work()
        except PowerFailure:
            pass
        except Exception as error:  # noqa: BLE001  the scheduler judges it
            self.error = error
        self.done = True


class Baton:
    """Resumes tasks, one at a time."""

    def __init__(self) -> None:
        self.current: Task | None = None
        self._scheduler = getcurrent()

    def resume(self, task: Task) -> None:
        """Let a task run until it pauses or ends."""
        assert self.current is None, "only the scheduler decides who is next"
        self._scheduler = task.stack.parent = getcurrent()
        self.current = task
        task.stack.switch()
        self.current = None

    def pause(self) -> None:
        """Called by a task: give the baton back until resumed. Raises PowerFailure."""
        task = self.current
        assert task is not None
        if not task.killed:
            self._scheduler.switch()
        if task.killed:
            raise PowerFailure

    def kill(self, task: Task) -> None:
        """End a paused task where it stands; one that has not begun never does."""
        task.killed = True
        if not task.stack:
            task.done = True
        elif not task.done:
            self.resume(task)
