"""What an attack from outside found once, so that it is not found again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.factories import ACCOUNT
from tests.services.rig import Rig, eventually
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
