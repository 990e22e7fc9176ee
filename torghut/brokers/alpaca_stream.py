"""AlpacaUpdates: the `OrderUpdates` port over Alpaca's trade_updates websocket.

```
connect ─▶ authenticate ─▶ authorized ─▶ listen ─▶ listening ─▶ receive, receive, …
             └ unauthorized, 401, 403: BrokerRefused     └ silence, a cut: BrokerUnavailable
```

A small client of its own, because alpaca-py's TradingStream waits for the answer to its keys
without end, tries refused keys again for ever, and says nothing about gaps.

1. Each step has a time limit: connecting, the answer to the keys, the answer to `listen`.
2. A connection that answers no ping within `PING_DEADLINE_S` is dead, and `receive` says so. One
   that answers pings and tells nothing is for the caller to judge: quiet is not dead.
3. A message that cannot be read is logged, counted, and passed on as an update without an order;
   it never ends the stream.
4. The keys go out in one message only; a plain ws:// connection never goes through a proxy.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit, urlunsplit

import structlog
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from torghut import telemetry
from torghut.brokers import alpaca_mapping as mapping
from torghut.brokers.alpaca_mapping import MalformedBody
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.ports import OrderUpdate

TRADE_UPDATES = "trade_updates"
PING_EVERY_S = 10.0
PING_DEADLINE_S = 10.0
CLOSE_S = 0.3
MESSAGE_BYTES_MAX = 1_048_576
FRAMES_AHEAD_MAX = 1_024
KEPT_LENGTH_MAX = 500

log = structlog.get_logger(__name__)


class AlpacaUpdates:
    """The updates of one account at `base_url` (as the REST API's). Used by one thread.

    `timeout_s` bounds each step of `connect`; pings go out every `ping_every_s` and must be
    answered within `ping_deadline_s`.
    """

    def __init__(
        self,
        *,
        key_id: str,
        secret_key: str,
        base_url: str,
        timeout_s: float,
        ping_every_s: float = PING_EVERY_S,
        ping_deadline_s: float = PING_DEADLINE_S,
    ) -> None:
        self.url = stream_url(base_url)
        self._key_id = key_id
        self._secret_key = secret_key
        self._timeout_s = timeout_s
        self._ping_every_s = ping_every_s
        self._ping_deadline_s = ping_deadline_s
        self._closing = ExitStack()
        self._socket: ClientConnection | None = None
        self._early: list[bytes] = []
        self.malformed_total = 0

    def connect(self) -> None:
        """Connect, sign in, listen. Raises BrokerUnavailable, or BrokerRefused for the keys."""
        self.close()
        try:
            self._socket = self._closing.enter_context(self._open())
            self._sign_in(self._socket)
            self._listen(self._socket)
        except InvalidStatus as error:
            self.close()
            status = error.response.status_code
            refused = BrokerRefused if status in (401, 403) else BrokerUnavailable
            raise refused(f"trade updates: HTTP {status} instead of a websocket") from error
        except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
            self.close()
            raise BrokerUnavailable(f"trade updates: {_described(error)}") from error
        except (BrokerUnavailable, BrokerRefused):
            self.close()
            raise

    def receive(self, timeout_s: float) -> OrderUpdate | None:
        """The next update, None if none comes in time. Raises BrokerUnavailable, BrokerRefused."""
        if self._socket is None:
            raise BrokerUnavailable("trade updates: not connected")
        try:
            raw = self._early.pop(0) if self._early else _next(self._socket, timeout_s)
        except TimeoutError:
            return None
        except (OSError, WebSocketException) as error:
            raise BrokerUnavailable(f"trade updates: {_described(error)}") from error
        return self._update(raw)

    def close(self) -> None:
        """End the connection, within CLOSE_S; does nothing without one."""
        self._socket = None
        self._early.clear()
        self._closing.close()

    # ------------------------------------------------------------------ the handshake

    def _open(self) -> ClientConnection:
        secure = self.url.startswith("wss:")
        return connect(
            self.url,
            ssl=_trusted() if secure else None,
            proxy=True if secure else None,
            compression=None,
            open_timeout=self._timeout_s,
            ping_interval=self._ping_every_s,
            ping_timeout=self._ping_deadline_s,
            close_timeout=CLOSE_S,
            max_size=MESSAGE_BYTES_MAX,
            max_queue=FRAMES_AHEAD_MAX,
        )

    def _sign_in(self, socket: ClientConnection) -> None:
        keys = {"key_id": self._key_id, "secret_key": self._secret_key}
        socket.send(json.dumps({"action": "authenticate", "data": keys}))
        stream, data = self._answer(socket, "the answer to the keys")
        if stream != "authorization":
            raise BrokerUnavailable("trade updates: the answer to the keys was something else")
        _check_authorized(data)

    def _listen(self, socket: ClientConnection) -> None:
        socket.send(json.dumps({"action": "listen", "data": {"streams": [TRADE_UPDATES]}}))
        stream, data = self._answer(socket, "the answer to listen")
        if stream == "authorization":
            _check_authorized(data)
        streams = data.get("streams")
        if stream == "listening" and not (isinstance(streams, list) and TRADE_UPDATES in streams):
            raise BrokerUnavailable("trade updates: are not among what the broker sends")

    def _answer(self, socket: ClientConnection, what: str) -> tuple[str, Mapping[str, object]]:
        try:
            raw = _next(socket, self._timeout_s)
        except TimeoutError:
            raise BrokerUnavailable(f"trade updates: {what} did not come") from None
        try:
            stream, data = _message(raw)
        except MalformedBody as error:
            raise BrokerUnavailable(f"trade updates: {what} cannot be read: {error}") from error
        if stream == TRADE_UPDATES:
            self._early.append(raw)  # it came before the answer, and proves that we listen
        return stream, data

    # ------------------------------------------------------------------ messages

    def _update(self, raw: bytes) -> OrderUpdate | None:
        try:
            stream, data = _message(raw)
            if stream == "authorization":
                _check_authorized(data)
            if stream != TRADE_UPDATES:
                return None
            event = data.get("event")
            if not isinstance(event, str) or not event:
                raise MalformedBody("event is missing")
            return OrderUpdate(event=event, order=mapping.order_of(data.get("order")))
        except MalformedBody as error:
            self.malformed_total += 1
            telemetry.STREAM_MALFORMED.inc()
            kept = mapping.clean_text(raw[:KEPT_LENGTH_MAX].decode("utf-8", "replace"))
            log.warning("trade_update_malformed", problem=str(error), raw=kept)
            return OrderUpdate(event="", order=None)


def stream_url(base_url: str) -> str:
    """Where the updates of the broker at `base_url` come from: ws(s)://…/stream."""
    parts = urlsplit(base_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, f"{parts.path}/stream", "", ""))


def _next(socket: ClientConnection, timeout_s: float) -> bytes:
    """The next message as bytes, whether it came in text or in binary frames."""
    raw = socket.recv(timeout_s, decode=False)
    return raw.encode() if isinstance(raw, str) else bytes(raw)


def _message(raw: bytes) -> tuple[str, Mapping[str, object]]:
    message = mapping.load_json(raw)
    if not isinstance(message, Mapping):
        raise MalformedBody(f"expected a JSON object, got {type(message).__name__}")
    stream, data = message.get("stream"), message.get("data")
    if not isinstance(stream, str) or not isinstance(data, Mapping):
        raise MalformedBody("stream or data is missing")
    return stream, data


def _check_authorized(data: Mapping[str, object]) -> None:
    if data.get("status") != "authorized":
        raise BrokerRefused(f"trade updates: the keys are {str(data.get('status'))[:40]}")


def _trusted() -> ssl.SSLContext:
    """The certificates that the REST calls trust, too."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return ssl.create_default_context(cafile=bundle or DEFAULT_CA_BUNDLE_PATH)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
