"""Cash and positions are a fold of the fills; runs repeat by seed; the market's calendar."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import exchange_calendars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.bench import Instant, body, broker_at
from torghut.simulator import sessions
from torghut.simulator.book import BookEvent
from torghut.simulator.broker import Broker
from torghut.simulator.errors import ApiError
from torghut.simulator.ledger import Ledger
from torghut.simulator.numbers import text
from torghut.simulator.orders import order_json

SYMBOLS = ("AAPL", "F", "BTC/USD")
CENT = Decimal("0.01")
SHAPES = ("market", "limit", "stop", "notional", "trailing_stop", "bracket", "oco", "oto")

ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.sampled_from(SYMBOLS),
            st.sampled_from(("buy", "sell")),
            st.sampled_from(("1", "7", "0.5", "0.123456789", "250")),
            st.sampled_from(SHAPES),
            st.sampled_from((90, 99, 101, 110)),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("replace"), st.integers(0, 30), st.sampled_from((95, 105))),
        st.tuples(st.just("fill"), st.integers(0, 30)),
        st.tuples(st.just("part"), st.integers(0, 30)),
        st.tuples(st.just("price"), st.sampled_from(SYMBOLS), st.sampled_from((88, 97, 104, 112))),
        st.tuples(st.just("stuck"), st.sampled_from(("", "pending_cancel,pending_replace"))),
        st.tuples(st.just("wait"), st.sampled_from((0.003, 0.006, 3.0, 600.0, 100_000.0))),
        st.tuples(st.just("close"), st.sampled_from(SYMBOLS)),
    ),
    max_size=40,
)


def exits(order_class: str, side: str, last: Decimal) -> dict[str, Any]:
    """The fields that make an order one of a group, its exits 3 % and 4 % away."""
    long = (side == "buy") == (order_class != "oco")
    above, below = ((last * part).quantize(CENT) for part in (Decimal("1.03"), Decimal("0.96")))
    profit, loss = (above, below) if long else (below, above)
    legs = {"take_profit": {"limit_price": str(profit)}, "stop_loss": {"stop_price": str(loss)}}
    if order_class == "oto":
        del legs["take_profit"]
    kind = {"type": "limit"} if order_class == "oco" else {}
    return {"order_class": order_class, **kind, **legs}


def act(broker: Broker, instant: Instant, action: tuple[Any, ...]) -> None:
    """Do one action; refusals are part of the game."""
    kind, *rest = action
    orders = broker.book.orders
    if kind == "submit":
        symbol, side, qty, shape, percent = rest
        asset = broker.market.assets.find(symbol)
        assert asset is not None
        last = broker.market.quote(asset, instant.at).last
        price = str((last * percent / 100).quantize(Decimal("0.01")))
        crypto = symbol == "BTC/USD"
        fields: dict[str, Any] = {"time_in_force": "gtc" if crypto else "day", "qty": qty}
        if shape == "notional":
            fields |= {"qty": None, "notional": "137.77"}
        elif shape == "trailing_stop":
            fields |= {"type": shape, "trail_percent": "2"}
        elif shape in ("bracket", "oco", "oto"):
            fields |= exits(shape, side, last)
        elif shape != "market":
            fields |= {"type": shape, f"{shape}_price": price}
        broker.submit(body(symbol=symbol, side=side, **fields))
    elif kind == "wait":
        instant.pass_s(rest[0])
        broker.matcher.step(instant.elapsed_s)
        broker.matcher.sweep(instant.elapsed_s)
    elif kind == "price":
        asset = broker.market.assets.find(rest[0])
        assert asset is not None
        broker.market.set_quote(rest[0], (asset.base_price * rest[1] / 100).quantize(CENT))
        broker.matcher.sweep(instant.elapsed_s)
    elif kind == "stuck":
        broker.switches = broker.switches.changed({"stuck": rest[0]})
    elif kind == "close":
        asset = broker.market.assets.find(rest[0])
        assert asset is not None
        broker.close_position(asset)
    elif rest[0] < len(orders):
        order = orders[rest[0]]
        if kind == "cancel":
            broker.cancel(order.id)
        elif kind == "fill":
            broker.force_fill(order, None, None, late=False)
        elif kind == "part":
            broker.fill_part(order, Decimal("0.5"))
        else:
            limit = ((order.limit_price or Decimal(1)) * rest[1] / 100).quantize(Decimal("0.01"))
            broker.replace(order.id, {"limit_price": str(limit)})


@given(actions=ACTIONS, seed=st.integers(0, 1000), replace_ms=st.sampled_from((0, 50)))
@settings(max_examples=250, deadline=None)
def test_cash_and_positions_are_the_sum_of_fills(
    actions: list[tuple[Any, ...]], seed: int, replace_ms: int
) -> None:
    instant = Instant()
    broker = broker_at(
        instant, seed=seed, partial_fill_probability=0.5, replace_delay_ms=replace_ms
    )
    ledger = Ledger(Decimal(100_000))
    events: list[BookEvent] = []
    broker.book.listeners += [ledger.observe, events.append]
    for action in actions:
        try:
            act(broker, instant, action)
        except ApiError:
            continue
    cash = Decimal(100_000)
    positions: dict[str, Decimal] = defaultdict(Decimal)
    by_order: dict[str, Decimal] = defaultdict(Decimal)
    for fill in broker.book.fills:
        sign = 1 if fill.side == "buy" else -1
        cash -= sign * fill.qty * fill.price
        positions[fill.symbol] += sign * fill.qty
        by_order[fill.order_id] += fill.qty
        assert fill.cum_qty == by_order[fill.order_id]
    account = broker.book.account
    assert account.cash == cash
    assert {s: p.qty for s, p in account.positions.items()} == {
        s: q for s, q in positions.items() if q
    }
    shown = ledger.json()
    assert shown["cash"] == text(cash)
    assert shown["positions"] == {s: text(q) for s, q in positions.items() if q}
    check_groups(broker, {e.order.id: e.order.qty or Decimal(0) for e in reversed(events)})
    for order in broker.book.orders:
        assert order.filled_qty == by_order[order.id]
        assert order.qty is None or order.filled_qty <= order.qty
        assert order.notional is None or order.filled_cost <= order.notional
        assert order.is_open == (order.id in broker.book.open)
    assert broker.book.reserved == sum(order.reserved for order in broker.book.orders)
    for symbol in SYMBOLS:
        held = sum(order.held for order in broker.book.orders if order.symbol == symbol)
        assert broker.book.held[symbol] == held
    lines = [line for found in ledger.by_client_id.values() for line in found]
    assert {line.order_id: (line.status, line.filled_qty) for line in lines} == {
        order.id: (order.status, order.filled_qty) for order in broker.book.orders
    }
    assert [e.fill for e in events if e.fill] == broker.book.fills


def check_groups(broker: Broker, first_qty: Mapping[str, Decimal]) -> None:
    """The exits of a group never close more than its entry opened, and end with it."""
    for members in broker.book.groups.values():
        entries = [order for order in members if order.role == "entry"]
        opened = sum(order.filled_qty for order in entries) if entries else first_qty[members[0].id]
        closed = sum(order.filled_qty for order in members if order.is_exit)
        assert closed <= opened
        ended = [order for order in members if order.status in ("canceled", "expired")]
        if ended or any(order.is_exit and order.status == "filled" for order in members):
            assert not any(order.is_open for order in members)
        live = [order for order in members if order.is_working and order.role == "entry"]
        assert len(live) <= 1


def _run(seed: int) -> list[Any]:
    instant = Instant()
    broker = broker_at(instant, seed=seed, partial_fill_probability=0.5)
    for number in range(40):
        try:
            broker.submit(body(qty="10", side="buy", client_order_id=f"o{number}"))
        except ApiError:
            continue
        instant.pass_s(1)
        broker.matcher.step(instant.elapsed_s)
    return [order_json(order) for order in broker.book.orders] + list(broker.book.fills)


def test_same_seed_same_run() -> None:
    assert _run(3) == _run(3)
    assert _run(3) != _run(4)


def test_about_a_tenth_of_orders_fill_in_parts() -> None:
    instant = Instant()
    broker = broker_at(instant, partial_fill_probability=0.1)
    for number in range(400):
        broker.submit(body(symbol="F", qty="10", client_order_id=f"o{number}"))
        instant.pass_s(1)
        broker.matcher.step(instant.elapsed_s)
    parts = sum(1 for fill in broker.book.fills if fill.leaves_qty)
    assert 20 <= parts <= 60


@pytest.mark.parametrize(
    ("at", "status", "extended"),
    [
        (datetime(2026, 11, 20, 17, 0, tzinfo=UTC), "pending_new", False),
        (datetime(2026, 11, 20, 23, 0, tzinfo=UTC), "accepted", False),
        (datetime(2026, 11, 20, 23, 0, tzinfo=UTC), "pending_new", True),
        (datetime(2026, 11, 21, 17, 0, tzinfo=UTC), "accepted", True),
        (datetime(2026, 11, 26, 17, 0, tzinfo=UTC), "accepted", False),
    ],
)
def test_real_hours(at: datetime, status: str, extended: bool) -> None:
    instant = Instant(at)
    broker = broker_at(instant, "real")
    order = broker.submit(
        body(type="limit", limit_price="1000", extended_hours=extended, time_in_force="gtc")
    )
    assert order.status == status
    while order.is_open:
        instant.pass_s(3600)
        broker.matcher.step(instant.elapsed_s)
        broker.matcher.sweep(instant.elapsed_s)
    assert order.status == "filled"


def test_opg_window() -> None:
    broker = broker_at(Instant(), "real")
    with pytest.raises(ApiError, match="opg orders must be submitted after 7:00pm"):
        broker.submit(body(time_in_force="opg"))


def test_cls_window() -> None:
    instant = Instant(datetime(2026, 11, 20, 20, 50, tzinfo=UTC))
    broker = broker_at(instant, "real")
    with pytest.raises(ApiError, match="cls orders must be submitted after 7:00pm"):
        broker.submit(body(time_in_force="cls"))
    instant.pass_s(-60)
    assert broker.submit(body(time_in_force="cls")).status == "pending_new"


def test_day_order_expires_at_the_close() -> None:
    instant = Instant()
    broker = broker_at(instant, "real")
    order = broker.submit(body(type="limit", limit_price="10"))
    instant.pass_s(6 * 3600)
    broker.matcher.sweep(instant.elapsed_s)
    assert order.status == "expired"
    assert order.expires_at == datetime(2026, 11, 20, 21, 0, tzinfo=UTC)


def test_sessions_agree_with_the_exchange_calendar() -> None:
    calendar = exchange_calendars.get_calendar("XNYS", start="2013-01-01", end="2027-06-30")
    occasions = {date(2018, 12, 5), date(2025, 1, 9)}
    ours = {
        found.day: (found.opens, found.closes)
        for found in sessions.sessions_between(date(2013, 1, 2), date(2027, 6, 29))
        if found.day not in occasions
    }
    theirs = {
        day.date(): (row["open"].to_pydatetime(), row["close"].to_pydatetime())
        for day, row in calendar.schedule.loc["2013-01-02":"2027-06-29"].iterrows()
    }
    assert ours == theirs
