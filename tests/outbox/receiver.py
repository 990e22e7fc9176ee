"""A webhook's receiver: a real HTTP server that keeps what it takes and can be told to refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, Mapping[str, str]]


@dataclass
class Receiver:
    """What came: headers and body of each request; `taken` are those answered with 2xx."""

    port: int
    answer: Callable[[Mapping[str, str], bytes], Answer] = lambda _headers, _body: (204, {})
    requests: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hidden/path"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, *_: object) -> None:
        """Senders that are killed in the middle of a request are what this is for."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Runs until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with at.guard:
                at.requests.append((self.headers, body))
                status, headers = at.answer(self.headers, body)
                if 200 <= status < 300:
                    at.taken.append(self.headers["Torghut-Event-Id"])
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = _Server(("127.0.0.1", 0), Handler)
    at = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield at
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
