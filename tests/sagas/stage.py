"""A saga of four steps whose doings are rows, to be watched from outside, in this process or one
that is killed: each step appends what it does to the table `doings`, once per key.

`settings` of a saga's payload: which step fails, how, and how often. The table is the world that
the saga acts on: what stands at its end must be all of it or nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sqlalchemy import text

from torghut.clock import utc_now
from torghut.domain.sagas import Retry, StepDelayed, StepFailed
from torghut.services import sagas
from torghut.services.sagas import Saga, SagaRunner, Step, StepRun, Wait
from torghut.storage.database import Database

ACCOUNT = "paper"
KIND = "staged"
NAMES = ("one", "two", "three", "four")
QUICK = Retry(failures_max=3, first_s=0.01, cap_s=0.02)

SCHEMA = """
CREATE TABLE doings (key text PRIMARY KEY, step text NOT NULL, undone integer NOT NULL DEFAULT 0);
CREATE TABLE calls (call_id bigint GENERATED ALWAYS AS IDENTITY, step text, undoing boolean)"""


@dataclass(frozen=True)
class Stage:
    """The steps; they act through their own transactions, as a foreign system would."""

    database: Database

    def act(self, name: str, run: StepRun) -> Mapping[str, object] | Wait | None:
        self._called(name, undoing=False)
        trouble = run.payload.get(name, {})
        if trouble.get("delayed", 0) > run.failures:
            raise StepDelayed("not yet")
        if trouble.get("broken", 0) > run.failures:
            raise ZeroDivisionError("a bug")
        if trouble.get("waits", 0) > self.calls(name) - 1:
            return Wait(0.01, "a call more")
        if trouble.get("fails_before"):
            raise StepFailed("refused")
        with self.database.transaction() as tx:
            tx.execute(
                text("INSERT INTO doings (key, step) VALUES (:key, :step) ON CONFLICT DO NOTHING"),
                {"key": run.key, "step": name},
            )
        if trouble.get("fails"):
            raise StepFailed("too late")
        return {"did": name, "after": sorted(n for n, r in run.results.items() if r)}

    def undo(self, name: str, run: StepRun) -> Wait | None:
        self._called(name, undoing=True)
        if run.payload.get(name, {}).get("undo_delayed", 0) > run.failures:
            raise StepDelayed("not yet")
        with self.database.transaction() as tx:
            tx.execute(text("UPDATE doings SET undone = 1 WHERE key = :key"), {"key": run.key})
        return None

    def calls(self, name: str, *, undoing: bool = False) -> int:
        with self.database.transaction() as tx:
            query = text("SELECT count(*) FROM calls WHERE step = :step AND undoing = :undoing")
            return int(tx.execute(query, {"step": name, "undoing": undoing}).scalar_one())

    def _called(self, name: str, *, undoing: bool) -> None:
        with self.database.transaction() as tx:
            query = text("INSERT INTO calls (step, undoing) VALUES (:step, :undoing)")
            tx.execute(query, {"step": name, "undoing": undoing})


def saga(database: Database) -> Saga:
    """The kind; its last step has a compensation, too."""
    stage = Stage(database)
    steps = tuple(Step(n, partial(stage.act, n), partial(stage.undo, n)) for n in NAMES)
    return Saga(KIND, steps, QUICK)


def runner(database: Database, *, lease_s: float = 30.0, owner: str = "test") -> SagaRunner:
    """A process that remembers nothing."""
    return SagaRunner([saga(database)], database, ACCOUNT, owner, lease_s=lease_s, clock=utc_now)


def begin(database: Database, key: str = "key", **troubles: object) -> int:
    """Start one; its id."""
    with database.transaction() as tx:
        id_, _ = sagas.start(
            tx, KIND, NAMES, account=ACCOUNT, key=key, payload=troubles, actor="test", now=utc_now()
        )
    return id_


def make_tables(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute(text(SCHEMA))


def drive(work: SagaRunner, done: Callable[[], bool]) -> None:
    """Pass after pass until `done`."""
    from tests.services.rig import eventually

    def step() -> bool:
        work.run_once(None, utc_now())
        return done()

    eventually(step)


def status(database: Database, saga_id: int) -> str:
    with database.transaction() as tx:
        query = text("SELECT status FROM sagas WHERE saga_id = :id")
        return str(tx.execute(query, {"id": saga_id}).scalar_one())


def half_done(database: Database, saga_id: int) -> list[str]:
    """What is wrong with the end of a saga: all of it stands, or nothing does (must be empty)."""
    ended = status(database, saga_id)
    with database.transaction() as tx:
        standing = tx.execute(text("SELECT step FROM doings WHERE undone = 0 ORDER BY key"))
        left = sorted(standing.scalars())
        kinds = list(
            tx.execute(text("SELECT kind FROM events WHERE kind LIKE 'saga.%' ORDER BY event_seq"))
            .scalars()
        )  # fmt: skip
    wanted = {"completed": sorted(NAMES), "compensated": []}
    found = [] if ended in wanted else [f"is {ended}"]
    if ended in wanted and left != wanted[ended]:
        found.append(f"is {ended}, but {left} stands")
    if kinds.count(f"saga.{ended}") != 1 or kinds.count("saga.started") != 1:
        found.append(f"events: {kinds}")
    if kinds.count("saga.step_done") != len(set(kinds_of(database, "saga.step_done"))):
        found.append(f"a step was done twice: {kinds}")
    return found


def kinds_of(database: Database, kind: str) -> list[str]:
    """Steps that events of a kind name, in order."""
    with database.transaction() as tx:
        query = text("SELECT payload ->> 'step' FROM events WHERE kind = :kind ORDER BY event_seq")
        return list(tx.execute(query, {"kind": kind}).scalars())
