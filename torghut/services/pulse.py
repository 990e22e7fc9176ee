"""The pulse: looks for work for every account of the process at once, and wakes whose it is.

```
every POLL_S: one question ─▶ (account, kind of work) ─▶ that account's loop
```

So the loops themselves need not ask four times a second each: idle accounts cost next to nothing,
however many a process has. It only wakes: a loop that is not woken, because the pulse fails or does
not know its reason to run, comes round by itself after REST_S.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from torghut.storage import pulse
from torghut.storage.database import Database
from torghut.storage.pulse import Work

POLL_S = 0.25
REST_S = 5.0
BACKOFF_CAP_S = 0.5  # others wait for it when the database is back
STANDBY_S = 2.0  # who owns nothing looks for rows of the inbox alone, as the owners do
SPACING_S: Mapping[Work, float] = {Work.FLATTENING: 0.5}  # each of its steps asks the broker

Wake = Callable[[str, Work], None]


class Pulse:
    """Asks for one process; `run_once` is called by one thread."""

    def __init__(
        self,
        database: Database,
        served: Collection[str],
        *,
        owned: Callable[[], Collection[str]],
        wake: Wake,
    ) -> None:
        """`served`: accounts whose inbox is taken; `owned`: those whose loops work now."""
        self._database = database
        self._served = served
        self._owned = owned
        self._wake = wake
        self._looked_at = float("-inf")
        self._woken: dict[tuple[str, Work], float] = {}

    def run_once(self, now: datetime) -> dict[str, int]:
        """One look; returns how many loops were woken."""
        owned = self._owned()
        if not owned and time.monotonic() - self._looked_at < STANDBY_S:
            return {}
        with self._database.transaction() as tx:
            found = pulse.waiting(tx, owned, self._served, now=now)
        self._looked_at = time.monotonic()
        woken = 0
        for account, work in found:
            at = time.monotonic()
            if at - self._woken.get((account, work), float("-inf")) >= SPACING_S.get(work, 0.0):
                self._woken[account, work] = at
                self._wake(account, work)
                woken += 1
        return {"woken": woken}
