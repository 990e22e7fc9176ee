"""Executions as folds: monotonic, and the same whatever order the news came in (P6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.factories import order as our_order
from torghut.domain.executions import ExecutionState, event_key, observe, order_differences
from torghut.domain.orders import Order, OrderStatus

T0 = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


def seen(status: str = "new", cum: object = 0, at: float = 0, **over: object) -> Order:
    """The broker's order of 10 AAPL, as it stands `at` seconds after its creation."""
    filled = Decimal(str(cum))
    values: dict[str, object] = {
        "broker_order_id": "b-1",
        "client_order_id": "c" * 64,
        "symbol": "AAPL",
        "side": "buy",
        "order_type": "market",
        "time_in_force": "day",
        "status": status,
        "qty": Decimal(10),
        "notional": None,
        "limit_price": None,
        "stop_price": None,
        "cum_qty": filled,
        "avg_px": Decimal(100) + filled if filled else None,
        "created_at": T0,
        "updated_at": T0 + timedelta(seconds=at),
        "submitted_at": T0,
        "replaces": None,
        "replaced_by": None,
        "raw": {},
        **over,
    }
    return Order(**values)  # type: ignore[arg-type]


def fold(*orders: Order) -> ExecutionState:
    state: ExecutionState | None = None
    for order in orders:
        state = observe(state, order)
    assert state is not None
    return state


def test_the_life_of_an_order() -> None:
    state = fold(
        seen("pending_new"),
        seen("new", 0, 1),
        seen("partially_filled", 4, 2),
        seen("filled", 10, 3),
    )
    assert (state.status, state.terminal, state.cum_qty, state.leaves_qty, state.avg_px) == (
        "filled", True, 10, 0, 110,
    )  # fmt: skip


def test_story_11_a_fill_after_canceled_is_taken() -> None:
    """Quantities grow, the status stays, whatever status the late news carries."""
    canceled = fold(seen("new"), seen("canceled", 2, 1))
    for late in (seen("canceled", 5, 2), seen("partially_filled", 5, 2), seen("filled", 10, 2)):
        after = observe(canceled, late)
        assert (after.status, after.terminal, after.leaves_qty) == ("canceled", True, 0)
        assert (after.cum_qty, after.avg_px) == (late.cum_qty, late.avg_px)


@pytest.mark.parametrize("final", sorted(OrderStatus.TERMINAL))
@pytest.mark.parametrize(
    "news", ["new", "partially_filled", "pending_cancel", "held", "unheard_of"]
)
def test_story_29_terminal_is_never_revived(final: str, news: str) -> None:
    """Also not by something newer, with more filled; control: the same news moves a live one."""
    state = observe(fold(seen(final, 3, 1)), seen(news, 4, 100))
    assert (state.status, state.terminal, state.leaves_qty) == (final, True, 0)
    assert state.cum_qty == 4
    assert fold(seen("accepted", 3, 1), seen(news, 4, 100)).status == news


def test_the_first_terminal_status_stays_and_less_filled_is_not_believed() -> None:
    state = fold(seen("filled", 10, 1), seen("canceled", 0, 2))
    assert (state.status, state.cum_qty, state.avg_px) == ("filled", 10, 110)


def test_what_teaches_nothing_changes_nothing() -> None:
    state = fold(seen("partially_filled", 4, 2))
    for old in (seen("partially_filled", 4, 2), seen("new", 0, 1), seen("partially_filled", 3, 9)):
        assert observe(state, old) == state


def test_story_25_quantities_are_cumulative() -> None:
    """The same event twice is one event, and 4 then 7 filled are 7, not 11."""
    four, seven = seen("partially_filled", 4, 1), seen("partially_filled", 7, 2)
    assert fold(four, four, seven, four, seven).cum_qty == 7


def test_a_notional_order_leaves_nothing_known() -> None:
    assert fold(seen(qty=None, notional=Decimal(500))).leaves_qty == 0


# ---------------------------------------------------------------------- any order of the news


@st.composite
def histories(draw: st.DrawFn) -> list[Order]:
    """What one order can go through: live statuses, growing fills, an end, a late fill."""
    news: list[Order] = []
    cum, at = 0, 0
    for status in draw(st.lists(st.sampled_from(["pending_new", "new", "held", "accepted"]),
                                min_size=1, max_size=3)):  # fmt: skip
        at += draw(st.integers(1, 5))
        news.append(seen(status, cum, at))
    for more in draw(st.lists(st.integers(1, 3), max_size=3)):
        cum, at = cum + more, at + draw(st.integers(1, 5))
        news.append(seen("partially_filled", cum, at))
    end = draw(st.sampled_from([None, "filled", "canceled", "expired", "replaced", "rejected"]))
    if end:
        at += 1
        cum = 10 if end == "filled" else cum
        more = {"replaced_by": "b-2"} if end == "replaced" else {}
        news.append(seen(end, cum, at, **more))
        if end != "filled" and draw(st.booleans()):
            news.append(seen(end, cum + 1, at + 1, **more))
    return news


def facts(state: ExecutionState) -> tuple[object, ...]:
    """What must not depend on the order in which the news came."""
    return (
        state.status, state.terminal, state.cum_qty, state.leaves_qty, state.avg_px,
        state.replaced_by,
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_order_and_any_repetition_gives_the_same_state(data: st.DataObject) -> None:
    history = data.draw(histories())
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=4))
    shuffled = data.draw(st.permutations(repeated))
    assert facts(fold(*shuffled)) == facts(fold(*history))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            seen,
            st.sampled_from(["new", "partially_filled", *sorted(OrderStatus.TERMINAL)]),
            st.integers(0, 10),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_monotonic_over_any_news(news: list[Order]) -> None:
    """Even contradictory news never takes back a fill or an end."""
    state: ExecutionState | None = None
    for order in news:
        after = observe(state, order)
        if state is not None:
            assert after.cum_qty >= state.cum_qty
            assert not (state.terminal and after.status != state.status)
        assert after.cum_qty >= order.cum_qty
        assert not after.terminal or after.leaves_qty == 0
        assert observe(after, order) == after
        state = after


# ---------------------------------------------------------------------- keys and differences


def test_event_key_is_a_function_of_the_evidence() -> None:
    """Stable over runs (the literal), blind to scale and raw bodies, different for any news."""
    one = seen("partially_filled", "4", 1)
    assert event_key(one) == event_key(seen("partially_filled", "4.000", 1, raw={"x": 1}))
    assert event_key(one) == "84df0d0ca5025146a058fb233939f9451ba446ec140cc461573a4e90caa227ed"
    others = [
        seen("filled", "4", 1),
        seen("partially_filled", "5", 1),
        seen("partially_filled", "4", 2),
        seen("partially_filled", "4", 1, avg_px=Decimal(1)),
        seen("partially_filled", "4", 1, replaced_by="b-2"),
        seen("partially_filled", "4", 1, broker_order_id="b-2"),
        seen("partially_filled", "4", 1, updated_at=None),
    ]
    assert len({event_key(order) for order in (one, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("request_", "order", "names"),
    [
        ({}, seen(), set()),
        ({"qty": "9"}, seen(), {"qty"}),
        ({"side": "sell"}, seen(), {"side"}),
        ({"symbol": "BTC/USD"}, seen(symbol="BTCUSD"), set()),  # story 20
        ({"symbol": "MSFT"}, seen(), {"symbol"}),
        ({"type": "limit", "limit_price": "5"}, seen(order_type="limit", limit_price=None), set()),
        ({"type": "limit", "limit_price": "5"}, seen(limit_price=Decimal(6)),
         {"type", "limit_price"}),
        ({"qty": None, "notional": "500"}, seen(qty=None, notional=Decimal("500.00")), set()),
    ],
)  # fmt: skip
def test_order_differences(request_, order: Order, names: set[str]) -> None:
    assert order_differences(our_order(**request_), order).keys() == names
