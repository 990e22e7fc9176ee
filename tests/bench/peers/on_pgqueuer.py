"""The pipeline in PgQueuer: asyncpg and uvloop, as its own command runs a worker.

A decision is a job with its hash as the dedupe key; the handler judges and makes two commits on a
pool of connections, each at once. The dedupe key is given up when the job is done: PgQueuer has no
memory of what was ever sent, which is less than Torghut promises.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping, Sequence

import asyncpg
import uvloop
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from tests.bench.peers import work
from tests.bench.peers.entrant import SAMPLES, Race, batches, main, singly_async

ENTRYPOINT = "decision"
BATCH_SIZE = 500
"""Jobs of one dequeue: the fastest of 10, which is the default, 125 and 500."""
CONNECTIONS = 10


async def _enqueue(queries: Queries, rows: Sequence[tuple[str, bytes | None]]) -> int:
    """How many of the rows were new."""
    ids = await queries.enqueue(
        [ENTRYPOINT] * len(rows),
        [payload for _, payload in rows],
        [0] * len(rows),
        dedupe_key=[hash_ for hash_, _ in rows],
        on_conflict="skip",
    )
    return sum(id_ is not None for id_ in ids)


def _jobs(count: int) -> list[tuple[str, bytes | None]]:
    """A handler is not told the dedupe key of its job, so the hash is in the payload as well."""
    return [
        (hash_, f'{{"decision_hash": "{hash_}", "payload": {payload}}}'.encode())
        for hash_, payload in work.decisions(count)
    ]


async def _installed(race: Race) -> Queries:
    race.connection.execute(work.TABLES)
    queries = Queries.from_asyncpg_connection(await asyncpg.connect(race.url))
    await queries.install()
    return queries


async def _intake(race: Race) -> Mapping[str, float]:
    queries = await _installed(race)
    rows = _jobs(race.count)
    with race.window() as fresh:
        created = [await _enqueue(queries, some) for some in batches(rows)]
    with race.window() as again:
        created_again = [await _enqueue(queries, some) for some in batches(rows)]
    with race.window() as once_more:
        created_again += [await _enqueue(queries, some) for some in batches(rows)]
    assert (sum(created), sum(created_again)) == (race.count, 0)
    race.expect(pgqueuer=race.count)
    return race.intake(race.count, fresh) | race.duplicates(race.count, again, once_more)


async def _worker(
    race: Race, started: dict[str, float], arrived: asyncio.Event
) -> tuple[QueueManager, asyncpg.Pool]:
    pool = await asyncpg.create_pool(race.url, min_size=CONNECTIONS, max_size=CONNECTIONS)
    # the worker itself needs a connection of its own, for LISTEN
    worker = QueueManager(Queries.from_asyncpg_connection(await asyncpg.connect(race.url)))

    @worker.entrypoint(ENTRYPOINT)
    async def handle(job: Job) -> None:
        began = time.perf_counter()
        sent = json.loads(job.payload or b"")
        hash_, payload = sent["decision_hash"], sent["payload"]
        started[hash_] = began
        arrived.set()
        outcome, checks = work.judge(payload)
        await pool.execute(work.INTENT, hash_, outcome, checks, work.order_of(payload))
        order, status = work.submit(hash_)
        await pool.execute(work.OUTCOME, hash_, order, status, work.event_of(order, status))

    return worker, pool


async def _path(race: Race) -> Mapping[str, float]:
    queries = await _installed(race)
    for some in batches(_jobs(race.count)):
        await _enqueue(queries, some)
    race.connection.execute("ANALYZE")
    worker, pool = await _worker(race, {}, asyncio.Event())
    with race.window() as window:
        await worker.run(batch_size=BATCH_SIZE, mode=QueueExecutionMode.drain)
    race.expect(pgqueuer=0)
    await pool.close()
    return race.path(window)


async def _latency(race: Race) -> Mapping[str, float]:
    queries = await _installed(race)
    started: dict[str, float] = {}
    arrived = asyncio.Event()
    worker, pool = await _worker(race, started, arrived)
    running = asyncio.create_task(worker.run(batch_size=BATCH_SIZE))
    began = await singly_async(
        _jobs(SAMPLES), lambda *job: _enqueue(queries, [job]), started, arrived
    )
    worker.shutdown.set()
    await running
    await pool.close()
    race.expect_work(len(began))
    return race.latency(began, started)


def _run(phase: Coroutine[object, object, Mapping[str, float]]) -> Mapping[str, float]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(phase)


if __name__ == "__main__":
    main(
        {
            "intake": lambda race: _run(_intake(race)),
            "path": lambda race: _run(_path(race)),
            "latency": lambda race: _run(_latency(race)),
        }
    )
