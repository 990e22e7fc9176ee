"""One writer per account: a stale owner writes nothing, and the next one settles what it left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
from sqlalchemy import event

from tests.services.rig import ACCOUNT, Rig
from torghut import reconciling
from torghut.storage import leases
from torghut.storage.leases import LeaseLost

MakeRig = Callable[..., Rig]
FENCED = ("executor", "settler", "reconciler", "fill_ledger")


def snapshot(rig: Rig) -> list[object]:
    """Every row of every table that an owner writes, with the transaction that wrote it."""
    rows: list[object] = []
    for table in ("trade_decisions", "risk_verdicts", "submission_attempts", "executions",
                  "execution_events", "fills", "positions", "events", "discrepancies"):  # fmt: skip
        rows += [(table, *row) for row in rig.sql(f"SELECT xmin::text, t::text FROM {table} t")]
    return rows


def test_a_stale_owner_claims_nothing(rig: Rig) -> None:
    hash_ = rig.send()
    stale = rig.lease
    rig.lease = rig.take_lease("the next")
    before = snapshot(rig)
    with pytest.raises(LeaseLost):
        rig.executor.run_once(stale, rig.time())
    assert snapshot(rig) == before
    assert (rig.posts(), rig.executor.in_flight) == (0, 0)
    rig.execute()
    assert rig.status(hash_)[0] == "submitted"


def test_a_stale_owner_records_nothing(rig: Rig) -> None:
    """It posted, lost the lease, and comes back with the answer: the next owner looks it up."""
    hash_ = rig.send()
    rig.execute(1)
    stale, old = rig.lease, rig.executor
    rig.lease, rig.executor = rig.take_lease("the next"), rig.new_executor()
    before = snapshot(rig)
    with pytest.raises(LeaseLost):
        old.run_once(stale, rig.time())
    assert snapshot(rig) == before
    assert old.in_flight == 0
    rig.drive([hash_])
    assert rig.status(hash_) == ("submitted", "recovered")
    assert rig.posts(hash_) == 1


@pytest.mark.parametrize("service", ["settler", "reconciler"])
def test_a_stale_owner_settles_nothing(rig: Rig, service: str) -> None:
    rig.fault("accept_then_reset")
    hash_ = rig.send()
    rig.execute()
    rig.time.pass_s(1)
    stale = rig.lease
    rig.take_lease("the next")
    before = snapshot(rig)
    with pytest.raises(LeaseLost):
        getattr(rig, service).run_once(stale, rig.time())
    assert snapshot(rig) == before
    assert rig.status(hash_)[0] == "in_doubt"


def test_control_without_the_fence_the_stale_owner_writes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same story as above with `fence` taken out of all services: now it does write."""
    for module in FENCED:
        monkeypatch.setattr(f"torghut.services.{module}.fence", lambda *_, **__: None)
    rig.send()
    stale = rig.lease
    rig.take_lease("the next")
    before = snapshot(rig)
    rig.executor.run_once(stale, rig.time())
    assert snapshot(rig) != before
    assert rig.posts() == 1


def test_the_database_refuses_an_older_token_even_then(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fence, but after the next owner has touched the row: zero rows, no error."""
    for module in FENCED:
        monkeypatch.setattr(f"torghut.services.{module}.fence", lambda *_, **__: None)
    hash_ = rig.send()
    rig.execute(1)
    stale, old = rig.lease, rig.executor
    rig.lease, rig.executor = rig.take_lease("the next"), rig.new_executor()
    rig.execute(1)
    assert rig.status(hash_) == ("in_doubt", "owner_lost")
    old.run_once(stale, rig.time(), claiming=False)
    assert rig.status(hash_) == ("in_doubt", "owner_lost")
    assert rig.row(hash_).fencing_token == rig.lease.fencing_token


def test_a_lease_about_to_run_out_claims_nothing(rig: Rig) -> None:
    """Less than a fifth of it is left: too little for a claim; an outcome is still written."""
    first = rig.send(intent="a")
    rig.execute(1)
    second = rig.send(intent="b")
    rig.sql("UPDATE account_leases SET expires_at = clock_timestamp() + interval '60 s'")
    with pytest.raises(LeaseLost):
        rig.execute(1)
    assert rig.status(first)[0] == "submitted"
    assert rig.status(second)[0] == "planned"


def test_a_lease_that_becomes_free_during_a_take_over_waits_for_who_writes_under_it(
    rig: Rig,
) -> None:
    """Released between the look and the taking, while a transaction is fenced under it."""
    with rig.database.transaction() as writing:
        leases.fence(writing, rig.lease)
        with rig.database.transaction() as tx:

            def release(*_: object) -> None:
                with rig.database.transaction() as other:
                    leases.release(other, rig.lease)

            event.listen(tx, "after_cursor_execute", release, once=True)
            assert leases.acquire(tx, ACCOUNT, "the next", ttl_s=600) is None
    with rig.database.transaction() as tx:
        taken = leases.acquire(tx, ACCOUNT, "the next", ttl_s=600)
    assert taken is not None and taken.fencing_token == rig.lease.fencing_token + 1


def test_what_no_thread_is_to_be_had_for_is_swept(rig: Rig) -> None:
    """It would stand `submitting` for as long as the process lives."""
    hashes = rig.send_many(2)

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    rig.executor._pool.submit = none  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError):
        rig.execute(1)
    del rig.executor._pool.submit
    assert rig.executor.in_flight == 0
    rig.drive(hashes, step_s=6)
    assert {rig.status(hash_)[0] for hash_ in hashes} == {"submitted"}
    assert [rig.posts(hash_) for hash_ in hashes] == [1, 1]


@pytest.mark.parametrize("sent", [True, False])
def test_orphans_are_swept_and_settled_by_asking(rig: Rig, sent: bool) -> None:
    """`submitting` whose writer died (story 2, 41): never posted on, asked for first."""
    hash_ = rig.send()
    if not sent:  # it died between commit and call
        rig.executor._pool.submit = lambda *_: None  # type: ignore[method-assign,assignment]
    rig.execute(1)
    assert rig.row(hash_).status == "submitting"
    if not sent:
        del rig.executor._pool.submit
    rig.executor = rig.new_executor()
    rig.lease = rig.take_lease("the next")
    assert rig.execute(1)["swept"] == 1
    assert rig.status(hash_) == ("in_doubt", "owner_lost")
    rig.drive([hash_], step_s=6)
    assert rig.status(hash_)[0] == "submitted"
    assert (rig.posts(hash_), len(rig.broker_orders(hash_))) == (1, 1)
    looked = [outcome for operation, outcome in rig.attempts(hash_) if operation == "lookup"]
    assert looked == (["found"] if sent else ["absent"] * len(looked))
    assert sent or len(looked) >= 4  # three misses, and once more before the POST


def test_what_is_in_flight_is_no_orphan(rig: Rig) -> None:
    hash_ = rig.send()
    rig.execute(1)
    rig.executor._placed.get()  # the call is still under way
    assert rig.execute(1)["swept"] == 0
    assert rig.row(hash_).status == "submitting"


def test_a_reconciliation_that_never_got_to_the_end_does_not_say_that_all_is_well(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease lost again and again: an error; the control: lost once less, it ends well."""
    lost = 0

    def loses(*_: object) -> None:
        nonlocal lost
        lost += 1
        if lost <= losses:
            raise LeaseLost("account paper: the lease is not ours any more")

    monkeypatch.setattr(reconciling, "_to_the_end", loses)
    monkeypatch.setattr(reconciling, "_asking", lambda _: nullcontext((rig.questions, rig.broker)))

    def reconcile() -> object:
        return reconciling.reconcile_once(
            rig.settings, rig.database, since=None, on_page=lambda *_: None
        )

    losses = reconciling.LEASES_MAX
    with pytest.raises(LeaseLost, match="run it again"):
        reconcile()
    lost, losses = 0, reconciling.LEASES_MAX - 1
    assert reconcile() == {}
