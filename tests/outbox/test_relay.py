"""A relay at work: failing sinks, refused events, dead and frozen processes (P9)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from tests.outbox.parts import NOW, Kept, decisions, deduped, drain, relay, stored, write
from torghut.domain.outbox import EventRefused, Message, OutboxEvent, SinkUnavailable
from torghut.services import dead_letters
from torghut.services import relay as relay_module
from torghut.storage import dead_letters as letters
from torghut.storage import outbox
from torghut.storage.database import Database
from torghut.storage.outbox import SinkState


def refusing(*steps: str) -> Callable[[Message], None]:
    def answer(message: Message) -> None:
        if message.event.payload.get("reason") in steps:
            raise EventRefused("answered 422")

    return answer


def down(_: Message) -> None:
    raise SinkUnavailable("answered 503")


def written(database: Database, *steps: str, hash_: str | None = None) -> None:
    with database.transaction() as tx:
        write(tx, hash_, *steps)


def state(database: Database, sink: str = "test") -> SinkState:
    with database.transaction() as tx:
        (found,) = outbox.states(tx, sink)
    return found


def sql(database: Database, query: str) -> Any:
    with database.transaction() as tx:
        result = tx.execute(text(query))
        return result.all() if result.returns_rows else None


def rested(database: Database) -> None:
    """The pause after a failure is over."""
    sql(database, "UPDATE outbox_cursors SET retry_at = NULL")


# ---------------------------------------------------------------------- a sink that fails


def test_a_sink_that_is_down_misses_nothing_and_holds_up_nobody(database: Database) -> None:
    written(database, "a", "b")
    sinks = {"up": Kept(), "down": Kept(down)}
    relays = {name: relay(database, sink, name) for name, sink in sinks.items()}
    for one in relays.values():
        drain(one)
    assert sinks["up"].steps() == ["a", "b"]
    assert (state(database, "down").lag, state(database, "down").oldest_at) == (2, NOW)
    assert state(database, "down").last_error == "answered 503"
    assert drain(relays["down"]) == {}, "it rests"
    sinks["down"].answer = lambda _: None
    rested(database)
    drain(relays["down"])
    assert sinks["down"].steps() == ["a", "b"]
    now = state(database, "down")
    assert (now.lag, now.failures, now.delivered, now.last_error) == (0, 0, 2, "answered 503")


def test_pauses_double_with_jitter_up_to_a_minute(database: Database) -> None:
    written(database, "a")
    one = relay(database, Kept(down), rng=random.Random(7))
    waits = []
    for _ in range(9):
        one.run_once(NOW)
        rows = sql(
            database, "SELECT extract(epoch FROM retry_at - clock_timestamp()) FROM outbox_cursors"
        )
        waits.append(float(rows[0][0]))
        rested(database)
    for wait, ceiling in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert ceiling / 2 - 1 < wait <= ceiling
    assert len({round(wait, 2) for wait in waits[6:]}) == 3, "no two alike"


def test_a_sink_may_ask_for_a_longer_pause(database: Database) -> None:
    def busy(_: Message) -> None:
        raise SinkUnavailable("answered 429", wait_s=30)

    written(database, "a")
    relay(database, Kept(busy)).run_once(NOW)
    rows = sql(
        database, "SELECT retry_at > clock_timestamp() + interval '25 s' FROM outbox_cursors"
    )
    assert rows[0][0]


def test_what_was_taken_before_the_failure_is_not_given_again(database: Database) -> None:
    def failing_at_c(message: Message) -> None:
        if message.event.payload.get("reason") == "c":
            raise SinkUnavailable("answered 500")

    written(database, *"abcd")
    sink = Kept(failing_at_c)
    one = relay(database, sink)
    drain(one)
    sink.answer = lambda _: None
    rested(database)
    drain(one)
    assert sink.steps() == [*"abcd"]


def test_a_sink_that_breaks_in_a_way_nobody_knows_is_tried_again(database: Database) -> None:
    """An error of its client is no reason to bury an event."""

    def broken(_: Message) -> None:
        raise KeyError("somewhere deep in a client")

    written(database, "a")
    sink = Kept(broken)
    one = relay(database, sink)
    drain(one)
    assert (state(database).last_error, state(database).dead) == ("unexpected KeyError", 0)
    sink.answer = lambda _: None
    rested(database)
    drain(one)
    assert sink.steps() == ["a"]


def test_secrets_of_a_sink_are_never_in_its_errors(database: Database) -> None:
    def chatty(_: Message) -> None:
        raise SinkUnavailable("cannot reach https://u:pass-word@host/hidden\nmore")

    written(database, "a")
    relay(database, Kept(chatty), secrets=["pass-word", "/hidden"]).run_once(NOW)
    assert state(database).last_error == "cannot reach https://u:[secret]@host[secret]"


# ---------------------------------------------------------------------- dead letters


def test_a_refused_event_is_a_dead_letter_and_the_others_flow(database: Database) -> None:
    """Later events of the same decision, too: they do not wait for it."""
    (hash_,) = decisions(database, 1)
    written(database, "a", "poison", "b", hash_=hash_)
    sink = Kept(refusing("poison"))
    one = relay(database, sink)
    assert drain(one)["dead"] == 1
    assert sink.steps() == ["a", "b"]
    with database.transaction() as tx:
        (letter,) = letters.listed(tx, sink=None, settled=False, limit=10)
    assert (letter.sink, letter.error, letter.status) == ("test", "answered 422", "dead")
    assert (letter.decision_hash, letter.refusals) == (hash_, 1)
    drain(one)
    assert sink.steps() == ["a", "b"], "it is not tried again by itself"


def test_what_cannot_be_written_as_json_is_refused() -> None:
    event = OutboxEvent(
        seq=1, event_id="x", kind="k", schema_version=1, occurred_at=NOW, account=None,
        decision_hash=None, actor="a", payload={"qty": float("nan")},
    )  # fmt: skip
    with pytest.raises(EventRefused, match="JSON"):
        Message.of(event)


def test_retry_and_drop_are_events_with_who_and_why(database: Database) -> None:
    written(database, "poison 1", "poison 2", "poison 3")
    sink = Kept(refusing("poison 1", "poison 2", "poison 3"))
    one = relay(database, sink)
    drain(one)
    act = {"sink": None, "actor": "cli:me", "reason": "mended", "now": NOW}
    dead_letters.retry(database, [1], **act)
    dead_letters.drop(database, [2], **act)
    sink.answer = refusing("poison 3")
    drain(one)
    assert sink.steps() == ["poison 1", "mended", "mended"]
    with database.transaction() as tx:
        found = letters.listed(tx, sink="test", settled=True, limit=10)
    assert [(one.dead_letter_id, one.status) for one in found] == [
        (3, "dead"), (2, "dropped"), (1, "delivered"),
    ]  # fmt: skip
    kinds = [m.event.kind for m in sink.messages]
    assert kinds[1:] == ["dead_letter.retried", "dead_letter.dropped"]
    told = sink.messages[1].event
    assert told.actor == "cli:me"
    assert told.payload == {
        "dead_letter_id": 1, "sink": "test", "event_id": sink.ids[0],
        "event_kind": "order.submitted", "reason": "mended",
    }  # fmt: skip


def test_a_retried_letter_that_is_refused_again_is_dead_again(database: Database) -> None:
    written(database, "poison")
    sink = Kept(refusing("poison"))
    one = relay(database, sink)
    drain(one)
    dead_letters.retry(database, None, sink="test", actor="cli:me", reason="try", now=NOW)
    drain(one)
    with database.transaction() as tx:
        (letter,) = letters.listed(tx, sink="test", settled=False, limit=10)
    assert (letter.status, letter.refusals) == ("dead", 2)


def test_what_cannot_be_settled(database: Database) -> None:
    act = {"sink": None, "actor": "cli:me", "now": NOW}
    with pytest.raises(dead_letters.NothingSettled, match="7"):
        dead_letters.retry(database, [7], reason="why", **act)
    with pytest.raises(dead_letters.NoReason):
        dead_letters.drop(database, None, reason="  ", **act)
    assert stored(database) == []


# ---------------------------------------------------------------------- replicas


def test_two_replicas_never_work_on_one_page(database: Database) -> None:
    """The second finds the cursor taken; control: when the lease has run out it gets it."""
    written(database, "a")
    second = relay(database, other := Kept(), owner="two")

    def meanwhile(_: Message) -> None:
        assert second.run_once(NOW) == {}
        sql(database, "UPDATE outbox_cursors SET lease_until = clock_timestamp()")
        assert second.run_once(NOW)["delivered"] == 1

    first = relay(database, sink := Kept(meanwhile))
    assert first.run_once(NOW) == {"overtaken": 1}, "its position is not stored over the other's"
    assert sink.steps() == other.steps() == ["a"]
    assert sink.ids == other.ids, "the repetition has the same id"
    assert state(database).delivered == 1


def test_a_frozen_replica_that_wakes_up_repeats_and_turns_nothing_around(
    database: Database,
) -> None:
    """Story 36: a lock shorter than the work it guards. Arrivals of both, in their order."""
    (hash_,) = decisions(database, 1)
    written(database, *"abcdef", hash_=hash_)
    arrived: list[str] = []

    def keep(message: Message) -> None:
        arrived.append(message.event.event_id)

    second = relay(database, Kept(keep), owner="two")

    def freezing(message: Message) -> None:
        if message.event.payload.get("reason") == "c":
            sql(database, "UPDATE outbox_cursors SET lease_until = clock_timestamp()")
            second.run_once(NOW)
            written(database, "g", hash_=hash_)
            second.run_once(NOW)
        keep(message)

    relay(database, Kept(freezing)).run_once(NOW)
    drain(second)
    events = {id_: seq for seq, id_, _ in stored(database)}
    assert len(arrived) > len(events)
    assert [events[id_] for id_ in deduped(arrived)] == sorted(events.values())


def test_a_page_ends_before_its_lease_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(database, *"abc")
    monkeypatch.setattr(relay_module, "WORKING_SHARE", -1.0)
    sink = Kept()
    one = relay(database, sink)
    assert one.run_once(NOW)["delivered"] == 0
    monkeypatch.undo()
    drain(one)
    assert sink.steps() == [*"abc"]


def test_a_halted_relay_stores_how_far_it_came(database: Database) -> None:
    written(database, *"abc")
    sink = Kept(lambda message: one.halt() if message.event.payload.get("reason") == "b" else None)
    one = relay(database, sink)
    one.run_once(NOW)
    assert (sink.steps(), state(database).lag) == (["a", "b"], 1)


# ---------------------------------------------------------------------- what it costs, and says


def test_an_idle_relay_writes_nothing(database: Database) -> None:
    written(database, "a")
    one = relay(database, Kept())
    drain(one)
    drain(one)
    before = sql(database, "SELECT xmin::text, lease_token FROM outbox_cursors")
    for _ in range(3):
        assert one.run_once(NOW) == {}
    assert sql(database, "SELECT xmin::text, lease_token FROM outbox_cursors") == before


def test_pages_of_a_long_backlog_are_found_by_an_index(database: Database) -> None:
    """Story 43: neither a page in the middle of a backlog nor an idle look reads all there is."""
    sql(
        database,
        """INSERT INTO events (kind, actor, payload, created_at)
        SELECT 'order.submitted', 'test', '{}', now() FROM generate_series(1, 20000)""",
    )
    sql(database, "ANALYZE events")
    one = relay(database, Kept())
    one.run_once(NOW)
    with database.transaction() as tx:
        cursor = outbox.claim(tx, "test", "one", ttl_s=30)
        assert cursor is not None
        before = _read(tx)
        assert len(outbox.page(tx, cursor, limit=200)) == 200
        assert _read(tx) - before < 1_000
    while not _passed_by(database):  # transactions of other databases are running ones, too
        written(database, "a")
        drain(one)
    with database.transaction() as tx:
        before = _read(tx)
        assert not outbox.has_work(tx, "test", "one")
        assert _read(tx) - before < 1_000


def _passed_by(database: Database) -> bool:
    """True once everything that the cursor's base has not seen began after the backlog."""
    query = """SELECT pg_snapshot_xmin(base) >
      (SELECT xact_id FROM events ORDER BY event_seq LIMIT 1) FROM outbox_cursors"""
    return bool(sql(database, query)[0][0])


def _read(tx: Any) -> int:
    """Rows of `events` that this transaction's session has looked at so far."""
    return int(
        tx.execute(
            text("""SELECT coalesce(pg_stat_get_xact_tuples_returned(c.oid), 0)
              + coalesce(pg_stat_get_xact_tuples_fetched(c.oid), 0)
              + coalesce((SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid))
                 FROM pg_index i WHERE i.indrelid = c.oid), 0)
            FROM pg_class c WHERE c.relname = 'events'""")
        ).scalar_one()
    )


def test_metrics(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MEASURE_S", 0.0)
    written(database, "a", "poison", "b")

    def failing_at_b(message: Message) -> None:
        refusing("poison")(message)
        if message.event.payload.get("reason") == "b":
            raise SinkUnavailable("answered 500")

    one = relay(database, Kept(failing_at_b), "measured")
    drain(one)
    names = ("lag_events", "delivered_total", "failures_total", "refused_total")
    found = [REGISTRY.get_sample_value(f"torghut_outbox_{n}", {"sink": "measured"}) for n in names]
    assert found == [1, 1, 1, 1]
    assert REGISTRY.get_sample_value("torghut_dead_letters", {"sink": "measured"}) == 1
