"""Store: who may work under a key, and what came of it. Each method is one short transaction.

    claim    create the key, or take one that is free, or say what stands: one statement
    finish   store the result, if the claim's token is still the current one
    release  give the key back without a result; in doubt, if the attempt may have had its effect
    beat     keep claims alive while their owner is
    look     what stands under a key
    purge    delete what has expired, in bounded batches
    statistics

A key is free when nobody works under it (`pending`), when its owner's lease is over and the
attempt left no doubt or the caller can resolve it, and when it has expired. All instants are the
database's. Failure behaviour: errors of `unavailable` are tried again where that is safe: a claim
is known by its owner's name, a result by its token, so that a COMMIT whose answer was lost is
found to have happened.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, create_engine, text
from sqlalchemy.exc import InterfaceError, OperationalError

from torghut.idempotency import statements
from torghut.idempotency.errors import LostOwnership
from torghut.idempotency.heartbeat import Heartbeat

T = TypeVar("T")

Transactions = Callable[[], AbstractContextManager[Connection]]

LEASE_S = 30.0
DAY_S = 86_400.0
BEATS_PER_LEASE = 5
TRIES = 4
FIRST_PAUSE_S = 0.1

_HOST = socket.gethostname()


class State(StrEnum):
    """Of a key."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class Answer(StrEnum):
    """Of `claim`."""

    CREATED = "created"
    EXISTS = "exists"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work under a key, until the lease is over and somebody else takes it.

    `token` fences: store it with the effect, and refuse smaller ones. `in_doubt`: an earlier
    attempt may have had its effect.
    """

    scope: str
    key: str
    token: int
    attempts: int
    in_doubt: bool


@dataclass(frozen=True, slots=True)
class Record:
    """What stands under a key. `head` and `body` are the result, once there is one."""

    state: State
    token: int
    attempts: int
    in_doubt: bool
    lease_left_s: float
    head: Mapping[str, Any] | None
    body: bytes | None

    @property
    def finished(self) -> bool:
        return self.head is not None

    @property
    def busy(self) -> bool:
        """Somebody is believed to be at it."""
        return self.state is State.IN_PROGRESS and self.lease_left_s > 0


@dataclass(frozen=True, slots=True)
class Found:
    """Answer of `claim`: with a claim if created, else only with what stands."""

    answer: Answer
    record: Record
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Keys that have not expired, by state; `in_doubt` are among pending and in_progress."""

    pending: int
    in_progress: int
    completed: int
    failed: int
    in_doubt: int
    expired: int


class Store:
    """Keys in one database. Thread-safe; one per process; `close()` ends its heartbeat thread.

    `source` is a database URL, a SQLAlchemy engine, or a function that opens a transaction which
    commits at the end of its block. `unavailable` are the errors that mean "the database does not
    answer".
    """

    def __init__(
        self,
        source: str | Engine | Transactions,
        *,
        lease_s: float = LEASE_S,
        unavailable: tuple[type[Exception], ...] = (OperationalError, InterfaceError),
    ) -> None:
        self._own_engine = _engine(source) if isinstance(source, str) else None
        engine = self._own_engine or (source if isinstance(source, Engine) else None)
        self._transactions: Transactions = engine.begin if engine else source  # type: ignore[assignment]
        self.lease_s = lease_s
        self.unavailable = unavailable
        self._pause = threading.Event()
        self._heartbeat = Heartbeat(self.beat, interval_s=lease_s / BEATS_PER_LEASE)

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction in the same database, committed at the end of the block."""
        return self._transactions()

    def claim(
        self,
        key: str,
        digest: str,
        *,
        scope: str = "",
        ttl_s: float = DAY_S,
        atomic: bool = False,
        resolving: bool = False,
    ) -> Found:
        """Create the key or take it if it is free; else what stands.

        `atomic`: the attempt will commit its effect together with `finish`. `resolving`: the
        caller knows what to do about an unknown outcome, so it may take a key that is in doubt.
        """
        # new for each attempt: a process that was forked or restarted is nobody's heir
        owner = f"{_HOST}:{os.getpid()}:{os.urandom(8).hex()}"
        values = {
            "scope": scope,
            "key": key,
            "digest": digest,
            "owner": owner,
            "atomic": atomic,
            "resolving": resolving,
            "lease_s": self.lease_s,
            "ttl_s": ttl_s,
        }

        def ask() -> Row[Any]:
            with self.transaction() as tx:
                return self._claim(tx, values)

        row = self.retried(ask)
        record = _record(row)
        if row.owner == owner and record.state is State.IN_PROGRESS:
            claim = Claim(scope, key, record.token, record.attempts, record.in_doubt)
            return Found(Answer.CREATED, record, claim)
        answer = Answer.EXISTS if row.digest == digest else Answer.CONFLICT
        return Found(answer, record, None)

    def _claim(self, tx: Connection, values: Mapping[str, object]) -> Row[Any]:
        return tx.execute(text(statements.CLAIM), values).one()

    @contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Keep the claim's lease alive during the block."""
        self._heartbeat.add(claim)
        try:
            yield
        finally:
            self._heartbeat.remove(claim)

    def finish(
        self,
        claim: Claim,
        head: Mapping[str, object],
        body: bytes | None = None,
        *,
        failed: bool = False,
        ttl_s: float = DAY_S,
        tx: Connection | None = None,
    ) -> None:
        """Store the result, in `tx` if one is given. Raises LostOwnership.

        Storing the same once more, after a COMMIT that was not answered, is no error.
        """
        state = State.FAILED if failed else State.COMPLETED
        values = _of(claim) | {
            "state": state.value,
            "head": json.dumps(head),
            "body": body,
            "ttl_s": ttl_s,
        }
        self._end(claim, statements.FINISH, values, state, tx)

    def release(self, claim: Claim, *, in_doubt: bool = False) -> None:
        """Give the key back. Raises LostOwnership."""
        values = _of(claim) | {"in_doubt": in_doubt}
        self._end(claim, statements.RELEASE, values, State.PENDING, None)

    def _end(
        self,
        claim: Claim,
        statement: str,
        values: Mapping[str, object],
        state: State,
        tx: Connection | None,
    ) -> None:
        def end(tx: Connection) -> None:
            if tx.execute(text(statement), values).one_or_none() is not None:
                return
            stands = tx.execute(text(statements.STANDS), _of(claim)).one_or_none()
            if stands is None or stands.state != state:
                raise LostOwnership(claim.key)

        def commit() -> None:
            with self.transaction() as own:
                end(own)

        if tx is not None:
            end(tx)
        else:
            self.retried(commit)

    def look(self, key: str, *, scope: str = "") -> Record | None:
        """What stands under the key; None without one, or when it has expired."""
        with self.transaction() as tx:
            row = tx.execute(text(statements.LOOK), {"scope": scope, "key": key}).one_or_none()
        return None if row is None else _record(row)

    def beat(self, claims: Sequence[Claim]) -> int:
        """Renew the leases of claims that are still their owners'; returns how many.

        A row that is locked at the moment is left out: it is being ended.
        """
        values = {
            "scopes": [claim.scope for claim in claims],
            "keys": [claim.key for claim in claims],
            "tokens": [claim.token for claim in claims],
            "lease_s": self.lease_s,
        }
        with self.transaction() as tx:
            return tx.execute(text(statements.BEAT), values).rowcount

    def purge(self, *, batch: int = 1_000, batches_max: int = 10) -> int:
        """Delete expired keys, each batch in its own transaction; returns how many."""
        deleted = 0
        for _ in range(batches_max):
            with self.transaction() as tx:
                count = tx.execute(text(statements.PURGE), {"batch": batch}).rowcount
            deleted += count
            if count < batch:
                break
        return deleted

    def statistics(self) -> Statistics:
        """How many keys are in which state."""
        with self.transaction() as tx:
            row = tx.execute(text(statements.STATISTICS)).one()
        return Statistics(**row._mapping)

    def retried(self, work: Callable[[], T]) -> T:
        """`work`, again when the database did not answer; it must be safe to repeat."""
        for attempt in itertools.count(1):
            try:
                return work()
            except self.unavailable:
                if attempt == TRIES:
                    raise
            self._pause.wait(FIRST_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the heartbeat; claims that are held run out. Closes an engine of its own."""
        self._heartbeat.close()
        if self._own_engine is not None:
            self._own_engine.dispose()


def _engine(url: str) -> Engine:
    """psycopg 3, whichever of the usual schemes the URL has."""
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"
    return create_engine(f"{scheme}{separator}{rest}", pool_pre_ping=True)


def _of(claim: Claim) -> dict[str, object]:
    return {"scope": claim.scope, "key": claim.key, "token": claim.token}


def _record(row: Row[Any]) -> Record:
    return Record(
        state=State(row.state),
        token=row.token,
        attempts=row.attempts,
        in_doubt=row.doubt,
        lease_left_s=float(row.lease_left_s),
        head=row.head,
        body=row.body,
    )
