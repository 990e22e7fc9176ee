"""What an attack from outside found once, so that it is not found again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.factories import ACCOUNT
from tests.services.rig import Rig, eventually
from torghut.domain.errors import BrokerUnavailable
from torghut.domain.orders import Order
from torghut.domain.values import canonical_instant
from torghut.ports import FillActivity, Page
from torghut.services.rate_budget import BACKGROUND_SHARE, RateBudget
from torghut.storage import exposure


def test_reconciliation_as_often_as_it_likes_leaves_room_for_orders() -> None:
    budget = RateBudget(200)
    asked = 0
    while budget.wait_for_one(0, background=True):
        asked += 1
    assert asked == 200 * BACKGROUND_SHARE
    assert budget.for_orders(8) == 8


def test_control_questions_in_the_foreground_can_starve_orders() -> None:
    budget = RateBudget(200)
    while budget.wait_for_one(0):
        pass
    assert budget.for_orders(8) == 0


class OneRowUnreadable:
    """A broker whose first page of fills has a row that cannot be read."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.asked: list[str | None] = []

    def fills(self, *, page_token: str | None, after: Any) -> Page[FillActivity]:
        self.asked.append(page_token)
        page = self._real.fills(page_token=page_token, after=after)
        if page_token is not None or not page:
            return Page(page)
        first = page[0].activity_id
        return Page(page[1:], full=True, last_id=page[-1].activity_id, unreadable=[f"{first}: bad"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_an_unreadable_fill_does_not_end_the_list(rig: Rig) -> None:
    hashes = [rig.send(intent=str(n)) for n in range(3)]
    rig.execute(3)
    assert {rig.status(hash_)[0] for hash_ in hashes} == {"submitted"}
    eventually(lambda: rig.totals()["fills"] >= 3)
    broker = OneRowUnreadable(rig.broker)
    rig.questions._broker = broker  # type: ignore[assignment]
    rig.reconcile()
    assert len(broker.asked) == 2
    assert "unreadable_row" in {kind for kind, _ in rig.discrepancies()}


class DeafToAfter:
    """A broker that answers every page of orders with the same full one."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.pages = 0

    def orders(self, *, after: Any, limit: int) -> Page[Order]:
        self.pages += 1
        assert self.pages < 10, "the pass does not end"
        page: Sequence[Order] = self._real.orders(after=None, limit=limit)
        return Page(page, full=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_broker_that_pages_in_circles_does_not_hold_the_pass(rig: Rig) -> None:
    hashes = [rig.send(intent=str(n)) for n in range(2)]
    rig.execute(3)
    assert {rig.status(hash_)[0] for hash_ in hashes} == {"submitted"}
    broker = DeafToAfter(rig.broker)
    rig.questions._broker = broker  # type: ignore[assignment]
    counts = rig.reconcile()
    assert broker.pages == 2
    assert not counts.get("failed")


def test_a_live_order_of_an_ended_decision_is_exposure(rig: Rig) -> None:
    """P7: found at the broker after the decision had expired, it may still fill."""
    rig.control("POST", "/switches", {"hold_fills": True})
    hash_ = rig.send(expires_at=canonical_instant(rig.time() + timedelta(seconds=1)))
    rig.time.pass_s(5)
    rig.execute()
    assert rig.status(hash_)[0] == "expired"
    rig.place(client_order_id=hash_)
    rig.reconcile()
    with rig.database.transaction() as tx:
        seen = exposure.read(
            tx,
            ACCOUNT,
            judged=[],
            symbols=[],
            wanted=lambda *_: False,
            observed_at=None,
            day_start=rig.time(),
            look_back_s=Decimal(0),
            rejects_max=0,
            now=rig.time(),
        )
    assert sum(counts.open_orders for counts in seen.strategy_counts.values()) == 1
    assert seen.by_symbol["AAPL"].buy_qty > 0


def test_a_process_that_lost_the_account_does_not_send_what_it_had_claimed(rig: Rig) -> None:
    """Frozen between the claim and the call, and awake when another has taken over (P1)."""
    hash_ = rig.send()
    rig.placer._owns = lambda _token: False
    rig.execute()
    assert rig.posts(hash_) == 0
    assert rig.status(hash_)[0] == "approved"


def test_control_the_owner_sends(rig: Rig) -> None:
    hash_ = rig.send()
    rig.execute()
    assert rig.posts(hash_) == 1


def test_a_short_sale_is_booked(rig: Rig) -> None:
    """P8, P12: its activity has the side `sell_short`, which no order has."""
    hash_ = rig.send(side="sell")
    rig.drive([hash_])
    eventually(lambda: rig.totals()["fills"] >= 1)
    rig.reconcile()
    (fill,) = rig.sql("SELECT side, raw ->> 'side' AS told FROM fills")
    assert (fill.side, fill.told) == ("sell", "sell_short")
    assert rig.sql("SELECT qty FROM positions")[0].qty == -10
    assert not rig.discrepancies()


class Unreadable:
    """A broker whose answers about some orders (`bad`) cannot be read, wherever they stand."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.bad: set[str] = set()
        self.unlisted: set[str] = set()

    def orders(self, *, after: Any, limit: int) -> Page[Order]:
        page = self._real.orders(after=after, limit=limit)
        ids = [order.broker_order_id for order in page]
        return Page(
            [order for order in page if order.broker_order_id not in self.bad | self.unlisted],
            last_at=page.last_at,
            unreadable=[f"{id_}: bad" for id_ in ids if id_ in self.bad],
        )

    def open_orders(self) -> list[Order]:
        return [o for o in self._real.open_orders() if o.broker_order_id not in self.bad]

    def get_order(self, broker_order_id: str) -> Order | None:
        if broker_order_id in self.bad:
            raise BrokerUnavailable("order by id: bad")
        order: Order | None = self._real.get_order(broker_order_id)
        return order

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_fill_of_an_unreadable_order_leaves_the_others_alone(rig: Rig) -> None:
    """Story 28: quarantined, with its order, until that can be read; P8, P12."""
    broker = Unreadable(rig.broker)
    rig.questions._broker = broker  # type: ignore[assignment]
    broker.bad = {rig.place(symbol="MSFT")["id"]}
    rig.drive([rig.send()])
    eventually(lambda: rig.totals()["fills"] == 2)
    counts = [rig.reconcile() for _ in range(4)]
    assert [one.get("failed", 0) for one in counts] == [1, 1, 1, 0]  # it may have been an outage
    assert rig.sql("SELECT symbol FROM fills") == [("AAPL",)]
    assert {kind for kind, _ in rig.discrepancies()} == {"unreadable_row", "cannot_be_booked"}
    broker.bad.clear()
    rig.time.pass_s(120)
    rig.reconcile()
    assert rig.count("fills") == 2
    assert rig.count("discrepancies", "resolved_at IS NULL") == 0


def test_unreadable_orders_do_not_keep_ours_from_being_asked_for(rig: Rig) -> None:
    """An order of ours that ended, in no list that is read any more, beside six that are bad."""
    rig.control("POST", "/switches", {"hold_fills": True})
    broker = Unreadable(rig.broker)
    rig.questions._broker = broker  # type: ignore[assignment]
    resting = {"type": "limit", "limit_price": "1"}
    broker.bad = {rig.place(symbol="MSFT", **resting)["id"] for _ in range(6)}
    hash_ = rig.send(**resting)
    rig.drive([hash_])
    rig.reconcile()
    rig.time.pass_s(120)
    broker.unlisted = {row.id for row in rig.sql("SELECT broker_order_id AS id FROM executions")}
    (ours,) = broker.unlisted
    assert rig.broker.cancel(ours).http_status == 204
    eventually(lambda: rig.broker.get_order(ours).status == "canceled")  # type: ignore[union-attr]
    assert rig.reconcile()["unanswered"]
    assert rig.status(hash_)[0] == "closed"


@pytest.mark.parametrize(("symbol", "orders"), [("ETHUSD", 0), ("ETH/USD", 1)])
def test_a_pair_by_another_name_does_not_get_around_its_limits(
    make_rig: Callable[..., Rig], symbol: str, orders: int
) -> None:
    """P7, story 20: the broker takes ETHUSD, and calls the order and the position ETH/USD."""
    rig = make_rig(risk={"max_position_qty": "1"})
    rig.control("POST", "/market/price", {"symbol": "ETH/USD", "price": "2700"})
    pair = {"symbol": symbol, "qty": "1", "type": "limit", "limit_price": "2760"}
    hashes = [rig.send(**pair, time_in_force="gtc", intent=str(n)) for n in range(3)]
    for hash_ in hashes:
        rig.drive([hash_])
        rig.reconcile()
        rig.time.pass_s(120)
    assert rig.totals()["orders"] == orders
    if not orders:
        assert rig.status(hashes[0]) == ("denied", "asset_not_tradable")


class InCircles:
    """A broker whose activities go from one page to a second, and from there to the first."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.pages = 0

    def fills(self, *, page_token: str | None, after: Any) -> Page[Any]:
        self.pages += 1
        assert self.pages < 20, "the pass does not end"
        return Page(full=True, last_id="a" if page_token != "a" else "b")

    def entries(self, *, page_token: str | None, after: Any) -> Page[Any]:
        return self.fills(page_token=page_token, after=after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_activities_that_page_in_circles_do_not_hold_the_pass(rig: Rig) -> None:
    """Bounded work: two pages of fills and two of entries, each with a look at where they lead."""
    broker = InCircles(rig.broker)
    rig.questions._broker = broker  # type: ignore[assignment]
    assert not rig.reconcile().get("failed")
    assert broker.pages == 6
