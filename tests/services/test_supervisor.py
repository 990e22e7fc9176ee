"""The supervisor: one owner, quick take-over, and a standby that writes nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import text

from tests.factories import decision
from tests.services.rig import ACCOUNT, Rig, eventually
from torghut.bootstrap import Daemon
from torghut.domain.errors import ConfigError
from torghut.places import Reach
from torghut.storage import leases

Start = Callable[..., Daemon]


@pytest.fixture
def start(rig: Rig) -> Iterator[Start]:
    """Daemons on the rig's database and simulator; the rig itself gives up the account."""
    with rig.database.transaction() as tx:
        leases.release(tx, rig.lease)
    with ExitStack() as stack:

        def begin(**settings: Any) -> Daemon:
            values = {"lease_ttl_s": 1.5, "reconcile_interval_s": 0.2, **settings}
            own = rig.settings.model_copy(update=values)
            daemon = Daemon(own, rig.database, {"paper": Reach(rig.sim.url, rig.sim.url, "k", "s")})
            stack.callback(daemon.stop)
            daemon.start()
            return daemon

        yield begin


def owner(rig: Rig) -> str | None:
    with rig.database.transaction() as tx:
        lease = leases.current(tx, ACCOUNT)
    return lease[0] if lease and lease[2] else None


def test_the_whole_way(rig: Rig, start: Start) -> None:
    """Intake → order → fill → closed, by the loops alone."""
    daemon = start()
    assert daemon.wait_owner(5)
    (answer,) = daemon.desk.accept([decision()], source="test")
    eventually(lambda: rig.row(answer.decision_hash).status == "closed")
    assert rig.posts(answer.decision_hash) == 1


def test_take_over_after_a_clean_stop_is_at_once(rig: Rig, start: Start) -> None:
    first = start()
    assert first.wait_owner(5)
    second = start()
    began = time.monotonic()
    first.stop()
    stopped = time.monotonic()
    assert second.wait_owner(5)
    assert time.monotonic() - stopped < 1
    assert stopped - began < 5
    assert owner(rig) == second.owner


def test_take_over_after_expiry_and_never_two_owners(rig: Rig, start: Start) -> None:
    """The first one's heartbeat dies: it holds itself for lost before anyone can take over."""
    first = start()
    assert first.wait_owner(5)
    second = start()
    both: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            if first.units["paper"].owned and second.units["paper"].owned:
                both.append(time.monotonic())

    watching = threading.Thread(target=watch)
    watching.start()
    first.units["paper"].supervisor._heartbeat.stop(5)
    assert second.wait_owner(6)
    stop.set()
    watching.join(5)
    assert both == []
    assert not first.units["paper"].owned
    (answer,) = first.desk.accept([decision()], source="test")
    eventually(lambda: rig.row(answer.decision_hash).status == "closed")
    attempts = rig.sql("SELECT fencing_token FROM submission_attempts")
    token = second.units["paper"].supervisor.lease
    assert token is not None
    assert {row[0] for row in attempts} == {token.fencing_token}


def test_the_standby_takes_decisions_and_executes_none(rig: Rig, start: Start) -> None:
    """Intake is open everywhere; who owns the account is woken by NOTIFY or polls."""
    first = start()
    assert first.wait_owner(5)
    second = start()
    eventually(lambda: second.units["paper"].supervisor.lease_known)
    hashes = [
        second.desk.accept([decision(intent=f"{n}", qty="1")], source="test")[0].decision_hash
        for n in range(10)
    ]
    eventually(lambda: all(rig.row(h).status == "closed" for h in hashes))
    lease = first.units["paper"].supervisor.lease
    assert lease is not None and second.units["paper"].supervisor.lease is None
    assert {row[0] for row in rig.sql("SELECT fencing_token FROM submission_attempts")} == {
        lease.fencing_token
    }
    acquired = rig.sql("SELECT payload FROM events WHERE kind = 'lease.acquired'")
    assert [row.payload["owner"] for row in acquired] == [first.owner]


def test_story_42_a_fresh_name_and_token_each_time(rig: Rig, start: Start) -> None:
    tokens, names = [], []
    for _ in range(3):
        daemon = start()
        assert daemon.wait_owner(5)
        assert daemon.units["paper"].supervisor.lease is not None
        tokens.append(daemon.units["paper"].supervisor.lease.fencing_token)
        names.append(daemon.owner)
        daemon.stop()
    assert tokens == sorted(set(tokens))
    assert len(set(names)) == 3


def test_stopping_finishes_what_is_in_flight(rig: Rig, start: Start) -> None:
    """The call under way is waited for and its outcome written; the next owner has no doubts."""
    daemon = start(broker_timeout_s=10, reconcile_interval_s=60)
    assert daemon.wait_owner(5)
    rig.fault("slow", delay_s=0.7)
    (answer,) = daemon.desk.accept([decision()], source="test")
    eventually(lambda: rig.posts(answer.decision_hash) == 1)
    assert rig.row(answer.decision_hash).status == "submitting"
    daemon.stop()
    assert rig.status(answer.decision_hash)[0] in ("submitted", "closed")
    assert owner(rig) is None


def test_stopping_in_the_middle_of_a_claim_finishes_what_it_claims(rig: Rig, start: Start) -> None:
    """Nothing is in flight yet when the end begins: the pass is asking for a quote."""
    daemon = start(broker_timeout_s=10, reconcile_interval_s=60)
    assert daemon.wait_owner(60)
    rig.fault("slow", "quotes", delay_s=1.5)
    (answer,) = daemon.desk.accept([decision()], source="test")
    eventually(lambda: rig.control("GET", "/requests")["routes"].get("quotes"))
    assert rig.status(answer.decision_hash)[0] == "planned"
    daemon.stop()
    assert rig.status(answer.decision_hash)[0] in ("submitted", "closed")
    assert owner(rig) is None


def test_a_lease_that_was_taken_away_is_noticed(rig: Rig, start: Start) -> None:
    daemon = start()
    assert daemon.wait_owner(5)
    rig.take_lease("somebody else")
    eventually(lambda: not daemon.units["paper"].owned, 3)
    rig.send()
    threading.Event().wait(0.5)
    assert rig.posts() == 0
    rig.sql("UPDATE account_leases SET owner = NULL, expires_at = clock_timestamp()")
    eventually(lambda: rig.posts() == 1)


def test_8_threads_take_the_lease_at_once_and_one_has_it(rig: Rig) -> None:
    for turn in range(5):
        rig.sql("UPDATE account_leases SET expires_at = clock_timestamp() - interval '1 s'")
        start = threading.Barrier(8)

        def take(n: int, turn: int = turn, start: threading.Barrier = start) -> bool:
            start.wait(10)
            with rig.database.transaction() as tx:
                return leases.acquire(tx, ACCOUNT, f"{turn}-{n}", ttl_s=600) is not None

        with ThreadPoolExecutor(8) as pool:
            assert Counter(pool.map(take, range(8))) == {True: 1, False: 7}


def test_a_take_over_waits_for_the_write_under_way(rig: Rig) -> None:
    """`fence` holds the lease row: the next owner begins after the old one's last commit."""
    rig.sql("UPDATE account_leases SET expires_at = clock_timestamp() + interval '300 ms'")
    order: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        with rig.database.transaction() as tx:
            leases.fence(tx, rig.lease)
            tx.execute(text("SELECT pg_sleep(0.5)"))
            taken = pool.submit(rig.take_lease, "the next")
            eventually(lambda: rig.sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
            order.append("written")
        taken.result(10)
        order.append("taken")
    assert order == ["written", "taken"]


def test_a_wrong_account_ends_the_process(rig: Rig, start: Start) -> None:
    """Found out at a later term: nothing is claimed in it, and `wait` raises."""
    daemon = start()
    assert daemon.wait_owner(5)

    def refuse() -> None:
        raise ConfigError("TORGHUT_LIVE_ACCOUNT_NUMBER", "is another", "mend it")

    daemon.units["paper"].supervisor._verify_account = refuse
    daemon.units["paper"].supervisor._verified_token = 0
    rig.send()
    eventually(lambda: daemon.units["paper"].supervisor.refused)
    with pytest.raises(ConfigError):
        daemon.wait(threading.Event())
    assert rig.posts() == 0


def test_health_shows_a_loop_that_stands_still(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start()
    assert daemon.health()["alive"] is True
    monkeypatch.setattr("torghut.bootstrap.STALLED_AFTER_S", -1)
    assert daemon.health()["alive"] is False
