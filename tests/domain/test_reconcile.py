"""diff(): one correction for each way in which the books can differ, none where they agree."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.test_executions import fold, seen
from torghut.domain.executions import ExecutionState, observe
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.orders import Order
from torghut.domain.reconcile import (
    Correction,
    CorrectionKind,
    Local,
    claims,
    diff,
    would_be_told,
)

K = CorrectionKind
ORDER_STATUSES = ("new", "partially_filled", "filled", "canceled", "rejected", "a_new_word")
ENDED = {"denied", "rejected", "expired", "canceled"}


def local(order: Order, status: DecisionStatus | None, known: ExecutionState | None) -> Local:
    return Local(
        executions={} if known is None else {order.broker_order_id: known},
        decisions={} if status is None else {order.client_order_id: status},
    )


@pytest.mark.parametrize(
    ("status", "order_status"), list(product([None, *DecisionStatus], ORDER_STATUSES))
)
def test_an_order_without_an_execution(status: DecisionStatus | None, order_status: str) -> None:
    """R1, R3, R4: ours is backfilled, ours after its end is late, a stranger's is adopted."""
    order = seen(order_status, 3, 1)
    expected = K.ADOPT if status is None else K.LATE if status.value in ENDED else K.BACKFILL
    assert diff([order], local(order, status, None)) == [Correction(expected, order)]


@pytest.mark.parametrize(
    ("status", "order_status"), list(product([None, *DecisionStatus], ORDER_STATUSES))
)
def test_an_order_with_an_execution(status: DecisionStatus | None, order_status: str) -> None:
    """R2: folded if it teaches something, nothing otherwise, whatever the decision's status."""
    order = seen(order_status, 3, 1)
    moved = local(order, status, fold(seen("new")))
    expected = [] if order_status == "new" and not order.cum_qty else [Correction(K.FOLD, order)]
    assert diff([order], moved) == expected
    assert diff([order], local(order, status, observe(fold(seen("new")), order))) == []


@pytest.mark.parametrize("final", ["filled", "canceled", "expired", "replaced", "rejected"])
def test_an_ended_execution_is_folded_only_for_more_filled(final: str) -> None:
    ended = fold(seen(final, 3, 2))
    for news, kind in ((seen("new", 0, 9), []), (seen(final, 3, 9), []), (seen(final, 4, 9), [1])):
        assert len(diff([news], local(news, DecisionStatus.CLOSED, ended))) == len(kind)


def test_r5_an_order_that_the_list_does_not_show_is_no_news() -> None:
    known = local(seen(), DecisionStatus.SUBMITTED, fold(seen()))
    assert diff([], known) == []


def test_each_order_on_its_own_and_in_the_order_of_the_list() -> None:
    orders = [seen(broker_order_id=f"b-{n}", client_order_id=f"{n:064d}") for n in range(4)]
    books = Local(
        executions={"b-1": fold(orders[1])},
        decisions={f"{2:064d}": DecisionStatus.IN_DOUBT, f"{3:064d}": DecisionStatus.EXPIRED},
    )
    assert [(c.kind, c.order.broker_order_id) for c in diff(orders, books)] == [
        (K.ADOPT, "b-0"), (K.BACKFILL, "b-2"), (K.LATE, "b-3"),
    ]  # fmt: skip


def test_a_leg_belongs_to_the_decision_of_the_order_that_names_it() -> None:
    leg = seen("held", 0, 1, broker_order_id="b-2", client_order_id="the broker's own")
    entry = replace(seen("new", 0, 1), legs=(leg,))
    stranger = seen("new", 0, 1, broker_order_id="b-3", client_order_id="a stranger's")
    for page in ([entry, leg, stranger], [leg, stranger, entry]):
        assert claims(page) == {
            entry.client_order_id: entry.client_order_id,
            leg.client_order_id: entry.client_order_id,
            "a stranger's": "a stranger's",
        }
    assert claims([leg]) == {"the broker's own": "the broker's own"}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda n, status, cum, at: seen(
                status, cum, at, broker_order_id=f"b-{n}", client_order_id=f"{n:064d}"
            ),
            st.integers(0, 4),
            st.sampled_from(ORDER_STATUSES),
            st.integers(0, 10),
            st.integers(0, 9),
        ),
        max_size=10,
    ),
    st.dictionaries(st.integers(0, 4), st.sampled_from(list(DecisionStatus))),
)
def test_idempotent(news: list[Order], statuses: dict[int, DecisionStatus]) -> None:
    """Applied one by one, the same list teaches nothing the second time (P12, story 24)."""
    decisions = {f"{n:064d}": status for n, status in statuses.items()}
    executions: dict[str, ExecutionState] = {}
    for order in news:
        if diff([order], Local(executions, decisions)):
            known = executions.get(order.broker_order_id)
            executions[order.broker_order_id] = observe(known, order)
    assert diff(news, Local(executions, decisions)) == []


@pytest.mark.parametrize(
    ("known", "now", "told"),
    [
        (None, ("new", 0, 1), True),
        (("new", 0, 1), ("filled", 3, 2), True),
        (("partially_filled", 1, 1), ("partially_filled", 2, 2), True),
        (("new", 0, 1), ("canceled", 0, 2), True),
        (("new", 0, 1), ("new", 0, 2), False),
    ],
)
def test_what_the_broker_would_have_told(
    known: tuple[str, int, int] | None, now: tuple[str, int, int], told: bool
) -> None:
    """A new status, quantity or order; not an order that was only stamped anew."""
    order = seen(*now)
    books = local(order, None, None if known is None else observe(None, seen(*known)))
    (correction,) = diff([order], books)
    assert would_be_told(correction, books) is told
