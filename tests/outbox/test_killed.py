"""The relay is killed again and again, sinks go away, 8 writers hold long transactions (P9).

Each sink gets every event at least once, in order per decision; repetitions have the same id, so a
consumer that drops them sees each once. A refused event is a dead letter, and the others flow.
`CHAOS=full` kills more often and writes longer.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.crash.processes import Child
from tests.outbox import servers
from tests.outbox.parts import (
    NOW,
    Kept,
    Writer,
    decisions,
    drain,
    faults,
    relay,
    stored,
    write,
)
from tests.outbox.receiver import Answer, Receiver, receiver
from tests.outbox.servers import Server
from tests.outbox.test_sinks import SECRET, stream_of
from tests.services.rig import eventually
from torghut.domain.outbox import Message
from torghut.recovery_points import RecoveryPoint as P
from torghut.services.relay import Relay
from torghut.storage import dead_letters, outbox
from torghut.storage.database import Database

FULL = os.environ.get("CHAOS") == "full"
POINTS = (
    P.RELAY_BEFORE_PUBLISH,
    P.RELAY_AFTER_PUBLISH,
    P.RELAY_BEFORE_COMMIT,
    P.RELAY_AFTER_COMMIT,
)
ROUNDS = 10 if FULL else 1
KILLS = 60 if FULL else 5
POISON = b"poison"


class World:
    """Three sinks, the settings of a relay that serves them, and what reached them."""

    def __init__(self, url: str, folder: Path, hook: Receiver, red: Server, nat: Server) -> None:
        self.database = Database(url, pool_size=24)
        self.hook, self.redis, self.nats = hook, red, nat
        self.down = threading.Event()
        hook.answer = self._answer
        self._folder = folder
        config = folder / "torghut.toml"
        config.write_text(
            f"""
            [sinks.hook]
            kind = "webhook"
            url = "{hook.url}"
            secret = "{SECRET}"
            [sinks.red]
            kind = "redis"
            url = "redis://127.0.0.1:{red.port}/0"
            timeout_s = 1
            [sinks.nat]
            kind = "nats"
            url = "nats://127.0.0.1:{nat.port}"
            timeout_s = 1
            """,
            encoding="utf-8",
        )
        self._environment = {
            "TORGHUT_CONFIG": str(config),
            "TORGHUT_DATABASE_URL": url,
            "TORGHUT_HOME": str(folder),
            "TORGHUT_LEASE_TTL_S": "1",
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
        }

    def _answer(self, _headers: Mapping[str, str], body: bytes) -> Answer:
        if self.down.is_set():
            return 503, {}
        return (422, {}) if POISON in body else (204, {})

    @contextmanager
    def process(self, point: P | None = None, passes: int = 1) -> Iterator[Child]:
        """A relay process; with `point` it dies when it comes by for the n-th time."""
        crash = {"TORGHUT_CRASH_AT": f"{point.value}:{passes}"} if point else {}
        child = Child("relays", {**self._environment, **crash}, log=self._folder / "log")
        try:
            yield child
        finally:
            child.kill()

    def waiting(self) -> int:
        """Events that some sink was not given yet."""
        with self.database.transaction() as tx:
            states = outbox.states(tx)
        return sum(state.lag for state in states) if len(states) == 3 else 1

    def arrived(self) -> dict[str, list[str]]:
        """Ids as they came, by sink."""
        client: Any = redis.Redis.from_url(
            f"redis://127.0.0.1:{self.redis.port}/0", decode_responses=True
        )
        entries = client.xrange("torghut:events")
        return {
            "hook": list(self.hook.taken),
            "red": [fields["id"] for _, fields in entries],
            "nat": [id_ for _, id_, _ in stream_of(self.nats, "TORGHUT")],
        }

    def dead(self) -> list[dead_letters.DeadLetter]:
        with self.database.transaction() as tx:
            return dead_letters.listed(tx, sink=None, settled=True, limit=100)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        enter = stack.enter_context
        made = World(
            database_url, tmp_path, enter(receiver()), enter(servers.redis()), enter(servers.nats())
        )
        stack.callback(made.database.close)
        yield made


@pytest.mark.timeout(1800 if FULL else 240)
def test_every_event_reaches_every_sink_in_order_whatever_dies(world: World) -> None:
    rng = random.Random(6)
    hashes = decisions(world.database, 8)
    with world.database.transaction() as tx:
        write(tx, hashes[0], "before", POISON.decode(), "after")
    with world.process():  # everything is imported once, before the writers begin
        eventually(lambda: world.waiting() == 0)
    ended = threading.Event()
    writers = [Writer(world.database, hashes, seed, pause_s=0.08, until=ended) for seed in range(8)]
    for writer in writers:
        writer.start()
    kills = 0
    for _ in range(ROUNDS):
        for point in POINTS:
            with world.process(point, rng.randint(1, 3)) as child:
                eventually(lambda child=child: child.dead)
                assert child.power_failed, "it ended in another way"
                kills += 1
    pause = threading.Event()
    for n in range(KILLS):
        if n == 1:
            world.down.set()
            world.redis.kill()
        if n == 3:
            world.down.clear()
            world.redis.start()
        with world.process():
            pause.wait(rng.uniform(0.1, 1.2))
            kills += 1
    ended.set()
    with world.process():
        for writer in writers:
            writer.join()
        eventually(lambda: world.waiting() == 0, 120)
    check(world, kills)


def check(world: World, kills: int) -> None:
    """Every sink has every event, in order; what the receiver refused is a dead letter."""
    everything = {id_ for _, id_, _ in stored(world.database)}
    (poison,) = world.dead()
    assert (poison.sink, poison.error, poison.refusals) == ("hook", "answered 422", 1)
    arrived = world.arrived()
    for sink, ids in arrived.items():
        wanted = everything - {poison.event_id} if sink == "hook" else everything
        assert set(ids) == wanted, f"{sink}: {len(wanted - set(ids))} events never came"
        assert faults(world.database, ids, set(wanted)) == [], sink
    repeated = {sink: len(ids) - len(set(ids)) for sink, ids in arrived.items()}
    assert repeated["nat"] == 0, "NATS drops repetitions by their id"
    assert repeated["hook"] + repeated["red"] > 0, "no kill was between delivery and position"
    print(f"\n{len(everything)} events, {kills} kills, repetitions {repeated}")


# ---------------------------------------------------------------------- the control


class PowerFails(BaseException):
    """What a SIGKILL looks like from inside one process."""


class StoresFirst(Relay):
    """Control: a relay that stores how far it will have come before it publishes."""

    def _work(self, cursor: Any, retries: Any, events: Any, now: datetime) -> dict[str, int]:
        with self._database.transaction() as tx:
            outbox.record(
                tx,
                cursor,
                after_seq=events[-1].seq if events else None,
                delivered=len(events),
                failure=None,
                now=now,
            )
        self._give(events, cursor, float("inf"))
        return {"delivered": len(events)}


@pytest.mark.parametrize(("kind", "lost"), [(Relay, []), (StoresFirst, ["c", "d"])])
def test_control_the_position_is_stored_after_the_answer(
    database: Database, kind: type[Relay], lost: list[str]
) -> None:
    with database.transaction() as tx:
        write(tx, None, *"abcd")

    def dying(message: Message) -> None:
        if message.event.payload["reason"] == "c":
            raise PowerFails

    sink = Kept(dying)
    named: Callable[..., Relay] = kind
    one = named("test", sink, database, "one", lease_ttl_s=30.0, rng=random.Random(1))
    with pytest.raises(PowerFails):
        one.run_once(NOW)
    sink.answer = lambda _: None
    drain(relay(database, sink))
    assert [step for step in "abcd" if step not in sink.steps()] == lost
