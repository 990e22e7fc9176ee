"""The gate every request passes first: id, host, rate, token, scope. Plain ASGI: it costs little.

```
X-Request-ID ─▶ host ─▶ rate ─▶ token ─▶ scope ─▶ rate ─▶ routes ─▶ answer with X-Request-ID
                 403     429     401      403      429               500 for what nobody caught
```

1. Where tokens are asked for (torghut.web.keyring) all but the probes, the console and the
   webhooks needs `Authorization: Bearer`. 401: none was sent, or one that is not known, revoked or
   over; 403: it has not the scope. GET needs `read`, decisions need `submit`, all else needs
   `operate`, so that a route that is new needs the most. The console asks for its own session
   (torghut.web.console.sessions), a webhook for its own secret.
2. Where none is asked for (loopback only, torghut.config) the Host must be a loopback name: a web
   page in a browser on this machine must not reach us under a name of its own (DNS rebinding).
3. The rate limit is per peer address, and per token whatever address it comes from; it bounds what
   one client costs.
4. A request id is the sender's if it is short and plain, else ours: it ends up in logs.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Scope_

from torghut import telemetry
from torghut.domain.access import Caller, Scope
from torghut.web.keyring import Keyring
from torghut.web.problems import Problem, problem_of

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
CONSOLE = "/console/"
WEBHOOKS = "/webhooks/"
SUBMITTING_PATHS = frozenset({"/v1/decisions", "/v1/decisions:batch", "/v1/plans"})
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


def scope_needed(method: str, path: str) -> Scope:
    """What a request needs; what is not known here needs the most."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return Scope.READ
    return Scope.SUBMIT if path in SUBMITTING_PATHS else Scope.OPERATE


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header; None without one."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def caller_of(request: Request) -> Caller:
    """Who sent a request, as the gate found."""
    found: Caller = request.scope["state"]["caller"]
    return found


class Gate:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, *, keyring: Keyring, rate: RateLimit, host: str) -> None:
        self._app = app
        self._keyring = keyring
        self._rate = rate
        self._host = host

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
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

        try:
            await self._check(scope, headers)
            await self._app(scope, receive, send_with_id)
            return
        except Problem as refusal:
            problem = refusal
        except Exception as error:
            log.exception("request failed", request_id=request_id)
            if started:
                raise
            problem = problem_of(error)
        await problem.response(request_id)(scope, receive, send_with_id)

    async def _check(self, scope: Scope_, headers: Headers) -> None:
        """Let the request pass, or raise the Problem that it is answered with."""
        path = scope["path"]
        if path in OPEN_PATHS:
            return
        client = scope.get("client")
        self._take(client[0] if client else "")
        if path.startswith(WEBHOOKS):
            return
        console = path == "/" or path.startswith(CONSOLE)
        if console or not self._keyring.asks_always:
            await self._keyring.look()
        if not self._keyring.asks and not _is_local(headers.get("host"), self._host):
            raise Problem(403, "forbidden", "without API tokens only loopback names are served")
        if console:
            return
        caller = await self._keyring.caller(bearer(headers.get("authorization")))
        if caller is None:
            raise _unauthenticated(headers.get("authorization"))
        if caller.name is not None:
            self._take(f"token {caller.name}")
        needed = scope_needed(scope["method"], path)
        if needed not in caller.scopes:
            raise _out_of_scope(caller, needed)
        scope["state"]["caller"] = caller

    def _take(self, client: str) -> None:
        if not self._rate.take(client):
            raise Problem(
                429, "rate-limited", "too many requests a second", headers={"Retry-After": "1"}
            )


def _unauthenticated(authorization: str | None) -> Problem:
    challenge = 'Bearer realm="torghut"'
    if bearer(authorization) is None:
        text = "send Authorization: Bearer with a token (torghut token create)"
        return Problem(401, "unauthenticated", text, headers={"WWW-Authenticate": challenge})
    text = "the token is not known here, was revoked, or is over"
    challenge += ', error="invalid_token"'
    return Problem(401, "invalid-token", text, headers={"WWW-Authenticate": challenge})


def _out_of_scope(caller: Caller, needed: Scope) -> Problem:
    has = ", ".join(sorted(caller.scopes))
    challenge = f'Bearer realm="torghut", error="insufficient_scope", scope="{needed}"'
    text = f"this needs a token with the scope {needed}; this one has {has}"
    return Problem(403, "insufficient-scope", text, headers={"WWW-Authenticate": challenge})


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


def _count(scope: Scope_, status: int, took_s: float) -> None:
    """Under the route's pattern, never its path: what nobody serves is one name."""
    pattern = getattr(scope.get("route"), "path", None)
    if pattern and scope["path"].startswith("/v1/"):
        pattern = "/v1" + pattern.removeprefix("/v1")  # a router's routes do not know its prefix
    route = f"{scope['method']} {pattern}" if pattern else "none"
    telemetry.HTTP_SECONDS.labels(route, str(status)).observe(took_s)
