"""diff(): one correction for each way in which the books can differ, none where they agree."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations, product

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


def test_a_successor_belongs_to_the_decision_of_the_order_it_replaced() -> None:
    """However often it was replaced, and in whatever order the list names them."""
    first = seen("replaced", 1, 1, broker_order_id="b-1")
    second = seen("replaced", 0, 2, broker_order_id="b-2", client_order_id="2", replaces="b-1")
    third = seen("new", 0, 3, broker_order_id="b-3", client_order_id="3", replaces="b-2")
    for page in permutations([first, second, third]):
        assert claims(page) == dict.fromkeys(("2", "3", first.client_order_id), "c" * 64)
    assert claims([third]) == {"3": "3"}
    circle = [replace(first, replaces="b-3"), second, third]  # absurd, and no endless loop
    assert claims(circle).keys() == {"2", "3", first.client_order_id}


PLACES = st.integers(0, 4)
NEWS = st.lists(
    st.builds(
        lambda n, status, cum, at: seen(
            status, cum, at, broker_order_id=f"b-{n}", client_order_id=f"{n:064d}"
        ),
        PLACES,
        st.sampled_from(ORDER_STATUSES),
        st.integers(0, 10),
        st.integers(0, 9),
    ),
    max_size=10,
)
STATUSES = st.dictionaries(PLACES, st.sampled_from(list(DecisionStatus)))


@st.composite
def books(draw: st.DrawFn) -> tuple[list[Order], Local]:
    """A list of the broker's, each order once, and books that know some of it, adopted or not."""
    listed = {order.broker_order_id: order for order in draw(NEWS)}
    executions: dict[str, ExecutionState] = {}
    for order in draw(NEWS):
        known = executions.get(order.broker_order_id)
        executions[order.broker_order_id] = observe(known, order)
    statuses = {f"{n:064d}": status for n, status in draw(STATUSES).items()}
    adopted = frozenset(draw(st.sets(st.sampled_from(sorted(executions))))) if executions else ()
    return list(listed.values()), Local(executions, statuses, adopted=frozenset(adopted))


def applied(corrections: list[Correction], local: Local) -> Local:
    """The books after the corrections: folded, and attached to the decision there is."""
    executions = dict(local.executions)
    adopted = set(local.adopted)
    for correction in corrections:
        id_ = correction.order.broker_order_id
        executions[id_] = observe(executions.get(id_), correction.order)
        if correction.order.client_order_id in local.decisions:
            adopted.discard(id_)
        elif correction.kind is K.ADOPT:
            adopted.add(id_)
    return Local(executions, local.decisions, adopted=frozenset(adopted))


@settings(max_examples=200, deadline=None)
@given(books())
def test_corrections_that_are_applied_are_not_found_again(case: tuple[list[Order], Local]) -> None:
    """R2: one pass is enough, and a second one finds nothing (P12, story 24)."""
    listed, local = case
    assert diff(listed, applied(diff(listed, local), local)) == []


@settings(max_examples=200, deadline=None)
@given(books(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(
    case: tuple[list[Order], Local], rng: random.Random
) -> None:
    listed, local = case
    shuffled = rng.sample(listed, len(listed))
    by_id = {c.order.broker_order_id: c for c in diff(listed, local)}
    assert {c.order.broker_order_id: c for c in diff(shuffled, local)} == by_id
    assert [c.order for c in diff(shuffled, local)] == [
        order for order in shuffled if order.broker_order_id in by_id
    ]


@settings(max_examples=200, deadline=None)
@given(books())
def test_one_correction_for_what_is_unknown_and_none_for_what_teaches_nothing(
    case: tuple[list[Order], Local],
) -> None:
    """R1, R2, R4: an order that is unknown, or adopted though it is a decision's, has exactly one
    of the right kind; a known one has one exactly if it moves the fold."""
    listed, local = case
    found: dict[str, list[CorrectionKind]] = {order.broker_order_id: [] for order in listed}
    for correction in diff(listed, local):
        found[correction.order.broker_order_id].append(correction.kind)
    for order in listed:
        id_, status = order.broker_order_id, local.decisions.get(order.client_order_id)
        known = local.executions.get(id_)
        if status is not None and (known is None or id_ in local.adopted):
            expected = [K.LATE if status.value in ENDED else K.BACKFILL]
        elif known is None:
            expected = [K.ADOPT]
        else:
            expected = [K.FOLD] if observe(known, order) != known else []
        assert found[id_] == expected


@settings(max_examples=150, deadline=None)
@given(NEWS, STATUSES)
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
