"""The relay: gives each sink every event, in order, at least once (P9). One relay for each sink.

```
 writers ──▶ events ──▶ claim the cursor, read a page ──▶ publish, one by one ──▶ record ─┐
             (their          commit                       no transaction open     commit  │
              own tx)          ▲                                                          │
                               └──────────── at once if there was something ──────────────┘
```

Event numbers are taken in one order and become visible in another, so "greater than the last one
that I saw" skips what is committed late. The cursor is therefore a *snapshot* of Postgres: the set
of transactions whose events were given. A window is what a newer snapshot sees and that one does
not; it is worked off in the order of `event_seq`, page by page, and then the newer snapshot is the
cursor.

1. Nothing is skipped. A transaction that commits is seen by every snapshot taken afterwards, and
   by none before; so its events are in exactly one window, the first that sees it, however long it
   took and whatever numbers it had drawn.
2. The order holds. Let A have committed when B writes an event: B's step waited for the row that A
   had locked, or came later for another reason. Every snapshot that sees B sees A, so A's window
   is not after B's; and in the same window A comes first, as its number was drawn before its
   commit, and B's after it. Changes of one decision are such steps, one after the other.
3. A page is published one event at a time, from a recorded position on, and the position is
   recorded only after the sink has answered. A process that dies or stalls in between leaves a
   repetition, never a gap. Two that publish at once, because a lease ran out, both run forward
   from recorded positions: a consumer that drops repetitions by `id` sees each event once, in
   order.
4. Order by transaction number instead would be wrong: a transaction may have drawn a small one
   long before it took the decision's lock, and overtakes the change that it had waited for. Below
   `pg_snapshot_xmin` nothing would be skipped, but one forgotten transaction anywhere would hold
   up all sinks; here it holds up its own events only.

Failure behaviour: a sink that does not answer is left alone for 1 s, 2 s, 4 s … up to a minute,
with jitter, or for as long as it asks; the others go on, as each has its own relay and thread. An
event that the sink refuses for good becomes a dead letter, and the next one is given: later events
of the same decision do not wait for it. A person has dead letters tried again or drops them
(operator.py); one that is taken at last comes out of order, as what it is: an old event, by its
`seq`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from torghut import telemetry
from torghut.domain.outbox import EventRefused, Message, OutboxEvent, SinkUnavailable
from torghut.ports import Publisher
from torghut.recovery_points import RecoveryPoint, reached
from torghut.storage import dead_letters, outbox
from torghut.storage.database import Database
from torghut.storage.dead_letters import Refusal
from torghut.storage.outbox import Cursor, Failure

PAGE_MAX = 200
BACKOFF_FIRST_S = 1.0
BACKOFF_CAP_S = 60.0
WORKING_SHARE = 0.5  # of the lease: a page that takes longer is cut short
MEASURE_S = 5.0
ERROR_LENGTH_MAX = 300

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Given:
    """What became of a page: up to `after_seq` each event was taken or refused."""

    after_seq: int | None = None
    taken: list[OutboxEvent] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    failure: Failure | None = None


class Relay:
    """Gives one sink its events. `run_once` is called by one thread; `halt` by any."""

    def __init__(
        self,
        sink: str,
        publisher: Publisher,
        database: Database,
        owner: str,
        *,
        lease_ttl_s: float,
        from_now: bool = False,
        rng: random.Random,
        secrets: Sequence[str] = (),
    ) -> None:
        self.sink = sink
        self._publisher = publisher
        self._database = database
        self._owner = owner
        self._ttl_s = lease_ttl_s
        self._from_now = from_now
        self._rng = rng
        self._secrets = tuple(sorted(filter(None, secrets), key=len, reverse=True))
        self._begun = False
        self._halting = threading.Event()
        self._measured_at = float("-inf")

    def halt(self) -> None:
        """End the page under way after the event under way."""
        self._halting.set()

    def run_once(self, now: datetime) -> dict[str, int]:
        """One page, if there is one and nobody else has the cursor; returns counts."""
        counts: dict[str, int] = {}
        if self._has_work():
            cursor, retries, events = self._take()
            if cursor is not None:
                counts = self._work(cursor, retries, events, now)
        self._measure(now)
        return counts

    def _has_work(self) -> bool:
        with self._database.transaction() as tx:
            if not self._begun:
                outbox.begin(tx, self.sink, from_now=self._from_now)
            work = outbox.has_work(tx, self.sink, self._owner)
        self._begun = True
        return work

    def _take(self) -> tuple[Cursor | None, list[OutboxEvent], list[OutboxEvent]]:
        with self._database.transaction() as tx:
            cursor = outbox.claim(tx, self.sink, self._owner, ttl_s=self._ttl_s)
            if cursor is None:
                return None, [], []
            retries = dead_letters.retrying(tx, self.sink, limit=PAGE_MAX)
            return cursor, retries, outbox.page(tx, cursor, limit=PAGE_MAX)

    def _work(
        self,
        cursor: Cursor,
        retries: Sequence[OutboxEvent],
        events: Sequence[OutboxEvent],
        now: datetime,
    ) -> dict[str, int]:
        end = time.monotonic() + self._ttl_s * WORKING_SHARE
        old = self._give(retries, cursor, end)
        new = _Given(failure=old.failure)
        if old.failure is None:
            new = self._give(events, cursor, end)
        reached(RecoveryPoint.RELAY_BEFORE_COMMIT)
        delivered = len(old.taken) + len(new.taken)
        refused = [*old.refused, *new.refused]
        with self._database.transaction() as tx:
            ours = outbox.record(
                tx,
                cursor,
                after_seq=new.after_seq,
                delivered=delivered,
                failure=new.failure,
                now=now,
            )
            if ours:
                for one in refused:
                    dead_letters.bury(tx, self.sink, one, now=now)
                dead_letters.revived(tx, self.sink, old.taken, now=now)
        reached(RecoveryPoint.RELAY_AFTER_COMMIT)
        self._tell(delivered, refused, new.failure)
        counts = {"delivered": delivered, "dead": len(refused), "failed": int(bool(new.failure))}
        return counts if ours else {"overtaken": 1}

    def _give(self, events: Sequence[OutboxEvent], cursor: Cursor, end: float) -> _Given:
        given = _Given()
        for event in events:
            if self._halting.is_set() or time.monotonic() > end:
                break
            reached(RecoveryPoint.RELAY_BEFORE_PUBLISH)
            try:
                self._publisher.publish(Message.of(event))
            except EventRefused as error:
                given.refused.append(Refusal(event, self._said(str(error))))
            except SinkUnavailable as error:
                given.failure = self._failure(str(error), cursor, given, least_s=error.wait_s)
                break
            except Exception as error:
                # not refused: what is broken may be the sink's client, and the event is fine
                log.exception("sink broke", sink=self.sink, error=type(error).__name__)
                given.failure = self._failure(f"unexpected {type(error).__name__}", cursor, given)
                break
            else:
                given.taken.append(event)
            reached(RecoveryPoint.RELAY_AFTER_PUBLISH)
            given.after_seq = event.seq
        return given

    def _failure(
        self, error: str, cursor: Cursor, given: _Given, *, least_s: float = 0.0
    ) -> Failure:
        before = 0 if given.taken else cursor.failures
        ceiling_s = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2 ** min(before, 10))
        wait_s = self._rng.uniform(ceiling_s / 2, ceiling_s)
        return Failure(self._said(error), max(wait_s, min(least_s, BACKOFF_CAP_S)))

    def _said(self, error: str) -> str:
        """What is kept and shown of an error: its first line, without the sink's secrets."""
        for secret in self._secrets:
            error = error.replace(secret, telemetry.REDACTED)
        return (error.splitlines() or [""])[0][:ERROR_LENGTH_MAX]

    def _tell(self, delivered: int, refused: Sequence[Refusal], failure: Failure | None) -> None:
        telemetry.OUTBOX_DELIVERED.labels(self.sink).inc(delivered)
        telemetry.OUTBOX_REFUSED.labels(self.sink).inc(len(refused))
        for one in refused:
            log.error(
                "event refused; it is a dead letter now",
                sink=self.sink,
                event_id=one.event.event_id,
                kind=one.event.kind,
                error=one.error,
            )
        if failure is not None:
            telemetry.OUTBOX_FAILURES.labels(self.sink).inc()
            log.warning(
                "sink not served", sink=self.sink, error=failure.error, wait_s=failure.wait_s
            )

    def _measure(self, now: datetime) -> None:
        """Set the metrics of lag and dead letters, not more often than every MEASURE_S."""
        if time.monotonic() - self._measured_at < MEASURE_S:
            return
        self._measured_at = time.monotonic()
        with self._database.transaction() as tx:
            states = outbox.states(tx, self.sink)
        if not states:
            log.warning("sink forgotten while it is served: it begins anew", sink=self.sink)
            self._begun = False
            return
        (state,) = states
        age_s = (now - state.oldest_at).total_seconds() if state.oldest_at else 0.0
        telemetry.OUTBOX_LAG.labels(self.sink).set(state.lag)
        telemetry.OUTBOX_LAG_AGE.labels(self.sink).set(max(0.0, age_s))
        telemetry.DEAD_LETTERS.labels(self.sink).set(state.dead)
