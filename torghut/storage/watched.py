"""A connection that does not wait for a server that answers nobody.

A frozen server, or one behind a link that swallows packets, sends no error: its kernel goes on
acknowledging, statement_timeout is the frozen server's own, and libpq waits for ever. So:

```
a wait ── SUSPECT_AFTER_S without a byte ──▶ ask the server on another socket (PROBE_S)
            ▲                                   │ it answers: the statement is slow, or waits for
            └───────────────────────────────────┤ a lock; ask again later
                                                └ silence: close our socket, raise ServerSilent
```

1. A silent server is noticed within SUSPECT_AFTER_S + PROBE_S, whatever is waited for, COMMIT too.
2. A server that answers others but not this wait is asked to cancel it after ANSWER_DEADLINE_S, a
   little more than the longest statement_timeout. A COMMIT that waits for a lost stand-by, which no
   timeout of Postgres ends, then succeeds with a warning; one frozen backend says nothing still,
   and is given up.
3. The question is the first message of the protocol, which any server answers with one byte before
   it asks who we are: no password and no place among max_connections. A server with TLS may log it.
4. Whoever waits meanwhile shares the answer: one question per server at a time.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

import psycopg
from psycopg.abc import PQGen

SUSPECT_AFTER_S = 1.5
PROBE_S = 2.0
ANSWER_DEADLINE_S = 17.0

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_INTERVAL_S = 0.1

RV = TypeVar("RV")


class ServerSilent(psycopg.OperationalError):
    """The server does not answer; the connection is closed, and a COMMIT on it is in doubt."""


class WatchedConnection(psycopg.Connection[tuple[object, ...]]):
    """A psycopg connection whose waits end. `on_silent` is called before ServerSilent is raised."""

    on_silent: Callable[[], None] | None = None

    def wait(
        self, gen: PQGen[RV], interval: float = _INTERVAL_S, timeout: float | None = None
    ) -> RV:
        """As the base class, but raises ServerSilent when nothing will come any more."""
        if timeout is not None:  # the caller has a deadline of its own
            return super().wait(gen, interval, timeout)
        return super().wait(self._watched(gen), interval)

    def _watched(self, gen: PQGen[RV]) -> PQGen[RV]:
        """`gen`, asked after each `interval` without a byte whether waiting makes sense."""
        began = time.monotonic()
        look_at = began + SUSPECT_AFTER_S
        canceling = False
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    look_at = now + SUSPECT_AFTER_S
                elif now >= look_at:
                    if canceling or not self._server_answers():
                        self._give_up(now - began)
                    if now - began >= ANSWER_DEADLINE_S:
                        canceling = True
                        self._cancel()
                    look_at = time.monotonic() + SUSPECT_AFTER_S
                wanted = gen.send(ready)
        except StopIteration as end:
            found: RV = end.value
            return found

    def _server_answers(self) -> bool:
        return _servers.answers(self.info.hostaddr or self.info.host, self.info.port)

    def _cancel(self) -> None:
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=PROBE_S)

    def _give_up(self, waited_s: float) -> NoReturn:
        self.pgconn.finish()
        if self.on_silent is not None:
            self.on_silent()
        raise ServerSilent(f"no answer from the server for {waited_s:.1f} s")


class _Servers:
    """Which servers answered lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking: dict[tuple[str, int], threading.Lock] = {}
        self._answered: dict[tuple[str, int], tuple[float, bool]] = {}

    def answers(self, host: str, port: int) -> bool:
        """True if the server answers a new connection; an answer counts for SUSPECT_AFTER_S."""
        asked_at = time.monotonic()
        with self._lock:
            asking = self._asking.setdefault((host, port), threading.Lock())
        with asking:
            at, answered = self._answered.get((host, port), (0.0, False))
            if at < asked_at - SUSPECT_AFTER_S / 2:
                answered = answers(host, port)
                self._answered[host, port] = (time.monotonic(), answered)
            return answered


def answers(host: str, port: int) -> bool:
    """Does a PostgreSQL (or a pooler) at the place say its first byte within PROBE_S?"""
    try:
        if host.startswith(("/", "@")):
            path = f"{host}/.s.PGSQL.{port}"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(PROBE_S)
                probe.connect("\0" + path[1:] if host.startswith("@") else path)
                return _first_byte(probe)
        with socket.create_connection((host, port), timeout=PROBE_S) as probe:
            return _first_byte(probe)
    except OSError:
        return False


def _first_byte(probe: socket.socket) -> bool:
    probe.sendall(_SSL_REQUEST)
    return bool(probe.recv(1))


_servers = _Servers()
