"""HttpServer: uvicorn on a thread of its own, which leaves the process's signals alone.

The socket is bound before the thread starts, so a taken port is an error of the start (exit 78)
and not a line in a log. Limits: connections, also of one peer, idle time, time
and size of a request's head (torghut.web.connections).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from torghut.domain.errors import ConfigError, TorghutError
from torghut.web.connections import BoundedProtocol

START_S = 15.0
STOP_S = 10.0
KEEP_ALIVE_S = 30
CONNECTIONS_MAX = 1_024
HEAD_BYTES_MAX = 32 * 1024
BACKLOG = 1_024
ACCEPTED_AT_ONCE = 32  # asyncio takes as many before it serves anybody: a burst must not stop us


class HttpServer:
    """Serves `app` on host:port between `start` and `stop`; port 0 picks a free one.

    `before_stop` ends answers that would go on by themselves.
    """

    def __init__(
        self, app: ASGIApp, host: str, port: int, *, before_stop: Callable[[], None] | None = None
    ) -> None:
        self._before_stop = before_stop
        self._host = host
        self._wanted_port = port
        self._socket: socket.socket | None = None
        self._server = _Server(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # the peer is who connects, not who a header names
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=5,
                limit_concurrency=CONNECTIONS_MAX,
                backlog=ACCEPTED_AT_ONCE,
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            )
        )
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return int(self._socket.getsockname()[1]) if self._socket else self._wanted_port

    def start(self) -> None:
        """Bind and serve; returns when requests are answered.

        Raises ConfigError for a port or a host that cannot be had.
        """
        self._socket = _bound(self._host, self._wanted_port)
        self._thread.start()
        if not self._server.up.wait(START_S) or not self._server.started:
            raise TorghutError("the HTTP server did not start; the log says why")
        self._socket.listen(BACKLOG)  # how many may wait is another number than ACCEPTED_AT_ONCE

    def stop(self) -> None:
        """Answer what is under way, then close. Returns when done, within STOP_S."""
        if self._before_stop is not None:
            self._before_stop()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(STOP_S)
        if self._socket is not None:
            self._socket.close()

    def _run(self) -> None:
        assert self._socket is not None
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._server.up.set()


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigError naming the setting that must change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(
            "TORGHUT_HTTP_HOST", f"{host!r} is no address of this machine", "use 127.0.0.1"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _config_error(host, port, error) from None
    return listener


def _config_error(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            "TORGHUT_HTTP_PORT",
            f"{port} is taken by another program",
            "choose another port, or 0 for any that is free",
        )
    if error.errno == errno.EACCES:
        return ConfigError(
            "TORGHUT_HTTP_PORT", f"{port} may not be opened by this user", "use one above 1023"
        )
    return ConfigError(
        "TORGHUT_HTTP_HOST", f"{host!r} cannot be opened ({error.strerror})", "use 127.0.0.1"
    )
