"""Discrepancies end by themselves when the evidence is gone, and not before (P12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.services.rig import Rig, eventually
from tests.services.test_order_cancel import RESTING, resting
from tests.services.test_reconciler import Scripted
from torghut.domain.orders import Order
from torghut.ports import Page
from torghut.services.recording import TAKEN

MakeRig = Callable[..., Rig]


class Blind(Scripted):
    """The real broker; orders in `hidden` are rows that cannot be read."""

    hidden: frozenset[str] = frozenset()
    instants = True

    def orders(self, **where: Any) -> Page[Order]:
        page = super().orders(**where)
        return Page(
            [order for order in page if order.broker_order_id not in self.hidden],
            full=page.full,
            last_id=page.last_id,
            unreadable=[
                f"{order.broker_order_id}: qty is no number"
                for order in page
                if order.broker_order_id in self.hidden
            ],
            last_at=page.last_at if self.instants else None,
        )

    def open_orders(self) -> list[Order]:
        return [o for o in super().open_orders() if o.broker_order_id not in self.hidden]

    def get_order(self, broker_order_id: str) -> Order | None:
        return None if broker_order_id in self.hidden else super().get_order(broker_order_id)


@pytest.fixture
def blind(make_rig: MakeRig) -> Iterator[tuple[Rig, Blind]]:
    rig = make_rig(broker=Blind)  # type: ignore[arg-type]
    assert isinstance(rig.broker, Blind)
    yield rig, rig.broker


def told(rig: Rig) -> list[tuple[Any, ...]]:
    return [tuple(r) for r in rig.sql("SELECT kind, subject, resolution FROM discrepancies")]


def events(rig: Rig) -> list[str]:
    query = "SELECT kind FROM events WHERE kind LIKE 'discrepancy.%' ORDER BY event_seq"
    return [row.kind for row in rig.sql(query)]


def test_a_row_that_can_be_read_again(blind: tuple[Rig, Blind]) -> None:
    """However long that took: it is asked for by its id when no list shows it any more."""
    rig, broker = blind
    order_id = rig.place(**RESTING, time_in_force="day")["id"]
    broker.hidden = frozenset({order_id})
    for _ in range(3):
        rig.reconcile()
    assert told(rig) == [("unreadable_row", order_id, None)]
    assert events(rig) == ["discrepancy.opened"]
    rig.sql("""INSERT INTO broker_cursors (account, name, position, updated_at)
        VALUES ('paper', 'orders', '2100-01-01T00:00:00.000000Z', now())
        ON CONFLICT (account, name) DO UPDATE SET position = excluded.position""")
    rig.reconcile()
    assert told(rig) == [("unreadable_row", order_id, None)]
    broker.hidden = frozenset()
    rig.reconcile()
    assert told(rig) == [("unreadable_row", order_id, None)]
    rig.time.pass_s(61)  # control: so long the list is believed to show it
    rig.reconcile()
    assert told(rig) == [("unreadable_row", order_id, TAKEN)]
    assert rig.sql("SELECT broker_order_id FROM executions") == [(order_id,)]
    assert events(rig) == ["discrepancy.opened", "discrepancy.closed"]


@pytest.mark.parametrize("ours", [True, False])
def test_an_order_that_is_known_and_cannot_be_brought_up_to_date(
    blind: tuple[Rig, Blind], ours: bool
) -> None:
    """That there is an execution proves nothing: it stays open until what is shown is booked."""
    rig, broker = blind
    if ours:
        resting(rig)
    else:
        rig.place(**RESTING, time_in_force="day")
    rig.reconcile()
    order_id = rig.sql("SELECT broker_order_id FROM executions")[0][0]
    broker.spoil = lambda order: replace(order, cum_qty=Decimal("1e30"))
    for _ in range(3):
        rig.reconcile()
    assert told(rig) == [("cannot_be_booked", order_id, None)]
    assert events(rig) == ["discrepancy.opened"]
    broker.spoil = lambda order: order
    rig.reconcile()
    assert told(rig) == [("cannot_be_booked", order_id, TAKEN)]


def test_a_fill_that_is_booked_after_all(blind: tuple[Rig, Blind]) -> None:
    rig, broker = blind
    rig.place(qty="1")
    eventually(lambda: rig.totals()["fills"] == 1)
    broker.spoil_fill = lambda fill: replace(fill, last_qty=Decimal(0))
    for _ in range(2):
        rig.reconcile()
    assert [(kind, end) for kind, _, end in told(rig)] == [("cannot_be_booked", None)]
    broker.spoil_fill = lambda fill: fill
    rig.reconcile()
    assert [(kind, end) for kind, _, end in told(rig)] == [("cannot_be_booked", TAKEN)]
    assert rig.count("fills") == 1


def test_control_what_only_a_person_ends_stays(rig: Rig) -> None:
    """Two orders under one id: both canceled at the broker, and still open."""
    rig.control("POST", "/switches", {"uniqueness": "off"})
    hash_ = resting(rig)
    second = rig.place(**{**RESTING, "qty": "3"}, client_order_id=hash_, time_in_force="day")
    rig.reconcile()
    assert ("duplicate_order", second["id"], None) in told(rig)
    before = told(rig)
    (first,) = rig.sql("SELECT broker_order_id FROM executions")
    for order_id in (first.broker_order_id, second["id"]):
        rig.control("POST", f"/orders/{order_id}/cancel")
    for _ in range(2):
        rig.reconcile()
    assert told(rig) == before


@pytest.mark.parametrize("instants", [True, pytest.param(False, id="control")])
def test_a_full_page_that_cannot_be_read_hides_nothing(
    blind: tuple[Rig, Blind], instants: bool
) -> None:
    """P12: reading goes on behind it, by the instants of its rows."""
    rig, broker = blind
    broker.instants = instants
    with ThreadPoolExecutor(4) as pool:
        hidden = list(pool.map(lambda _: rig.place(**RESTING)["id"], range(505)))
    last = rig.place(**RESTING)["id"]
    broker.hidden = frozenset(hidden)
    rig.reconcile()
    known = {row.broker_order_id for row in rig.sql("SELECT broker_order_id FROM executions")}
    assert (last in known) is instants
