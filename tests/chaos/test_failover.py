"""The stand-by is promoted under load: nothing lost, nothing twice, and it goes on within 5 s.

P1, P2, story 47.
Two nodes of streaming replication with a synchronous stand-by. The primary is killed, the other
one promoted, and the dead one made anew as its stand-by; and so on in turns.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos import FULL
from tests.chaos.cluster import Node
from tests.chaos.load import Sender, faults, patiently, settle
from tests.crash.answers import BY_NAME
from tests.crash.world import World
from tests.services.rig import eventually
from torghut.storage import migrate

pytestmark = pytest.mark.timeout(1_200)
PROMOTIONS = 10 if FULL else 1
COUNT = 3_000 if FULL else 150
RESUMES_S = 5.0 if FULL else 20.0  # the sample runs beside other tests, and proves no figure
REPLICATING = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class Pair:
    """A primary and its synchronous stand-by, on two ports that stay."""

    def __init__(self, folder: Path, stack: ExitStack, *, synchronous: bool = True) -> None:
        self._folder = folder
        self._synchronous = synchronous
        self._stack = stack
        self.primary = stack.enter_context(Node(folder, "node0"))
        self.ports = [self.primary.port]
        self.standby = self._follow(1)
        self.ports.append(self.standby.port)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"postgresql://torghut@{hosts}/torghut?target_session_attrs=read-write"

    def fail_over(self) -> None:
        """Kill the primary, promote the stand-by."""
        self.primary.crash()
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def rejoin(self, turn: int) -> None:
        """The dead primary's port gets a new stand-by."""
        self.standby = self._follow(turn, port=self.standby.port)

    def _follow(self, turn: int, port: int | None = None) -> Node:
        # a copied setting would make it wait for itself once it is promoted
        alone = {"synchronous_standby_names": ""}
        node = Node(self._folder, f"node{turn}", follows=self.primary, port=port)
        self._stack.enter_context(node)
        node.set(**alone)
        if self._synchronous:
            self.primary.set(synchronous_standby_names="*")
            eventually(lambda: self.primary.execute(REPLICATING) == [(1,)])
        return node


def test_promotion_under_load(
    folder: Path, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    with ExitStack() as stack:
        pair = Pair(folder, stack)
        migrate.upgrade(pair.url)
        world = stack.enter_context(World(pair.url, tmp_path, BY_NAME["accepted"], others=0))
        world.start(TORGHUT_LEASE_TTL_S=5)
        sender = Sender(world, COUNT, pause_s=0.1 if FULL else 0.02)
        sender.start()
        eventually(lambda: _submitted(world))
        resumed: list[float] = []
        for turn in range(PROMOTIONS):
            enough = len(sender.acknowledged) + 20
            eventually(lambda enough=enough: len(sender.acknowledged) >= enough or sender.done)
            assert not sender.done, "the load ended before the last promotion"
            killed_at = time.monotonic()
            pair.fail_over()
            at_work = _submitted(world)
            eventually(lambda at_work=at_work: _submitted(world) > at_work)
            sent_s = time.monotonic() - killed_at
            answered_s = eventually(lambda at=killed_at: sender.resumed_after(at))
            resumed.append(max(sent_s, answered_s))
            if turn + 1 < PROMOTIONS:
                pair.rejoin(turn + 2)
        sender.join(120)
        settle(world, sender)
        assert faults(world, sender) == []
        assert max(resumed) <= RESUMES_S, resumed
        figures = f"{PROMOTIONS} promotions, {COUNT} decisions, longest pause {max(resumed):.1f} s"
        record_property("figures", figures)
        print(figures)


def test_control_without_a_synchronous_stand_by_a_promotion_loses(
    folder: Path, tmp_path: Path
) -> None:
    """What was acknowledged while the stand-by lagged is gone, and the check says so."""
    with ExitStack() as stack:
        pair = Pair(folder, stack, synchronous=False)
        migrate.upgrade(pair.url)
        world = stack.enter_context(World(pair.url, tmp_path, BY_NAME["accepted"], others=0))
        position = "SELECT pg_current_wal_lsn()"
        behind = f"SELECT pg_last_wal_replay_lsn() >= '{pair.primary.execute(position)[0][0]}'"
        eventually(lambda: pair.standby.execute(behind) == [(True,)])
        pair.standby.set(primary_conninfo="")
        eventually(lambda: not pair.primary.execute("SELECT 1 FROM pg_stat_replication"))
        sender = Sender(world, 5)
        sender.start()
        sender.join(30)
        pair.fail_over()
        world.start(TORGHUT_LEASE_TTL_S=5)
        eventually(lambda: patiently(lambda: world.state()["known"] == 0))
        eventually(lambda: pair.primary.execute("SELECT 1 FROM account_leases"))
        assert sum(fault.endswith(": 0 orders") for fault in faults(world, sender)) == 5


def _submitted(world: World) -> int:
    found: list[int] = []
    eventually(lambda: patiently(lambda: bool(found.append(world.state()["attempts"]) or True)))
    return found[-1]
