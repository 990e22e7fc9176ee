"""Real servers for the sinks: one of the test's own, on a free port, in a folder of its own.

They are Debian packages (tests/programs.txt); a missing program fails the test with one line, and
never skips it. A server is started once for a run of a worker and ended with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.services.rig import eventually

START_S = 60.0


def program(name: str) -> str:
    """The path of a server's program; fails, never skips, when it is missing."""
    # RabbitMQ's own first: the one in /usr/sbin changes to another user when root calls it
    path = f"/usr/lib/rabbitmq/bin:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        pytest.fail(
            f"{name} not found: the outbox's sinks are tested against the real servers;"
            " make programs installs them (tests/programs.txt)",
            pytrace=False,
        )
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process; `kill` and `start` as often as the test likes, its data stay."""

    def __init__(self, command: list[str], port: int, folder: Path, **environment: str) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    def start(self) -> None:
        """Returns once its port answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._answers, START_S)

    def _answers(self) -> bool:
        assert self._process is not None
        ended = self._process.poll()
        assert ended is None, (self._folder / "log").read_text("utf-8", "replace")[-2000:]
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def freeze(self) -> None:
        """SIGSTOP to it and what it started; its connections stay."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to it and what it started."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextmanager
def _running(make: Callable[[Path, int], Server]) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="torghut-sink-"))
    server = make(folder, free_port())
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _redis(folder: Path, port: int) -> Server:
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    kept = ["--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    return Server([*command, *kept], port, folder)


def _nats(folder: Path, port: int) -> Server:
    command = [program("nats-server"), "-a", "127.0.0.1", "-p", str(port)]
    return Server([*command, "-js", "-sd", str(folder / "data")], port, folder)


@contextmanager
def redis() -> Iterator[Server]:
    """A Redis that keeps each write on disk."""
    with _running(_redis) as server:
        yield server


@contextmanager
def nats() -> Iterator[Server]:
    """A NATS with JetStream."""
    with _running(_nats) as server:
        yield server


@contextmanager
def rabbitmq() -> Iterator[Server]:
    """A RabbitMQ with the user guest, under a name server of its own."""
    names = free_port()

    def make(folder: Path, port: int) -> Server:
        (folder / "plugins").write_text("[].", encoding="utf-8")
        return Server(
            [program("rabbitmq-server")],
            port,
            folder,
            HOME=str(folder),
            ERL_EPMD_PORT=str(names),
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_EPMD_RELAXED_COMMAND_CHECK="1",  # so that it can be ended
            RABBITMQ_NODENAME=f"torghut{port}@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(port),
            RABBITMQ_DIST_PORT=str(free_port()),
            RABBITMQ_MNESIA_BASE=str(folder),
            RABBITMQ_LOG_BASE=str(folder),
            RABBITMQ_PID_FILE=str(folder / "pid"),
            RABBITMQ_CONFIG_FILE=str(folder / "none"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "plugins"),
        )

    try:
        with _running(make) as server:
            yield server
    finally:
        # the name server outlives its nodes, in a session of its own
        subprocess.run([program("epmd"), "-port", str(names), "-kill"], capture_output=True)
