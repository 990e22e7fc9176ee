"""After the faults: everything ends, within a bounded time, by the normal path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tests.simulation.driver import Session
from torghut.domain.exposure import TradingState
from torghut.storage import control

if TYPE_CHECKING:
    from tests.simulation.world import World

ENDS_WITHIN_S = 240.0
"""A lease, the grace and three misses after it, twice each, with the waits between."""
SHORTEST_WAIT_S = 4.0  # a pass that is a little late loses nothing but time
BOOKS_WAIT_S = 1.0
HEARTBEAT_S = 2.0
WAIT_MAX_S = 7.0  # less than a lease
ROUNDS_MAX = 60
LOOKS_MAX = 4

_OPEN = text("""
SELECT count(*) FILTER (WHERE status NOT IN ('closed', 'denied', 'rejected', 'expired',
    'canceled')) AS open,
  coalesce(array_agg(decision_hash) FILTER (WHERE status = 'submitted'), '{}') AS submitted,
  count(*) FILTER (WHERE status = 'in_doubt' AND due_at <= :now) AS in_doubt,
  count(*) FILTER (WHERE status = 'submitting'
    OR status IN ('planned', 'approved') AND due_at <= :now) AS to_execute,
  extract(epoch FROM min(due_at) FILTER (WHERE status IN ('planned', 'approved', 'in_doubt'))
    - CAST(:now AS timestamptz)) AS due_s,
  (SELECT count(*) FROM order_actions a WHERE a.account = :account
     AND a.status IN ('requested', 'sending', 'confirming', 'in_doubt')) AS actions,
  (SELECT state FROM trading_states WHERE scope = 'account:' || :account) AS state,
  (SELECT count(*) FROM executions WHERE account = :account
     AND (NOT terminal AND decision_id IS NOT NULL OR cum_qty <> ledger_qty)) AS unbooked
FROM trade_decisions WHERE account = :account""")

_DRIFTS = text("""SELECT count(*) FROM discrepancies WHERE account = :account
AND resolved_at IS NULL AND kind IN ('position_differs', 'cash_differs')""")


def until_done(world: World, session: Session) -> bool:
    """Loops come round and time passes until nothing is open; False if that takes too long."""
    deadline_s = world.now_s + ENDS_WITHIN_S
    while world.unsent:
        world.accept(world.unsent[0])
    for _ in range(ROUNDS_MAX):
        stands = session.execute(_OPEN, {"account": world.account, "now": world.utc()}).one()
        if stands.state == "halted":
            _resume(world)
        under_way = bool(stands.open or stands.actions or stands.unbooked or not _quiet(world))
        if not under_way and not world.hiding:
            return True
        if world.now_s > deadline_s:
            return False
        _round(world, stands, under_way)
        wait_s = WAIT_MAX_S if stands.due_s is None else float(stands.due_s)
        wait_s = max(SHORTEST_WAIT_S, min(wait_s, WAIT_MAX_S))
        if stands.submitted or stands.unbooked or stands.actions:
            wait_s = BOOKS_WAIT_S
        owned = any(replica.owner for replica in world.replicas)
        world.advance(wait_s if owned else HEARTBEAT_S)
    return False


def last_look(world: World, session: Session) -> None:
    """One more pass of whoever owns the account, when nothing is hidden any more, and as many as a
    difference of amounts needs to be seen to have ended."""
    for _ in range(ROUNDS_MAX):
        _pass(world, "heartbeat", owned=False)
        if any(replica.owner for replica in world.replicas):
            break
        world.advance(HEARTBEAT_S)
    if not world.read_to_the_end:
        _pass(world, "reconciler")
    for _ in range(LOOKS_MAX):
        if not session.execute(_DRIFTS, {"account": world.account}).scalar_one():
            return
        world.advance(WAIT_MAX_S)
        _pass(world, "heartbeat")
        _pass(world, "reconciler")


def _quiet(world: World) -> bool:
    return not any(order.live for order in world.book.orders if not order.external)


def _round(world: World, stands: Any, under_way: bool) -> None:
    """The owner's loops, as far as they have something to do; without an owner all seek it."""
    owned = any(replica.owner for replica in world.replicas)
    if not owned or world.now_s >= world.beaten_s + HEARTBEAT_S:
        _pass(world, "heartbeat", owned=owned)
        world.beaten_s = world.now_s
    if stands.in_doubt:
        _pass(world, "settler")
    if stands.to_execute or _in_flight(world):
        _pass(world, "executor")
    if _in_flight(world):
        _pass(world, "executor")
    if stands.submitted or stands.unbooked or stands.actions or (under_way and not stands.open):
        for order in world.book.orders:
            if order.live and order.client_order_id in stands.submitted:
                world.fill(order, whole=True)
        _pass(world, "reconciler")
        if stands.actions:
            _pass(world, "order desk")


def _in_flight(world: World) -> bool:
    return any(replica.executor.in_flight for replica in world.replicas)


def _pass(world: World, name: str, *, owned: bool = True) -> None:
    for replica in world.replicas:
        if replica.owner or not owned:
            if name == "reconciler":
                world.read = (world.stamp(), world.utc())
            world.begin(replica, name)
            world.drain()


def _resume(world: World) -> None:
    """A person has mended the keys."""
    world.note("resumed")
    with world.person.transaction() as tx:
        scope = control.account_scope(world.account)
        control.set_trading_state(
            tx, scope, TradingState.ACTIVE, actor="person", reason="mended", now=world.utc()
        )
