"""The settler: doubt ends by asking, and only a definite answer ends it (P4)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.services.rig import Rig, eventually

MakeRig = Callable[..., Rig]
NEVER = {"count": None, "probability": 1.0}


def doubtful(rig: Rig, kind: str = "accept_then_reset", **over: object) -> str:
    rig.fault(kind)
    hash_ = rig.send(**over)
    rig.execute()
    assert rig.status(hash_)[0] == "in_doubt"
    rig.time.pass_s(1)
    return hash_


def test_found(rig: Rig) -> None:
    hash_ = doubtful(rig)
    assert rig.settle() == {"asked": 1, "settled": 1}
    assert rig.status(hash_) == ("submitted", "recovered")
    assert rig.sql("SELECT origin FROM executions") == [("recovered",)]
    assert rig.events(hash_)[-2:] == ["order.in_doubt", "order.recovered"]
    assert rig.settle() == {}


def test_absent_needs_the_grace_and_three_misses(make_rig: MakeRig) -> None:
    rig = make_rig(absence_grace_s=30)
    hash_ = doubtful(rig, "reset_before")
    for _ in range(5):  # five misses, all within the grace
        rig.settle()
        rig.time.pass_s(5)
    assert rig.status(hash_)[0] == "in_doubt"
    assert rig.row(hash_).lookup_misses >= 3
    rig.time.pass_s(20)
    rig.settle()
    assert rig.status(hash_) == ("approved", "proven_absent")
    assert rig.row(hash_).in_doubt_since is None


def test_the_grace_alone_is_not_enough(make_rig: MakeRig) -> None:
    rig = make_rig(absence_grace_s=30)
    hash_ = doubtful(rig, "reset_before")
    rig.time.pass_s(1000)
    for expected in ("in_doubt", "in_doubt", "approved"):
        rig.settle()
        assert rig.status(hash_)[0] == expected
        rig.time.pass_s(20)


@pytest.mark.parametrize("kind", ["refuse_5xx", "reset_before", "garbage_body", "rate_limit"])
def test_story_22_unanswered_never_counts(rig: Rig, kind: str) -> None:
    """An hour of failing questions proves nothing; the first real answer settles it."""
    hash_ = doubtful(rig)
    rig.fault(kind, "by_client_order_id", **NEVER)
    for _ in range(12):
        rig.settle()
        rig.time.pass_s(300)
    row = rig.row(hash_)
    assert (row.status, row.lookups >= 12, row.lookup_misses) == ("in_doubt", True, 0)
    rig.clear_faults()
    rig.settle()
    assert rig.status(hash_) == ("submitted", "recovered")
    assert rig.posts(hash_) == 1


def test_late_visibility(make_rig: MakeRig) -> None:
    """The order exists and is not shown for a while: misses within the grace do no harm."""
    rig = make_rig(absence_grace_s=30)
    rig.fault("late_visibility", visible_after_s=0.3)
    submit = rig.broker.submit

    def lose(order, client_order_id):  # and the answer is lost
        from torghut.ports import Answer, Outcome

        submit(order, client_order_id)
        return Answer(outcome=Outcome.IN_DOUBT)

    rig.placer._broker.submit = lose  # type: ignore[method-assign]
    hash_ = rig.send()
    rig.execute()

    def found() -> bool:
        rig.settle()
        rig.time.pass_s(0.5)
        return rig.status(hash_) == ("submitted", "recovered")

    eventually(found, 10)
    assert "absent" in {outcome for _, outcome in rig.attempts(hash_)}
    assert rig.posts(hash_) == 1


def test_refused_and_then_unanswered_is_rejected_only_when_absent(rig: Rig) -> None:
    """The refusal stands, its lookup failed: settled as rejected by absence, never sent again."""
    rig.fault("reject", status=403, code=40310000, message="cost basis")
    rig.fault("refuse_5xx", "by_client_order_id")
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_) == ("in_doubt", "no_definite_answer")
    rig.drive([hash_], step_s=15)
    assert rig.status(hash_) == ("rejected", "refused_by_broker")
    assert rig.posts(hash_) == 1


def test_absent_and_out_of_time_expires(rig: Rig) -> None:
    expires = datetime.fromtimestamp(rig.time().timestamp() + 60, UTC).isoformat()
    hash_ = doubtful(rig, "reset_before", expires_at=expires)
    rig.drive([hash_], step_s=25)
    assert rig.status(hash_) == ("expired", "out_of_time")
    assert (rig.posts(hash_), rig.count("executions")) == (1, 0)


def test_found_after_its_time_is_submitted(rig: Rig) -> None:
    """Story 2: an order that lives is never rejected or expired for being old."""
    expires = datetime.fromtimestamp(rig.time().timestamp() + 60, UTC).isoformat()
    hash_ = doubtful(rig, expires_at=expires)
    rig.time.pass_s(10_000)
    rig.execute()
    rig.settle()
    assert rig.status(hash_) == ("submitted", "recovered")


def test_bounded_batches_oldest_first(rig: Rig) -> None:
    rig.fault("accept_then_reset", count=40)
    hashes = rig.send_many(40, qty="1")
    rig.executor._settings = rig.settings.model_copy(update={"submit_threads": 64})
    rig.execute()
    rig.time.pass_s(5)
    assert rig.settle() == {"asked": 16, "settled": 16}
    done = [rig.status(h)[0] == "submitted" for h in hashes]
    assert done.count(True) == 16
    assert rig.settle()["asked"] == 16
    assert rig.settle()["asked"] == 8


def test_what_another_writer_settled_first_is_no_error(rig: Rig) -> None:
    """The reconciler found it between the question and the answer: zero rows, nothing twice."""
    hash_ = doubtful(rig)
    ask = rig.placer.ask

    def reconciled(row, attempt_no):
        answer = ask(row, attempt_no)
        rig.reconcile()
        return answer

    rig.placer.ask = reconciled  # type: ignore[method-assign]
    assert rig.settle() == {"asked": 1, "settled": 0}
    assert rig.row(hash_).status in ("submitted", "closed")
    assert rig.events(hash_).count("order.recovered") == 1
    assert rig.sql("SELECT origin FROM executions") == [("reconciled",)]
