"""A real HTTP server on raw sockets that answers by script and counts what reached it.

`WireServer(act)` calls `act(exchange)` for every request it has read in full; the acts below
cover what servers, gateways and networks do to a caller. A server answers until it is closed;
acts that wait do so on `exchange.stopping`.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

DRIP_S = 0.02
LOCALHOST_PEM = Path(__file__).with_name("localhost.pem")  # self-signed, for these tests only


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        data = json.loads(self.body)
        assert isinstance(data, dict)
        return data


@dataclass(frozen=True)
class Exchange:
    request: Request
    peer: socket.socket
    stopping: threading.Event


Act = Callable[[Exchange], bool | None]
"""Answers one request; True keeps the connection open for the next one."""


class WireServer:
    """Serves on a free port of the loopback interface while used as a context manager."""

    def __init__(self, act: Act, *, refuse_before_reading: bool = False, tls: bool = False) -> None:
        self.act = act
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(LOCALHOST_PEM)
        self.requests: list[Request] = []
        self.connections = 0
        self._refuse_before_reading = refuse_before_reading
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def count(self, method: str) -> int:
        with self._lock:
            return sum(request.method == method for request in self.requests)

    def __enter__(self) -> WireServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            peers, threads = [*self._peers], [*self._threads]
        for peer in peers:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        if self._tls is not None:
            try:
                peer = self._tls.wrap_socket(peer, server_side=True)
            except OSError:
                return peer.close()
            with self._lock:
                self._peers.append(peer)
        with peer, peer.makefile("rb") as reader:
            if self._refuse_before_reading:
                peer.recv(1, socket.MSG_PEEK)
                reset(peer)
                return
            try:
                while (request := _read_request(reader)) is not None:
                    with self._lock:
                        self.requests.append(request)
                    if not self.act(Exchange(request, peer, self._stopping)):
                        return
            except OSError:
                return


def _read_request(reader: object) -> Request | None:
    line = reader.readline().decode("latin-1").split()  # type: ignore[attr-defined]
    if len(line) != 3:
        return None
    headers: dict[str, str] = {}
    while (raw := reader.readline().decode("latin-1").strip()) != "":  # type: ignore[attr-defined]
        name, _, value = raw.partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))  # type: ignore[attr-defined]
    parts = urlsplit(line[1])
    return Request(line[0], parts.path, dict(parse_qsl(parts.query)), headers, body)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Act:
    """A complete answer; `body` is bytes or text as they are, anything else as JSON."""

    def act(exchange: Exchange) -> bool:
        content = body(exchange.request) if callable(body) else body
        if isinstance(content, str):
            content = content.encode()
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        size = {"Content-Length": str(len(content))}
        exchange.peer.sendall(head(status, {**given, **size}) + content)
        return True

    return act


def html(status: int, headers: Mapping[str, str] | None = None) -> Act:
    page = f"<html><head><title>{status}</title></head><body>nginx</body></html>"
    return answer(status, page, {"Content-Type": "text/html", **(headers or {})})


def hang(exchange: Exchange) -> None:
    exchange.stopping.wait(60)


def drip(exchange: Exchange) -> None:
    """A body that goes on, byte by byte, for as long as somebody listens."""
    exchange.peer.sendall(head(200, {"Content-Length": "1000000"}))
    while not exchange.stopping.wait(DRIP_S):
        exchange.peer.sendall(b" ")


def drip_chunks(exchange: Exchange) -> None:
    exchange.peer.sendall(head(200, {"Transfer-Encoding": "chunked"}))
    while not exchange.stopping.wait(DRIP_S):
        exchange.peer.sendall(b"1\r\n \r\n")


def drip_head(exchange: Exchange) -> None:
    """Headers without end."""
    exchange.peer.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not exchange.stopping.wait(DRIP_S):
        exchange.peer.sendall(b".")


def close(exchange: Exchange) -> None:
    """The request is read, the connection closed, nothing is said."""


def reset_after_reading(exchange: Exchange) -> None:
    reset(exchange.peer)


def truncated(exchange: Exchange) -> None:
    exchange.peer.sendall(head(200, {"Content-Length": "4000"}) + b'{"id": "b-1", "client_or')


def truncated_chunks(exchange: Exchange) -> None:
    exchange.peer.sendall(head(200, {"Transfer-Encoding": "chunked"}) + b'ff\r\n{"id": "b-1"')


def reset(peer: socket.socket) -> None:
    """Close at once with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
