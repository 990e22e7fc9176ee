"""Each sink against the real thing: what arrives, and what each kind of failure is taken for."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import nats
import pika
import psycopg
import pytest
import redis
from pydantic import TypeAdapter

from tests.outbox import servers
from tests.outbox.parts import NOW
from tests.outbox.receiver import Receiver, receiver
from tests.outbox.servers import Server
from torghut.domain.outbox import EventRefused, Message, OutboxEvent, SinkUnavailable
from torghut.ports import Publisher
from torghut.sink_settings import SinkSettings
from torghut.sinks.opening import open_sink
from torghut.storage import outbox
from torghut.storage.database import Database

SECRET = "a secret that both sides know"


def message(number: int = 1, **payload: object) -> Message:
    return Message.of(
        OutboxEvent(
            seq=number,
            event_id=f"00000000-0000-4000-8000-{number:012d}",
            kind="order.submitted",
            schema_version=1,
            occurred_at=NOW,
            account="paper",
            decision_hash="ab" * 32,
            actor="executor",
            payload=payload or {"reason": "accepted", "detail": "café ☕"},
        )
    )


def opened(
    table: dict[str, object],
    notify: Callable[[str, str], None] = lambda _channel, _payload: None,
) -> Publisher:
    settings = TypeAdapter(SinkSettings).validate_python({"timeout_s": 2, **table})
    return open_sink(settings, lambda: NOW, notify=notify)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with servers.redis() as server:
        yield server


@pytest.fixture(scope="module")
def nats_server() -> Iterator[Server]:
    with servers.nats() as server:
        yield server


@pytest.fixture(scope="module")
def rabbitmq_server() -> Iterator[Server]:
    with servers.rabbitmq() as server:
        yield server


def restarted(server: Server, sink: Publisher) -> None:
    """While the server is away nothing is taken; afterwards the same sink goes on."""
    sink.publish(message(1))
    server.kill()
    with pytest.raises(SinkUnavailable):
        sink.publish(message(2))
    server.start()
    for _ in range(3):  # a client may notice a broken connection only by using it
        try:
            sink.publish(message(2))
            return
        except SinkUnavailable:
            continue
    raise AssertionError("it does not come back")


# ---------------------------------------------------------------------- log, notify


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_log_writes_one_json_line(stream: str, capfd: pytest.CaptureFixture[str]) -> None:
    opened({"kind": "log", "stream": stream}).publish(message())
    line = json.loads(getattr(capfd.readouterr(), "out" if stream == "stdout" else "err"))
    assert line.pop("event") == "order.submitted"
    envelope = message().event.envelope()
    envelope.pop("kind")
    assert line == envelope


@pytest.mark.parametrize("size", [10, 7_999, 20_000])
def test_notify_tells_who_listens(database: Database, database_url: str, size: int) -> None:
    """A payload that is too large for NOTIFY goes as the event's id."""

    def send(channel: str, payload: str) -> None:
        with database.transaction() as tx:
            outbox.notify(tx, channel, payload)

    plain = database_url.replace("postgresql+psycopg:", "postgresql:", 1)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("LISTEN torghut_events")
        sent = message(7, detail="x" * size)
        opened({"kind": "notify"}, send).publish(sent)
        (came,) = connection.notifies(timeout=10, stop_after=1)
    told = json.loads(came.payload)
    if len(sent.body) <= 7_999:
        assert told == sent.event.envelope()
    else:
        assert told == {
            "id": sent.event.event_id, "seq": 7, "kind": "order.submitted", "truncated": True,
        }  # fmt: skip


def test_notify_fails_as_the_database_does(database: Database) -> None:
    def send(channel: str, payload: str) -> None:
        with Database("postgresql://nobody@127.0.0.1:1/none").transaction() as tx:
            outbox.notify(tx, channel, payload)

    with pytest.raises(SinkUnavailable):
        opened({"kind": "notify"}, send).publish(message())


# ---------------------------------------------------------------------- webhook


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as at:
        yield at


def webhook(at: Receiver, **over: object) -> Publisher:
    return opened({"kind": "webhook", "url": at.url, "secret": SECRET, **over})


def test_webhook_is_signed_over_time_and_body(hook: Receiver) -> None:
    webhook(hook).publish(message())
    ((headers, body),) = hook.requests
    assert json.loads(body) == message().event.envelope()
    assert headers["Content-Type"] == "application/json"
    assert headers["Torghut-Event-Id"] == message().event.event_id
    assert headers["Torghut-Timestamp"] == str(int(NOW.timestamp()))
    signed = headers["Torghut-Timestamp"].encode() + b"." + body
    wanted = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["Torghut-Signature"] == f"v1={wanted}"
    assert headers["Authorization"] is None


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 408, 425, 429, 500, 502, 503])
def test_webhook_answers_that_are_not_about_the_event(hook: Receiver, status: int) -> None:
    """Redirects are not followed: the second address would get what is meant for the first."""
    hook.answer = lambda _headers, _body: (status, {"Location": hook.url, "Retry-After": "7"})
    with pytest.raises(SinkUnavailable, match=str(status)) as error:
        webhook(hook).publish(message())
    assert error.value.wait_s == 7
    assert len(hook.requests) == 1


@pytest.mark.parametrize("status", [400, 409, 410, 413, 422])
def test_webhook_refuses_for_good(hook: Receiver, status: int) -> None:
    hook.answer = lambda _headers, _body: (status, {})
    with pytest.raises(EventRefused, match=str(status)):
        webhook(hook).publish(message())


def test_webhook_without_an_answer_says_nothing_of_the_address(hook: Receiver) -> None:
    waiting = threading.Event()
    hook.answer = lambda _headers, _body: ((waiting.wait(5) and 204) or 204, {})
    with pytest.raises(SinkUnavailable) as error:
        webhook(hook, timeout_s=0.1).publish(message())
    waiting.set()
    assert str(error.value) == "no answer: ReadTimeout"
    with pytest.raises(SinkUnavailable) as refused:
        opened({"kind": "webhook", "url": "http://127.0.0.1:1/hidden", "secret": SECRET}).publish(
            message()
        )
    assert str(refused.value) == "no answer: ConnectionError"


# ---------------------------------------------------------------------- redis


def test_redis_gets_an_entry_with_the_id(redis_server: Server) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    sink = opened({"kind": "redis", "url": url, "stream": "one"})
    sink.publish(message(1))
    sink.publish(message(1))
    sink.publish(message(2))
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    entries = [fields for _, fields in client.xrange("one")]
    assert [entry["id"][-1] for entry in entries] == ["1", "1", "2"], "who reads drops one"
    assert json.loads(entries[0]["event"]) == message(1).event.envelope()
    assert (entries[0]["kind"], entries[0]["decision_hash"]) == ("order.submitted", "ab" * 32)
    client.set("taken", "is no stream")
    with pytest.raises(SinkUnavailable, match="WRONGTYPE"):
        opened({"kind": "redis", "url": url, "stream": "taken"}).publish(message())
    sink.close()


def test_redis_away_for_a_while(redis_server: Server) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    restarted(redis_server, opened({"kind": "redis", "url": url, "stream": "two"}))
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    assert [fields["id"][-1] for _, fields in client.xrange("two")] == ["1", "2"]


# ---------------------------------------------------------------------- nats


def stream_of(server: Server, name: str) -> list[Any]:
    """(subject, id, body) of every message of a stream."""

    async def read() -> list[Any]:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        context = client.jetstream()
        count = (await context.stream_info(name)).state.messages
        found = [await context.get_msg(name, seq=n + 1) for n in range(count)]
        await client.close()
        return [(m.subject, (m.headers or {})["Nats-Msg-Id"], m.data) for m in found]

    return asyncio.run(read())


def test_nats_drops_repetitions_by_the_id(nats_server: Server) -> None:
    url = f"nats://127.0.0.1:{nats_server.port}"
    sink = opened({"kind": "nats", "url": url, "stream": "ONE", "subject": "one.events"})
    for number in (1, 1, 2, 1):
        sink.publish(message(number))
    sink.close()
    kept = stream_of(nats_server, "ONE")
    assert [id_[-1] for _, id_, _ in kept] == ["1", "2"]
    assert kept[0][0] == "one.events.order.submitted"
    assert json.loads(kept[0][2]) == message(1).event.envelope()


def test_nats_refuses_what_is_too_large(nats_server: Server) -> None:
    url = f"nats://127.0.0.1:{nats_server.port}"
    sink = opened({"kind": "nats", "url": url, "stream": "BIG", "subject": "big"})
    with pytest.raises(EventRefused, match="larger"):
        sink.publish(message(1, detail="x" * 2_000_000))
    sink.publish(message(2))
    sink.close()
    assert len(stream_of(nats_server, "BIG")) == 1


def test_nats_away_for_a_while(nats_server: Server) -> None:
    url = f"nats://127.0.0.1:{nats_server.port}"
    sink = opened({"kind": "nats", "url": url, "stream": "TWO", "subject": "two"})
    restarted(nats_server, sink)
    sink.close()
    assert [id_[-1] for _, id_, _ in stream_of(nats_server, "TWO")] == ["1", "2"]


# ---------------------------------------------------------------------- rabbitmq


def test_rabbitmq_confirms_and_waits_for_a_queue(rabbitmq_server: Server) -> None:
    """Without a queue a message would be lost: it is not taken. A restart loses nothing."""
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq_server.port}/"
    parameters = pika.URLParameters(url)

    def ready() -> bool:
        try:
            pika.BlockingConnection(parameters).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    servers.eventually(ready, servers.START_S)
    sink = opened({"kind": "rabbitmq", "url": url})
    with pytest.raises(SinkUnavailable, match="no queue"):
        sink.publish(message(1))
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.queue_declare("q", durable=True)
    channel.queue_bind("q", "torghut.events", "order.#")
    sink.publish(message(1))
    connection.close()
    with pytest.raises(SinkUnavailable):
        opened({"kind": "rabbitmq", "url": "amqp://guest:guest@127.0.0.1:1/"}).publish(message())
    sink.publish(message(2))
    channel = pika.BlockingConnection(parameters).channel()
    got = [channel.basic_get("q", auto_ack=True) for _ in range(2)]
    assert [properties.message_id[-1] for _, properties, _ in got] == ["1", "2"]
    assert got[0][1].delivery_mode == 2 and got[0][1].type == "order.submitted"
    assert json.loads(got[0][2]) == message(1).event.envelope()
    frozen(rabbitmq_server, sink)
    sink.close()


def frozen(server: Server, sink: Publisher) -> None:
    """A server that stands still, its connections open: no sink waits for it for ever."""
    server.freeze()
    ended: list[BaseException] = []

    def publish() -> None:
        try:
            sink.publish(message(3))
        except SinkUnavailable as error:
            ended.append(error)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    thread.join(50)  # below what /healthz takes for standing still
    waits = thread.is_alive()
    server.thaw()
    thread.join()
    assert not waits and ended
    for _ in range(3):
        try:
            return sink.publish(message(3))
        except SinkUnavailable:  # noticed only by using it
            continue
    raise AssertionError("it does not come back")


@pytest.mark.parametrize("kind", ["redis", "nats"])
def test_a_frozen_server_is_given_up(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(f"{kind}_server")
    table = {"stream": "COLD", "subject": "cold"} if kind == "nats" else {"stream": "cold"}
    sink = opened({"kind": kind, "url": f"{kind}://127.0.0.1:{server.port}", **table})
    sink.publish(message(1))
    frozen(server, sink)
    sink.close()


def test_control_a_missing_server_fails_the_test() -> None:
    """One line, no skip."""
    with pytest.raises(pytest.fail.Exception, match=r"no-such-server not found.*make programs"):
        servers.program("no-such-server")
