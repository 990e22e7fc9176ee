"""What the rest of the project assumes of a broker, as checks that any broker can be put to.

Each function names one assumption, takes a `Broker` and fresh ids, and asserts it over the wire.
The exactly-once promise (P1) rests on the first five: no database can stop a stalled process's
HTTP call, only the broker's own uniqueness of `client_order_id` can.

Orders used: limit buys of one share at $1, which rest and are canceled by nobody (one of them with
a bracket), and (where a check needs fills) one-share market buys, which need an open market.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from itertools import count

from tests.brokers.samples import request
from torghut.brokers.alpaca_mapping import instant_of
from torghut.domain.orders import Order, OrderRequest
from torghut.ports import Broker, FillActivity, Outcome

SYMBOL = "AAPL"
POLL_S = 0.02
POLLS_MAX = 500
FILLS_WANTED = 130  # more than one page of activities

Ids = Callable[[], str]


def fresh_ids(run: str) -> Ids:
    """Client order ids as the project makes them: 64 hex characters, never the same twice."""
    numbers = count()
    return lambda: hashlib.sha256(f"{run} {next(numbers)}".encode()).hexdigest()


def resting(**changes: object) -> OrderRequest:
    return request(**{"symbol": SYMBOL, "qty": "1", "limit_price": "1", **changes})


def marketable(**changes: object) -> OrderRequest:
    return request(
        **{"symbol": SYMBOL, "type": "market", "qty": "1", "limit_price": None} | changes
    )


def accept(broker: Broker, order: OrderRequest, coid: str) -> str:
    """Submit, and give the broker's id of the accepted order."""
    got = broker.submit(order, coid)
    assert got.outcome is Outcome.ACCEPTED and got.order is not None, got
    assert (got.order.client_order_id, got.order.symbol) == (coid, order.symbol)
    return got.order.broker_order_id


def an_id_is_taken_once(broker: Broker, ids: Ids) -> None:
    """The same id again is refused as a duplicate, for the same order and for another one."""
    coid = ids()
    accept(broker, resting(), coid)
    for order in (resting(), resting(qty="2"), marketable()):
        assert broker.submit(order, coid).outcome is Outcome.EXISTS


def an_id_is_taken_once_under_a_race(broker: Broker, ids: Ids) -> None:
    """Eight callers with one id at one moment: one order, seven duplicates."""
    coid, barrier = ids(), threading.Barrier(8)

    def submit(_: int) -> Outcome:
        barrier.wait(10)
        return broker.submit(resting(), coid).outcome

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(submit, range(8)))
    assert outcomes == [Outcome.ACCEPTED] + [Outcome.EXISTS] * 7


def an_id_stays_taken_after_its_order_is_filled(broker: Broker, ids: Ids) -> None:
    """Uniqueness is permanent, not among open orders only."""
    coid = ids()
    wait_terminal(broker, [accept(broker, marketable(), coid)])
    assert broker.submit(marketable(), coid).outcome is Outcome.EXISTS


def an_accepted_order_is_found_at_once(broker: Broker, ids: Ids) -> None:
    """A lookup straight after the answer finds the order, by either id."""
    coid = ids()
    broker_order_id = accept(broker, resting(), coid)
    found, by_id = broker.lookup(coid).order, broker.get_order(broker_order_id)
    assert found is not None and found.broker_order_id == broker_order_id
    assert by_id is not None and by_id.client_order_id == coid


def an_unknown_id_is_definitely_absent(broker: Broker, ids: Ids) -> None:
    """The broker says so itself: a 404 of its own."""
    assert broker.lookup(ids()).order is None
    assert broker.get_order("00000000-0000-4000-8000-000000000000") is None


def a_refused_order_leaves_its_id_free(broker: Broker, ids: Ids) -> None:
    """A definite refusal leaves nothing behind, so that `rejected` is true."""
    coid = ids()
    refusal = broker.submit(resting(symbol="ZZZZZZ"), coid)
    assert refusal.outcome is Outcome.REFUSED, refusal
    assert refusal.http_status == 422 and refusal.broker_code and refusal.message
    assert broker.lookup(coid).order is None
    accept(broker, resting(), coid)


def ids_of_128_characters_are_taken_whole(broker: Broker, ids: Ids) -> None:
    """Room for a hash with a suffix; longer ones are refused, never cut."""
    coid = ids() + ids()
    accept(broker, resting(), coid)
    assert broker.lookup(coid).order is not None
    assert broker.lookup(coid[:-1]).order is None
    assert broker.submit(resting(), coid + "x").outcome is Outcome.REFUSED


def amounts_come_back_exact(broker: Broker, ids: Ids) -> None:
    order = resting(qty="3", limit_price="1.07")
    accept(broker, order, coid := ids())
    found = broker.lookup(coid).order
    assert found is not None and (found.qty, found.limit_price) == (3, Decimal("1.07"))
    fraction = marketable(qty="0.123456789")
    accept(broker, fraction, coid := ids())
    found = broker.lookup(coid).order
    assert found is not None and found.qty == Decimal("0.123456789")


def orders_are_listed_ascending_and_without_gaps(broker: Broker, ids: Ids) -> None:
    """Small pages by `after` give the same orders as one large one, in order of submission."""
    mine = [ids() for _ in range(12)]
    for coid in mine:
        accept(broker, resting(), coid)
    listed = [o.client_order_id for o in broker.orders(after=None, limit=500)]
    assert [coid for coid in listed if coid in mine] == mine
    paged: dict[str, None] = {}
    after, seen = None, -1
    while len(paged) > seen:
        seen = len(paged)
        page = broker.orders(after=after, limit=5)
        assert len(page) <= 5
        paged.update((o.client_order_id, None) for o in page)
        # `after` is on the submission time, which is finer than our microseconds: overlap.
        submitted = instant_of(page[-1].raw, "submitted_at") if page else None
        after = submitted - timedelta(microseconds=1) if submitted else after
    assert [coid for coid in paged if coid in mine] == mine
    assert set(mine) <= {o.client_order_id for o in broker.open_orders()}


def legs_are_orders_of_their_own(broker: Broker, ids: Ids) -> None:
    """The legs of a bracket are named by the answer and by questions, and listed as orders."""
    order = resting(
        order_class="bracket", take_profit={"limit_price": "2"}, stop_loss={"stop_price": "0.5"}
    )
    got = broker.submit(order, ids())
    assert got.outcome is Outcome.ACCEPTED and got.order is not None, got
    legs = {leg.broker_order_id for leg in got.order.legs}
    by_id = broker.get_order(got.order.broker_order_id)
    by_client_id = broker.lookup(got.order.client_order_id).order
    for found in (by_id, by_client_id):
        assert found is not None and {leg.broker_order_id for leg in found.legs} == legs
    assert len(legs) == 2
    listed = {found.broker_order_id for found in every_order(broker)}
    assert legs < listed


def fills_are_paged_ascending_once_each(broker: Broker, ids: Ids) -> None:
    """Paging by the last id sees each fill once; they add up to what the orders say."""
    orders = [accept(broker, marketable(), ids()) for _ in range(FILLS_WANTED)]
    wait_terminal(broker, orders)
    fills = all_fills(broker)
    assert len({f.activity_id for f in fills}) == len(fills)
    assert [f.transact_time for f in fills] == sorted(f.transact_time for f in fills)
    for broker_order_id in orders:
        mine = [f for f in fills if f.broker_order_id == broker_order_id]
        order = broker.get_order(broker_order_id)
        assert order is not None and order.status == "filled"
        assert sum(f.last_qty for f in mine) == order.cum_qty == 1
        assert mine[-1].cum_qty == 1 and mine[-1].leaves_qty == 0


def positions_are_the_sum_of_fills(broker: Broker, ids: Ids) -> None:
    before = {p.symbol: p.qty for p in broker.positions()}.get(SYMBOL, Decimal(0))
    wait_terminal(broker, [accept(broker, marketable(qty="3"), ids())])
    (position,) = (p for p in broker.positions() if p.symbol == SYMBOL)
    assert position.qty == before + 3 and position.avg_px > 0


def the_account_can_be_judged(broker: Broker, ids: Ids) -> None:
    account = broker.account()
    assert account.account_number and not account.blocked
    assert account.equity > 0 and account.buying_power >= 0


CHECKS: tuple[Callable[[Broker, Ids], None], ...] = (
    an_id_is_taken_once,
    an_id_is_taken_once_under_a_race,
    an_id_stays_taken_after_its_order_is_filled,
    an_accepted_order_is_found_at_once,
    an_unknown_id_is_definitely_absent,
    a_refused_order_leaves_its_id_free,
    ids_of_128_characters_are_taken_whole,
    amounts_come_back_exact,
    orders_are_listed_ascending_and_without_gaps,
    legs_are_orders_of_their_own,
    fills_are_paged_ascending_once_each,
    positions_are_the_sum_of_fills,
    the_account_can_be_judged,
)

UNIQUENESS_CHECKS = CHECKS[:3]


def all_fills(broker: Broker) -> Sequence[FillActivity]:
    fills: list[FillActivity] = []
    while page := broker.fills(page_token=fills[-1].activity_id if fills else None, after=None):
        assert len(page) <= 100
        fills.extend(page)
    return fills


def every_order(broker: Broker) -> Sequence[Order]:
    """All orders of the account, by pages that overlap."""
    found: dict[str, Order] = {}
    after, seen = None, -1
    while len(found) > seen:
        seen = len(found)
        page = broker.orders(after=after, limit=500)
        found |= {order.broker_order_id: order for order in page}
        submitted = instant_of(page[-1].raw, "submitted_at") if page else None
        after = submitted - timedelta(microseconds=1) if submitted else after
    return [*found.values()]


def wait_terminal(broker: Broker, broker_order_ids: Sequence[str]) -> None:
    """Poll until every order is terminal; a broker has no signal to wait on."""
    pace = threading.Event()
    for broker_order_id in broker_order_ids:
        for _ in range(POLLS_MAX):
            order = broker.get_order(broker_order_id)
            if order is not None and order.terminal:
                break
            pace.wait(POLL_S)
        else:
            raise AssertionError(f"{broker_order_id} never became terminal")
