"""HttpServer: ports, signals, clean ends."""

from __future__ import annotations

import signal
import socket
import threading

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from torghut.domain.errors import ConfigError
from torghut.web.server import HttpServer


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await PlainTextResponse("hello")(scope, receive, send)


def test_serves_from_start_to_stop_and_leaves_signals_alone() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    server = HttpServer(hello, "127.0.0.1", 0)
    server.start()
    assert server.port > 0
    url = f"http://127.0.0.1:{server.port}/"
    answer = httpx.get(url, trust_env=False)
    assert answer.text == "hello"
    assert "server" not in answer.headers
    assert {number: signal.getsignal(number) for number in before} == before
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    assert "http" not in {thread.name for thread in threading.enumerate()}


def test_a_taken_port_names_the_setting_and_the_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            HttpServer(hello, "127.0.0.1", port).start()
    assert refused.value.setting == "TORGHUT_HTTP_PORT"
    assert str(port) in refused.value.problem
    assert refused.value.exit_code == 78


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_a_host_that_is_not_ours(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        HttpServer(hello, host, 0).start()
    assert refused.value.setting == "TORGHUT_HTTP_HOST"


def test_stop_before_start_is_no_error() -> None:
    HttpServer(hello, "127.0.0.1", 0).stop()


def test_a_head_without_end_is_cut_off() -> None:
    server = HttpServer(hello, "127.0.0.1", 0)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nX-Endless: ")
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                for _ in range(1_000):
                    connection.sendall(b"x" * 65_536)
        assert httpx.get(f"http://127.0.0.1:{server.port}/", trust_env=False).text == "hello"
    finally:
        server.stop()
