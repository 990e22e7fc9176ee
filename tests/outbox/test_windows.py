"""What a relay is given next: nothing is skipped and the order holds, whoever commits when (P9).

The controls are the two readers that suggest themselves: after the last number that was seen, and
in the order of transaction numbers below the oldest running one. On the same histories the first
skips an event and the second turns two around.
"""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import text

from tests.outbox.parts import (
    NOW,
    Kept,
    Writer,
    decisions,
    drain,
    faults,
    lock,
    relay,
    write,
)
from torghut.domain.outbox import SinkUnavailable
from torghut.services import relay as relay_module
from torghut.storage import outbox
from torghut.storage.database import Database


class AfterTheLastNumber:
    """Control: the reader that skips."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last = 0

    def read(self) -> list[str]:
        """Steps that are new to it."""
        query = "SELECT event_seq, payload FROM events WHERE event_seq > :last ORDER BY event_seq"
        with self._database.transaction() as tx:
            rows = list(tx.execute(text(query), {"last": self._last}))
        self._last = max([self._last, *(row[0] for row in rows)])
        return [row[1]["reason"] for row in rows if "reason" in row[1]]


class BelowTheOldestRunning:
    """Control: the reader that never skips, waits for everybody, and turns steps around."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: tuple[Any, int] = ("0", 0)

    def read(self) -> list[str]:
        """Steps that are new to it."""
        query = """SELECT xact_id::text, event_seq, payload FROM events
            WHERE (xact_id, event_seq) > (CAST(:xid AS xid8), :seq)
              AND xact_id < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY xact_id, event_seq"""
        with self._database.transaction() as tx:
            rows = list(tx.execute(text(query), {"xid": self._last[0], "seq": self._last[1]}))
        if rows:
            self._last = (rows[-1][0], rows[-1][1])
        return [row[2]["reason"] for row in rows if "reason" in row[2]]


def test_what_is_committed_late_is_not_skipped(database: Database) -> None:
    sink, naive = Kept(), AfterTheLastNumber(database)
    one = relay(database, sink)
    with database.transaction() as late:
        write(late, None, "first number, last commit")
        with database.transaction() as tx:
            write(tx, None, "second number, first commit")
        drain(one)
        assert sink.steps() == naive.read() == ["second number, first commit"]
    drain(one)
    assert sink.steps()[1:] == ["first number, last commit"]
    assert naive.read() == [], "control: it should have skipped this"


def test_the_order_of_a_decision_holds_when_the_second_step_has_the_smaller_transaction_number(
    database: Database,
) -> None:
    """B drew its transaction number first, then waited for the row that A had locked."""
    (hash_,) = decisions(database, 1)
    sink, by_number = Kept(), BelowTheOldestRunning(database)
    one = relay(database, sink)
    with ExitStack() as stack:
        b = stack.enter_context(database.transaction())
        write(b, None, "b's number is drawn")
        with database.transaction() as unrelated:
            write(unrelated, None, "unrelated")
            with database.transaction() as a:
                lock(a, hash_)
                write(a, hash_, "a")
            drain(one)
            lock(b, hash_)
            write(b, hash_, "b")
            stack.close()
            drain(one)
            assert sink.steps() == ["a", "b's number is drawn", "b"], "nobody waits for `unrelated`"
            seen = by_number.read()
        while not {"a", "b"} <= set(seen):  # transactions of other databases hold it up, too
            seen += by_number.read()
        drain(one)
    assert sink.steps()[3:] == ["unrelated"]
    ordered = [step for step in seen if step in ("a", "b")]
    assert ordered == ["b", "a"], "control: it should have turned them around"


def test_a_window_is_worked_off_in_pages_and_late_ones_come_in_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "PAGE_MAX", 2)
    sink = Kept()
    one = relay(database, sink)
    with database.transaction() as late:
        write(late, None, "late")
        with database.transaction() as tx:
            write(tx, None, *"abcde")
        one.run_once(NOW)
        assert sink.steps() == ["a", "b"]
        with database.transaction() as tx:
            write(tx, None, "f")
    drain(one)
    assert sink.steps() == [*"abcde", "late", "f"]


def test_rolled_back_is_never_given(database: Database) -> None:
    sink = Kept()
    with pytest.raises(ZeroDivisionError), database.transaction() as tx:
        write(tx, None, "undone")
        raise ZeroDivisionError
    with database.transaction() as tx:
        nested = tx.begin_nested()
        write(tx, None, "undone, too")
        nested.rollback()
        with tx.begin_nested():
            write(tx, None, "within a savepoint")
    drain(relay(database, sink))
    assert sink.steps() == ["within a savepoint"]


def test_a_sink_may_begin_now(database: Database) -> None:
    """`start = "now"`: what is committed later is given, even if it was written before."""
    with database.transaction() as tx:
        write(tx, None, "old")
    sink = Kept()
    one = relay(database, sink, from_now=True)
    with database.transaction() as late:
        write(late, None, "under way")
        drain(one)
    drain(one)
    assert sink.steps() == ["under way"]


def test_writers_with_long_transactions_that_commit_out_of_order(database: Database) -> None:
    """8 writers, 2 replicas that stop for no reason: once each after deduping, in order."""
    hashes = decisions(database, 6)
    done = threading.Event()
    writers = [Writer(database, hashes, seed) for seed in range(8)]
    sinks = [Kept(Hiccups(seed)) for seed in range(2)]
    relays = [
        relay(database, sink, owner=f"replica {n}", lease_ttl_s=0.05, rng=random.Random(n))
        for n, sink in enumerate(sinks)
    ]
    arrived: list[str] = []
    guard = threading.Lock()
    naive = AfterTheLastNumber(database)
    naive_read: list[str] = []

    def serve(n: int) -> None:
        while not done.is_set():
            before = len(sinks[n].messages)
            with guard:  # arrivals at one consumer are in one order
                relays[n].run_once(NOW)
                arrived.extend(sinks[n].ids[before:])
                if n == 0:
                    naive_read.extend(naive.read())

    threads = [threading.Thread(target=serve, args=(n,)) for n in range(2)]
    for thread in [*threads, *writers]:
        thread.start()
    for writer in writers:
        writer.join()
    done.set()
    for thread in threads:
        thread.join()
    last = Kept()
    forget_rest(database)
    drain(relay(database, last, owner="last"))
    arrived += last.ids
    naive_read += naive.read()
    order_faults = faults(database, arrived)
    assert order_faults == []
    steps = [step for writer in writers for step in writer.committed]
    assert len(naive_read) < len(steps), "control: nothing was committed late"


def forget_rest(database: Database) -> None:
    """The pauses after failures and the leases are over."""
    with database.transaction() as tx:
        tx.execute(text("UPDATE outbox_cursors SET retry_at = NULL, lease_until = NULL"))


class Hiccups:
    """Fails now and then, so that pages end anywhere."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __call__(self, _: object) -> None:
        if self._rng.random() < 0.002:
            raise SinkUnavailable("hiccup")


# ---------------------------------------------------------------------- restored from a dump


def elsewhere(database: Database, number: int) -> None:
    """As after a restore: the transaction numbers are of another cluster, far ahead of ours."""
    with database.transaction() as tx:
        tx.execute(text("ALTER TABLE events DISABLE TRIGGER event_append_only"))
        tx.execute(
            text("UPDATE events SET xact_id = (xact_id::text::bigint + :n)::text::xid8"),
            {"n": number},
        )
        tx.execute(text("ALTER TABLE events ENABLE TRIGGER event_append_only"))
        tx.execute(
            text("""UPDATE outbox_cursors SET cluster = cluster + 1,
            base = ((pg_snapshot_xmin(base)::text::bigint + :n)::text || ':'
              || (pg_snapshot_xmax(base)::text::bigint + :n)::text || ':')::pg_snapshot"""),
            {"n": number},
        )


@pytest.mark.parametrize("noticed", [True, False])
def test_a_dump_restored_into_another_cluster_loses_nothing(
    database: Database, noticed: bool
) -> None:
    """What the sink had not got and what is written since. Control: without looking, it is lost."""
    sink = Kept()
    one = relay(database, sink)
    with database.transaction() as tx:
        write(tx, None, "given")
    drain(one)
    with database.transaction() as tx:
        tx.execute(text("SELECT pg_current_xact_id()"))
    drain(one)
    with database.transaction() as tx:
        write(tx, None, "not given")
    elsewhere(database, 1_000_000)
    with database.transaction() as tx:
        adopted = outbox.adopt_cursors(tx) if noticed else []
    assert adopted == (["test"] if noticed else [])
    with database.transaction() as tx:
        write(tx, None, "written since")
    sink.messages.clear()
    drain(relay(database, sink))
    assert sink.steps() == (["not given", "written since"] if noticed else [])
    with database.transaction() as tx:
        (state,) = outbox.states(tx)
        assert outbox.adopt_cursors(tx) == ([] if noticed else ["test"])
    assert not noticed or state.lag == 0
