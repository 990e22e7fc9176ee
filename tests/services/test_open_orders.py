"""Open orders have their turn, however many there are and however old (stories 2, 23, 32)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.services.rig import Rig
from tests.services.test_reconciler import Scripted
from torghut.domain.orders import Order
from torghut.services import open_orders

MakeRig = Callable[..., Rig]
COUNT = 30


class Forgetful(Scripted):
    """A broker whose lists leave out what stands; asked for by id it answers."""

    def __init__(self, real: Any) -> None:
        super().__init__(real)
        self.hidden = False
        self.asked: list[str] = []

    def orders(self, **where: Any) -> Any:
        page = super().orders(**where)
        page[:] = [] if self.hidden else page
        return page

    def open_orders(self) -> Sequence[Order]:
        return [] if self.hidden else super().open_orders()

    def get_order(self, broker_order_id: str) -> Order | None:
        self.asked.append(broker_order_id)
        return super().get_order(broker_order_id)


@pytest.fixture
def standing(make_rig: MakeRig) -> tuple[Rig, Forgetful]:
    """COUNT orders that stand, known to the books, and no list shows them any more."""
    rig = make_rig(broker=Forgetful, rate_per_min=100_000)
    broker: Any = rig.broker
    for _ in range(COUNT):
        rig.place(qty="1", type="limit", limit_price="1.00", time_in_force="gtc")
    rig.reconcile()
    assert rig.count("executions", "NOT terminal") == COUNT
    broker.hidden = True
    return rig, broker


def test_each_is_asked_for_within_a_few_passes(standing: tuple[Rig, Forgetful]) -> None:
    """A pass asks for twenty, and the next one goes on with the others."""
    rig, broker = standing
    rig.reconcile()
    assert len(broker.asked) == open_orders.ASK_SINGLY_MAX
    rig.reconcile()
    assert len(set(broker.asked)) == COUNT


def test_control_always_the_first_ones(
    standing: tuple[Rig, Forgetful], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without turns the others wait for ever."""
    monkeypatch.setattr(
        open_orders.OpenOrders, "_in_turn", lambda _, missing: missing[: open_orders.ASK_SINGLY_MAX]
    )
    rig, broker = standing
    for _ in range(3):
        rig.reconcile()
    assert len(set(broker.asked)) == open_orders.ASK_SINGLY_MAX


def test_more_than_one_pass_looks_at(
    standing: tuple[Rig, Forgetful], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound on the executions of a pass leaves none out for good."""
    monkeypatch.setattr(open_orders, "OPEN_MAX", 8)
    rig, broker = standing
    for _ in range(4):
        rig.reconcile()
    assert len(set(broker.asked)) == COUNT
