"""The gate every request passes first: id, host, rate, token. Plain ASGI, so it costs little.

```
X-Request-ID ─▶ host ─▶ rate ─▶ token ─▶ routes ─▶ answer with X-Request-ID
                 403     429     401 403             500 for what nobody caught
```

1. With tokens, all but the probes and the console asks for `Authorization: Bearer`; every token is
   compared, in constant time, over digests of equal length. 401: none was sent; 403: not one of
   them. The console asks for its own session (torghut.web.console.sessions).
2. Without tokens (loopback only, torghut.config) the Host must be a loopback name: a web page in a
   browser on this machine must not reach us under a name of its own (DNS rebinding).
3. The rate limit is per peer address and far above honest use; it bounds what one client costs.
4. A request id is the sender's if it is short and plain, else ours: it ends up in logs.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torghut import telemetry
from torghut.web.problems import Problem, problem_of

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
CONSOLE = "/console/"
CLIENTS_MAX = 1_024

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = structlog.get_logger(__name__)


class RateLimit:
    """A token bucket per client: `per_s` requests a second, bursts of twice that."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = 2 * per_s
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """True if the client may send one more now. Called from one thread."""
        now = self._clock()
        left, at = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        while len(self._left) > CLIENTS_MAX:
            self._left.popitem(last=False)
        return allowed


class Tokens:
    """The API's bearer tokens, as digests."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = [_digest(token.encode()) for token in tokens]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: str | None) -> Problem | None:
        """None if the header holds one of the tokens. Takes as long for a right as for a wrong."""
        scheme, _, token = (authorization or "").partition(" ")
        given = _digest(token.strip().encode("latin-1", "replace"))
        known = 0
        for digest in self._digests:
            known |= hmac.compare_digest(digest, given)
        if scheme.lower() != "bearer" or not token.strip():
            return Problem(
                401,
                "unauthenticated",
                "send Authorization: Bearer with one of the tokens of TORGHUT_API_TOKENS",
                headers={"WWW-Authenticate": 'Bearer realm="torghut"'},
            )
        return None if known else Problem(403, "forbidden", "the token is not known here")


class Gate:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, rate: RateLimit, host: str) -> None:
        self._app = app
        self._tokens = tokens
        self._rate = rate
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
                _count(scope, message["status"], time.monotonic() - began)
            await send(message)

        problem = self._refusal(scope, headers)
        if problem is None:
            try:
                await self._app(scope, receive, send_with_id)
                return
            except Exception as error:
                log.exception("request failed", request_id=request_id)
                if started:
                    raise
                problem = problem_of(error)
        await problem.response(request_id)(scope, receive, send_with_id)

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        if scope["path"] in OPEN_PATHS:
            return None
        if not self._tokens and not _is_local(headers.get("host"), self._host):
            return Problem(403, "forbidden", "without API tokens only loopback names are served")
        client = scope.get("client")
        if not self._rate.take(client[0] if client else ""):
            return Problem(
                429, "rate-limited", "too many requests a second", headers={"Retry-After": "1"}
            )
        path = scope["path"]
        if not self._tokens or path == "/" or path.startswith(CONSOLE):
            return None
        return self._tokens.check(headers.get("authorization"))


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else os.urandom(8).hex()


def _is_local(header: str | None, own: str) -> bool:
    try:
        name = urlsplit(f"//{header or ''}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", own):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _count(scope: Scope, status: int, took_s: float) -> None:
    """Under the route's pattern, never its path: what nobody serves is one name."""
    pattern = getattr(scope.get("route"), "path", None)
    if pattern and scope["path"].startswith("/v1/"):
        pattern = "/v1" + pattern.removeprefix("/v1")  # a router's routes do not know its prefix
    route = f"{scope['method']} {pattern}" if pattern else "none"
    telemetry.HTTP_SECONDS.labels(route, str(status)).observe(took_s)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
