"""A TCP proxy before Postgres that loses connections at COMMIT, as networks and failovers do."""

from __future__ import annotations

import select
import socket
import threading
from types import TracebackType

from sqlalchemy.engine import make_url

COMMIT = b"COMMIT\0"  # the whole statement: "READ COMMITTED" is another one


class CommitProxy:
    """`url` leads through the proxy. The next COMMITs meet what stands in `fates`:

    `lose` - it reaches Postgres, the answer is lost; `drop` - it never reaches Postgres.
    """

    def __init__(self, url: str) -> None:
        target = make_url(url)
        host = target.query.get("host", target.host)
        port = int(str(target.query.get("port", target.port or 5432)))
        self._target = f"{host}/.s.PGSQL.{port}" if str(host).startswith("/") else (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        through = target.set(
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            query={k: v for k, v in target.query.items() if k not in ("host", "port")},
        )
        self.url = through.render_as_string(hide_password=False)
        self.fates: list[str] = []
        self.commits = 0
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> CommitProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if isinstance(self._target, str):
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
            else:
                server = socket.create_connection(self._target)
            self._sockets += [client, server]
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and COMMIT in data:
                        self.commits += 1
                        if self.fates:
                            self._end(self.fates.pop(0), data, server)
                            return
                    (server if source is client else client).sendall(data)
        except (OSError, ValueError):
            return
        finally:
            client.close()
            server.close()

    def _end(self, fate: str, data: bytes, server: socket.socket) -> None:
        if fate == "lose":
            server.sendall(data)
            server.recv(65536)  # it is committed now
