"""The database goes away and comes back: 503 meanwhile, nothing lost, the process recovers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url

from tests.factories import decision, decision_json
from tests.web.conftest import Served
from tests.web.test_decisions_api import stored
from torghut.clock import utc_now
from torghut.domain.errors import DatabaseUnavailable
from torghut.services.intake import IntakeDesk
from torghut.storage import leases
from torghut.storage.database import Database
from torghut.storage.rows import IntakeResult
from torghut.web.counter import WAITING_MAX, Counter
from torghut.web.problems import Problem

LINES = {"Content-Type": "application/x-ndjson"}


@contextmanager
def away(database_url: str, postgres_url: str) -> Iterator[None]:
    """Nobody reaches the database: connections are ended and refused."""
    name = sql.Identifier(str(make_url(database_url).database))
    address = make_url(postgres_url).set(drivername="postgresql")
    with psycopg.connect(
        address.render_as_string(hide_password=False), autocommit=True
    ) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [make_url(database_url).database],
        )
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


@contextmanager
def frozen(database: Database, table: str) -> Iterator[None]:
    """A table that does not answer for the while."""
    with database.transaction() as tx:
        tx.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield


def test_away_is_503_and_back_is_as_before(
    served: Served, database_url: str, postgres_url: str
) -> None:
    body = json.dumps(decision_json()).encode()
    first = served.client.post("/v1/decisions", json=decision_json())
    assert first.status_code == 201
    with away(database_url, postgres_url):
        for answer in (
            served.client.post("/v1/decisions", json=decision_json(intent="2")),
            served.client.post("/v1/decisions:batch", content=body, headers=LINES),
            served.client.get("/v1/decisions"),
            served.client.get("/v1/status"),
            served.client.post("/v1/halt", json={"reason": "test"}),
        ):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
            assert "127.0.0.1" not in answer.text and "postgres" not in answer.text
        assert served.client.get("/healthz").status_code == 200
        ready = served.client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        bad = served.client.post("/v1/decisions", json=decision_json(qty="x"))
        assert bad.status_code == 422  # what is wrong stays wrong, whatever the database does
    assert served.client.post("/v1/decisions", json=decision_json()).status_code == 200
    assert served.client.post("/v1/decisions", json=decision_json(intent="2")).status_code == 201
    assert stored(served.database) == 2


def test_many_that_wait_while_it_is_away_are_all_answered(
    served: Served, database_url: str, postgres_url: str
) -> None:
    def send(number: int) -> int:
        return served.client.post(
            "/v1/decisions", json=decision_json(intent=str(number))
        ).status_code

    with ThreadPoolExecutor(16) as pool, away(database_url, postgres_url):
        assert set(pool.map(send, range(64))) == {503}
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(send, range(64))) == {201}
    assert stored(served.database) == 64


def test_ready_answers_in_time_while_the_database_is_frozen(served: Served) -> None:
    with served.database.transaction() as tx:
        leases.acquire(tx, "paper", "somebody", ttl_s=60)
    assert served.client.get("/readyz").status_code == 200
    with frozen(served.database, "alembic_version"), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: served.client.get("/readyz", timeout=5), range(8)))
        assert {answer.status_code for answer in answers} == {503}
        assert "within 2 seconds" in answers[0].json()["reasons"][0]
        assert served.client.post("/v1/decisions", json=decision_json()).status_code == 201


@pytest.fixture
def desk(database_url: str) -> Iterator[tuple[IntakeDesk, Database]]:
    database = Database(database_url)
    yield IntakeDesk(database, utc_now, lambda _: None), database
    database.close()


def test_a_wait_that_is_given_up_may_be_stored_and_is_then_replayed(
    desk: tuple[IntakeDesk, Database],
) -> None:
    async def scenario() -> None:
        counter = Counter(desk[0], deadline_s=0.3)
        with frozen(desk[1], "trade_decisions"), pytest.raises(DatabaseUnavailable):
            await counter.accept(decision())
        patient = Counter(desk[0])
        answer = await patient.accept(decision())  # waits for the other's transaction, if any
        assert answer.result in (IntakeResult.CREATED, IntakeResult.REPLAYED)
        assert (await patient.accept(decision())).result is IntakeResult.REPLAYED
        counter.close()
        patient.close()

    asyncio.run(scenario())
    assert stored(desk[1]) == 1


def test_more_than_can_wait_are_turned_away_at_once(desk: tuple[IntakeDesk, Database]) -> None:
    async def scenario() -> None:
        counter = Counter(desk[0], deadline_s=0.5)
        with frozen(desk[1], "trade_decisions"):
            waiting = [
                asyncio.create_task(counter.accept(decision(intent=str(number))))
                for number in range(WAITING_MAX)
            ]
            await asyncio.sleep(0)
            with pytest.raises(Problem) as refused:
                await counter.accept(decision(intent="one too many"))
            assert refused.value.status == 503
            gone = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(error, DatabaseUnavailable) for error in gone)
        counter.close()

    asyncio.run(scenario())


def test_one_bad_neighbour_costs_nobody_else(desk: tuple[IntakeDesk, Database]) -> None:
    """A row that only the database refuses: here by a trigger on one intent."""
    with desk[1].transaction() as tx:
        tx.execute(
            text("""
            CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              IF NEW.intent = 'poison' THEN RAISE EXCEPTION 'refused'; END IF;
              RETURN NEW;
            END $$""")
        )
        tx.execute(
            text("""CREATE TRIGGER poison BEFORE INSERT ON trade_decisions
            FOR EACH ROW EXECUTE FUNCTION refuse_poison()""")
        )

    async def scenario() -> list[object]:
        counter = Counter(desk[0])
        intents = ["a", "poison", "b", "c"]
        answers = await asyncio.gather(
            *(counter.accept(decision(intent=intent)) for intent in intents),
            return_exceptions=True,
        )
        counter.close()
        return list(answers)

    answers = asyncio.run(scenario())
    assert isinstance(answers[1], Exception)
    good = [answers[0], *answers[2:]]
    assert [getattr(answer, "result", None) for answer in good] == [IntakeResult.CREATED] * 3
    assert stored(desk[1]) == 3
