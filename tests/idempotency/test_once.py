"""exactly_once: replay, payloads, classes of errors, unknown outcomes, commit with the effect."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.idempotency.passing import expire, lapse
from torghut.idempotency import (
    RUN_AGAIN,
    STILL_UNKNOWN,
    Attempt,
    Happened,
    InProgress,
    KeyReused,
    LostOwnership,
    OutcomeUnknown,
    Store,
    StoredFailure,
    exactly_once,
    exactly_once_async,
)

_scopes = itertools.count(1)


class NoMoney(Exception):
    """Will be the same tomorrow."""


class Busy(Exception):
    """May be over in a second."""


class NoArguments(Exception):
    """Cannot be made anew from what it keeps."""

    def __init__(self) -> None:
        super().__init__("text", 1)


def refuse(_: Attempt) -> object:
    raise AssertionError("must not run")


def raising(error: BaseException) -> Callable[[Attempt], object]:
    def fn(_: Attempt) -> object:
        raise error

    return fn


@pytest.fixture
def effects(store: Store) -> Callable[[], int]:
    """How many effects there are, in a table of the application."""
    with store.transaction() as tx:
        tx.execute(text("DROP TABLE IF EXISTS effects"))
        tx.execute(text("CREATE TABLE effects (token bigint)"))

    def count() -> int:
        with store.transaction() as tx:
            return int(tx.execute(text("SELECT count(*) FROM effects")).scalar_one())

    return count


def effect(attempt: Attempt) -> object:
    attempt.connection.execute(
        text("INSERT INTO effects VALUES (:token)"), {"token": attempt.token}
    )
    return {"token": attempt.token}


# ---------------------------------------------------------------------- replay and mismatch


def test_the_first_result_is_everybodys(store: Store) -> None:
    """What is returned is what is stored, the first time too: a tuple is a list then."""
    first = exactly_once("k", lambda attempt: (attempt.number, "é"), store=store)
    again = exactly_once("k", refuse, store=store)
    assert (first.value, first.replayed) == ([1, "é"], False)
    assert (again.value, again.replayed) == ([1, "é"], True)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(["ask", "expire"])),
        max_size=8,
    )
)
def test_property_one_result_to_a_key_and_a_payload(
    store: Store, steps: list[tuple[str, int, str]]
) -> None:
    """fn runs once per key and life of the key; another payload never sees its result."""
    scope = f"run {next(_scopes)}"
    living: dict[str, tuple[int, int]] = {}
    runs = 0
    for key, payload, step in steps:
        if step == "expire":
            if living.pop(key, None) is not None:
                expire(store, key, scope)
            continue
        runs += 1
        number = runs

        def fn(_: Attempt, number: int = number) -> int:
            return number

        def ask(
            key: str = key, payload: int = payload, fn: Callable[[Attempt], int] = fn
        ) -> object:
            return exactly_once(key, fn, store=store, scope=scope, payload={"qty": payload}).value

        if key in living and living[key][0] != payload:
            with pytest.raises(KeyReused):
                ask()
        else:
            first = living.setdefault(key, (payload, number))
            assert ask() == first[1]


# ---------------------------------------------------------------------- classes of errors


@pytest.mark.parametrize("transaction", [False, True])
def test_a_permanent_failure_is_the_answer(store: Store, transaction: bool) -> None:
    class Less(NoMoney):
        pass

    how = {"store": store, "permanent": (NoMoney,), "transaction": transaction}
    for fn in (raising(Less("12", 3)), refuse):
        with pytest.raises(Less) as failed:
            exactly_once("k", fn, **how)  # type: ignore[arg-type]
        assert failed.value.args == ("12", 3)
    with pytest.raises(StoredFailure, match=r"Less: \('12', 3\)"):
        exactly_once("k", refuse, store=store)


def test_a_failure_that_cannot_be_made_anew_is_told(store: Store) -> None:
    for fn, kind in ((raising(NoArguments()), NoArguments), (refuse, StoredFailure)):
        with pytest.raises(kind, match="text"):
            exactly_once("k", fn, store=store, permanent=(NoArguments,))
    with pytest.raises(NoMoney):
        exactly_once("odd", raising(NoMoney(object(), "\0")), store=store, permanent=(NoMoney,))
    with pytest.raises(StoredFailure):
        exactly_once("odd", refuse, store=store, permanent=(NoMoney,))


def test_a_transient_failure_frees_the_key(store: Store) -> None:
    with pytest.raises(Busy):
        exactly_once("k", raising(Busy()), store=store, transient=(Busy,))
    with pytest.raises(KeyReused):
        exactly_once("k", refuse, store=store, payload=1)
    assert exactly_once("k", lambda attempt: attempt.number, store=store).value == 2


@pytest.mark.parametrize("error", [Busy(), KeyboardInterrupt()])
def test_p4_any_other_failure_is_an_unknown_outcome(store: Store, error: BaseException) -> None:
    with pytest.raises(type(error)):
        exactly_once("k", raising(error), store=store, permanent=(NoMoney,))
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            exactly_once("k", refuse, store=store)


def test_a_result_that_cannot_be_kept_leaves_the_outcome_unknown(store: Store) -> None:
    """The effect is there: to free the key would be to have it twice."""
    with pytest.raises(TypeError):
        exactly_once("k", lambda _: object(), store=store)
    with pytest.raises(OutcomeUnknown):
        exactly_once("k", refuse, store=store)


# ---------------------------------------------------------------------- unknown outcomes


def died(store: Store, **how: bool) -> int:
    """An attempt that was killed; returns its token."""
    claim = store.claim("k", _DIGEST, **how).claim
    assert claim is not None
    lapse(store, "k")
    return claim.token


_DIGEST = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"  # of no payload


def test_p4_the_resolver_says_what_happened(store: Store) -> None:
    died(store)
    seen: list[int] = []

    def happened(attempt: Attempt) -> Happened:
        seen.append(attempt.number)
        return Happened("order 7")

    found = exactly_once("k", refuse, store=store, on_takeover=happened)
    assert (found.value, found.replayed, seen) == ("order 7", False, [2])
    assert exactly_once("k", refuse, store=store).value == "order 7"


def test_p4_run_again_only_if_the_resolver_says_so(store: Store) -> None:
    died(store)
    found = exactly_once("k", lambda a: a.number, store=store, on_takeover=lambda _: RUN_AGAIN)
    assert found.value == 2


def test_p4_doubt_stays_until_it_is_resolved(store: Store) -> None:
    """A resolver that cannot tell, fails, or answers nonsense, leaves the key in doubt."""
    died(store)
    for resolver, expected in (
        (lambda _: STILL_UNKNOWN, OutcomeUnknown),
        (raising(Busy()), Busy),
        (lambda _: None, TypeError),
    ):
        with pytest.raises(expected):
            exactly_once("k", refuse, store=store, transient=(Busy,), on_takeover=resolver)  # type: ignore[arg-type]
        with pytest.raises(OutcomeUnknown):
            exactly_once("k", refuse, store=store)


def test_who_waits_gets_the_result(store: Store) -> None:
    started, go = threading.Event(), threading.Event()

    def slow(_: Attempt) -> int:
        started.set()
        assert go.wait(10)
        return 7

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(exactly_once, "k", slow, store=store)
        assert started.wait(10)
        with pytest.raises(InProgress) as busy:
            exactly_once("k", refuse, store=store)
        assert 0 < busy.value.lease_left_s <= store.lease_s
        with pytest.raises(InProgress):
            exactly_once("k", refuse, store=store, wait_s=0.05)
        waiting = [pool.submit(exactly_once, "k", refuse, store=store, wait_s=30) for _ in "ab"]
        go.set()
        assert not first.result().replayed
        assert [w.result().value for w in waiting] == [7, 7]


def test_a_late_finisher_changes_nothing(store: Store) -> None:
    """Its lease was over while it ran, somebody took over: the token fences (story 45)."""

    def slow(_: Attempt) -> str:
        lapse(store, "k")
        other = exactly_once("k", lambda _: "other", store=store, on_takeover=lambda _: RUN_AGAIN)
        assert not other.replayed
        return "late"

    with pytest.raises(LostOwnership):
        exactly_once("k", slow, store=store)
    assert exactly_once("k", refuse, store=store).value == "other"


# ---------------------------------------------------------------------- effect and result together


def test_effect_and_result_are_one_commit(store: Store, effects: Callable[[], int]) -> None:
    first = exactly_once("k", effect, store=store, transaction=True)
    assert exactly_once("k", effect, store=store, transaction=True).value == first.value
    assert effects() == 1


def test_nothing_is_left_of_a_failed_attempt(store: Store, effects: Callable[[], int]) -> None:
    """Not even in doubt: the next one runs."""

    def fails(attempt: Attempt) -> object:
        effect(attempt)
        raise Busy

    with pytest.raises(Busy):
        exactly_once("k", fails, store=store, transaction=True)
    assert effects() == 0
    exactly_once("k", effect, store=store, transaction=True)
    assert effects() == 1


def test_the_late_ones_effect_is_rolled_back(store: Store, effects: Callable[[], int]) -> None:
    """A dead attempt of this form is taken over without a resolver; fenced, if it lives."""

    def slow(attempt: Attempt) -> object:
        lapse(store, "k")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(exactly_once, "k", effect, store=store, transaction=True).result()
        return effect(attempt)

    with pytest.raises(LostOwnership):
        exactly_once("k", slow, store=store, transaction=True)
    assert effects() == 1


def test_p4_a_plain_attempt_before_it_is_still_in_doubt(store: Store) -> None:
    """What died was not of this form: its effect may be there."""
    died(store)
    with pytest.raises(OutcomeUnknown):
        exactly_once("k", refuse, store=store, transaction=True)


@pytest.mark.parametrize("committed", [True, False])
def test_p4_a_commit_without_an_answer_is_looked_up(
    store: Store, effects: Callable[[], int], monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The row knows whether it happened; it is neither assumed nor repeated."""
    transaction = store.transaction

    class LostAnswer:
        def __enter__(self) -> object:
            self.inner = transaction()
            self.tx = self.inner.__enter__()
            return self.tx

        def __exit__(self, *error: object) -> None:
            monkeypatch.setattr(store, "transaction", transaction)
            if not committed:
                self.tx.rollback()
            self.inner.__exit__(*error)  # type: ignore[arg-type]
            raise OperationalError("COMMIT", {}, Exception("connection lost"))

    def fn(attempt: Attempt) -> object:
        return effect(attempt)

    claim = store.claim

    def claim_then_break(*arguments: object, **how: object) -> object:
        found = claim(*arguments, **how)  # type: ignore[arg-type]
        monkeypatch.setattr(store, "transaction", LostAnswer)
        return found

    monkeypatch.setattr(store, "claim", claim_then_break)
    if committed:
        assert not exactly_once("k", fn, store=store, transaction=True).replayed
    else:
        with pytest.raises(OperationalError):
            exactly_once("k", fn, store=store, transaction=True)
    assert effects() == committed
    monkeypatch.setattr(store, "claim", claim)
    assert exactly_once("k", fn, store=store, transaction=True).replayed == committed
    assert effects() == 1


# ---------------------------------------------------------------------- from async code


def test_from_async_code_the_loop_goes_on(store: Store) -> None:
    """fn runs in a thread: many at once, one of them carries it out."""
    runs: list[int] = []

    def fn(attempt: Attempt) -> int:
        runs.append(attempt.number)
        return 7

    async def many() -> list[object]:
        found = await asyncio.gather(
            *(exactly_once_async("k", fn, store=store, wait_s=30) for _ in range(8))
        )
        return [outcome.value for outcome in found]

    assert asyncio.run(many()) == [7] * 8
    assert runs == [1]
