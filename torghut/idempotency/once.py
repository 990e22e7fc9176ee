"""exactly_once(key, fn): `fn` under a key, its result stored once and replayed.

Two forms, which differ in what a crash leaves behind:

    plain             claim, commit · fn(attempt) · store the result, commit
                      A process that dies between fn's effect and the commit leaves an unknown
                      outcome: the effect may be there. It is answered as OutcomeUnknown until
                      `on_takeover` says what happened.
    transaction=True  claim, commit · [ fn(attempt) · store the result ], one commit
                      What fn writes through `attempt.connection` and the result are there
                      together or not at all; a crash leaves nothing, and the next caller runs.

What fn raises is classed by the caller:

    permanent   stored, and raised again for everybody who asks under the key
    transient   nothing happened, or nothing that hurts when it happens twice: the key is free
    else        plain: the outcome is unknown. transaction=True: nothing was committed, so transient

A result is what its stored form decodes to, on the first call as on each replay.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from torghut.idempotency.errors import (
    InProgress,
    KeyReused,
    LostOwnership,
    OutcomeUnknown,
    StoredFailure,
)
from torghut.idempotency.keys import payload_digest
from torghut.idempotency.store import DAY_S, Answer, Claim, Record, State, Store

T = TypeVar("T")

Errors = tuple[type[Exception], ...]

ERROR_TEXT_MAX = 2_000
POLL_FIRST_S = 0.02
POLL_CAP_S = 0.5


@dataclass(frozen=True, slots=True)
class Attempt:
    """What fn is given: its key, the fencing token, which attempt it is, the open transaction."""

    key: str
    token: int
    number: int
    _connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The transaction that the result will be committed in; only with transaction=True."""
        if self._connection is None:
            raise RuntimeError("give exactly_once transaction=True to have a connection here")
        return self._connection


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """The result; `replayed` if it had been stored before."""

    value: T
    replayed: bool


@dataclass(frozen=True, slots=True)
class Happened:
    """Of a resolver: the earlier attempt had its effect, and `value` is its result."""

    value: object


class _Word:
    def __init__(self, word: str) -> None:
        self._word = word

    def __repr__(self) -> str:
        return self._word


RUN_AGAIN = _Word("RUN_AGAIN")  # of a resolver: it had no effect, or one that may come twice
STILL_UNKNOWN = _Word("STILL_UNKNOWN")  # of a resolver: nobody can tell yet

Resolver = Callable[[Attempt], "Happened | _Word"]


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """One call of exactly_once, with everything it was given."""

    key: str
    fn: Callable[[Attempt], T]
    store: Store
    scope: str
    digest: str
    ttl_s: float
    transaction: bool
    permanent: Errors
    transient: Errors
    on_takeover: Resolver | None
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def exactly_once(
    key: str,
    fn: Callable[[Attempt], T],
    *,
    store: Store,
    payload: object = None,
    scope: str = "",
    ttl_s: float = DAY_S,
    wait_s: float = 0.0,
    transaction: bool = False,
    permanent: Errors = (),
    transient: Errors = (),
    on_takeover: Resolver | None = None,
    encode: Callable[[Any], bytes] = lambda value: json.dumps(value).encode(),
    decode: Callable[[bytes], Any] = json.loads,
) -> Outcome[T]:
    """The result of `fn` under `key`, from now or from before.

    `payload` is JSON data that must be the same for the same key. `wait_s` is how long to wait for
    somebody who is at it. Raises KeyReused, InProgress, OutcomeUnknown, LostOwnership, what fn
    raises, StoredFailure for a stored failure of a class that is not among `permanent`, and
    whatever the database does.
    """
    call = _Call(
        key,
        fn,
        store,
        scope,
        payload_digest(payload),
        ttl_s,
        transaction,
        permanent,
        transient,
        on_takeover,
        encode,
        decode,
    )
    deadline = time.monotonic() + wait_s
    while True:
        found = store.claim(
            key,
            call.digest,
            scope=scope,
            ttl_s=ttl_s,
            atomic=transaction,
            resolving=on_takeover is not None,
        )
        if found.claim is not None:
            with store.held(found.claim):
                return _carry_out(call, found.claim)
        if found.answer is Answer.CONFLICT:
            raise KeyReused(key)
        if found.record.finished:
            return _replayed(call, found.record)
        if found.record.in_doubt and on_takeover is None:
            raise OutcomeUnknown(key)
        _wait_until_free(call, found.record, deadline)


async def exactly_once_async(key: str, fn: Callable[[Attempt], T], **how: Any) -> Outcome[T]:
    """`exactly_once` in a thread, where `fn` runs, too. If the waiting task is canceled, the thread
    goes on and stores its result."""
    return await asyncio.to_thread(partial(exactly_once, key, fn, **how))


def pauses() -> Iterator[float]:
    """How long to wait before each look at somebody else's work, in seconds."""
    pause_s = POLL_FIRST_S
    while True:
        yield pause_s
        pause_s = min(POLL_CAP_S, pause_s * 1.5)


def _wait_until_free(call: _Call[T], record: Record | None, deadline: float) -> None:
    """Return when it is worth asking again; InProgress when the time is over."""
    never = threading.Event()
    for pause_s in pauses():
        if record is None or not record.busy:
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise InProgress(call.key, record.lease_left_s)
        never.wait(min(pause_s, left_s))
        record = call.store.look(call.key, scope=call.scope)


def _carry_out(call: _Call[T], claim: Claim) -> Outcome[T]:
    if claim.in_doubt:
        settled = _resolve(call, claim)
        if settled is not None:
            return settled
    try:
        if call.transaction:
            return _in_transaction(call, claim)
        value = call.fn(_attempt(claim))
    except call.permanent as error:
        call.store.finish(claim, _error_head(error), failed=True, ttl_s=call.ttl_s)
        raise
    except call.transient:
        _give_back(call, claim, in_doubt=False)
        raise
    except BaseException:
        # an interrupt, too: nobody knows how far it had come
        _give_back(call, claim, in_doubt=not call.transaction)
        raise
    return _stored(call, claim, value)


def _in_transaction(call: _Call[T], claim: Claim) -> Outcome[T]:
    try:
        with call.store.transaction() as tx:
            body = call.encode(call.fn(_attempt(claim, tx)))
            call.store.finish(claim, _HEAD, body, ttl_s=call.ttl_s, tx=tx)
    except call.store.unavailable:
        # COMMIT may have happened although its answer was lost; the row knows
        record = _after_lost_commit(call, claim)
        if record is None:
            raise
        return Outcome(call.decode(record.body or b""), replayed=False)
    return Outcome(call.decode(body), replayed=False)


def _after_lost_commit(call: _Call[T], claim: Claim) -> Record | None:
    """The row, if our transaction was committed after all; else the key is free again.

    A transaction that is still being decided holds the row, and `release` waits for it.
    """
    with suppress(LostOwnership):
        call.store.release(claim)
    record = call.store.retried(lambda: call.store.look(call.key, scope=call.scope))
    ours = record is not None and record.token == claim.token
    return record if ours and record is not None and record.state is State.COMPLETED else None


def _resolve(call: _Call[T], claim: Claim) -> Outcome[T] | None:
    """Ask what became of the attempt before; None if fn is to run."""
    assert call.on_takeover is not None
    try:
        said = call.on_takeover(_attempt(claim))
    except BaseException:
        _give_back(call, claim, in_doubt=True)
        raise
    if said is RUN_AGAIN:
        return None
    if isinstance(said, Happened):
        return _stored(call, claim, said.value)
    _give_back(call, claim, in_doubt=True)
    if said is STILL_UNKNOWN:
        raise OutcomeUnknown(call.key)
    raise TypeError(f"on_takeover returned {said!r}: Happened(…), RUN_AGAIN or STILL_UNKNOWN")


def _stored(call: _Call[T], claim: Claim, value: object) -> Outcome[T]:
    try:
        body = call.encode(value)
    except Exception:
        _give_back(call, claim, in_doubt=True)  # the effect is there, its result cannot be kept
        raise
    call.store.finish(claim, _HEAD, body, ttl_s=call.ttl_s)
    return Outcome(call.decode(body), replayed=False)


def _give_back(call: _Call[T], claim: Claim, *, in_doubt: bool) -> None:
    """Release, if that is possible; what cannot be released runs out by itself."""
    with suppress(LostOwnership, *call.store.unavailable):
        call.store.release(claim, in_doubt=in_doubt)


def _attempt(claim: Claim, connection: Connection | None = None) -> Attempt:
    return Attempt(claim.key, claim.token, claim.attempts, connection)


_HEAD = {"kind": "value"}


def _error_head(error: Exception) -> dict[str, object]:
    """The failure in JSON; its arguments only if they survive that."""
    args: object = list(error.args)
    try:
        if "\\u0000" in json.dumps(args):
            args = None
    except (TypeError, ValueError):
        args = None
    text = str(error)[:ERROR_TEXT_MAX].replace("\0", "�").encode("utf-8", "replace").decode()
    return {"kind": "error", "type": _name(type(error)), "text": text, "args": args}


def _replayed(call: _Call[T], record: Record) -> Outcome[T]:
    assert record.head is not None
    if record.state is State.COMPLETED:
        return Outcome(call.decode(record.body or b""), replayed=True)
    kind, args = str(record.head["type"]), record.head["args"]
    # the last first: a class that was defined anew under its name replaces the one before it
    for known in reversed(list(_with_subclasses(call.permanent))):
        if _name(known) == kind and isinstance(args, list):
            error: Exception | None = None
            with suppress(Exception):  # a constructor may want other arguments than it kept
                error = known(*args)
            if error is not None:
                raise error
    raise StoredFailure(call.key, kind, str(record.head["text"]))


def _with_subclasses(classes: Errors) -> Iterator[type[Exception]]:
    for known in classes:
        yield known
        yield from _with_subclasses(tuple(known.__subclasses__()))


def _name(kind: type[Exception]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
