"""The pipeline in DBOS: a workflow of three steps on a queue, with the settings it comes with.

The decision's hash is the workflow's id, which DBOS recommends as the idempotency key and keeps for
good. There is no call that enqueues many at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from dbos import DBOS, DBOSConfig, SetWorkflowID
from psycopg import RawCursor
from psycopg_pool import ConnectionPool

from tests.bench.peers import work
from tests.bench.peers.entrant import WARM_UP, Race, main, singly

QUEUE = "decisions"
CONNECTIONS = 10
SAMPLES = 12 + WARM_UP
POLLING_S = 1.0
"""Its default; a decision sent at any time waits half of it on average."""

_pool: ConnectionPool
_started: dict[str, float] = {}
_arrived = threading.Event()
_done = threading.Semaphore(0)


@DBOS.step()
def intend(decision_hash: str, payload: dict[str, str]) -> str:
    """Judge, and commit the intent."""
    outcome, checks = work.judge(payload)
    with _pool.connection() as connection:
        RawCursor(connection).execute(
            work.INTENT, (decision_hash, outcome, checks, work.order_of(payload))
        )
    return outcome


@DBOS.step()
def send(decision_hash: str) -> tuple[str, str]:
    """Submit."""
    return work.submit(decision_hash)


@DBOS.step()
def record(decision_hash: str, order: str, status: str) -> None:
    """Commit the outcome."""
    with _pool.connection() as connection:
        RawCursor(connection).execute(
            work.OUTCOME, (decision_hash, order, status, work.event_of(order, status))
        )


@DBOS.workflow()
def decision(decision_hash: str, payload: dict[str, str]) -> None:
    """One decision."""
    _started[decision_hash] = time.perf_counter()
    _arrived.set()
    if intend(decision_hash, payload) == "approved":
        record(decision_hash, *send(decision_hash))
    _done.release()


def _launch(race: Race) -> None:
    global _pool
    race.connection.execute(work.TABLES)
    _pool = ConnectionPool(
        race.url,
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        kwargs={"autocommit": True},
        open=True,
    )
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": race.url,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()


def _enqueue(hash_: str, payload: dict[str, str]) -> None:
    with SetWorkflowID(hash_):
        DBOS.enqueue_workflow(QUEUE, decision, hash_, payload)


def _close() -> None:
    DBOS.destroy()
    _pool.close()


def intake(race: Race) -> Mapping[str, float]:
    """One decision after the other, then the same ones again; no worker runs meanwhile."""
    _launch(race)
    rows = work.parsed(race.count)
    windows = []
    for _ in range(3):
        with race.window() as window:
            for row in rows:
                _enqueue(*row)
        windows.append(window)
    fresh, again, once_more = windows
    _close()
    race.expect(**{"dbos.workflow_status WHERE status = 'ENQUEUED'": race.count})
    return race.intake(race.count, fresh) | race.duplicates(race.count, again, once_more)


def path(race: Race) -> Mapping[str, float]:
    """The worker starts when all decisions wait."""
    _launch(race)
    for row in work.parsed(race.count):
        _enqueue(*row)
    race.connection.execute("ANALYZE")
    with race.window() as window:
        asked = time.perf_counter()
        DBOS.register_queue(QUEUE)
        for _ in range(race.count):
            _done.acquire()
        _settle(race)
    window.wall_s -= min(_started.values()) - asked  # its first look at the queue is after a second
    _close()
    return race.path(window)


def _settle(race: Race) -> None:
    """Until the last workflow's own status is written."""
    waiting = "SELECT count(*) FROM dbos.workflow_status WHERE status <> 'SUCCESS'"
    while (row := race.connection.execute(waiting).fetchone()) and row[0]:
        threading.Event().wait(0.01)


def latency(race: Race) -> Mapping[str, float]:
    """Decisions at any time between two looks at the queue."""
    _launch(race)
    DBOS.register_queue(QUEUE)
    began = singly(work.parsed(SAMPLES), _enqueue, _started, _arrived, pause_s=POLLING_S)
    for _ in began:
        _done.acquire()
    _close()
    race.expect_work(len(began))
    return race.latency(began, _started)


if __name__ == "__main__":
    main({"intake": intake, "path": path, "latency": latency})
