"""An account is handed over while the process goes on: nothing in flight is broken off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.accounts.brokers import Brokers, batch, brokers
from tests.services.rig import eventually
from torghut.bootstrap import Daemon
from torghut.services.supervisor import Supervisor


@pytest.fixture
def one(database_url: str, tmp_path: Path) -> Iterator[Brokers]:
    with brokers(database_url, tmp_path, "alpha") as built:
        yield built


@pytest.fixture
def daemon(one: Brokers) -> Iterator[Daemon]:
    settings = one.settings(broker_timeout_s=30)
    daemon = Daemon(settings, one.database, one.reach(settings))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


def slow_order(one: Brokers, daemon: Daemon, delay_s: float) -> str:
    """A decision whose call is under way for `delay_s`."""
    assert daemon.wait_owner(60)
    one.control("alpha", "/faults", {"route": "submit", "kind": "slow", "delay_s": delay_s})
    (answer,) = daemon.desk.accept(batch("alpha", 1), source="test")
    eventually(lambda: one.posts("alpha"))
    return answer.decision_hash


def attempts(one: Brokers, decision_hash: str) -> list[tuple[str, str]]:
    with one.database.transaction() as tx:
        rows = tx.execute(
            text("""SELECT a.outcome, a.fencing_token FROM submission_attempts a
            JOIN trade_decisions d USING (decision_id) WHERE d.decision_hash = :hash"""),
            {"hash": decision_hash},
        )
        return [tuple(row) for row in rows]


def terms(one: Brokers) -> int:
    with one.database.transaction() as tx:
        return int(tx.execute(text("SELECT fencing_token FROM account_leases")).scalar_one())


def test_the_call_under_way_is_written_first(one: Brokers, daemon: Daemon) -> None:
    """Its outcome is written under the old token, then the lease is free, and taken again."""
    supervisor = daemon.units["alpha"].supervisor
    decision_hash = slow_order(one, daemon, 1.5)
    term = terms(one)
    supervisor.hand_over()
    eventually(lambda: terms(one) == term + 1)
    assert attempts(one, decision_hash) == [("accepted", term)]
    eventually(lambda: one.open("alpha") == 0)
    assert list(one.posts("alpha").values()) == [1]


def test_control_released_at_once_the_call_is_in_doubt(
    one: Brokers, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the wait the outcome is not written by who made the call; it heals all the same."""
    supervisor = daemon.units["alpha"].supervisor
    decision_hash = slow_order(one, daemon, 3)
    monkeypatch.setattr(Supervisor, "_left", lambda self: self._leaving_since is not None)
    term = terms(one)
    supervisor.hand_over()
    supervisor._heartbeat.wake()
    eventually(lambda: terms(one) > term)
    assert attempts(one, decision_hash) != [("accepted", term)]
    monkeypatch.undo()
    eventually(lambda: one.open("alpha") == 0)
    assert list(one.posts("alpha").values()) == [1]


def test_a_call_that_does_not_end_keeps_the_account_here(
    one: Brokers, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torghut.services.supervisor.HAND_OVER_S", 0.5)
    supervisor = daemon.units["alpha"].supervisor
    slow_order(one, daemon, 4)
    term = terms(one)
    supervisor.hand_over()
    eventually(lambda: supervisor._leaving_since is None)
    assert supervisor.holds
    supervisor.hand_over()  # not again at once: it would never trade
    assert supervisor._leaving_since is None
    eventually(lambda: one.open("alpha") == 0)
    assert terms(one) == term
