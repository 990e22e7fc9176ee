"""Intake by stream: a message is a decision, and is acknowledged after the decision's commit.

```
fetch ─▶ read ─▶ Tx: decisions, events ─▶ Tx: what was refused ─▶ reply ─▶ acknowledge
                 commit (IntakeDesk)       commit (decision_inbox)
```

If power fails before the acknowledgement the message comes again, to this process or another one,
and its decision is `replayed`: never a second one (P1), and none that is lost (P2). A message that
holds no decision, or one in conflict with what was sent before, is kept in `decision_inbox` once,
where a person sees it, and acknowledged: it holds up no other. So is one that Postgres refuses to
store (story 28): where a batch fails, its messages are taken one by one.

While the database does not answer, what was fetched is kept and tried again; where the stream does
not, it is let go: it comes again by itself. The pause between tries is the loop's (services/loops).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import DataError, IntegrityError

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.decisions import Decision
from torghut.domain.errors import InvalidDecision
from torghut.domain.streams import Delivery, StreamAnswer, StreamUnavailable
from torghut.ports import DecisionStream
from torghut.recovery_points import RecoveryPoint, reached
from torghut.services import batch
from torghut.services.intake import IntakeDesk
from torghut.services.loops import Loop
from torghut.storage import inbox
from torghut.storage.database import Database
from torghut.storage.inbox import Refused
from torghut.storage.rows import Intake, IntakeResult

BATCH_MAX = 200
PAUSE_S = 0.01  # a fetch waits by itself
STOP_S = 5.0
RESULTS = (*(result.value for result in IntakeResult), batch.INVALID)

log = structlog.get_logger(__name__)


class StreamIntake:
    """Takes decisions from one stream. `run_once` is called by one thread."""

    def __init__(
        self,
        name: str,
        stream: DecisionStream,
        desk: IntakeDesk,
        database: Database,
        accounts: batch.Accounts,
        *,
        ttl: timedelta,
    ) -> None:
        self.name = name
        self._stream = stream
        self._desk = desk
        self._database = database
        self._accounts = accounts
        self._ttl = ttl
        self._source = f"stream:{name}"
        self._held: Sequence[Delivery] = ()
        for result in RESULTS:
            telemetry.INTAKE_MESSAGES.labels(name, result)

    def run_once(self, now: datetime) -> dict[str, int]:
        """One batch; returns how many messages had which answer.

        Raises StreamUnavailable, DatabaseUnavailable: nothing was acknowledged.
        """
        if not self._held:
            self._held = self._stream.fetch(BATCH_MAX)
        if not self._held:
            return {}
        answers = self._store(self._held, now)
        try:
            self._stream.reply(answers)
            reached(RecoveryPoint.STREAM_BEFORE_ACK)
            self._stream.acknowledge(answers)
            reached(RecoveryPoint.STREAM_AFTER_ACK)
        finally:
            self._held = ()
        for answer in answers:
            batch.counted(answer.result)
            telemetry.INTAKE_MESSAGES.labels(self.name, answer.result).inc()
        return {result: sum(one.result == result for one in answers) for result in RESULTS}

    def close(self) -> None:
        """Leave the stream."""
        self._stream.close()

    def _store(self, deliveries: Sequence[Delivery], now: datetime) -> list[StreamAnswer]:
        read = [(delivery, self._read(delivery)) for delivery in deliveries]
        taken = self._take([found for _, found in read if isinstance(found, Decision)])
        stored = iter(taken)
        answers = [
            _refusal(delivery, found) if isinstance(found, str) else _answer(delivery, next(stored))
            for delivery, found in read
        ]
        refused = [
            Refused(delivery.message_id, delivery.body, answer)
            for delivery, answer in zip(deliveries, answers, strict=True)
            if answer.error is not None
        ]
        if refused:
            account = self._accounts.default or self._accounts.labels[0]
            with self._database.transaction() as tx:
                inbox.keep(tx, account, self._source, refused, now=now)
            log.error("messages of a stream were refused", stream=self.name, count=len(refused))
        return answers

    def _take(self, decisions: Sequence[Decision]) -> list[Intake | str]:
        """What became of each: stored, or why it cannot be."""
        if not decisions:
            return []
        try:
            return list(self._desk.accept(decisions, source=self._source))
        except (DataError, IntegrityError) as error:
            if len(decisions) == 1:
                return [f"cannot be stored: {type(error.orig).__name__}"]
        return [one for decision in decisions for one in self._take([decision])]

    def _read(self, delivery: Delivery) -> Decision | str:
        """The decision, or why it is none."""
        if delivery.problem is not None:
            return delivery.problem
        if len(delivery.body) > batch.LINE_BYTES_MAX:
            return f"is longer than {batch.LINE_BYTES_MAX} bytes"
        try:
            return batch.read_decision(delivery.body, accounts=self._accounts, ttl=self._ttl)
        except InvalidDecision as error:
            return str(error)[: batch.ERROR_LENGTH_MAX]


def _refusal(delivery: Delivery, why: str) -> StreamAnswer:
    return StreamAnswer(delivery.message_id, batch.INVALID, None, why)


def _answer(delivery: Delivery, stored: Intake | str) -> StreamAnswer:
    if isinstance(stored, str):
        return _refusal(delivery, stored)
    said = batch.conflict_text(stored) if stored.result is IntakeResult.CONFLICT else None
    return StreamAnswer(delivery.message_id, stored.result.value, stored.decision_hash, said)


class StreamIntakes:
    """The streams of one process: a loop and a thread for each, so that none waits for another."""

    def __init__(self, intakes: Sequence[StreamIntake], clock: Clock) -> None:
        self._intakes = tuple(intakes)
        self.loops = tuple(
            Loop(f"intake-{one.name}", _pass(one), interval_s=PAUSE_S, clock=clock)
            for one in self._intakes
        )

    def start(self) -> None:
        """Begin to take decisions."""
        for loop in self.loops:
            loop.start()

    def stop(self) -> None:
        """End after the batch under way; what is not acknowledged comes again elsewhere."""
        for loop, intake in zip(self.loops, self._intakes, strict=True):
            if loop.stop(STOP_S):
                intake.close()


def _pass(intake: StreamIntake) -> Callable[[datetime], Mapping[str, int]]:
    def run(now: datetime) -> Mapping[str, int]:
        try:
            return intake.run_once(now)
        except StreamUnavailable as error:
            raise StreamUnavailable(f"[intakes.{intake.name}] {error}") from error

    return run
