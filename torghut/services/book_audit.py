"""The book audit: rows of our books that somebody deleted are missed, and restored from the broker.

```
count ─ fewer rows than were inserted? ─▶ Tx: discrepancy rows_missing · ledger_qty recounted
                                              · ids of lost executions kept · cursors rewound
passes: orders and fills are read again from the beginning, in which observations are stored again
caught up ─▶ Tx: positions refolded, oldest fill first · tally set · the discrepancy ends
```

1. The books are counted when a process makes its first pass, and every `AUDIT_EVERY_S` after.
2. The open discrepancy is the state: if power fails in between, the next pass goes on.
3. While it stands, verdicts deny new exposure: what is missing may be live (P7, P12).
4. What the broker does not show either stays missing, and the discrepancy open for a person. Of an
   order's observations only the newest can be had again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

import structlog
from sqlalchemy import Connection

from torghut.clock import Clock
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.storage import book_audit, cursors, discrepancies, folds
from torghut.storage.database import Database
from torghut.storage.discrepancies import OpenDiscrepancy
from torghut.storage.leases import fence, lock_books
from torghut.storage.rows import Lease

ACTOR = "reconciler"
SUBJECT = "books"
UNRESTORED = "unrestored"
WANTED = "wanted"
AUDIT_EVERY_S = 300.0

log = structlog.get_logger(__name__)


class BookAudit:
    """Audits the books of one account; used by one reconciler pass at a time."""

    def __init__(self, account: str, database: Database, clock: Clock) -> None:
        self._account = account
        self._database = database
        self._clock = clock
        self._counted_at: float | None = None
        self.restoring = False
        self.orders_read_to: datetime | None = None
        self.fills_begun = False

    def begin(self, lease: Lease) -> dict[str, int]:
        """Count if it is time to; afterwards `restoring` says whether rows are being restored.

        Where the reading for it stands is this process's own: another one may move the cursors.
        """
        before = self.restoring
        counts = self._begin(lease)
        if self.restoring and not before:
            self.orders_read_to, self.fills_begun = None, False
        return counts

    def _begin(self, lease: Lease) -> dict[str, int]:
        with self._database.transaction() as tx:
            standing = self._standing(tx)
            self.restoring = standing is not None and UNRESTORED not in standing.evidence
            if self.restoring or not self._due():
                return {}
            gone = _gone(*book_audit.count(tx, self._account))
        self._counted_at = time.monotonic()
        if not any(gone.values()):
            return {}
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            fence(tx, lease)
            wanted, found = book_audit.count(tx, self._account)  # nobody writes meanwhile
            gone = _gone(wanted, found)
            if any(count > 0 for count in gone.values()):
                self._start(tx, wanted, gone)
                self.restoring = True
            book_audit.rebase(tx, self._account)
        return {"missing": sum(gone.values())} if self.restoring else {}

    def finish(self, lease: Lease) -> dict[str, int]:
        """The broker's lists were read to their ends: put the folds right and see what is left."""
        if not self.restoring:
            return {}
        now = self._clock()
        with self._database.transaction() as tx:
            lock_books(tx, self._account)
            standing = self._standing(tx)
            if standing is None:  # another process was as far: `torghut reconcile` beside a daemon
                self.restoring = False
                return {}
            fence(tx, lease)
            book_audit.recount(tx, self._account)
            folds.refold(tx, self._account, now=now)
            book_audit.forget_lost(tx)
            self._end(tx, standing, now)
        self.restoring = False
        return {"restored": 1}

    def _due(self) -> bool:
        counted = self._counted_at
        return counted is None or time.monotonic() - counted >= AUDIT_EVERY_S

    def _standing(self, tx: Connection) -> OpenDiscrepancy | None:
        kind = DiscrepancyKind.ROWS_MISSING
        return discrepancies.standing(tx, self._account, [kind]).get((kind, SUBJECT))

    def _end(self, tx: Connection, standing: OpenDiscrepancy, now: datetime) -> None:
        _, found = book_audit.count(tx, self._account)
        left = _gone(standing.evidence[WANTED], found)
        lost = {what: left[what] for what in ("executions", "fills") if left[what] > 0}
        if lost:
            log.error("rows stay missing: the broker does not show them either", **lost)
            evidence = {**standing.evidence, UNRESTORED: dict(lost)}
            discrepancies.renew(tx, standing, evidence, now=now)
            return
        discrepancies.end(
            tx,
            self._account,
            [DiscrepancyKind.ROWS_MISSING],
            [SUBJECT],
            resolution="read again from the broker",
            actor=ACTOR,
            now=now,
        )

    def _start(self, tx: Connection, wanted: Mapping[str, int], gone: Mapping[str, int]) -> None:
        now = self._clock()
        evidence = {**gone, WANTED: dict(wanted)}
        log.error("rows are missing in the books: restoring them from the broker", **gone)
        book_audit.note_lost(tx, self._account)
        book_audit.recount(tx, self._account)
        cursors.rewind(tx, self._account, to=None, now=now)
        kind = DiscrepancyKind.ROWS_MISSING
        if not discrepancies.open_(
            tx, self._account, kind, SUBJECT, evidence, actor=ACTOR, now=now
        ):
            standing = self._standing(tx)
            assert standing is not None, "it is open: the books are locked"
            discrepancies.renew(tx, standing, evidence, now=now)


def _gone(wanted: Mapping[str, int], found: Mapping[str, int]) -> dict[str, int]:
    return {what: wanted[what] - found[what] for what in wanted}
