"""One run of the app under a claim: its answer held back until it is stored.

```
app ─▶ send ─▶ held back ── last chunk ──▶ stored ──▶ sent
                   └─ over the bound, or an event stream: sent as it comes, stored without its body
```

The app is not told that its client has gone: it ends, and its answer is there for the next request.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torghut.idempotency import http_messages
from torghut.idempotency.errors import LostOwnership
from torghut.idempotency.http_policy import Policy
from torghut.idempotency.store import Claim, Record, Store

log = logging.getLogger(__name__)


class Run:
    """Carries one request out. `replay` sends what another attempt has stored."""

    def __init__(
        self,
        store: Store,
        claim: Claim,
        policy: Policy,
        call: Callable[[Callable[[], Any]], Awaitable[Any]],
        send: Send,
        replay: Callable[[Record, Send], Awaitable[None]],
    ) -> None:
        self._store = store
        self._claim = claim
        self._policy = policy
        self._call = call
        self._client = send
        self._replay = replay
        self._start: Message | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._passing = False
        self._ended = asyncio.Event()

    async def carry_out(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        """Run the app. Raises what it raises."""
        with ExitStack() as lease:
            lease.enter_context(self._store.held(self._claim))
            try:
                await app(scope, self._receiver(body), self._send)
            finally:
                if not self._ended.is_set():
                    await self._without_answer(sys.exc_info()[1])
                self._ended.set()

    def _receiver(self, body: bytes) -> Receive:
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self._ended.wait()
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            if http_messages.is_endless(message):
                await self._pass_on()
        elif message["type"] == "http.response.body" and self._start is not None:
            await self._take(message.get("body", b""), bool(message.get("more_body")))

    async def _take(self, chunk: bytes, more: bool) -> None:
        self._size += len(chunk)
        if not self._passing:
            self._chunks.append(chunk)
            if self._size > self._policy.response_bytes_max:
                await self._pass_on()
        elif more:
            await self._to_client({"type": "http.response.body", "body": chunk, "more_body": True})
            return
        if not more:
            await self._finish(b"" if not self._passing else chunk)

    async def _pass_on(self) -> None:
        """From now on the client gets what comes, when it comes."""
        assert self._start is not None
        self._passing = True
        await self._to_client(self._start)
        for chunk in self._chunks:
            await self._to_client({"type": "http.response.body", "body": chunk, "more_body": True})
        self._chunks.clear()

    async def _to_client(self, message: Message) -> None:
        try:
            await self._client(message)
        except OSError:
            log.debug("the client has gone; its request goes on")

    async def _finish(self, rest: bytes) -> None:
        """The answer is whole: store it, then send what the client has not got yet."""
        theirs = await self._stored()
        self._ended.set()
        if self._passing:
            await self._to_client({"type": "http.response.body", "body": rest})
        elif theirs is not None:
            await self._replay(theirs, self._to_client)
        else:
            assert self._start is not None
            await self._to_client(self._start)
            body = b"".join(self._chunks)
            await self._to_client({"type": "http.response.body", "body": body})

    async def _stored(self) -> Record | None:
        """Store the answer; another attempt's, if one has taken over and answered before."""
        assert self._start is not None
        status = self._start["status"]
        policy, claim = self._policy, self._claim
        if status in policy.transient or (status >= 500 and policy.server_errors != "store"):
            in_doubt = status >= 500 and policy.server_errors == "in_doubt"
            await self._give_back(in_doubt=in_doubt)
            return None
        head = http_messages.head_of(self._start, kept=not self._passing)
        body = None if self._passing else b"".join(self._chunks)
        try:
            await self._call(lambda: self._store.finish(claim, head, body, ttl_s=policy.ttl_s))
        except LostOwnership:
            log.warning("a later attempt has taken over; its answer stands")
            return await self._theirs()
        except Exception:
            # the answer is true, and the client may as well have it; without a result the key is
            # in doubt when the lease is over, and never silently run again
            log.exception("the answer was not stored")
        return None

    async def _theirs(self) -> Record | None:
        claim = self._claim
        record: Record | None = await self._call(
            lambda: self._store.look(claim.key, scope=claim.scope)
        )
        answered = record is not None and record.head is not None and record.head.get("kept")
        return record if answered else None

    async def _without_answer(self, error: BaseException | None) -> None:
        """The app ended before it had answered: the policy says what that means."""
        cut_off = error is not None and not isinstance(error, Exception)
        await self._give_back(in_doubt=cut_off or self._policy.server_errors != "release")

    async def _give_back(self, *, in_doubt: bool) -> None:
        try:
            await self._call(lambda: self._store.release(self._claim, in_doubt=in_doubt))
        except LostOwnership:
            log.warning("a later attempt has taken over")
        except Exception:
            log.exception("the key was not released; it is in doubt when its lease is over")
