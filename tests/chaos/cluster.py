"""PostgreSQL servers to break: made of the embedded programs, each on a TCP port of its own.

with Node(folder, "one") as node:          # initdb and start
    node.freeze() · node.thaw()            SIGSTOP for every process of the server
    node.crash() · node.start()            kill -9; the next start recovers
    node.crash_backend()                   kill -9 for one backend: the server restarts by itself
    standby = Node(folder, "two", follows=node) · standby.promote()
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psycopg

from torghut.storage.embedded_binaries import account_for, binaries_for

OWNER = "torghut"
START_S = 60.0
_BASE = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "wal_level": "replica",
    "log_min_messages": "warning",
    "wal_sender_timeout": "10s",
}


class Node:
    """One server. `url` has the database `torghut`; `options` are settings of its command line."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        follows: Node | None = None,
        port: int | None = None,
        **options: str,
    ) -> None:
        self.name = name
        self._folder = folder / name
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._follows = follows
        self._options = _BASE | options
        self._account = account_for(self._data)
        self._programs = binaries_for(self._account)
        self._server: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = port or int(probe.getsockname()[1])

    def __enter__(self) -> Node:
        self._folder.mkdir()
        self._account.own(self._folder)
        if self._follows is None:
            made = (
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            )
            self._run("initdb", "-U", OWNER, *made)
        else:
            source = f"host=127.0.0.1 port={self._follows.port} user={OWNER}"
            copy = f"{source} application_name={self.name}"
            self._run("pg_basebackup", "-d", copy, "-R", "--checkpoint=fast", "--no-sync")
        self.start()
        if self._follows is None:
            self.execute("CREATE DATABASE torghut", database="postgres")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.thaw()
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int, database: str = "torghut") -> str:
        """The address through another port: a proxy's."""
        return f"postgresql+psycopg://{OWNER}@127.0.0.1:{port}/{database}"

    def connect(self, database: str = "torghut") -> psycopg.Connection[tuple[object, ...]]:
        """A plain connection, in autocommit."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=OWNER,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def execute(self, query: str, *, database: str = "torghut") -> list[tuple[object, ...]]:
        """Rows of a query, or nothing for a statement."""
        with self.connect(database) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def set(self, **settings: str) -> None:
        """Change settings of the running server, and of its next starts."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'", database="postgres")
        self.execute("SELECT pg_reload_conf()", database="postgres")

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start, and wait until it answers; after a crash that takes its recovery."""
        deadline = time.monotonic() + START_S
        while True:
            command: list[str | Path] = [self._programs.program("postgres"), "-D", self._data]
            for name, value in {**self._options, "port": str(self.port)}.items():
                command += ["-c", f"{name}={value}"]
            with self._log.open("ab") as log:
                self._server = self._account.popen(command, stdout=log, stderr=log)
            while self._server.poll() is None:
                with suppress(psycopg.OperationalError), self.connect("postgres"):
                    return
                assert time.monotonic() < deadline, self.log
                threading.Event().wait(0.02)
            # the processes of the crashed one may not be gone yet
            assert time.monotonic() < deadline, self.log
            threading.Event().wait(0.02)

    def crash(self) -> None:
        """kill -9 for the postmaster; its processes end themselves when they notice."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(10)
            self._server = None

    def crash_backend(self) -> None:
        """kill -9 for a busy backend: the postmaster ends all others and recovers."""
        query = """SELECT pid FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
            ORDER BY state_change DESC NULLS LAST LIMIT 1"""
        with suppress(psycopg.Error):
            for (pid,) in self.execute(query, database="postgres"):
                os.kill(int(str(pid)), signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP for the postmaster and all of its processes: TCP still acknowledges."""
        assert self._server is not None
        with self.connect("postgres") as asking:
            own = asking.info.backend_pid
            os.kill(self._server.pid, signal.SIGSTOP)  # first: it must not make new ones
            self._frozen = [self._server.pid]
            rows = asking.execute("SELECT pid FROM pg_stat_activity").fetchall()
        for (pid,) in rows:
            if int(str(pid)) != own:
                with suppress(ProcessLookupError):
                    os.kill(int(str(pid)), signal.SIGSTOP)
                    self._frozen.append(int(str(pid)))

    def freeze_process(self, pid: int) -> None:
        """SIGSTOP for one of its processes."""
        os.kill(pid, signal.SIGSTOP)
        self._frozen.append(pid)

    def thaw(self) -> None:
        """SIGCONT for what was frozen."""
        for pid in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def promote(self) -> None:
        """The stand-by becomes the primary; returns when it takes writes."""
        self.execute("SELECT pg_promote(true, 30)", database="postgres")

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-3000:]

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs.program(program), "-D", self._data, *arguments]
        with self._log.open("ab") as log:
            self._log.chmod(0o644)
            assert self._account.popen(command, stdout=log, stderr=log).wait(120) == 0, self.log
