"""The ASGI application of the trading and data port.

    request -> count -> authenticate -> rate limit -> fault? -> handler -> journal -> reply

Everything up to the reply happens on one thread without waiting, so an order is in the journal
before its answer leaves.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import math
import random
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from torghut.simulator import clock
from torghut.simulator.broker import Broker
from torghut.simulator.errors import RATE_LIMITED, ApiError
from torghut.simulator.faults import FaultPlan
from torghut.simulator.http import Reply, Request, Routes, reply_error
from torghut.simulator.misbehaviour import Incident
from torghut.simulator.wire import Wire

UNLIMITED = 100_000
WINDOW_S = 60
MAX_BODY_BYTES = 1_000_000
UNKNOWN = "unknown"
log = logging.getLogger(__name__)


class RateLimit:
    """Requests per minute of the wall clock. Without a limit the headers name a high one."""

    def __init__(self, per_minute: int | None, wall: Callable[[], datetime]) -> None:
        self._limit = per_minute or UNLIMITED
        self._enforced = per_minute is not None
        self._wall = wall
        self._window = 0
        self._used = 0

    def take(self) -> bool:
        """Count one request; False when it is one too many."""
        window = int(self._wall().timestamp()) // WINDOW_S
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        return not self._enforced or self._used <= self._limit

    def headers(self) -> dict[str, str]:
        """The three X-RateLimit headers; Reset is a UNIX time in seconds."""
        return {
            "x-ratelimit-limit": str(self._limit),
            "x-ratelimit-remaining": str(max(self._limit - self._used, 0)),
            "x-ratelimit-reset": str((self._window + 1) * WINDOW_S),
        }


class Credentials:
    """Accepts one key pair, or any when none is set; never a request without."""

    def __init__(self, key: str | None, secret: str | None) -> None:
        self._key = key
        self._secret = secret

    def accept(self, headers: dict[str, str]) -> bool:
        """By the two headers, HTTP Basic, or a bearer token (which must be the secret)."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return bool(value) and (self._secret is None or _same(value, self._secret))
        if scheme.lower() == "basic":
            try:
                decoded = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return False
            key, _, secret = decoded.partition(":")
        else:
            key = headers.get("apca-api-key-id", "")
            secret = headers.get("apca-api-secret-key", "")
        return self.accept_pair(key, secret)

    def accept_pair(self, key: str, secret: str) -> bool:
        """A key and its secret."""
        if not key or not secret:
            return False
        return (self._key is None or _same(key, self._key)) and (
            self._secret is None or _same(secret, self._secret)
        )


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


class Gateway:
    """Takes requests from the wire to the handlers."""

    def __init__(
        self,
        broker: Broker,
        routes: Routes,
        plan: FaultPlan,
        credentials: Credentials,
        rate_limit: RateLimit,
        settle: Callable[[], None],
    ) -> None:
        self.broker = broker
        self.routes = routes
        self.plan = plan
        self.requests: Counter[str] = Counter()
        self.posts_by_client_id: Counter[str] = Counter()
        self.stream: Callable[[Any, Any, Any], Any] | None = None
        self._credentials = credentials
        self._rate_limit = rate_limit
        self._settle = settle
        self._request_ids = random.Random(f"{broker.seed}:request ids")
        self._timers: set[asyncio.TimerHandle] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI entry."""
        if scope["type"] == "websocket":
            if self.stream is None or scope["path"] != "/stream":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self.stream(scope, receive, send)
            return
        wire = Wire(scope, receive, send)
        body = await wire.read_body(MAX_BODY_BYTES)
        if body is None:
            await wire.reset()
            return
        request = Request(
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body,
        )
        await self._serve(request, wire)

    async def _serve(self, request: Request, wire: Wire) -> None:
        found = self.routes.find(request.method, request.path)
        name = found[0].name if found else UNKNOWN
        self.requests[name] += 1
        refusal = self._refuse(request, found is not None)
        if refusal is not None or found is None:
            await wire.answer(self._decorate(refusal or _not_found()))
            return
        route, request.params = found
        symbol, client_order_id = self._subject(name, request)
        if name == "submit" and client_order_id:
            self.posts_by_client_id[client_order_id] += 1

        def work() -> Reply:
            return self._perform(route.handler, request)

        fault = self.plan.decide(name, symbol, client_order_id) if self.plan.rules else None
        if fault is None:
            await wire.answer(self._decorate(work()))
        else:
            await Incident(fault, self.broker, wire, work, self._decorate, self._later).run()

    def _refuse(self, request: Request, known: bool) -> Reply | None:
        if not self._credentials.accept(request.headers):
            return reply_error(ApiError(401, None, "unauthorized."))
        if not self._rate_limit.take():
            if request.path.startswith(("/v2/stocks", "/v1beta3")):
                return reply_error(ApiError(429, None, "too many requests."))
            return reply_error(ApiError(429, RATE_LIMITED, "rate limit exceeded"))
        return None if known else _not_found()

    def _perform(self, handler: Callable[[Request], Reply], request: Request) -> Reply:
        try:
            return handler(request)
        except ApiError as error:
            return reply_error(error)
        except Exception:
            log.exception("%s %s failed in the simulator", request.method, request.path)
            return reply_error(ApiError(500, 50010000, "internal server error occurred"))
        finally:
            self._settle()

    def _subject(self, route: str, request: Request) -> tuple[str | None, str | None]:
        """The symbol and client_order_id a request is about, where it says so."""
        if route == "submit":
            try:
                body = request.json
            except ApiError:
                return None, None
            if not isinstance(body, dict):
                return None, None
            symbol, client_order_id = body.get("symbol"), body.get("client_order_id")
            return (
                symbol if isinstance(symbol, str) else None,
                client_order_id if isinstance(client_order_id, str) else None,
            )
        if route == "by_client_order_id":
            return None, request.query.get("client_order_id")
        if request.params and "/orders/" in request.path:
            order = self.broker.book.by_id.get(request.params[0])
            return (order.symbol, order.client_order_id) if order else (None, None)
        return (request.params[0] if request.params else None), None

    def _decorate(self, reply: Reply) -> Reply:
        reply.headers |= self._rate_limit.headers()
        reply.headers["x-request-id"] = uuid.UUID(int=self._request_ids.getrandbits(128)).hex
        return reply

    def _later(self, delay_s: float, action: Callable[[], object]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay_s, fire)
        self._timers.add(timer)


def _not_found() -> Reply:
    return reply_error(ApiError(404, 40410000, "endpoint not found."))


class Pacer:
    """Runs the matcher when something is due, and sweeps resting orders once in a while."""

    SWEEP_S = 1.0

    def __init__(self, broker: Broker, flush: Callable[[], None]) -> None:
        self._broker = broker
        self._flush = flush
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = math.inf

    def settle(self) -> None:
        """Save what happened, and arm the timer for what is due next."""
        self._flush()
        due_s = self._broker.matcher.next_due_s
        if due_s is None or (self._timer is not None and self._due_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = due_s
        delay_s = max(due_s - clock.elapsed_s(), 0)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._due_s = math.inf
        self._broker.matcher.step(self._broker.elapsed_s())
        self.settle()

    async def sweep_forever(self) -> None:
        """Sweep until canceled."""
        while True:
            await asyncio.sleep(self.SWEEP_S)
            if self._broker.book.open:
                self._broker.matcher.sweep(self._broker.elapsed_s())
            self.settle()
