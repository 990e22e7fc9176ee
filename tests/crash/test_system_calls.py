"""SIGKILL at the network system calls of a decision's path, and at the fsync of its commits.

P1, P2, P4, stories 21-23, 33, 40. Between two named instants (`test_matrix`) lie dozens of calls
to Postgres and the broker; here power fails on entering each of them: nothing sent yet, sent and
not read, half of a transaction. Always: one order for each decision, in both books.

`CRASH_MATRIX=full` plays every call of the threads that claim, send and record, and every third
one of the reconciler; otherwise a few of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos.cluster import Node
from tests.chaos.conftest import folder, node
from tests.chaos.load import patiently
from tests.crash import cases
from tests.crash.answers import BY_NAME
from tests.crash.conftest import Build
from tests.crash.system_calls import Trap
from tests.crash.test_controls import DEAF, NO_UNIQUENESS
from tests.crash.world import World, numbered
from tests.services.rig import eventually
from torghut.domain.decisions import Decision

__all__ = ["folder", "node"]  # fixtures of the neighbours

pytestmark = pytest.mark.timeout(1_200)
SHARDS = 4  # of a thread's calls, so that test processes share them
CALLS_MAX = 160
SAMPLED = {"executor": (3, 31), "submit_0": (1, 4), "reconciler": (8,)}
STEPS = {"executor": 1, "submit_0": 1, "reconciler": 3}
UNREAD_WITHIN = 12  # calls of the thread that sends, by which it has sent
ONE_THREAD = {"TORGHUT_SUBMIT_THREADS": 1}


def places() -> list[tuple[str, str, tuple[int, ...]]]:
    """(thread, system call, which calls of it), a test each."""
    found: list[tuple[str, str, tuple[int, ...]]] = []
    for thread, step in STEPS.items():
        for call in ("sendto", "recvfrom"):
            if not cases.FULL:
                found.append((thread, call, SAMPLED[thread]))
                continue
            shards = 1 if thread == "submit_0" else SHARDS
            found += [
                (thread, call, tuple(range(1 + shard * step, CALLS_MAX, step * shards)))
                for shard in range(shards)
            ]
    return found


@pytest.mark.parametrize(
    ("thread", "call", "which"), places(), ids=lambda value: str(value).partition(",")[0].strip("(")
)
def test_killed_at_a_system_call(
    thread: str, call: str, which: tuple[int, ...], build: Build
) -> None:
    """Call by call, until a decision is through before the call comes."""
    world = build("accepted", others=0)
    load = iter(numbered(0, 2 * len(which)))
    sent: list[Decision] = []
    for n in which:
        daemon = world.start(**ONE_THREAD)
        _settled(world, sent, next(load))  # and every thread has begun
        reached = _through(world, thread)
        with Trap([daemon.threads()[thread]], call, n):
            sent.append(next(load))
            world.accept(sent[-1:])
            world.wait(lambda d=daemon, r=reached: d.dead or r(), f"{call} {n} of {thread}")  # type: ignore[misc]
        if not daemon.dead:
            daemon.kill()
            break
        assert daemon.power_failed, world.logs()
        world.kills += 1
    world.start(**ONE_THREAD)
    world.wait(world.settled, "the rest")
    assert world.book_faults() == []
    assert [world.orders_of(item) for item in sent] == [1] * len(sent)
    assert world.kills >= min(2, len(which)), "power never failed"
    print(f"{thread}, {call}: killed {world.kills} times, {len(sent)} decisions")


def test_control_the_answer_unread_and_nobody_asks(build: Build) -> None:
    """Killed where the broker's answer would be read; without lookup and uniqueness: two orders."""
    world = build("accepted", others=0, switches=NO_UNIQUENESS)
    load = iter(numbered(0, 2 * UNREAD_WITHIN))
    for n in range(1, UNREAD_WITHIN):
        daemon, item = world.start(**ONE_THREAD), next(load)
        _settled(world, [], next(load))
        with Trap([daemon.threads()["submit_0"]], "recvfrom", n):
            world.accept([item])
            world.wait(lambda d=daemon: d.dead, "the kill")  # type: ignore[misc]
        if world.orders_of(item) == 1:
            break
    assert world.orders_of(item) == 1
    mutated = world.start(mutated=DEAF)
    world.wait(lambda: world.orders_of(item) > 1, "a second order")
    mutated.kill()
    world.start()
    world.wait(world.settled, "the rest")
    found = world.book_faults()
    assert any("duplicates 1" in fault for fault in found), found


@pytest.fixture
def durable(node: Node, tmp_path: Path) -> Iterator[World]:
    with World(node.url, tmp_path, BY_NAME["accepted"], others=0) as built:
        yield built


def test_postgres_killed_at_its_fsync(durable: World, node: Node) -> None:
    """A commit is on its way to the disk when its backend dies, and every connection with it."""
    daemon = durable.start()
    _settled(durable, [], durable.subject)
    load = numbered(0, 8 if cases.FULL else 2)
    for n, item in enumerate(load, start=1):
        eventually(lambda: patiently(lambda: bool(durable.state())))
        before = _checkpointer(node)
        with Trap(_processes(node), "fdatasync", n):
            eventually(lambda item=item: patiently(lambda: bool(durable.accept([item]))))
            eventually(lambda before=before: _checkpointer(node) not in (None, before))
    durable.wait(lambda: patiently(durable.settled), "the rest")
    assert durable.book_faults() == []
    assert [durable.orders_of(item) for item in load] == [1] * len(load)
    assert not daemon.dead


def _processes(node: Node) -> list[int]:
    """Of the server, those that write."""
    rows = node.execute("""SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()
        AND backend_type IN ('client backend', 'walwriter', 'checkpointer')""")
    return [int(str(pid)) for (pid,) in rows]


def _checkpointer(node: Node) -> object:
    """Another one after each restart; None while there is none."""
    try:
        rows = node.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    except psycopg.Error:
        return None
    return rows[0][0] if rows else None


def _settled(world: World, sent: list[Decision], item: Decision) -> None:
    sent.append(item)
    world.accept([item])
    world.wait(world.settled, "an undisturbed decision")


def _through(world: World, thread: str) -> Callable[[], bool]:
    """Whether the thread has done its part of one more decision."""
    if thread == "reconciler":
        known, lists = world.state()["known"], _lists(world)
        return lambda: (
            world.state()["known"] > known and world.settled() and _lists(world) > lists + 1
        )
    answered = world.state()["answered"]
    return lambda: world.state()["answered"] > answered


def _lists(world: World) -> int:
    """How often the reconciler has asked the broker for its orders."""
    return int(world.requests()["routes"].get("list_orders", 0))
