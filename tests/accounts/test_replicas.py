"""Several accounts over several processes: spread, moved without loss, taken over in time."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.accounts.brokers import Brokers, Watch, batch
from tests.crash.processes import Child
from tests.services.rig import eventually
from torghut.clock import utc_now
from torghut.domain.decisions import Decision
from torghut.services.intake import IntakeDesk

TTL_S = 6.0
LOADED_S = 5.0  # the machine is shared with other tests, and this is no measurement
pytestmark = pytest.mark.timeout(600)


class Load:
    """Sends to every account, round after round, until it is stopped."""

    def __init__(self, three: Brokers) -> None:
        self.sent: list[Decision] = []
        self._three = three
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        desk = IntakeDesk(self._three.database, utc_now, lambda _: None)
        turn = 0
        while not self._stop.wait(0.5):
            fresh = [
                one
                for label in self._three.labels
                for one in batch(label, 2, strategy=f"turn-{turn}")
            ]
            desk.accept(fresh, source="test")
            self.sent += fresh
            turn += 1

    def finish(self) -> list[Decision]:
        """Stop, and wait until all of it is closed."""
        self._stop.set()
        self._thread.join(30)
        eventually(lambda: not any(map(self._three.open, self._three.labels)))
        return self.sent


def even(three: Brokers, *children: Child) -> None:
    """Wait until each of three processes has one of the three accounts."""
    wanted = {child.pid: 1 for child in children}
    eventually(lambda: three.shares() == wanted, 120)


def test_accounts_are_spread_and_taken_over(
    three: Brokers, record_property: pytest.RecordProperty
) -> None:
    """One process has all three; two more get their share while orders flow; one is killed, one
    ends: the others take its account in time, and every order is there exactly once."""
    first = three.start()
    eventually(lambda: three.shares() == {first.pid: 3}, 120)
    load = Load(three)
    watch = Watch()
    second, third = three.start(), three.start()
    even(three, first, second, third)
    spread_s = watch.s
    settled = three.owners()
    second.send(signal.SIGKILL)
    watch = Watch()
    gone = next(label for label, owner in settled.items() if f":{second.pid}:" in owner)
    eventually(lambda: f":{second.pid}:" not in three.owners().get(gone, f":{second.pid}:"))
    killed_s = watch.s
    assert killed_s <= TTL_S + 2 + LOADED_S
    kept = {label: owner for label, owner in settled.items() if label != gone}
    assert {label: three.owners().get(label) for label in kept} == kept  # nobody else moved
    third.send(signal.SIGTERM)
    assert third.join(60) == 0
    watch = Watch()
    eventually(lambda: three.shares() == {first.pid: 3})
    ended_s = watch.s
    assert ended_s <= 1 + LOADED_S
    sent = load.finish()
    assert len(sent) > 0 and three.faults(sent) == [], three.logs()
    figures = f"spread {spread_s:.1f} s, killed {killed_s:.2f} s, ended {ended_s:.2f} s"
    record_property("figures", f"{figures}, {len(sent)} orders once")
    print(figures, len(sent))


def test_a_share_is_kept(three: Brokers) -> None:
    """Once even, nothing moves: as many terms as accounts and moves, and no more."""
    first, second = three.start(), three.start()
    eventually(lambda: sorted(three.shares().values()) == [1, 2], 120)
    terms = _terms(three)
    owners = three.owners()
    _expect_never(lambda: three.owners() != owners, TTL_S)
    assert _terms(three) == terms
    assert not first.dead and not second.dead


def test_control_without_moves_the_first_keeps_all(three: Brokers) -> None:
    first = three.start(mutated=("spreading_removed",))
    eventually(lambda: three.shares() == {first.pid: 3}, 120)
    second = three.start(mutated=("spreading_removed",))
    eventually(lambda: second.log.exists() and "console and API" in second.log.read_text(), 120)
    _expect_never(lambda: three.shares() != {first.pid: 3}, TTL_S * 2)


def _terms(three: Brokers) -> int:
    with three.database.transaction() as tx:
        return int(tx.exec_driver_sql("SELECT sum(fencing_token) FROM account_leases").scalar_one())


def _expect_never(condition: object, seconds: float) -> None:
    assert callable(condition)
    over = threading.Event()
    threading.Timer(seconds, over.set).start()
    while not over.wait(0.1):
        assert not condition()
