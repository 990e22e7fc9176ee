"""The pipeline in Procrastinate: its psycopg connector, asynchronous tasks, one worker.

A decision is a job with its hash as the queueing lock, which is given up as soon as the job
starts. A batch with one duplicate is refused whole, so what may hold duplicates is deferred one by
one: that is how the rate of refusals is taken. Jobs are kept afterwards, which is its default.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from procrastinate import App, PsycopgConnector, exceptions
from psycopg import AsyncRawCursor
from psycopg_pool import AsyncConnectionPool

from tests.bench.peers import work
from tests.bench.peers.entrant import SAMPLES, Race, batches, main, singly_async

Payload = dict[str, str]

TASK = "decision"
CONCURRENCY = 20
CONNECTIONS = 10
DUPLICATES_SHARE = 10
"""One in so many rows is sent again."""


async def _opened(race: Race) -> App:
    race.connection.execute(work.TABLES)
    # a connection for each job that may end at once, one to listen, one to defer with
    app = App(connector=PsycopgConnector(conninfo=race.url, max_size=CONCURRENCY + 2))
    await app.open_async()
    await app.schema_manager.apply_schema_async()
    return app


async def _defer(app: App, hash_: str, payload: Payload) -> bool:
    """False if the decision was there already."""
    job = app.configure_task(TASK, queueing_lock=hash_)
    try:
        await job.defer_async(decision_hash=hash_, payload=payload)
    except exceptions.AlreadyEnqueued:
        return False
    return True


async def _defer_all(app: App, rows: list[tuple[str, Payload]]) -> None:
    """In batches: a lock belongs to a job, so the jobs of a batch are made one by one."""
    for some in batches(rows):
        jobs = [
            app.configure_task(TASK, queueing_lock=hash_).make_new_job(
                decision_hash=hash_, payload=payload
            )
            for hash_, payload in some
        ]
        await app.job_manager.batch_defer_jobs_async(jobs)


async def _intake(race: Race) -> Mapping[str, float]:
    app = await _opened(race)
    rows = work.parsed(race.count)
    with race.window() as fresh:
        await _defer_all(app, rows)
    few = rows[::DUPLICATES_SHARE]
    with race.window() as again:
        created_again = [await _defer(app, *row) for row in few]
    with race.window() as once_more:
        created_again += [await _defer(app, *row) for row in few]
    await app.close_async()
    assert not any(created_again)
    race.expect(procrastinate_jobs=race.count)
    return race.intake(race.count, fresh) | race.duplicates(len(few), again, once_more)


def _handle(
    app: App, pool: AsyncConnectionPool, started: dict[str, float], arrived: asyncio.Event
) -> None:
    @app.task(name=TASK)
    async def handle(decision_hash: str, payload: Payload) -> None:
        started[decision_hash] = time.perf_counter()
        arrived.set()
        outcome, checks = work.judge(payload)
        intent = (decision_hash, outcome, checks, work.order_of(payload))
        async with pool.connection() as connection:
            await AsyncRawCursor(connection).execute(work.INTENT, intent)
        order, status = work.submit(decision_hash)
        done = (decision_hash, order, status, work.event_of(order, status))
        async with pool.connection() as connection:
            await AsyncRawCursor(connection).execute(work.OUTCOME, done)


def _pool(race: Race) -> AsyncConnectionPool:
    return AsyncConnectionPool(
        race.url,
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        kwargs={"autocommit": True},
        open=False,
    )


async def _path(race: Race) -> Mapping[str, float]:
    app = await _opened(race)
    await _defer_all(app, work.parsed(race.count))
    race.connection.execute("ANALYZE")
    async with _pool(race) as pool:
        _handle(app, pool, {}, asyncio.Event())
        with race.window() as window:
            await app.run_worker_async(
                wait=False, concurrency=CONCURRENCY, install_signal_handlers=False
            )
    await app.close_async()
    race.expect(**{"procrastinate_jobs WHERE status = 'succeeded'": race.count})
    return race.path(window)


async def _latency(race: Race) -> Mapping[str, float]:
    app = await _opened(race)
    started: dict[str, float] = {}
    arrived = asyncio.Event()
    async with _pool(race) as pool:
        _handle(app, pool, started, arrived)
        running = asyncio.create_task(
            app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)
        )
        began = await singly_async(
            work.parsed(SAMPLES), lambda *job: _defer(app, *job), started, arrived
        )
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await app.close_async()
    race.expect_work(len(began))
    return race.latency(began, started)


if __name__ == "__main__":
    main(
        {
            "intake": lambda race: asyncio.run(_intake(race)),
            "path": lambda race: asyncio.run(_path(race)),
            "latency": lambda race: asyncio.run(_latency(race)),
        }
    )
