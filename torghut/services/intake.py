"""Intake: the one door for decisions, whoever sends them (API, CLI, strategies).

    parse ─▶ Tx: insert or compare ─▶ commit ─▶ answer ─▶ wake the executor

An answer is given after the commit only, so an acknowledged decision is durable (P2). When the
commit itself is in doubt the same insert is tried again: it finds its own rows if they are there,
and says `replayed`, which waits for a synchronous stand-by as the first answer would have. The
wake-up is outside the transaction (story 52), once per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.decisions import Decision
from torghut.domain.errors import DatabaseUnavailable
from torghut.domain.events import Event, EventKind
from torghut.domain.lifecycle import DecisionStatus
from torghut.recovery_points import RecoveryPoint, reached
from torghut.storage import control, durability, intake
from torghut.storage.database import Database
from torghut.storage.intake import INTAKE_BATCH_MAX
from torghut.storage.rows import Intake, IntakeResult

TRIES = 3


class IntakeDesk:
    """Accepts decisions; thread-safe. `wake` tells executors of these accounts, here or elsewhere,
    to look."""

    def __init__(
        self, database: Database, clock: Clock, wake: Callable[[Collection[str]], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._wake = wake

    def accept(self, batch: Sequence[Decision], *, source: str) -> list[Intake]:
        """Store decisions durably; answers in their order.

        `source` says who sent them (http, cli, strategy:NAME). Raises DatabaseUnavailable if
        Postgres cannot be reached: then nothing of the current thousand was acknowledged.
        """
        answers: list[Intake] = []
        for start in range(0, len(batch), INTAKE_BATCH_MAX):
            answers += self._accept(batch[start : start + INTAKE_BATCH_MAX], source=source)
        results = [answer.result for answer in answers]
        created = results.count(IntakeResult.CREATED)
        telemetry.DECISION_STEPS.labels(DecisionStatus.PLANNED.value, "").inc(created)
        telemetry.DUPLICATES.labels("intake").inc(results.count(IntakeResult.REPLAYED))
        if created:
            self._wake({decision.account for decision in batch})
        return answers

    def _accept(self, batch: Sequence[Decision], *, source: str) -> list[Intake]:
        for attempt in range(1, TRIES + 1):
            try:
                with self._database.transaction() as tx:
                    answers = store(tx, batch, source=source, clock=self._clock)
                    if all(answer.result is not IntakeResult.CREATED for answer in answers):
                        durability.confirm(tx)
                    reached(RecoveryPoint.INTAKE_BEFORE_COMMIT)
                reached(RecoveryPoint.INTAKE_AFTER_COMMIT)
                return answers
            except DatabaseUnavailable:
                if attempt == TRIES:
                    raise
        raise AssertionError("unreachable")


def store(tx: Connection, batch: Sequence[Decision], *, source: str, clock: Clock) -> list[Intake]:
    """Insert decisions with their events in the caller's transaction (the scheduler's tick)."""
    now = clock()
    answers = intake.insert(tx, batch, source=source, now=now)
    planned = [
        Event(
            EventKind.DECISION_PLANNED,
            source,
            decision.account,
            decision.decision_hash,
            {"strategy": decision.strategy, "symbol": decision.order.symbol},
        )
        for decision, answer in zip(batch, answers, strict=True)
        if answer.result is IntakeResult.CREATED
    ]
    control.add_events(tx, planned, now=now)
    return answers
