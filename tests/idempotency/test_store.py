"""The store: one statement decides who runs. Stories 36, 37, 42, 45, 46, 50."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.idempotency.passing import expire, lapse
from torghut.idempotency import Answer, Claim, LostOwnership, State, Store, statements

A, B = "a" * 64, "b" * 64
HEAD = {"kind": "value"}
_scopes = itertools.count(1)


def claimed(store: Store, key: str = "k", **how: bool) -> Claim:
    """A claim that must be ours."""
    found = store.claim(key, A, **how)
    assert found.answer is Answer.CREATED and found.claim is not None
    return found.claim


# ---------------------------------------------------------------------- as a state machine


@dataclass
class Key:
    """What the model holds of one key."""

    digest: str
    holder: Claim | None = None
    result: bytes | None = None
    failed: bool = False
    doubt: bool = False
    atomic: bool = False
    lapsed: bool = False
    expired: bool = False
    former: list[Claim] = field(default_factory=list)


KEYS = st.sampled_from(["one", "two"])


class Keys(RuleBasedStateMachine):
    """Claims, results, releases, deaths and expiries in any order, against a model in memory."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.scope = f"machine {next(_scopes)}"
        self.keys: dict[str, Key] = {}
        self.tokens = 0

    @rule(key=KEYS, digest=st.sampled_from([A, B]), atomic=st.booleans(), resolving=st.booleans())
    def claim(self, key: str, digest: str, atomic: bool, resolving: bool) -> None:
        found = self.store.claim(key, digest, scope=self.scope, atomic=atomic, resolving=resolving)
        before = self.keys.get(key)
        busy = before is not None and before.holder is not None and not before.lapsed
        if before is None or (before.expired and not busy):
            former = before.former if before is not None else []
            self.keys[key] = Key(digest, former=former)
            self._ours(self.keys[key], found.claim, atomic, doubt=False, attempts=1)
            return
        if before.digest != digest:
            assert (found.answer, found.claim) == (Answer.CONFLICT, None)
            return
        doubt = before.doubt or (before.lapsed and not before.atomic)
        assert busy or before.result is not None or found.record.in_doubt == doubt
        if busy or before.result is not None or (doubt and not resolving):
            assert (found.answer, found.claim) == (Answer.EXISTS, None)
            assert found.record.body == before.result
            assert found.record.busy == busy
        else:
            self._ours(before, found.claim, atomic, doubt=doubt, attempts=None)

    def _ours(
        self, key: Key, claim: Claim | None, atomic: bool, *, doubt: bool, attempts: int | None
    ) -> None:
        assert claim is not None
        assert claim.in_doubt == doubt
        assert attempts is None or claim.attempts == attempts
        assert claim.token > self.tokens
        self.tokens = claim.token
        if key.holder is not None:
            key.former.append(key.holder)
        key.holder, key.atomic, key.doubt = claim, atomic, doubt
        key.lapsed = key.expired = False

    @rule(key=KEYS, body=st.binary(max_size=4), failed=st.booleans())
    def finish(self, key: str, body: bytes, failed: bool) -> None:
        known = self.keys.get(key)
        if known is None or known.holder is None:
            return
        self.store.finish(known.holder, HEAD, body, failed=failed)
        known.former.append(known.holder)
        known.holder, known.result, known.failed = None, body, failed
        known.doubt = known.lapsed = known.expired = False

    @rule(key=KEYS, doubt=st.booleans())
    def release(self, key: str, doubt: bool) -> None:
        known = self.keys.get(key)
        if known is None or known.holder is None:
            return
        self.store.release(known.holder, in_doubt=doubt)
        known.former.append(known.holder)
        known.holder, known.doubt, known.lapsed = None, doubt, False

    @rule(key=KEYS)
    def owner_stops(self, key: str) -> None:
        known = self.keys.get(key)
        if known is not None and known.holder is not None:
            lapse(self.store, key, self.scope)
            known.lapsed = True

    @rule(key=KEYS)
    def owner_beats(self, key: str) -> None:
        known = self.keys.get(key)
        if known is not None and known.holder is not None:
            assert self.store.beat([known.holder, *known.former]) == 1
            known.lapsed = False

    @rule(key=KEYS)
    def time_passes(self, key: str) -> None:
        known = self.keys.get(key)
        if known is not None:
            expire(self.store, key, self.scope)
            known.expired = True

    @precondition(lambda self: any(key.former for key in self.keys.values()))
    @rule(key=KEYS, number=st.integers(0, 9))
    def a_former_owner_comes_late(self, key: str, number: int) -> None:
        """Whatever it wants to store, nothing changes."""
        known = self.keys.get(key)
        if known is None or not known.former:
            return
        late = known.former[number % len(known.former)]
        before = self.store.look(key, scope=self.scope)
        if known.result is None or late is not known.former[-1]:
            with pytest.raises(LostOwnership):
                self.store.finish(late, HEAD, b"late")
        after = self.store.look(key, scope=self.scope)
        assert (before and (before.state, before.token, before.body)) == (
            after and (after.state, after.token, after.body)
        )

    @rule()
    def purge(self) -> None:
        gone = [
            key
            for key, known in self.keys.items()
            if known.expired and (known.holder is None or known.lapsed)
        ]
        self.store.purge()
        for key in gone:
            assert self.store.look(key, scope=self.scope) is None
            former = self.keys[key]
            if former.holder is not None:
                with pytest.raises(LostOwnership):
                    self.store.finish(former.holder, HEAD, b"late")
            del self.keys[key]


def test_any_sequence_of_steps_goes_as_the_model_says(store: Store) -> None:
    """Payload mismatch, expiry, owner death and late finishers, in every order."""
    Keys.store = store
    run_state_machine_as_test(
        Keys,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


# ---------------------------------------------------------------------- races


def test_of_many_that_claim_at_once_one_gets_it(store: Store) -> None:
    """Story 37: nothing is between the check and the write."""
    start = threading.Barrier(16)

    def claim(_: int) -> Answer:
        start.wait()
        return store.claim("k", A).answer

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(claim, range(16)))
    assert sorted(answers) == [Answer.CREATED, *[Answer.EXISTS] * 15]


def test_of_many_that_take_over_one_gets_it(store: Store) -> None:
    claimed(store)
    lapse(store, "k")
    start = threading.Barrier(16)

    def claim(_: int) -> bool:
        start.wait()
        return store.claim("k", A, resolving=True).claim is not None

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(claim, range(16))) == 1


def test_a_claim_whose_commit_was_not_answered_is_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: the first COMMIT happens, its answer is lost; the second ask finds it to be ours."""
    lost = iter([True, False])
    asked = []
    transaction = store.transaction

    class LostAnswer:
        def __enter__(self) -> object:
            asked.append(1)
            self.inner = transaction()
            return self.inner.__enter__()

        def __exit__(self, *error: object) -> None:
            self.inner.__exit__(*error)  # type: ignore[arg-type]
            if next(lost, False):
                raise OperationalError("COMMIT", {}, Exception("connection lost"))

    monkeypatch.setattr(store, "transaction", LostAnswer)
    assert claimed(store).attempts == 1
    assert len(asked) == 2


def test_a_result_is_stored_once_more_without_harm(store: Store) -> None:
    """After a COMMIT without an answer; but not by somebody else's token."""
    claim = claimed(store)
    store.finish(claim, HEAD, b"1")
    store.finish(claim, HEAD, b"1")
    with pytest.raises(LostOwnership):
        store.finish(claim, HEAD, b"1", failed=True)


@pytest.mark.parametrize("fenced", [True, False])
def test_story_45_a_late_result_is_fenced_by_its_token(
    store: Store, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    """Control: without the token in the statement, the late one's result becomes everybody's."""
    late = claimed(store)
    lapse(store, "k")
    now = store.claim("k", A, resolving=True).claim
    assert now is not None and now.token > late.token
    if not fenced:
        unfenced = statements.FINISH.replace("AND token = :token", "")
        monkeypatch.setattr(statements, "FINISH", unfenced)
        store.finish(late, HEAD, b"late")
        with pytest.raises(LostOwnership):
            store.release(now)
    else:
        with pytest.raises(LostOwnership):
            store.finish(late, HEAD, b"late")
        store.finish(now, HEAD, b"now")
    stands = store.look("k")
    assert stands is not None and stands.body == (b"now" if fenced else b"late")


def test_story_42_owners_have_a_name_of_their_own(store: Store) -> None:
    """Each attempt, not each process: nobody takes another's claim for its own."""
    for key in "abc":
        claimed(store, key)
    with store.transaction() as tx:
        query = "SELECT count(DISTINCT owner) FROM idempotency_keys"
        assert tx.execute(text(query)).scalar_one() == 3


# ---------------------------------------------------------------------- leases


def test_the_heartbeat_keeps_a_lease_alive(store: Store, foreign_url: str) -> None:
    """Story 45: five beats to a lease; the lease of one that is held moves on by itself."""
    store = Store(foreign_url, lease_s=0.5)
    beaten = threading.Semaphore(0)
    beat = store._heartbeat._beat
    store._heartbeat._beat = lambda claims: (beat(claims), beaten.release())
    claim = claimed(store)
    with store.held(claim):
        for _ in range(6):  # longer than the lease
            assert beaten.acquire(timeout=10)
        assert store.claim("k", A, resolving=True).claim is None
    lapse(store, "k")
    assert store.claim("k", A, resolving=True).claim is not None
    store.close()


def test_a_beat_leaves_out_rows_that_are_being_ended(store: Store) -> None:
    """One result that waits for its COMMIT does not cost the others their leases."""
    one, two = claimed(store, "one"), claimed(store, "two")
    with store.transaction() as tx:
        store.finish(one, HEAD, b"", tx=tx)
        assert store.beat([one, two]) == 1


# ---------------------------------------------------------------------- cleaning up


def test_what_has_expired_is_deleted_in_bounded_batches(store: Store) -> None:
    """Story 50: retention; nothing that lives is touched, an owner at work among it."""
    for number in range(7):
        store.finish(claimed(store, f"old {number}"), HEAD, b"")
        expire(store, f"old {number}")
    store.finish(claimed(store, "kept"), HEAD, b"")
    claimed(store, "busy")
    expire(store, "busy")
    claimed(store, "dead")
    expire(store, "dead")
    lapse(store, "dead")
    assert store.statistics().expired == 8
    assert store.purge(batch=2, batches_max=2) == 4
    assert store.purge(batch=2, batches_max=100) == 4
    left = store.statistics()
    assert (left.completed, left.in_progress, left.expired) == (1, 1, 0)


def test_statistics(store: Store) -> None:
    store.finish(claimed(store, "1"), HEAD)
    store.finish(claimed(store, "2"), HEAD, failed=True)
    store.release(claimed(store, "3"))
    store.release(claimed(store, "4"), in_doubt=True)
    claimed(store, "5")
    claimed(store, "6")
    lapse(store, "6")
    claimed(store, "7", atomic=True)
    lapse(store, "7")
    found = store.statistics()
    assert (found.pending, found.in_progress, found.completed, found.failed) == (2, 3, 1, 1)
    assert (found.in_doubt, found.expired) == (2, 0)


def test_a_replay_does_not_write_the_result_again(store: Store) -> None:
    """The claim writes the row as it is; a large result stays where it lies."""

    def size() -> int:
        with store.transaction() as tx:
            query = "SELECT pg_total_relation_size('idempotency_keys')"
            return int(tx.execute(text(query)).scalar_one())

    store.finish(claimed(store), HEAD, os.urandom(1_000_000))
    before = size()
    for _ in range(20):
        assert store.claim("k", A).record.finished
    assert size() - before < 100_000


# ---------------------------------------------------------------------- what the database refuses


def test_p5_a_stored_result_is_not_overwritten(store: Store) -> None:
    """The trigger holds it, whatever the code does; without the trigger it would pass."""
    store.finish(claimed(store), HEAD, b"first")
    forge = text("UPDATE idempotency_keys SET body = 'other'")
    with pytest.raises(DBAPIError) as refused, store.transaction() as tx:
        tx.execute(forge)
    assert isinstance(refused.value.orig, psycopg.errors.RestrictViolation)
    with store.transaction() as tx:
        tx.execute(text("ALTER TABLE idempotency_keys DISABLE TRIGGER USER"))
        assert tx.execute(forge).rowcount == 1
        tx.execute(text("ALTER TABLE idempotency_keys ENABLE TRIGGER USER"))


def test_p5_a_fencing_token_does_not_decrease(store: Store) -> None:
    claimed(store)
    forge = text("UPDATE idempotency_keys SET token = token - 1")
    with pytest.raises(DBAPIError, match="does not decrease"), store.transaction() as tx:
        tx.execute(forge)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'pending'",
        "state = 'completed', leased_until = NULL",
        "body = 'x'",
        "digest = 'short'",
        "state = 'lost'",
        "key = ''",
        "attempts = 0",
    ],
)
def test_p5_a_state_has_what_belongs_to_it(store: Store, change: str) -> None:
    claimed(store)
    with pytest.raises(DBAPIError) as refused, store.transaction() as tx:
        tx.execute(text(f"UPDATE idempotency_keys SET {change}"))
    assert isinstance(refused.value.orig, psycopg.errors.CheckViolation)


# ---------------------------------------------------------------------- sources


def test_a_url_an_engine_or_transactions(store: Store, foreign_url: str) -> None:
    engine = create_engine(foreign_url)
    plain = foreign_url.replace("postgresql+psycopg:", "postgresql:")
    stores = [Store(plain), Store(engine), Store(engine.begin)]
    assert [store.claim("k", A).answer for store in stores] == [
        Answer.CREATED,
        *[Answer.EXISTS] * 2,
    ]
    assert stores[0].look("k").state is State.IN_PROGRESS  # type: ignore[union-attr]
    for store in stores:
        store.close()
    engine.dispose()


def test_equal_keys_of_two_scopes_do_not_meet(store: Store) -> None:
    assert store.claim("k", A, scope="x").answer is Answer.CREATED
    assert store.claim("k", B, scope="y").answer is Answer.CREATED
    assert store.look("k") is None
