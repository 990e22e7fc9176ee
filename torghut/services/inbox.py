"""Intake by table: a row in `decision_inbox` is a decision, and its answer comes back in the row.

    INSERT INTO decision_inbox … ─▶ one transaction: decision, event, answer ─▶ SELECT

Decision and answer are one commit, so a process that dies in between leaves a row without an answer
and no decision. Any daemon of the account takes rows; none waits for another. A row that cannot be
stored does not hold up the others: where a batch fails, its rows are taken one by one at once, and
the one that fails alone is `invalid` (story 28).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from torghut.domain.decisions import Decision
from torghut.domain.errors import InvalidDecision
from torghut.services import batch, intake
from torghut.storage import inbox
from torghut.storage.database import Database
from torghut.storage.inbox import InboxAnswer, InboxRow
from torghut.storage.rows import IntakeResult

SOURCE = "inbox"
BATCH_MAX = 200

Taken = tuple[list[InboxRow], list[InboxAnswer]]

log = structlog.get_logger(__name__)


class Inbox:
    """Takes the rows of these accounts. `run_once` is called by one thread."""

    def __init__(
        self,
        accounts: Collection[str],
        database: Database,
        *,
        ttl: timedelta,
        wake: Callable[[Collection[str]], None],
    ) -> None:
        self._accounts = accounts
        self._database = database
        self._ttl = ttl
        self._wake = wake

    def run_once(self, now: datetime) -> dict[str, int]:
        """One batch; returns how many rows had which answer."""
        try:
            rows, answers = self._take(now, BATCH_MAX)
        except (DataError, IntegrityError):
            rows, answers = self._one_by_one(now)
        for one in answers:
            batch.counted(one.result)
        counts = {result: sum(one.result == result for one in answers) for result in RESULTS}
        if counts[IntakeResult.CREATED]:
            self._wake({row.account for row in rows})
        return counts

    def _take(self, now: datetime, limit: int) -> Taken:
        with self._database.transaction() as tx:
            rows = inbox.take(tx, self._accounts, limit=limit)
            return rows, self._answers(tx, rows, now) if rows else []

    def _one_by_one(self, now: datetime) -> Taken:
        """After a batch that failed: up to the row that fails alone, and is refused."""
        rows: list[InboxRow] = []
        answers: list[InboxAnswer] = []
        while len(rows) < BATCH_MAX:
            found: list[InboxRow] = []
            try:
                with self._database.transaction() as tx:
                    found = inbox.take(tx, self._accounts, limit=1)
                    said = self._answers(tx, found, now) if found else []
            except (DataError, IntegrityError) as error:
                if not found:
                    raise
                return rows + found, answers + self._refuse(found, type(error.orig).__name__, now)
            if not found:
                break
            rows += found
            answers += said
        return rows, answers

    def _answers(
        self, tx: Connection, rows: Sequence[InboxRow], now: datetime
    ) -> list[InboxAnswer]:
        read = [(row, self._read(row)) for row in rows]
        decisions = [found for _, found in read if isinstance(found, Decision)]
        stored = iter(intake.store(tx, decisions, source=SOURCE, clock=lambda: now))
        answers = []
        for row, found in read:
            if isinstance(found, str):
                answers.append(InboxAnswer(row.inbox_id, batch.INVALID, None, found))
                continue
            one = next(stored)
            said = batch.conflict_text(one) if one.result is IntakeResult.CONFLICT else None
            answers.append(InboxAnswer(row.inbox_id, one.result.value, one.decision_hash, said))
        inbox.answer(tx, answers, now=now)
        return answers

    def _read(self, row: InboxRow) -> Decision | str:
        """The decision, or why it is none."""
        try:
            return batch.read_decision(
                row.body.encode(), accounts=batch.Accounts.only(row.account), ttl=self._ttl
            )
        except InvalidDecision as error:
            return str(error)[: batch.ERROR_LENGTH_MAX]

    def _refuse(self, rows: Sequence[InboxRow], error: str, now: datetime) -> list[InboxAnswer]:
        """That very row: another one may be the oldest by now."""
        said = f"cannot be stored: {error}"
        answers = [InboxAnswer(row.inbox_id, batch.INVALID, None, said) for row in rows]
        with self._database.transaction() as tx:
            inbox.answer(tx, answers, now=now)
        log.error("a row of the inbox cannot be stored", error=error)
        return answers


RESULTS = (*(result.value for result in IntakeResult), batch.INVALID)
