"""Intake by stream against real servers: what a message leads to, and what failures do (P1, P2)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from pydantic import TypeAdapter
from sqlalchemy import text

from tests.factories import TTL, decision, decision_json
from tests.outbox.servers import Server
from tests.streams.lines import KINDS, Line, NatsLine, RedisLine, line, server_of
from torghut.domain.errors import DatabaseUnavailable
from torghut.domain.streams import StreamUnavailable
from torghut.services import intake
from torghut.services.batch import Accounts
from torghut.services.intake import IntakeDesk
from torghut.services.stream_intake import StreamIntake
from torghut.storage.database import Database
from torghut.stream_settings import IntakeSettings
from torghut.streams.opening import open_stream

NOW = datetime(2026, 1, 5, 21, tzinfo=UTC)
NAMES = count(1)

Take = Callable[..., StreamIntake]
Wake = Callable[[Collection[str]], None]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    with server_of(request.param) as running:
        yield request.param, running


@pytest.fixture
def lined(server: tuple[str, Server]) -> Line:
    return line(*server, f"s{next(NAMES)}")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def take(lined: Line, database: Database) -> Iterator[Take]:
    """Intakes of the stream, each as of a process of its own."""
    made: list[StreamIntake] = []

    def make(wake: Wake = lambda _: None, **over: object) -> StreamIntake:
        settings: Any = TypeAdapter(IntakeSettings).validate_python(lined.table(**over))
        desk = IntakeDesk(database, lambda: NOW, wake)
        made.append(
            StreamIntake(
                "test", open_stream(settings), desk, database, Accounts.only("paper"), ttl=TTL
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def until_empty(one: StreamIntake, lined: Line) -> dict[str, int]:
    """Pass after pass until nothing is left on the stream; the counts, added up."""
    total: dict[str, int] = {}
    for _ in range(100):
        for what, number in one.run_once(NOW).items():
            total[what] = total.get(what, 0) + number
        if lined.left() == 0:
            return {what: number for what, number in total.items() if number}
    raise AssertionError(f"{lined.left()} are left, after {total}")


def sql(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.transaction() as tx:
        return [tuple(row) for row in tx.execute(text(query))]


def test_every_message_has_its_answer_and_a_bad_one_stops_no_other(
    lined: Line, take: Take, database: Database
) -> None:
    first = decision_json(intent="first")
    woken = threading.Event()
    one = take(lambda _: woken.set())
    ids = lined.send(first, "{not JSON", {**first, "qty": -1}, b"\xff\x00", first,
                     {**first, "qty": "11"}, {**first, "account": "b"}, "[" * 20_000)  # fmt: skip
    assert until_empty(one, lined) == {"created": 1, "replayed": 1, "conflict": 1, "invalid": 5}
    hash_ = decision(intent="first").decision_hash
    assert sql(database, "SELECT decision_hash, source FROM trade_decisions") == [
        (hash_, "stream:test")
    ]
    answers = {reply["id"]: reply for reply in lined.replies()}
    assert list(answers) == ids
    results = [answers[id_]["result"] for id_ in ids]
    assert results == ["created", *["invalid"] * 3, "replayed", "conflict", *["invalid"] * 2]
    assert answers[ids[0]]["decision_hash"] == answers[ids[5]]["decision_hash"] == hash_
    assert not answers[ids[0]]["error"] and "qty" in answers[ids[5]]["error"]
    kept = sql(database, "SELECT message_id, source, body FROM decision_inbox ORDER BY inbox_id")
    assert [row[0] for row in kept] == [*ids[1:4], *ids[5:]]
    assert {row[1] for row in kept} == {"stream:test"}
    assert kept[0][2] == "{not JSON" and kept[2][2] == r"\xff\x00"
    assert woken.is_set()


def test_a_message_that_postgres_refuses_does_not_hold_up_the_others(
    lined: Line, take: Take, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Story 28."""
    store = intake.store

    def poisoned(tx: Any, decisions: Any, **named: Any) -> Any:
        if any(one.intent == "poison" for one in decisions):
            tx.execute(text("SELECT 1 / 0"))
        return store(tx, decisions, **named)

    monkeypatch.setattr(intake, "store", poisoned)
    one = take()
    lined.send(*(decision_json(intent=intent) for intent in ("a", "poison", "b")))
    assert until_empty(one, lined) == {"created": 2, "invalid": 1}
    said = sql(database, "SELECT error FROM decision_inbox")
    assert said == [("cannot be stored: DivisionByZero",)]


class PowerFails(BaseException):
    """What a SIGKILL looks like from inside one process."""


@pytest.mark.parametrize("where", ["reply", "acknowledge"])
def test_what_was_stored_and_not_acknowledged_is_replayed_elsewhere(
    lined: Line, take: Take, database: Database, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process is gone; what it had is claimed by another one. Refusals are kept once."""
    first, second = take(), take()
    lined.send(decision_json(), "no decision")

    def dies(_: object) -> None:
        raise PowerFails

    monkeypatch.setattr(first._stream, where, dies)
    with pytest.raises(PowerFails):
        while True:
            first.run_once(NOW)
    assert lined.left() == 2
    assert until_empty(second, lined) == {"replayed": 1, "invalid": 1}
    assert sql(database, "SELECT count(*) FROM trade_decisions") == [(1,)]
    assert sql(database, "SELECT count(*) FROM decision_inbox") == [(1,)]
    assert {reply["result"] for reply in lined.replies()} >= {"replayed", "invalid"}


def test_while_the_database_is_away_nothing_is_acknowledged(
    lined: Line, take: Take, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = take(redeliver_after_s=3600)
    lined.send(decision_json())

    def away(*_: object, **__: object) -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(one._desk, "accept", away)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                while True:
                    one.run_once(NOW)
        assert lined.left() == 1
    assert until_empty(one, lined) == {"created": 1}, "at once, not after an hour"


def test_a_server_that_was_away_is_connected_to_again(
    lined: Line, take: Take, database: Database
) -> None:
    """It dies with messages waiting, and with one that is delivered and not acknowledged."""
    one = take()
    lined.send(decision_json(intent="before"))
    until_empty(one, lined)
    lined.send(decision_json(intent="waits"))
    lined.server.kill()
    for _ in range(2):
        with pytest.raises(StreamUnavailable):
            while True:
                one.run_once(NOW)
    lined.server.start()
    lined.send(decision_json(intent="after"))

    def taken() -> int:
        for _ in range(50):
            try:
                one.run_once(NOW)
            except StreamUnavailable:  # noticed only by using it
                continue
            if lined.left() == 0:
                break
        return int(sql(database, "SELECT count(*) FROM trade_decisions")[0][0])

    assert taken() == 3


def test_two_processes_share_a_stream(lined: Line, take: Take, database: Database) -> None:
    both = [take(redeliver_after_s=60), take(redeliver_after_s=60)]
    lined.send(*(decision_json(intent=f"n{n}") for n in range(30)))
    created: list[int] = []

    def work(one: StreamIntake) -> None:
        while lined.left():
            created.append(one.run_once(NOW).get("created", 0))

    threads = [threading.Thread(target=work, args=(one,)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(created) == 30, "each message went to one of them"
    assert sql(database, "SELECT count(*) FROM trade_decisions") == [(30,)]


def test_nobody_has_to_want_replies(lined: Line, take: Take) -> None:
    named = "reply_stream" if isinstance(lined, RedisLine) else "reply_subject"
    one = take(**{named: None})
    lined.send(decision_json(), "no decision")
    assert until_empty(one, lined) == {"created": 1, "invalid": 1}
    assert lined.replies() == []


# ---------------------------------------------------------------------- what one of them does


def only(lined: Line, kind: type[Line]) -> Any:
    assert isinstance(lined, kind)
    return lined


on_redis = pytest.mark.parametrize("server", ["redis"], indirect=True)
on_nats = pytest.mark.parametrize("server", ["nats"], indirect=True)


@on_redis
def test_redis_entries_without_a_decision_and_deleted_ones_are_seen(
    lined: Line, take: Take, database: Database
) -> None:
    client = only(lined, RedisLine).client
    one = take()
    client.xadd(lined.name, {"other": b"\xfftext"})
    (gone,) = lined.send(decision_json())
    client.xgroup_create(lined.name, "torghut", id="0")
    client.xreadgroup("torghut", "a dead one", {lined.name: ">"})
    client.xdel(lined.name, gone)
    until_empty(one, lined)
    errors = sql(database, "SELECT error FROM decision_inbox ORDER BY error")
    assert errors == [
        ("has no field 'decision'",),
        ("was deleted from the stream before it was acknowledged",),
    ]


@on_redis
def test_redis_that_forgot_the_group_gives_everything_again(
    lined: Line, take: Take, database: Database
) -> None:
    client = only(lined, RedisLine).client
    one = take()
    lined.send(decision_json())
    assert until_empty(one, lined) == {"created": 1}
    client.xgroup_destroy(lined.name, "torghut")
    with pytest.raises(StreamUnavailable, match="NOGROUP"):
        one.run_once(NOW)
    assert until_empty(one, lined) == {"replayed": 1}
    assert [row["name"] for row in client.xinfo_consumers(lined.name, "torghut")] == [b"torghut"]


LOSING = [
    (ConsumerConfig(ack_policy=AckPolicy.NONE), "acknowledgement"),
    (ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_deliver=3), "max_deliver"),
    (ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, deliver_subject="x"), "pushes"),
]


@on_nats
@pytest.mark.parametrize(("config", "said"), LOSING)
def test_nats_consumers_that_would_lose_messages_are_refused(
    lined: Line, take: Take, config: ConsumerConfig, said: str
) -> None:
    named = only(lined, NatsLine)
    one = take()
    config.durable_name = "torghut"

    async def make() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{named.server.port}")
        await client.jetstream().add_consumer(named.name, config)
        await client.close()

    asyncio.run(make())
    with pytest.raises(StreamUnavailable, match=said):
        one.run_once(NOW)


@on_nats
def test_nats_without_a_stream_for_replies_takes_nothing(lined: Line, take: Take) -> None:
    only(lined, NatsLine)
    one = take(reply_subject="nobody.listens")
    with pytest.raises(StreamUnavailable, match="no stream holds the reply_subject"):
        one.run_once(NOW)


@on_nats
def test_nats_consumer_that_was_deleted_is_made_again(
    lined: Line, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = only(lined, NatsLine)
    monkeypatch.setattr("torghut.streams.nats_consumer.LOOK_EVERY_S", 0.0)
    one = take()
    lined.send(decision_json())
    assert until_empty(one, lined) == {"created": 1}

    async def delete() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{named.server.port}")
        await client.jetstream().delete_consumer(named.name, "torghut")
        await client.close()

    asyncio.run(delete())
    with pytest.raises(StreamUnavailable):
        while True:
            one.run_once(NOW)
    assert until_empty(one, lined) == {"replayed": 1}
