"""The counter: single decisions that arrive at the same time share one transaction.

```
POST ─┐                                  ┌─▶ answer
POST ─┼─▶ queue ─▶ IntakeDesk (≤ 200) ───┼─▶ answer          one batch under way at a time
POST ─┘            one commit            └─▶ answer
```

1. Nobody waits for company: an idle counter takes a lone decision at once; while one batch commits
   the next one gathers. So an fsync is shared by as many as came during the one before.
2. An answer is given after the commit (P2).
3. A batch that fails for a reason of its own (not the database being away) is taken again one by
   one, so that no decision is refused because of its neighbour.
4. Whoever waits longer than the deadline gets a 503; its decision may be stored all the same, and
   is then answered `replayed`.

Runs on the event loop only; the desk works on a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from torghut.domain.decisions import Decision
from torghut.domain.errors import DatabaseUnavailable, TorghutError
from torghut.services.intake import IntakeDesk
from torghut.storage.rows import Intake
from torghut.web.problems import unavailable
from torghut.web.workers import ANSWER_S, Workers

BATCH_MAX = 200
WAITING_MAX = 2_000
SOURCE = "http"

_Waiting = tuple[Decision, "asyncio.Future[Intake]"]


class Counter:
    """Takes single decisions to the desk. Use from one event loop."""

    def __init__(self, desk: IntakeDesk, *, deadline_s: float = ANSWER_S) -> None:
        self._desk = desk
        self._deadline_s = deadline_s
        self._workers = Workers("intake", 1, deadline_s=deadline_s)
        self._queue: deque[_Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def accept(self, decision: Decision) -> Intake:
        """The desk's answer. Raises what the desk raises, Problem 503 when too many wait."""
        if len(self._queue) >= WAITING_MAX:
            raise unavailable("too many decisions wait to be stored; nothing is acknowledged")
        future: asyncio.Future[Intake] = asyncio.get_running_loop().create_future()
        self._queue.append((decision, future))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        try:
            return await asyncio.wait_for(future, self._deadline_s)
        except TimeoutError:
            raise DatabaseUnavailable("the decision was not stored in time") from None

    def close(self) -> None:
        """Take no more."""
        self._workers.close()

    async def _serve(self) -> None:
        while self._queue:
            batch: list[_Waiting] = []
            while self._queue and len(batch) < BATCH_MAX:
                decision, future = self._queue.popleft()
                if not future.done():  # given up meanwhile
                    batch.append((decision, future))
            if batch:
                await self._take(batch)

    async def _take(self, batch: Sequence[_Waiting]) -> None:
        decisions = [decision for decision, _ in batch]
        try:
            answers = await self._workers.call(lambda: self._desk.accept(decisions, source=SOURCE))
        except Exception as error:  # noqa: BLE001 - it is handed to those who wait
            if len(batch) > 1 and not isinstance(error, TorghutError):
                for one in batch:
                    await self._take([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
