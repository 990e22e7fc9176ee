"""Load, and what must be true after it: a sender that repeats itself until it is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from tests.crash.world import World, numbered
from tests.services.rig import eventually
from torghut.domain.decisions import Decision
from torghut.domain.errors import DatabaseUnavailable, NotDurable

SETTLED_S = 60.0
BACKLOG_MAX = 200
QTY = "0.01"  # thousands of them stay within limits and buying power


class Sender:
    """Sends `count` decisions, `batch` at a time, on a thread of its own, until each is accepted.

    `acknowledged` are the hashes that were answered. An `impatient` one takes an error for an
    answer: what a control needs.
    """

    def __init__(
        self,
        world: World,
        count: int,
        *,
        batch: int = 5,
        pause_s: float = 0.0,
        impatient: bool = False,
    ) -> None:
        self._world = world
        self._impatient = impatient
        self._batch = batch
        self._pause_s = pause_s
        self._left = numbered(0, count, QTY)
        self.count = count
        self.acknowledged: list[str] = []
        self.answered_at: list[float] = []
        self.refusals = 0
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
        assert self.done, f"only {len(self.acknowledged)} acknowledged within {timeout_s} s"
        assert len(self.acknowledged) == self.count

    def resumed_after(self, moment: float) -> float | None:
        """Seconds from `moment` to the first answer after it; None until there is one."""
        return next((at - moment for at in list(self.answered_at) if at > moment), None)

    def _run(self) -> None:
        for start in range(0, self.count, self._batch):
            part = self._left[start : start + self._batch]
            while not (self._has_room() and self._sent(part)):
                self._pause.wait(0.05)
            if self._pause_s:
                self._pause.wait(self._pause_s)

    def _has_room(self) -> bool:
        """Decisions are stored much faster than orders are sent: a load, not a backlog."""
        return self._impatient or patiently(lambda: self._world.state()["open"] < BACKLOG_MAX)

    def _sent(self, part: Sequence[Decision]) -> bool:
        try:
            self._world.accept(part)
        except (DatabaseUnavailable, NotDurable):
            self.refusals += 1
            if not self._impatient:
                return False
        self.answered_at.append(time.monotonic())
        self.acknowledged += [one.decision_hash for one in part]
        return True


def settle(world: World, sender: Sender) -> float:
    """Wait until everything is settled, at most SETTLED_S after the faults; how long it took."""
    began = time.monotonic()
    eventually(lambda: patiently(lambda: bool(world.state())))  # its recovery may be under way
    world.wait(lambda: bool(patiently(world.settled)), "all decisions terminal", SETTLED_S)
    assert world.state()["known"] == sender.count
    return time.monotonic() - began


def patiently(ask: Callable[[], bool]) -> bool:
    """The answer; False while the database does not answer, or answers and dies (a warning)."""
    try:
        return ask()
    except (DatabaseUnavailable, NotDurable):
        return False


def faults(world: World, sender: Sender) -> list[str]:
    """What does not hold: books, and every acknowledged decision is there with one order."""
    orders = world.ledger()["orders"]
    lost = [h for h in sender.acknowledged if len(orders.get(h, [])) != 1]
    return world.book_faults() + [f"{h[:8]}: {len(orders.get(h, []))} orders" for h in lost]
