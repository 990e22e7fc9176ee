"""ASGI middleware for the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header-07).

```
request with a key ─▶ Store.claim ─ created ──▶ the app ─▶ store ─▶ answer
                          ├─ exists, answered ─▶ the stored answer, Idempotent-Replayed: true
                          ├─ exists, running ──▶ 409, or wait for it
                          ├─ outcome unknown ──▶ 409, or run again
                          └─ conflict ─────────▶ 422
```

1. An answer is stored before it is sent: who has seen it will see it again.
2. A request that has begun ends, and is stored, whether or not its client is still there.
3. An answer larger than the bound, or an event stream, is passed on as it comes and not stored;
   that it was given is, so the request never runs again and a repetition is told so.
4. Nothing but HTTP is touched, and no method but those of `methods`.

Failure behaviour: the database away before the app has run → 503, nothing has run. Away after it →
the answer is sent, as it is true; its key is in doubt once the lease is over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from torghut.idempotency import http_messages
from torghut.idempotency.http_messages import KeyMalformed, by_authorization
from torghut.idempotency.http_policy import Policy, exempt, idempotent, policy_of
from torghut.idempotency.http_refusals import Refusal, problem
from torghut.idempotency.http_run import Run
from torghut.idempotency.once import pauses
from torghut.idempotency.store import Answer, Found, Record, Store

__all__ = ["IdempotencyMiddleware", "Policy", "Refusal", "exempt", "idempotent"]

BODY_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


class _Calls(Protocol):
    def __call__(self, function: Callable[[], Any], /) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as the store knows it."""

    caller: str
    key: str
    digest: str
    body: bytes
    policy: Policy


class IdempotencyMiddleware:
    """Around any ASGI app; decorators on its endpoints change `default` for their route.

    `caller` tells callers apart: equal keys of two of them do not meet. `refuse` makes the answer
    of a refusal, RFC 9457 problem details unless given. `call` runs a function in a thread, and
    `observe` is told what became of each request with a key.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Store,
        *,
        default: Policy = Policy(),
        methods: Iterable[str] = ("POST", "PATCH"),
        caller: Callable[[Scope], str] = by_authorization,
        refuse: Callable[[Refusal, Scope], ASGIApp] = problem,
        call: _Calls = asyncio.to_thread,
        observe: Callable[[str], object] = lambda answer: None,
    ) -> None:
        self._app = app
        self._store = store
        self._default = default
        self._methods = frozenset(methods)
        self._caller = caller
        self._refuse = refuse
        self._call = call
        self._observe = observe
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in self._methods:
            await self._app(scope, receive, send)
            return
        policy = policy_of(scope, self._default)
        try:
            key = http_messages.key_of(scope) if policy.enabled else None
            if key is None:
                if policy.enabled and policy.required:
                    raise Refusal.missing()
                await self._app(scope, receive, send)
                return
            asked = await self._read(scope, receive, key, policy)
            await self._answer(asked, scope, send)
        except KeyMalformed as error:
            await self._send_refusal(Refusal.malformed(str(error)), scope, receive, send)
        except Refusal as refusal:
            await self._send_refusal(refusal, scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, key: str, policy: Policy) -> _Asked:
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in Request(scope, receive).stream():
                    size += len(chunk)
                    if size > policy.request_bytes_max:
                        raise Refusal.too_large(policy.request_bytes_max)
                    chunks.append(chunk)
        except TimeoutError:
            raise Refusal.slow(BODY_TIMEOUT_S) from None
        except ClientDisconnect:
            raise Refusal.disconnected() from None
        body = b"".join(chunks)
        digest = http_messages.request_digest(scope, body)
        return _Asked(self._caller(scope), key, digest, body, policy)

    async def _answer(self, asked: _Asked, scope: Scope, send: Send) -> None:
        found = await self._claim(asked)
        if found.claim is None:
            await self._replay(found.record, send)
            return
        self._observe("created")
        run = Run(self._store, found.claim, asked.policy, self._call, send, self._replay)
        task = asyncio.ensure_future(run.carry_out(self._app, _for_storing(scope), asked.body))
        self._running.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.debug("request ended with %r", task.exception())

    async def _claim(self, asked: _Asked) -> Found:
        """A claim, or an answer that stands. Raises Refusal."""
        deadline = time.monotonic() + asked.policy.wait_s
        resolving = asked.policy.on_takeover == "run_again"
        pause = pauses()
        while True:
            claiming = _Claiming(self._store, asked, resolving)
            try:
                found: Found = await self._asked_of_store(claiming)
            finally:
                claiming.give_up()
            if found.answer is Answer.CONFLICT:
                raise Refusal.reused()
            if found.claim is not None or found.record.finished:
                return found
            if found.record.in_doubt and not resolving:
                raise Refusal.unknown()
            record: Record | None = found.record
            while record is not None and record.busy:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise Refusal.in_progress()
                await asyncio.sleep(min(next(pause), left_s))
                record = await self._asked_of_store(
                    lambda: self._store.look(asked.key, scope=asked.caller)
                )

    async def _asked_of_store(self, ask: Callable[[], Any]) -> Any:
        """The store's answer, from a thread. Raises Refusal if the database does not answer."""
        try:
            return await self._call(ask)
        except self._store.unavailable as error:
            log.warning("the database does not answer: %s", error)
            raise Refusal.unavailable() from None

    async def _replay(self, record: Record, send: Send) -> None:
        head = record.head
        assert head is not None
        if not head.get("kept"):
            raise Refusal.not_kept(int(head.get("status", 0)))
        self._observe("replayed")
        for message in http_messages.messages(head, record.body or b""):
            await send(message)

    async def _send_refusal(
        self, refusal: Refusal, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._observe(refusal.kind)
        await self._refuse(refusal, scope)(scope, receive, send)


class _Claiming:
    """A claim that is made in a thread; if nobody waits for it any more, it is given back."""

    def __init__(self, store: Store, asked: _Asked, resolving: bool) -> None:
        self._store = store
        self._asked = asked
        self._resolving = resolving
        self._taken = False
        self._given_up = False
        self._lock = threading.Lock()

    def __call__(self) -> Found:
        asked = self._asked
        found = self._store.claim(
            asked.key,
            asked.digest,
            scope=asked.caller,
            ttl_s=asked.policy.ttl_s,
            resolving=self._resolving,
        )
        with self._lock:
            self._taken = True
            late = self._given_up
        if late and found.claim is not None:
            self._store.release(found.claim, in_doubt=found.claim.in_doubt)
        return found

    def give_up(self) -> None:
        """After the waiting ended: a claim that comes later is nobody's."""
        with self._lock:
            self._given_up = not self._taken


def _for_storing(scope: Scope) -> MutableMapping[str, Any]:
    """Without extensions by which a server would be told to send what we do not see."""
    extensions = scope.get("extensions") or {}
    hidden = {name for name in extensions if name.startswith("http.response.")}
    if not hidden:
        return scope
    return {**scope, "extensions": {k: v for k, v in extensions.items() if k not in hidden}}
