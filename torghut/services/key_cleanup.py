"""Deletes idempotency keys that have expired, and counts those that stand.

The owner of the account does it, in bounded batches; several owners on one database do not meet,
as each skips what another has locked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from torghut import telemetry
from torghut.domain.errors import DatabaseUnavailable
from torghut.idempotency import Store
from torghut.storage.database import Database
from torghut.storage.rows import Lease

POLL_S = 30.0


class KeyCleanup:
    """Two passes a minute; by the database's clock, which also decided what expires when."""

    def __init__(self, database: Database) -> None:
        self._keys = Store(database.transaction, unavailable=(DatabaseUnavailable,))

    def run_once(self, _lease: Lease, _now: datetime) -> Mapping[str, int]:
        """Delete, and set the metric; returns counts."""
        deleted = self._keys.purge()
        for state, count in asdict(self._keys.statistics()).items():
            telemetry.IDEMPOTENCY_KEYS.labels(state).set(count)
        return {"deleted": deleted}
