"""Intake: one row for one decision, whoever sends it and however often; no guesses (P1, P2, P4)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.factories import decision
from tests.services.pg_proxy import CommitProxy
from tests.services.rig import Rig
from torghut.domain.errors import DatabaseUnavailable
from torghut.services.intake import IntakeDesk
from torghut.storage.rows import IntakeResult

CREATED, REPLAYED, CONFLICT = IntakeResult.CREATED, IntakeResult.REPLAYED, IntakeResult.CONFLICT


def results(rig: Rig, *batch: object) -> list[IntakeResult]:
    return [answer.result for answer in rig.desk.accept(batch, source="test")]  # type: ignore[arg-type]


def test_created_replayed_conflict(rig: Rig) -> None:
    assert results(rig, decision()) == [CREATED]
    assert results(rig, decision(qty="10.00")) == [REPLAYED]  # the same value
    (answer,) = rig.desk.accept([decision(qty="11", time_in_force="gtc")], source="test")
    assert (answer.result, answer.differing) == (CONFLICT, ("qty", "time_in_force"))
    assert (rig.count("trade_decisions"), rig.count("events")) == (1, 1)
    assert rig.sql("SELECT qty FROM trade_decisions") == [(10,)]  # nothing changed


def test_telemetry_is_no_difference(rig: Rig) -> None:
    """Story 3: what does not shape the order is neither identity nor payload."""
    assert results(rig, decision(correlation_id="a"), decision(correlation_id="b")) == [
        CREATED, REPLAYED,
    ]  # fmt: skip


def test_a_replay_says_where_the_decision_stands(rig: Rig) -> None:
    hash_ = rig.send()
    rig.execute()
    (answer,) = rig.desk.accept([decision()], source="test")
    assert (answer.decision_hash, answer.status.value) == (hash_, "submitted")
    rig.execute()
    assert rig.posts(hash_) == 1


def test_a_batch_with_duplicates_in_it(rig: Rig) -> None:
    one, same, other = decision(), decision(), decision(qty="11")
    two = decision(intent="two")
    assert results(rig, one, two, same, other, two) == [
        CREATED, CREATED, REPLAYED, CONFLICT, REPLAYED,
    ]  # fmt: skip
    assert rig.count("trade_decisions") == 2


def test_batches_larger_than_one_insert_and_answers_in_order(rig: Rig) -> None:
    batch = [decision(intent=f"{n % 1200}") for n in range(1500)]
    answers = rig.desk.accept(batch, source="test")
    assert [a.decision_hash for a in answers] == [d.decision_hash for d in batch]
    assert Counter(a.result for a in answers) == {CREATED: 1200, REPLAYED: 300}
    assert rig.count("events") == 1200


def test_story_37_one_decision_from_64_threads(rig: Rig) -> None:
    start = threading.Barrier(64)

    def send(_: int) -> IntakeResult:
        mine = decision()
        start.wait(10)
        return results(rig, mine)[0]

    with ThreadPoolExecutor(64) as pool:
        answers = Counter(pool.map(send, range(64)))
    assert answers == {CREATED: 1, REPLAYED: 63}
    assert (rig.count("trade_decisions"), rig.count("events")) == (1, 1)


def test_two_batches_that_cross_do_not_deadlock(rig: Rig) -> None:
    """The same decisions in opposite order, at the same time, many times."""
    for turn in range(10):
        batch = [decision(intent=f"{turn}-{n}") for n in range(40)]
        start = threading.Barrier(2)

        def send(mine: list[object], start: threading.Barrier = start) -> list[IntakeResult]:
            start.wait(10)
            return results(rig, *mine)

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(send, [batch, batch[::-1]])
        assert Counter(first + second) == {CREATED: 40, REPLAYED: 40}


# ---------------------------------------------------------------------- commit in doubt


@pytest.fixture
def proxy(database_url: str) -> Iterator[CommitProxy]:
    with CommitProxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def away(make_rig: Callable[..., Rig], proxy: CommitProxy) -> Rig:
    """A rig whose intake reaches Postgres through the proxy."""
    rig = make_rig()
    far = make_rig(proxy.url)
    rig.desk = IntakeDesk(far.database, rig.time, lambda _: None)
    return rig


@pytest.mark.parametrize(
    ("fates", "result"),
    [
        (["lose"], REPLAYED),  # it was committed: its own row is found again
        (["drop"], CREATED),  # it was not: created now
        (["drop", "lose"], REPLAYED),
        (["lose", "lose"], REPLAYED),
        (["drop", "drop"], CREATED),
    ],
)
def test_a_commit_in_doubt_is_read_again(
    away: Rig, proxy: CommitProxy, fates: list[str], result: IntakeResult
) -> None:
    """Neither "committed" nor "not committed" is assumed; one row and one event at the end."""
    proxy.fates[:] = fates
    assert results(away, decision()) == [result]
    assert proxy.fates == []
    assert (away.count("trade_decisions"), away.count("events")) == (1, 1)


@pytest.mark.parametrize(("fate", "rows"), [("lose", 1), ("drop", 0)])
def test_in_doubt_to_the_end_is_an_error_and_never_an_answer(
    away: Rig, proxy: CommitProxy, fate: str, rows: int
) -> None:
    proxy.fates[:] = [fate] * 3
    with pytest.raises(DatabaseUnavailable):
        results(away, decision())
    assert away.count("trade_decisions") == rows
    assert results(away, decision()) == [REPLAYED if rows else CREATED]  # the sender tries again
    assert (away.count("trade_decisions"), away.count("events")) == (1, 1)


def test_a_backend_killed_in_the_middle(rig: Rig) -> None:
    """pg_terminate_backend between insert and COMMIT: nothing was there, and it is done again."""
    killed: list[int] = []
    commit = rig.database._commit

    def kill_first(connection):
        from sqlalchemy import text

        if not killed:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            killed.append(pid)
            rig.sql("SELECT pg_terminate_backend(:pid, 5000)", pid=pid)
        commit(connection)

    rig.database._commit = kill_first  # type: ignore[method-assign]
    assert results(rig, decision()) == [CREATED]
    assert len(killed) == 1
    assert (rig.count("trade_decisions"), rig.count("events")) == (1, 1)
