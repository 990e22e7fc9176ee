"""Sagas: durable steps with compensation, carried out by whichever process takes them up.

```
start ─▶ claim (one process, by a lease with a token)
           │  Tx: the step is `running`                              intent before I/O (P3)
           │  action(run): no transaction open, idempotent by run.key
           │  Tx: its result, or its failure, and the event           (P9)
           ├─ Wait: given back until later          ├─ transient: again after 1, 2, 4 … s
           ├─ done: the next step                   └─ StepFailed, or too often transient:
           └─ the last one: completed                  compensations in reverse order ─▶ compensated
```

1. An action may be called more than once: after a crash, and after each Wait. It must come to the
   same under its `run.key`, which never changes. What cannot tell by itself whether it has happened
   runs inside `torghut.idempotency.exactly_once(run.key, …)`.
2. A compensation is called for every step that began, the failed one included: it has to find out
   what there is to undo, and undoing nothing is fine. It is retried until it succeeds; one that
   keeps failing stands in `torghut sagas` with its error.
3. What is written through `run.transaction()` is fenced: who lost the saga writes nothing.

If power fails: before the commit of `running`, nothing has happened; after it, the action is called
again once the lease has run out; after the commit of its result, the saga goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.errors import DatabaseUnavailable, NotDurable, TorghutError
from torghut.domain.events import Event, EventKind
from torghut.domain.sagas import (
    End,
    Retry,
    SagaStatus,
    StepDelayed,
    StepFailed,
    StepStatus,
    Undo,
    next_move,
)
from torghut.idempotency import payload_digest
from torghut.recovery_points import RecoveryPoint, reached
from torghut.storage import control, sagas
from torghut.storage.database import Database, after_commit
from torghut.storage.rows import Lease
from torghut.storage.sagas import SagaLost, SagaRow, StepRow

ACTOR = "sagas"
POLL_S = 0.25
CLAIMS_MAX = 100

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wait:
    """Of an action or a compensation: not done yet; call it again after `for_s`."""

    for_s: float
    what: str


Action = Callable[["StepRun"], "Mapping[str, object] | Wait | None"]
Compensation = Callable[["StepRun"], "Wait | None"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what to do, and what undoes it; without a compensation there is nothing to undo."""

    name: str
    action: Action
    compensation: Compensation | None = None


@dataclass(frozen=True, slots=True)
class Saga:
    """A kind of saga; what is stored under its name goes by the names of its steps."""

    kind: str
    steps: tuple[Step, ...]
    retry: Retry = field(default_factory=Retry)


class SagaConflict(TorghutError):
    """The key was used to start a saga with another payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """What an action or a compensation is given.

    `results` are those of the steps before it, by name. `failures` are the transient ones so far,
    of the action or of the compensation; `last_try`: a further one of the action is for good.
    """

    saga_id: int
    key: str
    account: str
    payload: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    failure: str | None
    failures: int
    last_try: bool
    now: Clock
    _database: Database
    _saga: SagaRow
    _lease_s: float

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction in which the saga is surely still ours. Raises SagaLost."""
        with self._database.transaction() as tx:
            sagas.fence(tx, self._saga, lease_s=self._lease_s)
            yield tx


def start(
    tx: Connection,
    kind: str,
    steps: Sequence[str],
    *,
    account: str,
    key: str,
    payload: Mapping[str, object],
    actor: str,
    now: datetime,
) -> tuple[int, bool]:
    """Start a saga in the caller's transaction; its id, and True if it is new.

    `steps` are the names of its kind's steps. Raises SagaConflict if the key stands for another
    payload.
    """
    digest = payload_digest(payload)
    row, created = sagas.insert(
        tx,
        kind=kind,
        account=account,
        key=key,
        payload=payload,
        digest=digest,
        steps=steps,
        now=now,
    )
    if created:
        _report(tx, EventKind.SAGA_STARTED, row, actor=actor, now=now)
    elif row.digest != digest:
        raise SagaConflict(f"{kind} {key!r} was started with another payload; use another key")
    return row.saga_id, created


class SagaRunner:
    """Carries out an account's sagas of the given kinds. `run_once` is called by one thread."""

    def __init__(
        self,
        kinds: Iterable[Saga],
        database: Database,
        account: str,
        owner: str,
        *,
        lease_s: float,
        clock: Clock,
    ) -> None:
        self._sagas = {saga.kind: saga for saga in kinds}
        self._database = database
        self._account = account
        self._owner = owner
        self._lease_s = lease_s
        self._clock = clock

    def run_once(self, _lease: Lease | None, now: datetime) -> Mapping[str, int]:
        """Take up what is due, each as far as it goes; returns counts."""
        counts = {"advanced": 0, "ended": 0}
        for _ in range(CLAIMS_MAX):
            with self._database.transaction() as tx:
                saga = sagas.claim(
                    tx,
                    self._account,
                    list(self._sagas),
                    owner=self._owner,
                    lease_s=self._lease_s,
                    now=now,
                )
            if saga is None:
                break
            counts["advanced"] += 1
            try:
                counts["ended"] += self._advance(saga)
            except SagaLost as error:
                log.warning("saga lost", error=str(error))
        return counts

    def _advance(self, saga: SagaRow) -> bool:
        """Step after step, until it waits or has ended; True if it has ended."""
        while True:
            with self._database.transaction() as tx:
                rows = sagas.steps(tx, saga.saga_id)
            known = self._sagas[saga.kind].steps
            if [row.name for row in rows] != [step.name for step in known]:
                return self._put_off(saga, 60.0, "its steps are those of another version")
            move = next_move(saga.status, [row.status for row in rows])
            if isinstance(move, End):
                self._end(saga, move.status)
                return True
            row = rows[move.position]
            undoing = isinstance(move, Undo)
            self._begin(saga, row, undoing)
            done = self._call(saga, known[move.position], rows, row, undoing)
            if done is None:
                return False
            saga = done

    def _begin(self, saga: SagaRow, row: StepRow, undoing: bool) -> None:
        after = StepStatus.UNDOING if undoing else StepStatus.RUNNING
        if row.status is not after:
            with self._fenced(saga) as tx:
                sagas.begin(tx, saga, row, after, self._clock())
        reached(RecoveryPoint.SAGA_AFTER_BEGIN)

    def _call(
        self, saga: SagaRow, step: Step, rows: list[StepRow], row: StepRow, undoing: bool
    ) -> SagaRow | None:
        """Run the action or the compensation and write what came of it; None: given back."""
        retry = self._sagas[saga.kind].retry
        run = self._run_of(saga, rows, row, row.undo_failures if undoing else row.failures)
        call = step.compensation if undoing else step.action
        try:
            came = None if call is None else call(run)
        except (SagaLost, DatabaseUnavailable, NotDurable):
            raise  # nothing is known, and nothing can be written: taken up again by its lease
        except StepFailed as error:
            if undoing:
                self._later(saga, row, retry, str(error), undoing=True)
                return None
            return self._turn_back(saga, row, str(error))
        except Exception as error:  # noqa: BLE001 - somebody else's code; logged and counted there
            return self._failed(saga, row, run, error, undoing)
        reached(RecoveryPoint.SAGA_AFTER_CALL)
        if isinstance(came, Wait):
            with self._fenced(saga) as tx:
                sagas.note_wait(tx, saga, row, came.what)
                self._give_back(tx, saga, came.for_s)
            return None
        try:
            return self._done(saga, row, came, undoing)
        except (DataError, TypeError, ValueError) as error:  # nothing was committed
            log.exception(
                "result of a saga's step cannot be kept", saga=saga.saga_id, step=row.name
            )
            unusable = StepDelayed(f"its result cannot be kept: {type(error).__name__}")
            return self._failed(saga, row, run, unusable, undoing)

    def _failed(
        self, saga: SagaRow, row: StepRow, run: StepRun, error: Exception, undoing: bool
    ) -> SagaRow | None:
        """A transient failure, or an unexpected one: later again, unless it was the last try."""
        expected = isinstance(error, TorghutError)
        said = str(error) if expected else f"{type(error).__name__}: {error}"
        if not expected:
            log.exception("saga step broke", saga=saga.saga_id, step=row.name)
        if run.last_try and not undoing:
            return self._turn_back(saga, row, f"after {row.failures + 1} failures: {said}")
        self._later(saga, row, self._sagas[saga.kind].retry, said, undoing=undoing)
        return None

    def _run_of(self, saga: SagaRow, rows: list[StepRow], row: StepRow, failures: int) -> StepRun:
        return StepRun(
            saga_id=saga.saga_id,
            key=f"{saga.kind}:{saga.account}:{saga.saga_key}:{row.name}",
            account=saga.account,
            payload=saga.payload,
            results={one.name: one.result or {} for one in rows},
            failure=saga.failure,
            failures=failures,
            last_try=failures + 1 >= self._sagas[saga.kind].retry.failures_max,
            now=self._clock,
            _database=self._database,
            _saga=saga,
            _lease_s=self._lease_s,
        )

    # ------------------------------------------------------------------ what came of it

    def _done(
        self, saga: SagaRow, row: StepRow, result: Mapping[str, object] | None, undoing: bool
    ) -> SagaRow:
        now = self._clock()
        after = StepStatus.UNDONE if undoing else StepStatus.DONE
        kind = EventKind.SAGA_STEP_UNDONE if undoing else EventKind.SAGA_STEP_DONE
        with self._fenced(saga) as tx:
            sagas.end(tx, saga, row, after, result=None if undoing else result or {}, now=now)
            _report(tx, kind, saga, step=row.name, now=now)
            reached(RecoveryPoint.SAGA_BEFORE_COMMIT)
        reached(RecoveryPoint.SAGA_AFTER_COMMIT)
        return saga

    def _turn_back(self, saga: SagaRow, row: StepRow, error: str) -> SagaRow:
        """The step failed for good: from now on everything that began is undone."""
        now = self._clock()
        failure = f"{row.name}: {error}"
        log.warning("saga is undone", saga=saga.saga_id, kind=saga.kind, failure=failure)
        with self._fenced(saga) as tx:
            sagas.end(tx, saga, row, StepStatus.FAILED, error=error, now=now)
            sagas.turn(tx, saga, SagaStatus.COMPENSATING, failure=failure, now=now)
            _report(tx, EventKind.SAGA_COMPENSATING, saga, step=row.name, reason=failure, now=now)
            reached(RecoveryPoint.SAGA_BEFORE_COMMIT)
        reached(RecoveryPoint.SAGA_AFTER_COMMIT)
        return replace(saga, status=SagaStatus.COMPENSATING, failure=sagas.shown(failure))

    def _later(
        self, saga: SagaRow, row: StepRow, retry: Retry, error: str, *, undoing: bool
    ) -> None:
        failures = (row.undo_failures if undoing else row.failures) + 1
        pause_s = retry.pause_s(failures, undoing=undoing)
        log.warning(
            "saga step failed", saga=saga.saga_id, step=row.name, error=error, again_in_s=pause_s
        )
        with self._fenced(saga) as tx:
            sagas.note_failure(tx, saga, row, error=error, undoing=undoing)
            _report(
                tx,
                EventKind.SAGA_STEP_FAILED,
                saga,
                step=row.name,
                reason=error,
                now=self._clock(),
                failures=failures,
                undoing=undoing,
            )
            self._give_back(tx, saga, pause_s)

    def _put_off(self, saga: SagaRow, pause_s: float, why: str) -> bool:
        log.error("saga is left alone", saga=saga.saga_id, kind=saga.kind, why=why)
        with self._fenced(saga) as tx:
            self._give_back(tx, saga, pause_s)
        return False

    def _give_back(self, tx: Connection, saga: SagaRow, pause_s: float) -> None:
        now = self._clock()
        sagas.release(tx, saga, due_at=now + timedelta(seconds=pause_s), now=now)

    def _end(self, saga: SagaRow, status: SagaStatus) -> None:
        now = self._clock()
        done = status is SagaStatus.COMPLETED
        kind = EventKind.SAGA_COMPLETED if done else EventKind.SAGA_COMPENSATED
        with self._fenced(saga) as tx:
            sagas.turn(tx, saga, status, now=now)
            _report(tx, kind, saga, reason=saga.failure, now=now)
            after_commit(tx, partial(_count, saga.kind, status))
            reached(RecoveryPoint.SAGA_BEFORE_COMMIT)
        reached(RecoveryPoint.SAGA_AFTER_COMMIT)

    @contextmanager
    def _fenced(self, saga: SagaRow) -> Iterator[Connection]:
        with self._database.transaction() as tx:
            sagas.fence(tx, saga, lease_s=self._lease_s)
            yield tx


def _count(kind: str, status: SagaStatus) -> None:
    telemetry.SAGAS_ENDED.labels(kind, status.value).inc()


def _report(
    tx: Connection,
    kind: EventKind,
    saga: SagaRow,
    *,
    now: datetime,
    actor: str = ACTOR,
    step: str | None = None,
    reason: str | None = None,
    **more: object,
) -> None:
    payload: dict[str, object] = {
        "saga_id": saga.saga_id,
        "saga_kind": saga.kind,
        "saga_key": saga.saga_key,
        **({} if step is None else {"step": step}),
        **({} if reason is None else {"reason": sagas.shown(reason)}),
        **more,
    }
    control.add_events(tx, [Event(kind, actor, saga.account, None, payload)], now=now)
