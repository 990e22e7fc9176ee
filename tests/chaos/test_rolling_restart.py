"""A new version is rolled out under load: three replicas, one replaced after the other (P1, P2).

As Kubernetes does it: a new process is ready before an old one gets SIGTERM, and what is sent over
HTTP goes to whichever answers. The owner is ended first each time an old one owns the account, so
that hand-overs are many. The delay of a decision is from the instant it was accepted to the
instant at which the broker took its order, by the broker's own record.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import Row, text

from tests.chaos import FULL
from tests.chaos.load import QTY, faults, settle
from tests.chaos.test_replicas import owner
from tests.crash.answers import BY_NAME
from tests.crash.processes import Child
from tests.crash.world import World, fields_of, numbered
from tests.factories import decision_json
from tests.services.rig import eventually

pytestmark = pytest.mark.timeout(600)
REPLICAS = 3
ROUNDS = 4 if FULL else 1
BETWEEN = 250 if FULL else 25  # decisions accepted between two restarts
OPEN_MAX = 20  # a busy machine must not turn the load into a backlog: its delay is no restart's
REACHED_S = 200
DELAY_MAX = timedelta(seconds=5)
LOADED = timedelta(seconds=0 if FULL else 15)  # the sample runs beside other tests
SETTINGS = {
    "target": "run",
    "TORGHUT_LEASE_TTL_S": 10,
    "TORGHUT_RECONCILE_INTERVAL_S": 15,
    "TORGHUT_BROKER_TIMEOUT_S": 10,
    "TORGHUT_HTTP_PORT": 0,
}
DELAYS = """
SELECT e.broker_created_at - d.created_at AS delay, d.created_at, a.intended_at, d.attempts,
  a.outcome
FROM trade_decisions d JOIN executions e USING (decision_id)
JOIN submission_attempts a ON a.decision_id = d.decision_id AND a.operation = 'submit'
  AND a.attempt_no = 1
ORDER BY delay DESC"""


class Fleet:
    """The replicas that stand in the service, and what replaces one of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.serving: dict[Child, str] = {}

    def add(self) -> Child:
        """A replica that is ready, and only then in the service."""
        child = self._world.start(**SETTINGS)  # type: ignore[arg-type]
        url = eventually(lambda: _url(child))
        eventually(lambda: _ready(url))
        self.serving[child] = url
        return child

    def end(self, child: Child, how: signal.Signals) -> None:
        """Out of the service and ended; a clean end has the exit code 0."""
        child.send(how)
        assert child.join(60) == (0 if how is signal.SIGTERM else -how)
        # only now, so that senders meet one that is ending
        del self.serving[child]

    def next_old(self, old: list[Child]) -> Child:
        """The owner, if it is an old one; else any of them."""
        now = owner(self._world)
        return now if now in old else old[0]


class HttpLoad:
    """Sends decisions over HTTP until `stop`, each until one replica has acknowledged it."""

    def __init__(self, world: World, fleet: Fleet) -> None:
        self._world = world
        self._fleet = fleet
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http-load", daemon=True)
        self.acknowledged: list[str] = []
        self.answers: set[str] = set()
        self.retries = 0

    @property
    def count(self) -> int:
        return len(self.acknowledged)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for n in range(1_000_000):
            while self._stopping.wait(0.01) or self._world.state()["open"] >= OPEN_MAX:
                if self._stopping.is_set():
                    return
            (item,) = numbered(n, 1, QTY)
            body = decision_json(**fields_of(item))
            turn = n
            while not self._sent(body, turn):
                turn += 1
                self.retries += 1
                self._stopping.wait(0.01)
            self.acknowledged.append(item.decision_hash)

    def _sent(self, body: dict[str, object], turn: int) -> bool:
        urls = list(self._fleet.serving.values())
        with suppress(requests.RequestException):
            url = f"{urls[turn % len(urls)]}/v1/decisions"
            answer = requests.post(url, json=body, timeout=30)
            self.answers.add(str(answer.status_code))
            return answer.status_code in (200, 201)
        return False


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with World(database_url, tmp_path, BY_NAME["accepted"], others=0) as built:
        yield built


def roll_out(world: World, how: signal.Signals, *, rounds: int, restarts: int) -> HttpLoad:
    """Replace `restarts` replicas a round under load, and let everything settle."""
    fleet = Fleet(world)
    for _ in range(REPLICAS):
        fleet.add()
    world.wait(lambda: owner(world) is not None, "an owner")
    load = HttpLoad(world, fleet)
    load.start()
    for _ in range(rounds):
        old = list(fleet.serving)
        for _ in range(restarts):
            enough = load.count + BETWEEN
            eventually(lambda enough=enough: load.count >= enough, REACHED_S)
            fleet.add()
            ended = fleet.next_old(old)
            old.remove(ended)
            fleet.end(ended, how)
    enough = load.count + BETWEEN
    eventually(lambda: load.count >= enough, REACHED_S)
    load.stop()
    settle(world, load)
    return load


def delays(world: World) -> list[Row[Any]]:
    """From accepted to taken by the broker, longest first, and the first attempt's outcome."""
    with world.database.transaction() as tx:
        return list(tx.execute(text(DELAYS)))


def test_a_rolling_restart_delays_nothing_for_long(
    world: World, record_property: pytest.RecordProperty
) -> None:
    load = roll_out(world, signal.SIGTERM, rounds=ROUNDS, restarts=REPLICAS)
    waited = delays(world)
    assert len(waited) == load.count
    assert faults(world, load) == []
    posts = world.requests()["posts_by_client_order_id"]
    assert {posts.get(h) for h in load.acknowledged} == {1}
    assert load.answers <= {"200", "201", "503"}
    with world.database.transaction() as tx:
        terms = tx.execute(text("SELECT fencing_token FROM account_leases")).scalar_one()
    assert terms >= 2, "no hand-over was part of it"
    assert waited[0].delay <= DELAY_MAX + LOADED, "\n".join(map(str, waited[:5]))
    figures = (
        f"{ROUNDS * REPLICAS} restarts, {load.count} decisions, {load.retries} sent again, "
        f"{terms - 1} hand-overs, longest delay {waited[0].delay.total_seconds():.2f} s"
    )
    record_property("figures", figures)
    print(figures)


def test_control_without_a_hand_over_a_decision_waits_for_the_lease(world: World) -> None:
    """Killed instead of ended: nothing is lost or doubled, and the delay is found."""
    load = roll_out(world, signal.SIGKILL, rounds=1, restarts=1)
    assert faults(world, load) == []
    assert delays(world)[0].delay > DELAY_MAX


def _url(child: Child) -> str | None:
    found = child.log.exists() and re.search(r"console and API at (\S+)", child.log.read_text())
    return found[1] if found else None


def _ready(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{url}/readyz", timeout=10).status_code == 200
    return False
