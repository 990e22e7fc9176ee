"""Clients that mean no good, at a real daemon: refused, and nobody else is the worse for it.

`make test` plays a sample; `HOSTILE=full` plays 10,000 connections of garbage, a thousand slow
ones, twenty bodies of 100 MB, and also holds the times of /healthz (p99 < 50 ms) meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.end_to_end.conftest import user  # noqa: F401 - a fixture
from tests.end_to_end.user import Program, User, eventually
from tests.web.conftest import Served
from torghut.web import connections

FULL = os.environ.get("HOSTILE") == "full"
GARBAGE, SLOW, LARGE = (10_000, 1_000, 20) if FULL else (200, 60, 2)
MEMORY_MB_MAX = 50
HEALTH_P99_S = 0.05
LARGE_BYTES = 100 * 1024 * 1024
TOKEN = "canary-token-of-the-hostile"
ATTACKER = "127.0.0.66"


class Target:
    """A daemon that runs: where it is, and how large."""

    def __init__(self, program: Program) -> None:
        found = re.search(r":(\d+)$", program.find(r"API at (\S+)"))
        assert found
        self.port = int(found.group(1))
        self.url = f"http://127.0.0.1:{self.port}"
        self._pid = program.process.pid
        self.program = program

    def memory_mb(self) -> float:
        """Resident memory of the process."""
        text = Path(f"/proc/{self._pid}/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024

    def connect(self) -> socket.socket:
        """A connection from the attacker's address."""
        return socket.create_connection(("127.0.0.1", self.port), 60, (ATTACKER, 0))

    def healthy(self) -> float:
        """How long /healthz takes."""
        began = time.monotonic()
        assert requests.get(f"{self.url}/healthz", timeout=60).status_code == 200
        return time.monotonic() - began


@pytest.fixture
def target(user: User) -> Iterator[Target]:  # noqa: F811
    target = Target(user.run(TORGHUT_API_TOKENS=TOKEN))
    head = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/v1/status", "/metrics", "/", "/openapi.json", "/v1/decisions") * 3:
        assert requests.get(target.url + path, headers=head, timeout=60).status_code == 200
    yield target


def garbage(target: Target, count: int) -> None:
    """Bytes that are no HTTP; whatever comes back, the connection ends."""
    for number in range(count):
        with contextlib.suppress(OSError), target.connect() as connection:
            connection.sendall(os.urandom(64 + number % 512) + b"\r\n\r\n")
            answer = connection.recv(4096)
            assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0]


def large(target: Target, count: int) -> None:
    """Bodies of 100 MB, announced and not."""
    block = b"x" * (1024 * 1024)
    for number in range(count):
        announced = number % 2 == 0
        length = f"Content-Length: {LARGE_BYTES}" if announced else "Transfer-Encoding: chunked"
        head = (
            f"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\n{length}\r\n\r\n"
        )
        with target.connect() as connection:
            connection.sendall(head.encode())
            with contextlib.suppress(OSError):
                for _ in range(LARGE_BYTES // len(block)):
                    framed = block if announced else b"%x\r\n%s\r\n" % (len(block), block)
                    connection.sendall(framed)
                    if select.select([connection], [], [], 0)[0]:
                        break
                assert connection.recv(4096).startswith((b"HTTP/1.1 413", b""))


@contextlib.contextmanager
def slow(target: Target, count: int) -> Iterator[None]:
    """Connections that begin a head and never end it."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(target.connect()) for _ in range(count)]
        for connection in held:
            with contextlib.suppress(OSError):  # beyond what one peer may hold
                connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        yield


WATCH = """
import http.client, json, sys, threading, time
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
times = []
while not (over.wait(0.005) and times):
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    times.append(time.monotonic() - began)
    connection.close()
print(json.dumps(times))
"""


@contextlib.contextmanager
def watched(target: Target) -> Iterator[list[float]]:
    """How long /healthz takes meanwhile, to a process that does nothing else; filled at the end."""
    command = [sys.executable, "-c", WATCH, str(target.port)]
    pipe = subprocess.PIPE
    times: list[float] = []
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as watching:
        yield times
        times += json.loads(watching.communicate(timeout=120)[0])


@pytest.mark.timeout(1800 if FULL else 180)
def test_attacks_are_refused_and_cost_little(target: Target) -> None:
    before = target.memory_mb()
    with watched(target) as quiet:
        threading.Event().wait(3)
    with watched(target) as times, slow(target, SLOW):
        garbage(target, GARBAGE)
        large(target, LARGE)
        most = target.memory_mb()
        target.healthy()
    grown = max(most, target.memory_mb()) - before
    p99, calm = (sorted(found)[int(len(found) * 0.99)] for found in (times, quiet))
    print(f"\n{GARBAGE} garbage, {SLOW} slow, {LARGE} large: +{grown:.1f} MB; /healthz "
          f"{len(times)} times, p99 {p99 * 1000:.1f} ms, before {calm * 1000:.1f} ms")  # fmt: skip
    assert grown < MEMORY_MB_MAX
    assert times and (not FULL or p99 < HEALTH_P99_S)
    assert "Traceback" not in target.program.output


INJECTIONS = [
    b"GET /v1/status?since=%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: x\r\n",
    b"GET /v1/status%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: x\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\x0bX-Injected: 1\r\n",
    b"GET /console/sign-in?next=%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: x\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n",
    b"GET /console/static/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\n",
    b"GET //etc/passwd HTTP/1.1\r\nHost: x\r\n",
    b"POST /v1/halt HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n",
    b"POST /v1/halt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\nforged line\r\n",
]


def test_injections_and_traversals_are_refused(target: Target, user: User) -> None:  # noqa: F811
    for head in INJECTIONS:
        with target.connect() as connection:
            connection.sendall(head + b"Connection: close\r\n\r\n")
            answer = b"".join(iter(lambda c=connection: c.recv(65_536), b""))
        lines = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
        assert re.match(rb"http/1.1 (200|30[37]|4\d\d)", lines[0]), (head, lines[0])
        assert not any(line.startswith(b"x-injected") for line in lines), head
        assert b"root:" not in answer
        assert head.startswith(b"GET /console/sign-in") or b" 200 " not in lines[0], head
    assert user.sql("SELECT count(*) FROM events WHERE kind = 'trading_state.changed'") == [(0,)]
    head = {"Authorization": f"Bearer {TOKEN}"}
    body = {"reason": "x\n2026-01-05 [critical] forged line"}
    forged = requests.post(f"{target.url}/v1/halt", json=body, headers=head, timeout=60)
    assert forged.status_code == 422
    assert not any(line.startswith("2026-01-05 [critical]") for line in target.program.lines)
    assert "forged line" not in target.program.output and TOKEN not in target.program.output


def closed(connection: socket.socket) -> bool:
    """True once the other side has ended it."""
    with contextlib.suppress(ConnectionError):
        return bool(select.select([connection], [], [], 0)[0]) and connection.recv(1) == b""
    return True


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nX: "])
def test_a_head_has_to_come_in_time(
    served: Served, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(begun)
        eventually(lambda: closed(connection))
    monkeypatch.setattr(connections, "HEAD_S", 600.0)  # control: without the limit it is held
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(begun)
        assert not select.select([connection], [], [], 1.0)[0]
        connection.sendall(b"1\r\nHost: localhost\r\n\r\n" if begun else b"GET /healthz HTTP/1.1"
                           b"\r\nHost: localhost\r\n\r\n")  # fmt: skip
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_second_head_has_to_come_in_time_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 2.0)
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(whole)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(whole[:20])
        eventually(lambda: closed(connection))


def test_one_peer_holds_so_many_connections(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PEER_MAX", 5)
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(
                socket.create_connection(("127.0.0.1", served.port), 60, ("127.0.0.66", 0))
            )
            for _ in range(9)
        ]
        eventually(lambda: sum(closed(connection) for connection in held) == 4)
        assert served.client.get("/healthz").status_code == 200  # another peer
    eventually(lambda: "127.0.0.66" not in connections._held)
