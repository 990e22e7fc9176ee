"""Four uvicorn processes and one key; their deaths, and one that comes back from the dead."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import text

from tests.idempotency.processes import WAIT_S, Start, Worker, effects
from tests.idempotency.served import KEY
from torghut.idempotency import Store

REQUESTS = 64
PROCESSES = 4
LEASE_S = 1.0
HEADERS = {KEY: '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}


def open_gate(store: Store) -> None:
    with store.transaction() as tx:
        tx.execute(text("INSERT INTO gate VALUES (true)"))


async def asked(
    workers: list[Worker], enough: Callable[[Counter[int]], bool], store: Store
) -> list[httpx.Response]:
    """All requests at once, one process after the other; the body may end once `enough` answers
    are there and all requests have arrived."""
    answers: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=REQUESTS)
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False, limits=limits) as client:

        async def ask(number: int) -> httpx.Response:
            answer = await client.post(workers[number % len(workers)].url, headers=HEADERS)
            answers[answer.status_code] += 1
            return answer

        async def release() -> None:
            for worker in workers:
                await asyncio.to_thread(worker.said, "arrived", REQUESTS // len(workers))
            while not enough(answers):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(open_gate, store)

        gate = asyncio.ensure_future(release())
        found = await asyncio.gather(*(ask(number) for number in range(REQUESTS)))
        await gate
        return found


def test_64_requests_on_4_processes_run_the_body_once_and_all_get_its_answer(
    start: Start, store: Store
) -> None:
    """By setting, the others wait: 64 answers, all equal, one of them the original."""
    workers = start(PROCESSES, wait_s=WAIT_S)
    answers = asyncio.run(asked(workers, lambda _: True, store))
    assert effects(store) == 1
    assert {(a.status_code, a.content) for a in answers} == {(200, answers[0].content)}
    replayed = [a for a in answers if a.headers.get("idempotent-replayed") == "true"]
    assert len(replayed) == REQUESTS - 1


def test_64_requests_on_4_processes_by_default_one_runs_and_the_others_are_told(
    start: Start, store: Store
) -> None:
    """1 × 200 and 63 × 409 while it runs; asked again, each process has the one answer."""
    workers = start(PROCESSES)
    answers = asyncio.run(asked(workers, lambda seen: seen[409] == REQUESTS - 1, store))
    assert Counter(a.status_code for a in answers) == {200: 1, 409: REQUESTS - 1}
    assert effects(store) == 1
    (first,) = [a for a in answers if a.status_code == 200]
    again = [httpx.post(worker.url, headers=HEADERS, trust_env=False) for worker in workers]
    assert {a.content for a in again} == {first.content}


def test_control_without_the_unique_check_the_body_runs_more_than_once(
    start: Start, store: Store
) -> None:
    """Control: the same requests with the claim's ON CONFLICT and the primary key gone."""
    with store.transaction() as tx:
        tx.execute(text("ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey"))
    try:
        workers = start(PROCESSES, wait_s=WAIT_S, unchecked=True)
        asyncio.run(asked(workers, lambda _: True, store))
        assert effects(store) > 1
    finally:
        with store.transaction() as tx:
            tx.execute(text("TRUNCATE idempotency_keys"))
            tx.execute(text("ALTER TABLE idempotency_keys ADD PRIMARY KEY (scope, key)"))


def lease_end(store: Store) -> float:
    """When the owner's lease is over, by the database's clock."""
    with store.transaction() as tx:
        query = "SELECT extract(epoch FROM leased_until) FROM idempotency_keys"
        return float(tx.execute(text(query)).scalar_one())


def updated(store: Store) -> float:
    """When the row was last taken or ended."""
    with store.transaction() as tx:
        query = "SELECT extract(epoch FROM updated_at) FROM idempotency_keys"
        return float(tx.execute(text(query)).scalar_one())


def ask_until_gone(worker: Worker) -> None:
    """A request whose process may die: no answer then."""
    try:
        httpx.post(worker.url, headers=HEADERS, timeout=WAIT_S, trust_env=False)
    except httpx.TransportError:
        return


@pytest.mark.parametrize("on_takeover", ["refuse", "run_again"])
def test_p4_a_process_is_killed_in_the_middle(start: Start, store: Store, on_takeover: str) -> None:
    """kill -9: 409 in progress while its lease lasts, then what the policy says, and not before."""
    how = {"lease_s": LEASE_S, "on_takeover": on_takeover, "wait_s": WAIT_S}
    victim, other = start(2, **how)
    asking = threading.Thread(target=ask_until_gone, args=[victim])
    asking.start()
    victim.said("started")
    assert effects(store) == 1
    victim.kill()
    asking.join(WAIT_S)
    over = lease_end(store)
    open_gate(store)
    answer = httpx.post(other.url, headers=HEADERS, timeout=WAIT_S, trust_env=False)
    if on_takeover == "refuse":
        assert answer.status_code == 409
        assert answer.json()["type"].endswith("outcome-unknown")
        assert effects(store) == 1
    else:
        assert answer.json()["pid"] == other.pid
        assert updated(store) >= over
        assert effects(store) == 2


def test_story_45_a_frozen_process_wakes_up_and_changes_nothing(start: Start, store: Store) -> None:
    """SIGSTOP for longer than its lease; another takes over and answers; its own client gets that
    answer, too."""
    frozen, other = start(2, lease_s=LEASE_S, on_takeover="run_again", wait_s=WAIT_S)
    got: list[httpx.Response] = []

    def ask() -> None:
        got.append(httpx.post(frozen.url, headers=HEADERS, timeout=WAIT_S, trust_env=False))

    asking = threading.Thread(target=ask)
    asking.start()
    frozen.said("started")
    os.kill(frozen.pid, signal.SIGSTOP)
    open_gate(store)
    second = httpx.post(other.url, headers=HEADERS, timeout=WAIT_S, trust_env=False)
    assert second.json()["pid"] == other.pid
    os.kill(frozen.pid, signal.SIGCONT)
    asking.join(WAIT_S)
    assert got[0].content == second.content
    assert got[0].headers["idempotent-replayed"] == "true"
