"""What the world does to its processes, and what the broker does by itself; drawn from the seed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tests.simulation.baton import Task
from tests.simulation.plan import LEASE_TTL_S
from tests.simulation.replica import Replica
from torghut.domain.orders import OrderRequest

if TYPE_CHECKING:
    from tests.simulation.world import World


def trouble(world: World) -> None:
    """Something happens to a process, or to a clock."""
    kinds = ["crash", "freeze", "thaw", "terminate", "overtaken", "overtaken"]
    if world.plan.skewed:
        kinds += ["jump", "jump"]
    kind = world.rng.choice(kinds)
    replica = world.rng.choice(world.replicas)
    if kind == "crash":
        crash(world, replica)
    elif kind == "freeze":
        world.note(f"{replica.name} freezes")
        replica.frozen = True
        world.advance(world.rng.choice((0.0, LEASE_TTL_S + 1)))
    elif kind == "thaw":
        for one in world.replicas:
            one.frozen = False
        world.note("all thaw")
    elif kind == "overtaken":
        _overtaken(world)
    elif kind == "jump":
        seconds = world.rng.choice((-20.0, -3.0, 3.0, 20.0))
        if world.rng.random() < 0.5:
            world.postgres_ahead_s += seconds
            world.note(f"Postgres's clock jumps by {seconds} s")
        else:
            replica.ahead += timedelta(seconds=seconds)
            world.note(f"the clock of {replica.name} jumps by {seconds} s")
    else:
        _terminate(world, replica)


def _overtaken(world: World) -> None:
    """The owner is frozen beyond its lease, another one takes the account, the first thaws."""
    owners = [replica for replica in world.replicas if replica.owner]
    if not owners:
        return
    world.note(f"{owners[0].name} is overtaken")
    owners[0].frozen = True
    world.advance(LEASE_TTL_S + 1)
    busy = {task.process for task in world.tasks if task.name == "heartbeat"}
    for replica in list(world.replicas):
        if not replica.frozen and replica.name not in busy:
            world.begin(replica, "heartbeat")
    owners[0].frozen = False
    if world.rng.random() < 0.5:
        _terminate(world, owners[0])


def crash(world: World, replica: Replica) -> None:
    """Power fails for a process; another one takes its place."""
    world.note(f"{replica.name} crashes")
    for task in [task for task in world.tasks if task.process == replica.name]:
        world.kill(task)
    world.replicas[world.replicas.index(replica)] = world.new_replica()


def _terminate(world: World, replica: Replica) -> None:
    """A clean end, with nothing under way: the lease is handed over, another process begins."""
    busy = any(task.process == replica.name for task in world.tasks)
    if busy or replica.executor.in_flight:
        return
    world.note(f"{replica.name} is asked to end")
    world.replicas[world.replicas.index(replica)] = world.new_replica()
    task = Task("stop", replica.name, replica.supervisor.stop)
    world.tasks.append(task)
    world.go_on(task)


def broker_moves(world: World) -> None:
    """An order is filled, in part or whole, or ends; or a stranger's order comes."""
    live = [order for order in world.book.orders if order.live]
    if world.plan.strangers and world.rng.random() < 0.3:
        _stranger(world)
    elif live:
        order = world.rng.choice(live)
        kind = world.rng.choice(("fill", "fill", "part", "canceled", "expired"))
        if kind in ("canceled", "expired"):
            world.book.end(order, kind)
        else:
            world.fill(order, whole=kind == "fill")
        world.note(f"order {world.name(order.client_order_id)} is {order.status}")


def _stranger(world: World) -> None:
    count = sum(order.external for order in world.book.orders)
    request = world.plan.decisions[0].order
    request = OrderRequest(
        symbol="TSLA",
        side=request.side,
        order_type=request.order_type,
        time_in_force=request.time_in_force,
        qty=request.qty,
        limit_price=request.limit_price,
    )
    hidden_s, unlisted_s = world.lags_s()
    world.book.take(
        request,
        f"{world.account}-stranger-{count}",
        hidden_s=hidden_s,
        unlisted_s=unlisted_s,
        external=True,
    )
    world.note(f"a stranger's order {count}")
