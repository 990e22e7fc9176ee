"""Sagas in one process: forward, back, retried, waited for, claimed by one (P3, P5, P9)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.event_faults import event_faults
from tests.sagas.stage import (
    ACCOUNT,
    KIND,
    NAMES,
    QUICK,
    Stage,
    begin,
    drive,
    half_done,
    kinds_of,
    runner,
    saga,
    status,
)
from torghut.clock import utc_now
from torghut.domain.sagas import (
    Act,
    End,
    Retry,
    SagaStatus,
    StepDelayed,
    StepStatus,
    Undo,
    next_move,
)
from torghut.services import sagas
from torghut.services.sagas import Saga, SagaConflict, SagaRunner, Step
from torghut.storage import plan_reads
from torghut.storage import sagas as rows
from torghut.storage.database import Database
from torghut.storage.sagas import SagaLost

R, C = SagaStatus.RUNNING, SagaStatus.COMPENSATING
P, RUN, DONE = StepStatus.PENDING, StepStatus.RUNNING, StepStatus.DONE
FAILED, UNDOING, UNDONE = StepStatus.FAILED, StepStatus.UNDOING, StepStatus.UNDONE


@pytest.mark.parametrize(
    ("standing", "steps", "move"),
    [
        (R, [P, P], Act(0)),
        (R, [RUN, P], Act(0)),
        (R, [DONE, P], Act(1)),
        (R, [DONE, DONE], End(SagaStatus.COMPLETED)),
        (C, [DONE, FAILED, P], Undo(1)),
        (C, [DONE, UNDOING, P], Undo(1)),
        (C, [DONE, UNDONE, P], Undo(0)),
        (C, [UNDONE, UNDONE, P], End(SagaStatus.COMPENSATED)),
        (C, [P, P], End(SagaStatus.COMPENSATED)),
    ],
)
def test_what_comes_next(standing: SagaStatus, steps: list[StepStatus], move: object) -> None:
    assert next_move(standing, steps) == move


def test_pauses_double_up_to_a_cap() -> None:
    retry = Retry(first_s=1, cap_s=5)
    assert [retry.pause_s(n) for n in (1, 2, 3, 4, 50)] == [1, 2, 4, 5, 5]
    longer = Retry(first_s=1, cap_s=5, undo_cap_s=9)
    assert [longer.pause_s(9, undoing=undoing) for undoing in (False, True)] == [5, 9]
    assert retry.pause_s(9, undoing=True) == 5


def ended(database: Database, saga_id: int) -> bool:
    return status(database, saga_id) in ("completed", "compensated")


def test_forward_in_order_with_the_results_of_earlier_steps(database: Database) -> None:
    id_ = begin(database)
    drive(runner(database), lambda: ended(database, id_))
    assert half_done(database, id_) == []
    assert kinds_of(database, "saga.step_done") == list(NAMES)
    with database.transaction() as tx:
        found = plan_reads.saga(tx, id_)
    assert found is not None
    assert found["steps"][3]["result"] == {"did": "four", "after": ["one", "three", "two"]}
    assert [step["status"] for step in found["steps"]] == ["done"] * 4
    assert event_faults(database) == []


@pytest.mark.parametrize("kind", ["fails", "fails_before"])
@pytest.mark.parametrize("place", range(4))
def test_a_permanent_failure_is_not_retried_and_undone_in_reverse(
    database: Database, place: int, kind: str
) -> None:
    """The failed step is undone first: it may have done a part."""
    id_ = begin(database, **{NAMES[place]: {kind: True}})
    drive(runner(database), lambda: ended(database, id_))
    assert status(database, id_) == "compensated"
    assert half_done(database, id_) == []
    assert kinds_of(database, "saga.step_undone") == list(reversed(NAMES[: place + 1]))
    assert Stage(database).calls(NAMES[place]) == 1
    assert kinds_of(database, "saga.step_failed") == []
    assert event_faults(database) == []


@pytest.mark.parametrize("kind", ["delayed", "broken"])
def test_a_transient_failure_is_retried(database: Database, kind: str) -> None:
    """StepDelayed, and an exception that nobody expected, too: it is no failure for good."""
    id_ = begin(database, two={kind: 2})
    drive(runner(database), lambda: ended(database, id_))
    assert status(database, id_) == "completed"
    assert kinds_of(database, "saga.step_failed") == ["two", "two"]
    assert Stage(database).calls("two") == 3


def test_too_many_transient_failures_are_one_for_good(database: Database) -> None:
    id_ = begin(database, three={"delayed": 99})
    drive(runner(database), lambda: ended(database, id_))
    assert half_done(database, id_) == []
    assert status(database, id_) == "compensated"
    assert Stage(database).calls("three") == QUICK.failures_max
    with database.transaction() as tx:
        found = plan_reads.saga(tx, id_)
    assert found is not None and found["failure"] == "three: after 3 failures: not yet"


def test_a_compensation_is_retried_until_it_succeeds(database: Database) -> None:
    """More often than an action may fail."""
    id_ = begin(database, three={"fails": True}, two={"undo_delayed": 7})
    drive(runner(database), lambda: ended(database, id_))
    assert half_done(database, id_) == []
    assert Stage(database).calls("two", undoing=True) == 8


def test_a_step_that_waits_is_called_again_and_others_go_on(database: Database) -> None:
    id_ = begin(database, one={"waits": 3})
    work = runner(database)
    work.run_once(None, utc_now())
    with database.transaction() as tx:
        found = plan_reads.saga(tx, id_)
    assert found is not None and found["steps"][0]["waits_for"] == "a call more"
    drive(work, lambda: ended(database, id_))
    assert half_done(database, id_) == []
    assert kinds_of(database, "saga.step_failed") == []


def test_the_same_key_is_the_same_saga_and_another_payload_a_conflict(database: Database) -> None:
    first = begin(database, one={"waits": 1})
    assert begin(database, one={"waits": 1}) == first
    with pytest.raises(SagaConflict, match="another payload"):
        begin(database, one={"waits": 2})


def test_two_runners_never_work_at_one_saga(database: Database) -> None:
    """SKIP LOCKED and a lease: the second finds nothing until the lease has run out."""
    begin(database)
    with database.transaction() as tx:
        claimed = rows.claim(tx, ACCOUNT, [KIND], owner="a", lease_s=30, now=utc_now())
    assert claimed is not None
    assert runner(database, owner="b").run_once(None, utc_now())["advanced"] == 0
    with database.transaction() as tx:
        tx.execute(text("UPDATE sagas SET leased_until = clock_timestamp()"))
    assert runner(database, owner="b").run_once(None, utc_now())["ended"] == 1
    with pytest.raises(SagaLost), database.transaction() as tx:
        rows.fence(tx, claimed, lease_s=30)


def test_a_process_that_lost_its_saga_writes_nothing(database: Database) -> None:
    """A step that takes longer than the lease: its result is not taken, the other's is."""
    id_ = begin(database)
    late = saga(database)

    def slow(run: sagas.StepRun) -> None:
        with database.transaction() as tx:
            tx.execute(text("UPDATE sagas SET leased_until = clock_timestamp()"))
        assert runner(database, owner="other").run_once(None, utc_now())["ended"] == 1

    stolen = Saga(KIND, (Step("one", slow), *late.steps[1:]), QUICK)
    work = SagaRunner([stolen], database, ACCOUNT, "late", lease_s=30, clock=utc_now)
    assert work.run_once(None, utc_now())["ended"] == 0
    assert half_done(database, id_) == []


def test_a_step_slower_than_its_lease_counts_if_nobody_took_the_saga(database: Database) -> None:
    """Otherwise a slow step would be repeated for ever, its failures never counted: no pause, no
    end, and no other saga's turn."""
    id_ = begin(database)
    whole = saga(database)
    calls: list[bool] = []

    def slow(run: sagas.StepRun) -> None:
        with database.transaction() as tx:
            tx.execute(text("UPDATE sagas SET leased_until = clock_timestamp()"))
        calls.append(run.failures == len(calls))
        if len(calls) == 1:
            raise StepDelayed("the broker was silent for longer than the lease")
        whole.steps[0].action(run)

    slowly = Saga(KIND, (Step("one", slow, whole.steps[0].compensation), *whole.steps[1:]), QUICK)
    work = SagaRunner([slowly], database, ACCOUNT, "slow", lease_s=30, clock=utc_now)
    assert work.run_once(None, utc_now()) == {"advanced": 1, "ended": 0}
    assert kinds_of(database, "saga.step_failed") == ["one"]
    drive(work, lambda: ended(database, id_))
    assert calls == [True, True]
    assert half_done(database, id_) == []


@pytest.mark.parametrize("result", [{"a": object()}, {"a": "\0"}, {"a": float("nan")}])
def test_a_result_that_cannot_be_kept_is_a_failure(
    database: Database, result: dict[str, object]
) -> None:
    """It is counted, and one for good in the end: the saga does not stand half done for ever."""
    id_ = begin(database)
    whole = saga(database)

    def act(run: sagas.StepRun) -> dict[str, object]:
        whole.steps[1].action(run)
        return result

    broken = Step("two", act, whole.steps[1].compensation)
    kind = Saga(KIND, (whole.steps[0], broken, *whole.steps[2:]), QUICK)
    work = SagaRunner([kind], database, ACCOUNT, "test", lease_s=30, clock=utc_now)
    drive(work, lambda: ended(database, id_))
    assert status(database, id_) == "compensated"
    assert half_done(database, id_) == []
    assert Stage(database).calls("two") == QUICK.failures_max


def test_steps_of_another_version_are_left_alone(database: Database) -> None:
    id_ = begin(database)
    other = Saga(KIND, saga(database).steps[:2], QUICK)
    work = SagaRunner([other], database, ACCOUNT, "new", lease_s=30, clock=utc_now)
    assert work.run_once(None, utc_now()) == {"advanced": 1, "ended": 0}
    assert status(database, id_) == "running"
    drive(
        runner(database),
        lambda: runner(database).run_once(None, utc_now() + timedelta(hours=1))["ended"] == 1,
    )


@pytest.mark.parametrize(
    ("statement", "guard"),
    [
        ("UPDATE sagas SET status = 'completed', finalized_at = now()", "saga_guard"),
        ("UPDATE sagas SET status = 'compensated', failure = 'x', finalized_at = now()",
         "saga_guard"),
        ("UPDATE sagas SET payload = '{\"a\": 1}'", "saga_guard"),
        ("UPDATE sagas SET token = -token - 1 WHERE token > 0", "saga_guard"),
        ("UPDATE saga_steps SET status = 'pending', started_at = NULL WHERE name = 'one'",
         "saga_step_guard"),
        ("UPDATE saga_steps SET result = '{\"a\": 1}' WHERE name = 'one'", "saga_step_guard"),
        ("DELETE FROM saga_steps WHERE name = 'four'", "saga_step_kept"),
    ],
)  # fmt: skip
def test_the_database_refuses_a_half_done_end(
    database: Database, statement: str, guard: str
) -> None:
    """P5, and the control: without the guard the statement passes."""
    begin(database, two={"waits": 99})
    runner(database).run_once(None, utc_now())
    with pytest.raises(DBAPIError), database.transaction() as tx:
        tx.execute(text(statement))
    table = "saga_steps" if "step" in guard else "sagas"
    with database.transaction() as tx:
        tx.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {guard}"))
        if "token" not in statement:  # a CHECK holds that one, too
            tx.execute(text(statement))
