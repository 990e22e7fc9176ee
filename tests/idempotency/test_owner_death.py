"""Real processes that are killed in the middle of exactly_once, at each point and in any order.

`OWNER_DEATHS=full`: 40 sequences more instead of a sample.
"""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.idempotency.passing import lapse
from tests.idempotency.processes import Start, effects
from torghut.idempotency import (
    RUN_AGAIN,
    Attempt,
    InProgress,
    OutcomeUnknown,
    Store,
    exactly_once,
)

EXAMPLES = 40 if os.environ.get("OWNER_DEATHS") == "full" else 3
POINTS = ("claimed", "effect", "stored")
PLAIN, TRANSACTION = False, True
_keys = itertools.count(1)


def add(attempt: Attempt) -> int:
    attempt.connection.execute(text("INSERT INTO effects DEFAULT VALUES"))
    return attempt.number


def refuse(_: Attempt) -> int:
    raise AssertionError("must not run")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(POINTS)), min_size=1, max_size=3))
@example([(PLAIN, "claimed")])
@example([(PLAIN, "effect")])
@example([(PLAIN, "stored")])
@example([(TRANSACTION, "claimed")])
@example([(TRANSACTION, "effect"), (TRANSACTION, "stored")])
@example([(PLAIN, "effect"), (TRANSACTION, "effect")])
def test_property_owners_die(start: Start, store: Store, deaths: list[tuple[bool, str]]) -> None:
    """Nobody takes over before the lease is over; what a dead plain attempt did is unknown; an
    effect that commits with its result is there exactly once."""
    key = f"key {next(_keys)}"
    before = effects(store)
    stored = doubt = False
    expected = 0
    for transaction, point in deaths:
        (worker,) = start(1, key=key, transaction=transaction, hold=point)
        worker.said("stored" if stored else point)
        worker.kill()
        if stored:
            continue
        stored = point == "stored"
        if not stored:
            with pytest.raises(InProgress):
                exactly_once(key, refuse, store=store, on_takeover=lambda _: RUN_AGAIN)
            lapse(store, key)
            doubt = doubt or transaction is PLAIN
        expected += stored or (point == "effect" and transaction is PLAIN)
        assert effects(store) - before == expected
    if stored:
        assert exactly_once(key, refuse, store=store).replayed
    elif doubt:
        with pytest.raises(OutcomeUnknown):
            exactly_once(key, refuse, store=store)
    else:
        assert not exactly_once(key, add, store=store, transaction=True).replayed
        assert effects(store) - before == 1
