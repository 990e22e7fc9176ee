"""The consumer of a stream is killed at every point between message and acknowledgement (P1, P2).

Each message that holds a decision leads to exactly one, refused ones are kept once, and nothing is
left unacknowledged; the server is killed in between as well. Control: acknowledged before the
commit, a message is lost. `CHAOS=full` kills more often.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.crash.processes import Child
from tests.factories import decision_json
from tests.services.rig import eventually
from tests.streams.lines import KINDS, Line, line, server_of
from torghut.recovery_points import RecoveryPoint as P
from torghut.storage.database import Database

FULL = os.environ.get("CHAOS") == "full"
POINTS = (P.INTAKE_BEFORE_COMMIT, P.INTAKE_AFTER_COMMIT, P.STREAM_BEFORE_ACK, P.STREAM_AFTER_ACK)
ROUNDS = 5 if FULL else 1
KILLS = 40 if FULL else 1


class World:
    """A stream, a database, and processes that take the one into the other."""

    def __init__(self, lined: Line, url: str, folder: Path) -> None:
        self.lined = lined
        self.database = Database(url)
        self._folder = folder
        lines = [f"{name} = {_toml(value)}" for name, value in lined.table().items()]
        config = folder / "torghut.toml"
        config.write_text("\n".join(["[intakes.signals]", *lines]), encoding="utf-8")
        self._environment = {
            "TORGHUT_CONFIG": str(config),
            "TORGHUT_DATABASE_URL": url,
            "TORGHUT_HOME": str(folder),
            "TORGHUT_DECISION_TTL_S": "1000000000",
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
        }
        self._numbers = iter(range(10**9))
        self.sent = 0
        self.refused = 0

    def send(self, count: int) -> None:
        """Decisions, one of them twice, and something that is none."""
        bodies: list[Any] = [decision_json(intent=f"n{next(self._numbers)}") for _ in range(count)]
        self.lined.send(*bodies, bodies[0], f"no decision {next(self._numbers)}")
        self.sent += count
        self.refused += 1

    @contextmanager
    def process(self, point: P | None = None, *mutated: str) -> Iterator[Child]:
        """A process with the intakes; with `point` it dies when it comes by."""
        crash = {"TORGHUT_CRASH_AT": point.value} if point else {}
        environment = {**self._environment, **crash}
        child = Child("intakes", environment, log=self._folder / "log", mutated=mutated)
        try:
            yield child
        finally:
            child.kill()

    def dies_at(self, point: P, *mutated: str) -> None:
        """A process that dies there; waits for it."""
        with self.process(point, *mutated) as child:
            eventually(lambda: child.dead)
            assert child.power_failed, (self._folder / "log").read_text("utf-8")[-2000:]

    def one(self, query: str) -> int:
        with self.database.transaction() as tx:
            return int(tx.execute(text(query)).scalar_one())


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[World]:
    with server_of(request.param) as server:
        made = World(line(request.param, server, "signals"), database_url, tmp_path)
        yield made
        made.database.close()


@pytest.mark.timeout(1800 if FULL else 240)
def test_every_message_leads_to_one_decision_whatever_dies(world: World) -> None:
    rng = random.Random(6)
    pause = threading.Event()
    for _ in range(ROUNDS):
        for point in POINTS:
            world.send(5)
            world.dies_at(point)
    for n in range(KILLS):
        world.send(20)
        with world.process():
            pause.wait(rng.uniform(0.05, 1.0))
            if n % 2 == 0:
                world.lined.server.kill()
                world.lined.server.start()
                pause.wait(rng.uniform(0.05, 1.0))
    with world.process():
        eventually(lambda: world.lined.left() == 0, 120)
    assert world.one("SELECT count(*) FROM trade_decisions") == world.sent
    planned = "SELECT count(*) FROM events WHERE kind = 'decision.planned'"
    assert world.one(planned) == world.sent, "one event for each"
    assert world.one("SELECT count(*) FROM decision_inbox") == world.refused, "each kept once"
    replies = world.lined.replies()
    assert len({reply["id"] for reply in replies}) == world.sent + 2 * world.refused
    created = [reply["id"] for reply in replies if reply["result"] == "created"]
    assert len(created) == len(set(created)), "a redelivery is answered `replayed`"
    assert len(created) < world.sent, "control: no kill was between commit and reply"


@pytest.mark.parametrize(("mutated", "stored"), [((), 1), (("ack_first",), 0)])
def test_control_acknowledged_before_the_commit_it_is_lost(
    world: World, mutated: tuple[str, ...], stored: int
) -> None:
    world.lined.send(decision_json())
    world.dies_at(P.INTAKE_BEFORE_COMMIT, *mutated)
    with world.process():
        eventually(lambda: world.lined.left() == 0)
    assert world.one("SELECT count(*) FROM trade_decisions") == stored
