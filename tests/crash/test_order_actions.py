"""Power failure at the points of an order action and of a flattening (P1, P3; stories 4, 8, 26).

The daemon dies at the point, the next one ends it: one live order at the most, and the outcome
that was asked for. A sample of points × answers of the broker.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from tests.crash.answers import Answer
from tests.crash.conftest import Build
from tests.crash.world import World
from tests.factories import ACCOUNT, decision
from torghut.clock import utc_now
from torghut.recovery_points import RecoveryPoint as P
from torghut.services import flattening, order_requests
from torghut.services.order_requests import Asker

QUIET = Answer("quiet")
ENDED = ("filled", "canceled", "expired", "replaced", "rejected")
POINTS = [P.ACTION_BEFORE_COMMIT, P.ACTION_AFTER_COMMIT, P.ACTION_BEFORE_CALL, P.ACTION_AFTER_CALL,
          P.ACTION_BEFORE_OUTCOME, P.ACTION_AFTER_OUTCOME]  # fmt: skip
KINDS = [None, "accept_then_reset", "accept_then_refuse", "refuse_5xx"]


def standing(world: World) -> None:
    """The subject becomes an order that rests at the broker."""
    world.subject = decision(
        strategy="crash", symbol="AAPL", qty="10", type="limit", limit_price="1", intent="rests"
    )
    world.accept([world.subject])
    daemon = world.start()
    world.wait(lambda: world.status_of(world.subject) == "submitted", "the order")
    daemon.kill()


def asker() -> Asker:
    return Asker("test", "a test", "key", utc_now())


def action_status(world: World) -> str:
    with world.database.transaction() as tx:
        query = text("SELECT string_agg(status, ',') FROM order_actions")
        return str(tx.execute(query).scalar_one())


def live(world: World) -> list[Any]:
    """What is open at the broker, by its second books."""
    lines = [line for found in world.ledger()["orders"].values() for line in found]
    return [line for line in lines if line["status"] not in ENDED]


def die_and_finish(world: World, points: list[P], done: Callable[[], bool]) -> None:
    """A daemon dies at each point in turn, the last one finishes."""
    for point in points:
        daemon = world.start(point)
        world.wait(lambda d=daemon: d.dead, f"to die at {point}")
        assert daemon.power_failed, world.logs()
    world.start()
    world.wait(done, "the outcome")


def prefixed(point: P) -> list[P]:
    """A sweep needs a writer that died before."""
    swept = point in (P.ACTION_BEFORE_SWEEP, P.ACTION_AFTER_SWEEP)
    return [P.ACTION_AFTER_CALL, point] if swept else [point]


@pytest.mark.parametrize("operation", ["cancel", "replace"])
@pytest.mark.parametrize(
    ("point", "kind"),
    [
        *((point, KINDS[n % len(KINDS)]) for n, point in enumerate(POINTS)),
        (P.ACTION_BEFORE_SWEEP, None),
        (P.ACTION_AFTER_SWEEP, None),
    ],
)
def test_killed_at_a_point(operation: str, point: P, kind: str | None, build: Build) -> None:
    """The action ends as done; one order lives after a replacement, none after a cancel."""
    rules = [{"route": operation, "kind": kind, "count": 1}] if kind else []
    world = build(QUIET, others=0, rules=rules)
    standing(world)
    hash_ = world.subject.decision_hash
    if operation == "cancel":
        order_requests.cancel(world.database, hash_, asker())
    else:
        order_requests.replace(world.database, hash_, {"qty": "4"}, asker())
    die_and_finish(world, prefixed(point), lambda: action_status(world) == "done")
    wanted = [] if operation == "cancel" else ["4"]
    world.wait(lambda: [line["qty"] for line in live(world)] == wanted, "the broker's books")
    assert world.ledger()["totals"]["duplicate_client_order_ids"] == []
    assert world.discrepancies() == []


@pytest.mark.parametrize(
    ("operation", "point"),
    [
        ("cancel", P.REQUEST_BEFORE_COMMIT),
        ("cancel", P.REQUEST_AFTER_COMMIT),
        ("replace", P.REQUEST_AFTER_COMMIT),
        ("flatten", P.REQUEST_AFTER_COMMIT),
    ],
)
def test_who_asks_dies(operation: str, point: P, build: Build) -> None:
    """A command that dies is repeated under its key: what it asks for is done once (story 36)."""
    world = build(QUIET, others=0)
    standing(world)
    hash_ = world.subject.decision_hash
    words = {
        "cancel": ["cancel", hash_],
        "replace": ["replace", hash_, "--qty", "4"],
        "flatten": ["flatten"],
    }[operation]
    words += ["--reason", "a test", "--key", "k1", "--wait", "0"]
    assert world.command(words, point).power_failed
    table = "flattens" if operation == "flatten" else "order_actions"
    with world.database.transaction() as tx:
        stored = tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
    assert stored == int(point is P.REQUEST_AFTER_COMMIT)
    assert world.command(words, None).join(0) == 0
    world.start()
    wanted = ["4"] if operation == "replace" else []
    world.wait(lambda: [line["qty"] for line in live(world)] == wanted, "the broker's books")
    with world.database.transaction() as tx:
        assert tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 1
    asked = {"cancel": "cancel", "replace": "replace", "flatten": "cancel"}[operation]
    assert world.requests()["routes"][asked] == 1


def test_control_until_somebody_looks_it_is_not_known(build: Build) -> None:
    """Control: killed after the call, and no other daemon: our books do not know of it."""
    world = build(QUIET, others=0)
    standing(world)
    order_requests.replace(world.database, world.subject.decision_hash, {"qty": "4"}, asker())
    daemon = world.start(P.ACTION_AFTER_CALL)
    world.wait(lambda: daemon.dead, "to die")
    assert action_status(world) == "sending"
    assert [line["qty"] for line in live(world)] == ["4"]


@pytest.mark.parametrize("point", [P.ACTION_BEFORE_CALL, P.ACTION_AFTER_CALL])
def test_frozen_over_its_lease(point: P, build: Build) -> None:
    """Another owner finishes; what the frozen one sends late makes no second order (story 45)."""
    world = build(QUIET, others=0)
    standing(world)
    order_requests.replace(world.database, world.subject.decision_hash, {"qty": "4"}, asker())
    frozen = world.start(point, mutated=("stop_instead_of_kill",))
    world.wait(lambda: action_status(world) == "sending", "the first daemon's intent")
    world.start()
    world.wait(lambda: action_status(world) == "done", "the second daemon")
    frozen.send(signal.SIGCONT)
    if point is P.ACTION_BEFORE_CALL:  # it sends now, a lease too late, and is refused
        world.wait(lambda: world.requests()["routes"]["replace"] == 2, "the late PATCH")
    assert [line["qty"] for line in live(world)] == ["4"]
    assert len(world.ledger()["orders"]) == 2


@pytest.mark.parametrize("point", [P.FLATTEN_BEFORE_COMMIT, P.FLATTEN_AFTER_COMMIT])
@pytest.mark.parametrize("passes", [1, 3])
def test_flatten_killed_at_a_step(point: P, passes: int, build: Build) -> None:
    """The next daemon takes the step up: flat, and nothing sold twice."""
    world = build(QUIET, others=2)
    world.accept([world.subject, *world.others])
    world._others_sent = True
    daemon = world.start()
    world.wait(world.settled, "positions")
    daemon.kill()
    asked = flattening.request(world.database, ACCOUNT, asker())
    dying = world.start(TORGHUT_CRASH_AT=f"{point.value}:{passes}")
    world.wait(lambda: dying.dead, "to die")
    world.start()
    world.wait(lambda: flattening.look(world.database, asked.row).row.ended, "flat")
    assert flattening.look(world.database, asked.row).row.status == "done"
    assert world.book_faults() == []
    with world.database.transaction() as tx:
        left = tx.execute(text("SELECT count(*) FROM positions WHERE qty <> 0")).scalar_one()
    assert left == 0
