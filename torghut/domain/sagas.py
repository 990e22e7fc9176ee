"""Sagas, pure: where a saga and its steps may stand, and what comes next.

```
saga   running ──every step done──▶ completed
          │ a step failed for good
          ▼
       compensating ──every step that began undone──▶ compensated

step   pending ─▶ running ─▶ done ────┐
                     └────▶ failed ───┴▶ undoing ─▶ undone
```

Steps go forward one after the other, and are undone in reverse order, the one that failed first:
it may have done a part. Read a row as: power failed right after this status was committed. Running:
the action is called again, under the same key. Undoing: the compensation is. A trigger holds both
tables, and lets no saga end half done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from torghut.domain.errors import TorghutError
from torghut.domain.submission import backoff


class SagaStatus(StrEnum):
    """Where a saga stands."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"


class StepFailed(TorghutError):
    """Of an action: it failed for good, and the saga is to be undone. Never retried."""


class StepDelayed(TorghutError):
    """Of an action: not now; the same again after a pause."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often an action may fail transiently, and the pauses between: doubled, up to a cap.

    A compensation is retried for as long as it takes, with pauses up to `undo_cap_s`, the same cap
    unless it is given: what fails for days is not to be tried as often as what fails for seconds.
    """

    failures_max: int = 5
    first_s: float = 1.0
    cap_s: float = 60.0
    undo_cap_s: float | None = None

    def pause_s(self, failures: int, *, undoing: bool = False) -> float:
        """Seconds to wait after the failure of this number, from 1."""
        cap_s = self.cap_s if self.undo_cap_s is None or not undoing else self.undo_cap_s
        return backoff(failures, first_s=self.first_s, cap_s=cap_s)


@dataclass(frozen=True, slots=True)
class Act:
    """Call the action of the step at `position`."""

    position: int


@dataclass(frozen=True, slots=True)
class Undo:
    """Call the compensation of the step at `position`."""

    position: int


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to do."""

    status: SagaStatus


def next_move(status: SagaStatus, steps: Sequence[StepStatus]) -> Act | Undo | End:
    """What comes next for a saga that has not ended; a pure function of what is stored."""
    if status is SagaStatus.RUNNING:
        for position, step in enumerate(steps):
            if step is not StepStatus.DONE:
                return Act(position)
        return End(SagaStatus.COMPLETED)
    for position in reversed(range(len(steps))):
        if steps[position] not in (StepStatus.PENDING, StepStatus.UNDONE):
            return Undo(position)
    return End(SagaStatus.COMPENSATED)
