"""sagas and saga_steps: who works at a saga, and how far it has come.

A saga is worked at under a lease with a token, by Postgres's clock. `fence` is the first statement
of whatever is written for it: a process whose saga was taken up by another one, as it was slower
than its lease, finds no row, and writes nothing. One that was slow and has no successor goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from torghut.domain.errors import TorghutError
from torghut.domain.sagas import SagaStatus, StepStatus

TEXT_MAX = 500

_COLUMNS = "saga_id, kind, account, saga_key, payload, digest, status, failure, token"


class SagaLost(TorghutError):
    """The saga was taken up by another process, or given back: stop writing for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRow:
    """A saga as the runner needs it; `token` is that of the newest claim."""

    saga_id: int
    kind: str
    account: str
    saga_key: str
    payload: Mapping[str, Any]
    digest: str
    status: SagaStatus
    failure: str | None
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step as the runner needs it."""

    position: int
    name: str
    status: StepStatus
    failures: int
    undo_failures: int
    result: Mapping[str, Any] | None


def insert(
    tx: Connection,
    *,
    kind: str,
    account: str,
    key: str,
    payload: Mapping[str, object],
    digest: str,
    steps: Sequence[str],
    now: datetime,
) -> tuple[SagaRow, bool]:
    """The saga of this key, and True if it is new."""
    created = tx.execute(
        text(f"""
        INSERT INTO sagas (kind, account, saga_key, payload, digest, due_at, created_at, updated_at)
        VALUES (:kind, :account, :key, CAST(:payload AS jsonb), :digest, :now, :now, :now)
        ON CONFLICT (kind, account, saga_key) DO NOTHING RETURNING {_COLUMNS}"""),
        {
            "kind": kind,
            "account": account,
            "key": key,
            "payload": json.dumps(payload),
            "digest": digest,
            "now": now,
        },
    ).one_or_none()
    if created is None:
        known = of_key(tx, kind, account, key)
        assert known is not None
        return known, False
    tx.execute(
        text("""INSERT INTO saga_steps (saga_id, position, name)
        SELECT :id, n.place - 1, n.name
        FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS n (name, place)"""),
        {"id": created.saga_id, "names": list(steps)},
    )
    return _row(created._mapping), True


def of_key(tx: Connection, kind: str, account: str, key: str) -> SagaRow | None:
    """The saga that a key led to."""
    row = tx.execute(
        text(f"""SELECT {_COLUMNS} FROM sagas
        WHERE kind = :kind AND account = :account AND saga_key = :key"""),
        {"kind": kind, "account": account, "key": key},
    ).one_or_none()
    return None if row is None else _row(row._mapping)


def claim(
    tx: Connection,
    account: str,
    kinds: Sequence[str],
    *,
    owner: str,
    lease_s: float,
    now: datetime,
) -> SagaRow | None:
    """Take up the saga that has been due the longest and that nobody works at; None without one."""
    row = tx.execute(
        text(f"""
        UPDATE sagas SET owner = :owner, token = token + 1,
          leased_until = clock_timestamp() + make_interval(secs => :lease_s)
        WHERE saga_id = (
          SELECT saga_id FROM sagas
          WHERE account = :account AND finalized_at IS NULL AND due_at <= :now
            AND kind = ANY(CAST(:kinds AS text[]))
            AND (leased_until IS NULL OR leased_until <= clock_timestamp())
          ORDER BY due_at, saga_id LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING {_COLUMNS}"""),
        {
            "account": account,
            "kinds": list(kinds),
            "owner": owner,
            "lease_s": lease_s,
            "now": now,
        },
    ).one_or_none()
    return None if row is None else _row(row._mapping)


def fence(tx: Connection, saga: SagaRow, *, lease_s: float) -> None:
    """Hold the saga for this transaction and prolong its lease. Raises SagaLost.

    The token alone tells whose it is, as each claim makes a new one. A lease that is over lets
    others claim; were it asked for here, too, a step that takes longer than the lease would be
    repeated for ever, and its failures never counted.
    """
    held = tx.execute(
        text("""UPDATE sagas SET leased_until = clock_timestamp() + make_interval(secs => :lease_s)
        WHERE saga_id = :id AND token = :token AND leased_until IS NOT NULL
        RETURNING saga_id"""),
        {"id": saga.saga_id, "token": saga.token, "lease_s": lease_s},
    ).one_or_none()
    if held is None:
        raise SagaLost(f"saga {saga.saga_id}: it is not ours to work at any more")


def steps(tx: Connection, saga_id: int) -> list[StepRow]:
    """Its steps in order."""
    rows = tx.execute(
        text("""SELECT position, name, status, failures, undo_failures, result FROM saga_steps
        WHERE saga_id = :id ORDER BY position"""),
        {"id": saga_id},
    )
    return [StepRow(**{**row._mapping, "status": StepStatus(row.status)}) for row in rows]


def begin(tx: Connection, saga: SagaRow, step: StepRow, after: StepStatus, now: datetime) -> None:
    """The step is running, or being undone: committed before its action or compensation runs."""
    tx.execute(
        text("""UPDATE saga_steps SET status = :after, started_at = coalesce(started_at, :now),
          waits_for = NULL
        WHERE saga_id = :id AND position = :position AND status = :before"""),
        _of(saga, step) | {"after": after.value, "before": step.status.value, "now": now},
    )


def end(
    tx: Connection,
    saga: SagaRow,
    step: StepRow,
    after: StepStatus,
    *,
    result: Mapping[str, object] | None = None,
    error: str | None = None,
    now: datetime,
) -> None:
    """The step is done, has failed for good, or is undone."""
    undone = after is StepStatus.UNDONE
    tx.execute(
        text("""UPDATE saga_steps SET status = :after, waits_for = NULL,
          result = coalesce(CAST(:result AS jsonb), result), error = coalesce(:error, error),
          ended_at = CASE WHEN :undone THEN ended_at ELSE CAST(:now AS timestamptz) END,
          undone_at = CASE WHEN :undone THEN CAST(:now AS timestamptz) END
        WHERE saga_id = :id AND position = :position"""),
        _of(saga, step)
        | {
            "after": after.value,
            "result": None if result is None else json.dumps(result),
            "error": None if error is None else shown(error),
            "undone": undone,
            "now": now,
        },
    )


def note_failure(
    tx: Connection, saga: SagaRow, step: StepRow, *, error: str, undoing: bool
) -> None:
    """One more transient failure of the step's action, or of its compensation."""
    column = "undo_failures" if undoing else "failures"
    tx.execute(
        text(f"""UPDATE saga_steps SET {column} = {column} + 1, error = :error
        WHERE saga_id = :id AND position = :position"""),
        _of(saga, step) | {"error": shown(error)},
    )


def note_wait(tx: Connection, saga: SagaRow, step: StepRow, what: str) -> None:
    """What the step waits for, if that has changed."""
    tx.execute(
        text("""UPDATE saga_steps SET waits_for = :what
        WHERE saga_id = :id AND position = :position AND waits_for IS DISTINCT FROM :what"""),
        _of(saga, step) | {"what": shown(what)},
    )


def turn(
    tx: Connection,
    saga: SagaRow,
    after: SagaStatus,
    *,
    failure: str | None = None,
    now: datetime,
) -> None:
    """The saga is to be undone, or has ended; one that has ended is nobody's any more."""
    ended = after in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED)
    tx.execute(
        text("""UPDATE sagas SET status = :after, failure = coalesce(:failure, failure),
          updated_at = :now,
          finalized_at = CASE WHEN :ended THEN CAST(:now AS timestamptz) END,
          owner = CASE WHEN NOT :ended THEN owner END,
          leased_until = CASE WHEN NOT :ended THEN leased_until END
        WHERE saga_id = :id AND token = :token"""),
        {
            "id": saga.saga_id,
            "token": saga.token,
            "after": after.value,
            "failure": None if failure is None else shown(failure),
            "ended": ended,
            "now": now,
        },
    )


def release(tx: Connection, saga: SagaRow, *, due_at: datetime, now: datetime) -> None:
    """Give the saga back until `due_at`."""
    tx.execute(
        text("""UPDATE sagas SET owner = NULL, leased_until = NULL, due_at = :due, updated_at = :now
        WHERE saga_id = :id AND token = :token"""),
        {"id": saga.saga_id, "token": saga.token, "due": due_at, "now": now},
    )


def shown(words: str) -> str:
    """As much of a text as is kept, without what Postgres cannot hold."""
    words = words[:TEXT_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return words.encode("utf-8", "replace").decode()  # a lone surrogate


def _of(saga: SagaRow, step: StepRow) -> dict[str, object]:
    return {"id": saga.saga_id, "position": step.position}


def _row(mapping: Mapping[Any, Any]) -> SagaRow:
    return SagaRow(**{**mapping, "status": SagaStatus(mapping["status"])})
