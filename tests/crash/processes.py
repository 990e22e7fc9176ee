"""Processes to kill: forked from one warm server, so that a daemon is up in a tenth of a second.

The server imports everything once, before any thread exists. A child gets a fresh environment,
its own log file, the mutations of a control if there are any, and ends when the test does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tests.crash import mutations

_context = get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("torghut.bootstrap", "torghut.cli", "torghut.services.batch"),
        *("tests.crash.processes", "tests.sagas.stage"),
    ]
)


class Child:
    """A process that may die at any time; `exitcode` is -9 if power failed."""

    def __init__(self, target: str, environment: Mapping[str, str], **over: object) -> None:
        self.log = Path(str(over.pop("log")))
        self._pipe, theirs = _context.Pipe()
        arguments = (target, dict(environment), str(self.log), theirs, over)
        self._process = _context.Process(target=_main, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def dead(self) -> bool:
        return not self._process.is_alive()

    @property
    def power_failed(self) -> bool:
        return self.dead and self._process.exitcode == -signal.SIGKILL

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def threads(self) -> dict[str, int]:
        """Thread ids by name, as the kernel counts them; of a daemon that runs."""
        self._pipe.send("threads")
        assert self._pipe.poll(60), "the daemon does not tell its threads"
        found: dict[str, int] = self._pipe.recv()
        return found

    def kill(self) -> None:
        """SIGKILL, now."""
        self._process.kill()
        self._process.join(10)
        self._pipe.close()

    def join(self, timeout_s: float) -> int | None:
        """The exit code, None if it is still running after `timeout_s`."""
        self._process.join(timeout_s)
        return self._process.exitcode


def _main(
    target: str,
    environment: dict[str, str],
    log: str,
    pipe: Connection,
    over: dict[str, object],
) -> None:
    for name in [n for n in os.environ if n.startswith(("TORGHUT_", "APCA_"))]:
        del os.environ[name]
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    mutations.shorten_waits()
    names = over.get("mutated", ())
    assert isinstance(names, tuple)
    for name in names:
        mutations.BY_NAME[name]()
    _TARGETS[target](pipe, over)


def _daemon(pipe: Connection, _: Mapping[str, object]) -> None:
    """The whole daemon, until the test closes its end of the pipe; tells its threads when asked."""
    from torghut import bootstrap, config, places

    settings = config.load()
    places.set_up_logging(settings)
    with bootstrap.running_daemon(settings), suppress(EOFError):
        while pipe.recv():
            pipe.send({one.name.partition(" ")[0]: one.native_id for one in threading.enumerate()})


def _command(_: Connection, over: Mapping[str, object]) -> None:
    """`torghut …`."""
    from torghut.cli import app

    words = over["words"]
    assert isinstance(words, list)
    app(words)


def _run(_: Connection, __: Mapping[str, object]) -> None:
    """`torghut run`, with its handling of signals."""
    from torghut.cli import app

    app(["run"])


def _relays(pipe: Connection, _: Mapping[str, object]) -> None:
    """The relays of a daemon, without its account and its broker."""
    import random

    from torghut import config, parts, places

    settings = config.load()
    places.set_up_logging(settings)
    places.arm_recovery_point(settings)
    with places.open_database(settings) as database:
        parts.open_relays(settings, database, parts.owner_name(), random.Random()).start()
        pipe.poll(None)


def _intakes(pipe: Connection, _: Mapping[str, object]) -> None:
    """The stream intakes of a daemon, without its account and its broker."""
    from torghut import config, parts, places
    from torghut.clock import utc_now
    from torghut.services.intake import IntakeDesk

    settings = config.load()
    places.set_up_logging(settings)
    places.arm_recovery_point(settings)
    with places.open_database(settings) as database:
        desk = IntakeDesk(database, utc_now, lambda _accounts: None)
        parts.open_intakes(settings, database, desk).start()
        pipe.poll(None)


def _sagas(pipe: Connection, _: Mapping[str, object]) -> None:
    """A runner of the staged sagas of tests.sagas, without a broker."""
    from tests.sagas import stage
    from torghut import config, parts, places
    from torghut.clock import utc_now

    settings = config.load()
    places.set_up_logging(settings)
    places.arm_recovery_point(settings)
    with places.open_database(settings) as database:
        work = stage.runner(database, lease_s=settings.lease_ttl_s, owner=parts.owner_name())
        while not pipe.poll(0.02):
            work.run_once(None, utc_now())


_TARGETS = {
    "daemon": _daemon,
    "command": _command,
    "run": _run,
    "relays": _relays,
    "intakes": _intakes,
    "sagas": _sagas,
}
