"""Every crash of a saga step × every crash of a compensation: completed or undone, never half.

The saga of tests.sagas.stage is run by a process that is killed at the first point, then by one
that is killed at the second, then by one that nobody kills. `CRASH_MATRIX=full` plays all pairs,
otherwise a sample in which each point of either half is met.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.crash.cases import FULL
from tests.crash.processes import Child
from tests.sagas import stage
from tests.services.rig import eventually
from torghut.recovery_points import RecoveryPoint as P
from torghut.storage.database import Database

Kill = tuple[P, int]

STEPS = len(stage.NAMES)
# the last step fails for good: its action has no result, but the turning back is a commit as well
FORWARD: list[Kill] = [
    *((P.SAGA_AFTER_BEGIN, n) for n in range(1, STEPS + 1)),
    *((P.SAGA_AFTER_CALL, n) for n in range(1, STEPS)),
    *((P.SAGA_BEFORE_COMMIT, n) for n in range(1, STEPS + 1)),
    *((P.SAGA_AFTER_COMMIT, n) for n in range(1, STEPS + 1)),
]
# each of four steps; the end of the saga is a commit as well
WHOLE: list[Kill] = [
    *((P.SAGA_AFTER_BEGIN, n) for n in range(1, STEPS + 1)),
    *((P.SAGA_AFTER_CALL, n) for n in range(1, STEPS + 1)),
    *((P.SAGA_BEFORE_COMMIT, n) for n in range(1, STEPS + 2)),
    *((P.SAGA_AFTER_COMMIT, n) for n in range(1, STEPS + 2)),
]
PAIRS = [(first, second) for first in FORWARD for second in WHOLE]
SAMPLE = [(FORWARD[n * 4 % len(FORWARD)], second) for n, second in enumerate(WHOLE)]


class Runners:
    """Processes that run the staged sagas of one database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(url, pool_size=4)
        stage.make_tables(self.database)
        self._url = url
        self._folder = folder
        self.children: list[Child] = []

    def start(self, kill: Kill | None = None, *, mutated: tuple[str, ...] = ()) -> Child:
        environment = {
            "TORGHUT_DATABASE_URL": self._url,
            "TORGHUT_HOME": str(self._folder),
            **({} if kill is None else {"TORGHUT_CRASH_AT": f"{kill[0].value}:{kill[1]}"}),
        }
        log = self._folder / f"runner-{len(self.children)}.log"
        child = Child("sagas", environment, log=log, mutated=mutated)
        self.children.append(child)
        return child

    def dies(self, kill: Kill) -> None:
        """A process that is killed there."""
        child = self.start(kill)
        eventually(lambda: child.dead)
        assert child.power_failed, child.log.read_text()
        with self.database.transaction() as tx:  # its lease runs out
            tx.execute(text("UPDATE sagas SET leased_until = clock_timestamp() WHERE owner <> ''"))

    def ends(self, saga_id: int) -> str:
        """What the saga has come to with a process that nobody kills."""
        self.start()
        eventually(lambda: stage.status(self.database, saga_id) in ("completed", "compensated"))
        return stage.status(self.database, saga_id)

    def standing(self, saga_id: int) -> list[str]:
        with self.database.transaction() as tx:
            query = text("SELECT status FROM saga_steps WHERE saga_id = :id ORDER BY position")
            return list(tx.execute(query, {"id": saga_id}).scalars())

    def close(self) -> None:
        for child in self.children:
            child.kill()
        self.database.close()


@pytest.fixture
def runners(database_url: str, tmp_path: Path) -> Iterator[Runners]:
    found = Runners(database_url, tmp_path)
    yield found
    found.close()


def name(value: Kill) -> str:
    return f"{value[0].value}:{value[1]}"


@pytest.mark.parametrize(
    ("first", "second"), PAIRS if FULL else SAMPLE, ids=lambda value: name(value)
)
def test_a_saga_that_fails_is_undone_whatever_dies(
    first: Kill, second: Kill, runners: Runners
) -> None:
    """Killed on the way forward, and again on the way back."""
    id_ = stage.begin(runners.database, four={"fails": True})
    runners.dies(first)
    point, number = second
    if stage.status(runners.database, id_) == "running":  # the next one has to go forward first
        left = STEPS - runners.standing(id_).count("done")
        number += left - (point is P.SAGA_AFTER_CALL)
    runners.dies((point, number))
    assert stage.status(runners.database, id_) != "running"
    assert runners.ends(id_) == "compensated"
    assert stage.half_done(runners.database, id_) == []


@pytest.mark.parametrize("kill", WHOLE if FULL else WHOLE[1::4], ids=name)
def test_a_saga_is_completed_whatever_dies(kill: Kill, runners: Runners) -> None:
    """Killed once; a step that was begun is called again, and has its effect once."""
    id_ = stage.begin(runners.database)
    runners.dies(kill)
    assert runners.ends(id_) == "completed"
    assert stage.half_done(runners.database, id_) == []


def test_the_sample_meets_every_point_of_either_half() -> None:
    assert {second for _, second in SAMPLE} == set(WHOLE)
    assert {first for first, _ in SAMPLE} == set(FORWARD)


@pytest.mark.parametrize("guarded", [True, False])
def test_control_a_begun_step_that_is_taken_for_done(guarded: bool, runners: Runners) -> None:
    """Control: the saga would end half done; the check sees it, and the database refuses it."""
    id_ = stage.begin(runners.database)
    runners.dies((P.SAGA_AFTER_BEGIN, 2))
    if not guarded:
        with runners.database.transaction() as tx:
            tx.execute(text("ALTER TABLE sagas DISABLE TRIGGER saga_guard"))
    child = runners.start(mutated=("begun_is_done",))
    if guarded:
        eventually(lambda: child.dead)
        assert "half done" in child.log.read_text()
        assert stage.status(runners.database, id_) == "running"
    else:
        eventually(lambda: stage.status(runners.database, id_) == "completed")
        assert stage.half_done(runners.database, id_) != []
