"""alpaca-py's HTTP, made safe for orders: bounded in time, one request per call, no key leaks.

```
Transport.get/post/patch/delete ─▶ RESTClient of this thread (real alpaca-py, retries off)
                        └▶ _Session: timeouts, keeps the answer as a Reply
                             └▶ _Adapter: one sized connection pool shared by all threads
                                  └▶ _connect_in_time · _TimedResponse: the two deadlines
```

1. **One call, one request.** alpaca-py re-sends every method, POST /orders included, three times
   on 429 and 504; its retry switch is private, so it is checked for at construction, set to zero,
   and counted on the wire by a test. No redirects, no retries in urllib3.
2. **Bounded.** `connect_s` for DNS + TCP + TLS together (a connection that took longer is closed
   unused; the resolver itself cannot be interrupted), then `read_s` for the *whole* answer: each
   wait on the socket gets what is left. (requests' own read timeout starts anew with every byte.)
3. **Never left, or in doubt.** `CallFailed.never_left` is true exactly when making the connection
   failed, or the URL or proxy could not be used at all. A reset on a pooled connection, even on
   the first byte, is in doubt: the server may have read the request.
4. **The answer is judged, not the SDK's view of it.** Whatever alpaca-py raises about a complete
   answer (APIError, JSONDecodeError), the Reply is returned.
5. **Secrets.** Keys are cut out of bodies, headers and error texts here, before anything else sees
   them. Plain-http URLs never go through a proxy (it would read the keys); https ones honour
   HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE. `~/.netrc` is ignored.

Threads: requests.Session is not documented as thread-safe, so every thread has its own client and
session; they share one HTTPAdapter, whose urllib3 pool is thread-safe and keeps `pool_size`
connections open. More threads than that open extra connections rather than wait.
"""

from __future__ import annotations

import http.client
import io
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from socket import socket
from typing import Any
from urllib.parse import urlsplit

import requests
from alpaca.common.rest import RESTClient
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError

from torghut import telemetry
from torghut.brokers.alpaca_answers import Reply
from torghut.clock import utc_now
from torghut.domain.errors import ConfigError

CONNECT_S_MAX = 5.0
ERROR_LENGTH_MAX = 300
REDACTED_LENGTH_MIN = 8  # a shorter "key" is a simulator's, and would punch holes in bodies

_UNUSABLE_URL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
_RELIED_ON = ("_session", "_retry", "_retry_codes", "get", "post", "patch", "delete")


class CallFailed(Exception):
    """No complete answer. `never_left` is true only when the request surely was not sent."""

    def __init__(self, message: str, *, never_left: bool) -> None:
        super().__init__(message)
        self.never_left = never_left


class NeverConnected(NewConnectionError):
    """Name resolution, TCP, proxy tunnel or TLS failed, or took too long: nothing was sent."""


class Transport:
    """Calls through alpaca-py clients, one per thread, with the guarantees of this module.

    `make_client` builds an unused client for `base_url`, which the setting `setting` holds.
    `timeout_s` bounds the wait for the whole answer; connecting gets min(5, timeout_s) on top.
    `on_reply` is called with every answer, in the calling thread. Raises ConfigError for an
    unusable URL, key, or alpaca-py.
    """

    def __init__(
        self,
        make_client: Callable[[], RESTClient],
        *,
        base_url: str,
        secrets: tuple[str, ...],
        timeout_s: float,
        pool_size: int,
        setting: str = "APCA_API_BASE_URL",
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        _check_url(base_url, setting)
        _check_secrets(secrets)
        self._make_client = make_client
        self._secrets = tuple(s for s in secrets if len(s) >= REDACTED_LENGTH_MIN)
        self._timeouts_s = (min(CONNECT_S_MAX, timeout_s), timeout_s)
        self._host = urlsplit(base_url).netloc
        self._proxied = urlsplit(base_url).scheme == "https"
        self._on_reply = on_reply
        self._adapter = _Adapter(pool_maxsize=pool_size, max_retries=0)
        self._of_thread = threading.local()
        self._closed = threading.Event()
        self._client()

    def get(self, path: str, params: Mapping[str, object] | None = None) -> Reply:
        """One GET. Raises CallFailed."""
        return self._timed("GET", lambda client: client.get(path, dict(params or {})))

    def post(self, path: str, body: Mapping[str, object]) -> Reply:
        """One POST, sent at most once. Raises CallFailed."""
        return self._timed("POST", lambda client: client.post(path, dict(body)))

    def patch(self, path: str, body: Mapping[str, object]) -> Reply:
        """One PATCH, sent at most once. Raises CallFailed."""
        return self._timed("PATCH", lambda client: client.patch(path, dict(body)))

    def delete(self, path: str) -> Reply:
        """One DELETE, sent at most once. Raises CallFailed."""
        return self._timed("DELETE", lambda client: client.delete(path))

    def close(self) -> None:
        """Close idle connections; later calls fail as never left."""
        self._closed.set()
        self._adapter.close()

    def redact(self, text: str) -> str:
        """`text` without the keys."""
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return text

    def _timed(self, method: str, call: Callable[[RESTClient], object]) -> Reply:
        began = time.monotonic()
        code = "unanswered"
        try:
            reply = self._call(call)
            code = str(reply.status)
            return reply
        except CallFailed as failure:
            code = "never_left" if failure.never_left else code
            raise
        finally:
            telemetry.BROKER_SECONDS.labels(method, code).observe(time.monotonic() - began)

    def _call(self, call: Callable[[RESTClient], object]) -> Reply:
        if self._closed.is_set():
            raise CallFailed("the connection to the broker is closed", never_left=True)
        client, session = self._client()
        session.reply = None
        failure: CallFailed | None = None
        try:
            call(client)
        except Exception as error:  # noqa: BLE001  rule 4: judge the answer, whatever the SDK says
            if session.reply is None:
                failure = CallFailed(self._describe(error), never_left=_never_left(error))
        if failure is not None:
            raise failure  # without its cause: a chained request object holds the keys
        reply = session.reply
        if reply is None:
            raise CallFailed("alpaca-py returned without a request", never_left=False)
        if self._on_reply is not None:
            self._on_reply(reply)
        return reply

    def _client(self) -> tuple[RESTClient, _Session]:
        known: tuple[RESTClient, _Session] | None = getattr(self._of_thread, "client", None)
        if known is not None:
            return known
        client = self._make_client()
        _check_client(client)
        session = _Session(self._timeouts_s, self.redact)
        session.trust_env = self._proxied
        session.mount("https://", self._adapter)
        session.mount("http://", self._adapter)
        client._session.close()
        client._session = session
        client._retry = 0
        client._retry_codes = []  # replaced, not cleared: the default list is shared by all clients
        self._of_thread.client = (client, session)
        return client, session

    def _describe(self, error: Exception) -> str:
        kind = type(error).__name__
        if isinstance(error, requests.Timeout):
            return f"{kind}: no answer within {self._timeouts_s[1]:g} s of the request"
        return self.redact(f"{self._host}: {_cause(error)}")[:ERROR_LENGTH_MAX]


def _cause(error: BaseException) -> str:
    """What the system said, without the objects that the libraries wrap around it."""
    chain: list[BaseException] = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) and below not in chain:
        chain.append(below)
    system = [e for e in chain if isinstance(e, OSError) and e.strerror]
    if system:
        return f"{type(error).__name__}: {system[-1].strerror}"
    return f"{type(error).__name__}: {error}"


class _Session(requests.Session):
    """Sends with both timeouts and keeps the newest complete answer in `reply`."""

    def __init__(self, timeouts_s: tuple[float, float], redact: Callable[[str], str]) -> None:
        super().__init__()
        self.auth = _no_auth
        self.reply: Reply | None = None
        self._timeouts_s = timeouts_s
        self._redact = redact

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """As requests.Session.request, with our timeouts and without redirects."""
        kwargs.update(timeout=self._timeouts_s, allow_redirects=False)
        response = super().request(*args, **kwargs)
        body = response.content
        self.reply = Reply(
            status=response.status_code,
            body=self._redact(body.decode("utf-8", "surrogateescape")).encode(
                "utf-8", "surrogateescape"
            ),
            received_at=utc_now(),
            headers={k.lower(): self._redact(v) for k, v in response.headers.items()},
        )
        # Else alpaca-py's `response.text` guesses: tens of milliseconds a page, sometimes wrongly.
        response.encoding = "utf-8"
        return response


class _TimedResponse(http.client.HTTPResponse):
    """An answer that must be complete within the socket's timeout as set when it is awaited."""

    def __init__(
        self, sock: socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach()))


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        timeout_s = sock.gettimeout()
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline is not None:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _HttpConnection(HTTPConnection):
    response_class = _TimedResponse

    def connect(self) -> None:
        _connect_in_time(self, super().connect)


class _HttpsConnection(HTTPSConnection):
    response_class = _TimedResponse

    def connect(self) -> None:
        _connect_in_time(self, super().connect)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    """requests' adapter over the connections of this module, proxied ones included."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        pools = super().proxy_manager_for(proxy, **kwargs)
        pools.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return pools


def _connect_in_time(connection: HTTPConnection, connect: Callable[[], None]) -> None:
    started = time.monotonic()
    limit_s = connection.timeout
    try:
        connect()
    except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise NeverConnected(connection, f"{type(error).__name__}: {error}") from error
    if isinstance(limit_s, (int, float)) and time.monotonic() - started > limit_s:
        connection.close()
        raise NeverConnected(connection, f"connecting took longer than {limit_s:g} s")


def _never_left(error: BaseException) -> bool:
    """Whether `error` is, or wraps, the failure to connect (requests and urllib3 nest them)."""
    cause: object = error
    while isinstance(cause, BaseException):
        if isinstance(cause, (NeverConnected, *_UNUSABLE_URL)):
            return True
        wrapped = getattr(cause, "reason", None) or getattr(cause, "original_error", None)
        cause = wrapped or (cause.args[0] if cause.args else None)
    return False


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from adding credentials out of ~/.netrc."""
    return request


def _check_client(client: RESTClient) -> None:
    missing = [name for name in _RELIED_ON if not hasattr(client, name)]
    if missing or not isinstance(client._session, requests.Session):
        raise ConfigError(
            "alpaca-py",
            f"version {version('alpaca-py')} has no {', '.join(missing) or 'requests.Session'},"
            " without which its retries of orders cannot be switched off",
            "install alpaca-py==0.44.0",
        )


def _check_url(base_url: str, setting: str) -> None:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        usable = False
    if not usable:
        raise ConfigError(
            setting, "is no http(s) URL", "give one such as https://paper-api.alpaca.markets"
        )
    if "@" in base_url or base_url.endswith("/"):
        raise ConfigError(setting, "holds a user name or ends with a slash", "remove that")


def _check_secrets(secrets: tuple[str, ...]) -> None:
    if not all(s and s.isascii() and s.isprintable() and s == s.strip() for s in secrets):
        raise ConfigError(
            "APCA_API_KEY_ID / APCA_API_SECRET_KEY",
            "is empty or holds characters that no HTTP header can carry",
            "copy the key pair again",
        )
