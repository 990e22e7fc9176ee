"""Seats: which of the accounts that this process could own it seeks, and which it gives away.

```
every LOOK_S while an account of ours is another's; else with the heartbeat
   announce this process ─▶ who lives, who owns what ─▶ free, and our turn: seek the lease
                                                    └▶ we have two more than another: hand over
```

1. A hint and nothing more: leases and fencing tokens decide who writes, whatever is in `replicas`.
   A process that looks at old rows seeks a lease and does not get it.
2. What is free is sought at once by whose turn it is, and by the next ones COURTESY_S later each:
   if the first is gone, or cannot, nobody waits long.
3. A clean end withdraws the process before it releases anything, so that nothing comes back to it.
4. A release is heard (NOTIFY); where it is not, LOOK_S finds it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from torghut.domain.errors import DatabaseUnavailable
from torghut.domain.seating import Replica, next_move, takers
from torghut.storage import replicas
from torghut.storage.database import Database

LOOK_S = 0.5
COURTESY_S = 0.4
RANK_MAX = 2

log = structlog.get_logger(__name__)


class Seat(Protocol):
    """One account in this process: torghut.services.supervisor."""

    cleared: bool
    """The broker's account may be traded, as far as is known."""

    @property
    def holds(self) -> bool:
        """The lease is ours."""

    def seek(self) -> None:
        """Try to take the lease."""

    def stand_by(self) -> None:
        """Another process has it."""

    def hand_over(self) -> None:
        """Give it up when nothing is under way."""


class Seats:
    """Spreads the accounts of one process; `run_once` is called by one thread."""

    def __init__(
        self, owner: str, database: Database, seats: Mapping[str, Seat], *, ttl_s: float
    ) -> None:
        self._owner = owner
        self._database = database
        self._seats = seats
        self._ttl_s = ttl_s
        self._looked_at = float("-inf")
        self._announced: tuple[float, list[str]] = (float("-inf"), [])
        self._free_since: dict[str, float] = {}

    def run_once(self, _now: datetime) -> dict[str, int]:
        """One look; returns what was sought and given away."""
        able = sorted(label for label, seat in self._seats.items() if seat.cleared)
        waiting = [label for label in able if not self._seats[label].holds]
        at = time.monotonic()
        quiet = not waiting and able == self._announced[1]
        if quiet and at - self._looked_at < self._ttl_s / 5:
            return {}
        announced = self._announced
        with self._database.transaction() as tx:
            if at - self._announced[0] >= self._ttl_s / 5 or able != self._announced[1]:
                replicas.announce(tx, self._owner, able, ttl_s=self._ttl_s)
                announced = (at, able)
            living = replicas.living(tx, settled_after_s=self._ttl_s)
            owners = replicas.owners(tx)
        self._looked_at, self._announced = at, announced
        for label in waiting:
            if label in owners:
                self._seats[label].stand_by()
        sought = self._seek([label for label in waiting if label not in owners], living, owners)
        return {"sought": sought, "given": self._give(living, owners)}

    def withdraw(self) -> None:
        """Before the end: let the others take what this process is about to release."""
        try:
            with self._database.transaction() as tx:
                replicas.withdraw(tx, self._owner)
        except DatabaseUnavailable as error:
            log.warning("not withdrawn; it runs out by itself", error=str(error))

    def _seek(self, free: list[str], living: Sequence[Replica], owners: Mapping[str, str]) -> int:
        at = time.monotonic()
        self._free_since = {label: self._free_since.get(label, at) for label in free}
        # what others wait for counts, too: each of us works out the same order
        everything = {label for one in living for label in one.accounts} - owners.keys()
        turns = takers(everything | set(free), living, owners)
        sought = 0
        for label in free:
            rank = turns[label].index(self._owner) if self._owner in turns[label] else RANK_MAX
            if at - self._free_since[label] >= min(rank, RANK_MAX) * COURTESY_S:
                self._seats[label].seek()
                sought += 1
        return sought

    def _give(self, living: Sequence[Replica], owners: Mapping[str, str]) -> int:
        move = next_move(living, owners)
        if move is None or move.giver != self._owner or move.account not in self._seats:
            return 0
        log.info("another process has fewer accounts", account=move.account, taker=move.taker)
        self._seats[move.account].hand_over()
        return 1
