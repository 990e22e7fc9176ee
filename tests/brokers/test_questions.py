"""Questions to the broker: found, a definite no, or an error that says who acts next."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import structlog

from tests.brokers import wire
from tests.brokers.samples import COID, order_json
from tests.brokers.wire import Act, Exchange, WireServer, answer, html
from torghut.brokers.alpaca import AlpacaBroker
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.domain.sessions import MarketClock

Serve = Callable[..., tuple[WireServer, AlpacaBroker]]

NOT_FOUND = answer(404, {"code": 40410000, "message": f"order not found for {COID}"})
ACCOUNT = {
    "account_number": "PA1",
    "status": "ACTIVE",
    "currency": "USD",
    "cash": "100003.74258806517",
    "equity": "1",
    "buying_power": "4",
    "account_blocked": False,
    "trading_blocked": False,
    "trade_suspended_by_user": False,
}
POSITION = {
    "symbol": "AAPL",
    "asset_class": "us_equity",
    "qty": "-3.5",
    "side": "short",
    "avg_entry_price": "100.1",
    "current_price": None,
}
FILL = {
    "id": "20261005103000123::61e69015-8549-4bfd-b9c3-01e75843f47d",
    "activity_type": "FILL",
    "type": "partial_fill",
    "transaction_time": "2026-10-05T14:30:00.123456Z",
    "order_id": "o-1",
    "order_status": "partially_filled",
    "symbol": "AAPL",
    "side": "buy",
    "qty": "0.000000001",
    "price": "100.1",
    "cum_qty": "2",
    "leaves_qty": "8",
}

UNUSABLE: list[tuple[str, Act]] = [
    ("404 page", html(404)),
    ("404 of a gateway", answer(404, {"message": "no Route matched with those values"})),
    ("404 empty", answer(404, b"")),
    ("429", answer(429, {"code": 42910000, "message": "rate limit exceeded"})),
    ("422", answer(422, {"code": 40010001, "message": "order_id is missing"})),
    ("500", html(500)),
    ("503", answer(503, {"message": "order not found"})),
    ("504", html(504)),
    ("200 garbage", answer(200, "<html>")),
    ("200 empty", answer(200, b"")),
    ("200 null", answer(200, b"null")),
    ("204", answer(204, b"")),
    ("302", answer(302, b"", {"Location": "/"})),
    ("truncated", wire.truncated),
    ("closed", wire.close),
    ("reset", wire.reset_after_reading),
]


def all_questions(broker: AlpacaBroker) -> list[Callable[[], object]]:
    return [
        lambda: broker.lookup(COID),
        lambda: broker.get_order("o-1"),
        broker.account,
        broker.positions,
        lambda: broker.orders(after=None, limit=1),
        broker.open_orders,
        lambda: broker.fills(page_token=None, after=None),
        lambda: broker.entries(page_token=None, after=None),
        broker.market_clock,
    ]


@pytest.mark.parametrize("act", [a[1] for a in UNUSABLE], ids=[a[0] for a in UNUSABLE])
def test_a_failed_question_is_not_an_answer(serve: Serve, act: Act) -> None:
    """Story 22: "no answer" is never absence."""
    server, broker = serve(act)
    for ask in all_questions(broker):
        with pytest.raises(BrokerUnavailable):
            ask()
    assert len(server.requests) == len(all_questions(broker))


@pytest.mark.parametrize("act", [html(401), html(403), answer(401, {"message": "unauthorized."})])
def test_refused_keys_are_for_a_person(serve: Serve, act: Act) -> None:
    _, broker = serve(act)
    for ask in all_questions(broker):
        with pytest.raises(BrokerRefused):
            ask()


def test_the_markets_clock(serve: Serve) -> None:
    told = {
        "timestamp": "2026-01-05T10:00:00.123456789-05:00",
        "is_open": True,
        "next_open": "2026-01-06T09:30:00-05:00",
        "next_close": "2026-01-05T16:00:00-05:00",
    }
    bad = [{**told, "is_open": "yes"}, {**told, "next_open": None}]
    replies = iter([told, *bad])
    server, broker = serve(lambda exchange: answer(200, next(replies))(exchange))
    clock = broker.market_clock()
    assert clock == MarketClock(
        is_open=True,
        told_at=datetime(2026, 1, 5, 15, 0, 0, 123456, tzinfo=UTC),
        next_open=datetime(2026, 1, 6, 14, 30, tzinfo=UTC),
        next_close=datetime(2026, 1, 5, 21, 0, tzinfo=UTC),
    )
    assert server.requests[0].path == "/v2/clock"
    for _ in bad:
        with pytest.raises(BrokerUnavailable):
            broker.market_clock()


def test_lookup(serve: Serve) -> None:
    acts = iter(
        [answer(200, order_json()), NOT_FOUND, answer(200, order_json(client_order_id="other"))]
    )
    server, broker = serve(lambda exchange: next(acts)(exchange))
    found = broker.lookup(COID)
    assert found.order is not None and found.order.client_order_id == COID and found.body
    missing = broker.lookup(COID)
    assert missing.order is None and missing.body is not None and "not found" in missing.body
    with pytest.raises(BrokerUnavailable, match="another order"):
        broker.lookup(COID)
    assert server.requests[0].path == "/v2/orders:by_client_order_id"
    assert server.requests[0].query == {"client_order_id": COID}


def test_get_order(serve: Serve) -> None:
    acts = iter([answer(200, order_json(id="a/b")), NOT_FOUND, answer(200, order_json())])
    server, broker = serve(lambda exchange: next(acts)(exchange))
    order = broker.get_order("a/b")
    assert order is not None and order.broker_order_id == "a/b"
    assert server.requests[0].path == "/v2/orders/a%2Fb"
    assert broker.get_order("o-1") is None
    with pytest.raises(BrokerUnavailable, match="another order"):
        broker.get_order("o-1")


def test_account(serve: Serve) -> None:
    _, broker = serve(answer(200, ACCOUNT))
    account = broker.account()
    assert account.cash == Decimal("100003.74258806517")
    assert (account.account_number, account.blocked) == ("PA1", False)


@pytest.mark.parametrize("flag", ["account_blocked", "trading_blocked", "trade_suspended_by_user"])
def test_any_flag_blocks_the_account_and_a_retired_one_does_not(serve: Serve, flag: str) -> None:
    acts = iter([answer(200, {**ACCOUNT, flag: value}) for value in (True, None)])
    _, broker = serve(lambda exchange: next(acts)(exchange))
    assert [broker.account().blocked for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("told", "blocked"),
    [
        ({"trading_blocked": "true"}, True),
        ({"trading_blocked": 1}, True),
        ({"account_blocked": ["no"]}, True),
        ({"status": "ACCOUNT_CLOSED"}, True),
        ({"status": "ACCOUNT_UPDATED"}, False),
        ({"status": None}, False),
    ],
)
def test_a_flag_that_cannot_be_read_and_an_ended_account_block(
    serve: Serve, told: dict[str, object], blocked: bool
) -> None:
    _, broker = serve(answer(200, {**ACCOUNT, **told}))
    assert broker.account().blocked is blocked


def test_an_account_needs_its_number_and_nothing_else(serve: Serve) -> None:
    """The SDK asks for no more; what is missing is None, and denies where a limit needs it."""
    bodies = iter([answer(200, {"account_number": "PA1"}), answer(200, {"id": "x"})])
    _, broker = serve(lambda exchange: next(bodies)(exchange))
    account = broker.account()
    assert (account.equity, account.cash, account.buying_power) == (None, None, None)
    with pytest.raises(BrokerUnavailable, match="account_number"):
        broker.account()


def test_positions(serve: Serve) -> None:
    """Story 20: crypto positions are named as their orders are; shorts are negative."""
    crypto = {**POSITION, "asset_class": "crypto", "symbol": "BTCUSD", "qty": "1", "side": "long"}
    coin = {**crypto, "symbol": "ETHUSDT", "current_price": "2000.123456789"}
    unsigned = {**POSITION, "qty": "2"}
    _, broker = serve(answer(200, [POSITION, crypto, coin, unsigned]))
    got = [(p.symbol, p.qty, p.current_price) for p in broker.positions()]
    assert got == [
        ("AAPL", Decimal("-3.5"), None),
        ("BTC/USD", Decimal(1), None),
        ("ETH/USDT", Decimal(1), Decimal("2000.123456789")),
        ("AAPL", Decimal(-2), None),
    ]


def test_some_positions_are_not_the_positions(serve: Serve) -> None:
    _, broker = serve(answer(200, [POSITION, {**POSITION, "qty": "?"}]))
    with pytest.raises(BrokerUnavailable, match="qty"):
        broker.positions()


def test_one_bad_order_hides_no_other(serve: Serve) -> None:
    """Story 28."""
    rows = [order_json(id="1"), None, {"id": "2"}, order_json(id="3", qty="x"), order_json(id="4")]
    _, broker = serve(answer(200, rows))
    with structlog.testing.capture_logs() as logs:
        assert [o.broker_order_id for o in broker.orders(after=None, limit=9)] == ["1", "4"]
        assert [o.broker_order_id for o in broker.open_orders()] == ["1", "4"]
    assert [entry["event"] for entry in logs] == ["broker_row_malformed"] * 6
    assert broker.malformed_total == 6


def test_orders_are_asked_for_ascending(serve: Serve) -> None:
    server, broker = serve(answer(200, []))
    broker.orders(after=datetime(2026, 10, 5, 14, 30, 0, 5, tzinfo=UTC), limit=500)
    assert server.requests[0].query == {
        "status": "all",
        "direction": "asc",
        "limit": "500",
        "nested": "false",
        "after": "2026-10-05T14:30:00.000005Z",
    }
    for limit in (0, 501):
        with pytest.raises(ValueError, match="limit"):
            broker.orders(after=None, limit=limit)


def book(orders: list[dict[str, object]], *, by_id: bool = True) -> Act:
    """GET /orders over `orders`: `after` exclusive on submitted_at, `limit`, ascending; `by_id`:
    `after_order_id` is known."""

    def rows(request: wire.Request) -> list[dict[str, object]]:
        after, beyond = request.query.get("after", ""), request.query.get("after_order_id")
        newer = [o for o in orders if str(o["submitted_at"]) > after]
        if by_id and beyond is not None:
            newer = orders[[o["id"] for o in orders].index(beyond) + 1 :]
        return newer[: int(request.query["limit"])]

    def act(exchange: Exchange) -> bool | None:
        return answer(200, rows(exchange.request))(exchange)

    return act


def test_a_full_page_of_open_orders_is_not_all_of_them(serve: Serve) -> None:
    """1,300 orders, 400 at each instant, so that pages end inside an instant."""
    orders = [
        order_json(id=f"{n}", submitted_at=f"2026-10-05T14:30:{n // 400:02d}.000000Z")
        for n in range(1300)
    ]
    server, broker = serve(book(orders))
    assert [o.broker_order_id for o in broker.open_orders()] == [f"{n}" for n in range(1300)]
    assert server.requests[0].query["status"] == "open"


def test_open_orders_that_cannot_be_paged_past_are_not_called_all(serve: Serve) -> None:
    same = [order_json(id=f"{n}", submitted_at="2026-10-05T14:30:00.000000Z") for n in range(501)]
    _, broker = serve(book(same, by_id=False))
    with pytest.raises(BrokerUnavailable, match="paged"):
        broker.open_orders()


def test_more_orders_than_a_page_at_one_instant(serve: Serve) -> None:
    """P12: those that waited for the open are stamped again at once; none of them hides another,
    nor what comes after."""
    orders = [
        order_json(id=f"{n}", submitted_at=f"2026-10-05T14:30:{0 if n < 1200 else n - 1200:02d}.5Z")
        for n in range(1210)
    ]
    server, broker = serve(book(orders))
    page = broker.orders(after=None, limit=500)
    assert [o.broker_order_id for o in page] == [f"{n}" for n in range(1210)]
    assert len(server.requests) == 3
    assert len(broker.open_orders()) == 1210


def test_a_list_in_another_order_is_not_read(serve: Serve) -> None:
    """Newest first, a page would leave out for good what lies before it."""
    at = [f"2026-10-05T14:30:0{n}Z" for n in range(3)]
    rows = [order_json(id=t, submitted_at=t, created_at=t) for t in at]
    stamped_again = [{**rows[0], "submitted_at": "2026-10-05T14:31:00Z"}, *rows[1:]]
    bodies = iter([rows[::-1], stamped_again])
    _, broker = serve(lambda exchange: answer(200, next(bodies))(exchange))
    with pytest.raises(BrokerUnavailable, match="order that was asked for"):
        broker.orders(after=None, limit=3)
    assert len(broker.orders(after=None, limit=3)) == 3


def test_fills(serve: Serve) -> None:
    server, broker = serve(answer(200, [FILL, {**FILL, "price": None}]))
    (fill,) = broker.fills(page_token="t-1", after=datetime(2026, 10, 5, tzinfo=UTC))
    assert (fill.last_qty, fill.cum_qty, fill.leaves_qty) == (Decimal("1E-9"), 2, 8)
    assert fill.transact_time == datetime(2026, 10, 5, 14, 30, 0, 123456, tzinfo=UTC)
    assert server.requests[0].path == "/v2/account/activities/FILL"
    assert server.requests[0].query == {
        "direction": "asc",
        "page_size": "100",
        "page_token": "t-1",
        "after": "2026-10-05T00:00:00.000000Z",
    }
    assert broker.malformed_total == 1


@pytest.mark.parametrize(
    ("theirs", "ours"), [("sell_short", "sell"), ("sell_short_exempt", "sell"), ("cross", "cross")]
)
def test_the_side_of_a_fill(serve: Serve, theirs: str, ours: str) -> None:
    """Activities tell a short sale from a sale; a side that moves nobody knows where stays as it
    is, and is quarantined (P8)."""
    _, broker = serve(answer(200, [{**FILL, "side": theirs}]))
    (fill,) = broker.fills(page_token=None, after=None)
    assert (fill.side, fill.raw["side"]) == (ours, theirs)


FEE = {
    "id": "20261005000000000::61e69015-8549-4bfd-b9c3-01e75843f47d",
    "activity_type": "CFEE",
    "date": "2026-10-05",
    "net_amount": "0",
    "description": "Coin Pair Transaction Fee (Non USD)",
    "symbol": "ETHUSD",
    "qty": "-0.000195",
    "price": "1884.5",
    "status": "executed",
}


def test_entries(serve: Serve) -> None:
    """Story 20: fees in the asset, under the pair's other name; rows that carry only a day."""
    dividend = {**FEE, "id": "d", "activity_type": "DIV", "symbol": "AAPL", "qty": "12"}
    dividend |= {"net_amount": "3.12"}
    void = {**dividend, "id": "v", "status": "canceled"}
    server, broker = serve(answer(200, [FEE, dividend, void, {**FEE, "date": None}]))
    page = broker.entries(page_token="t-1", after=datetime(2026, 10, 5, tzinfo=UTC))
    fee, income, nothing = page
    assert (fee.symbol, fee.qty, fee.cash) == ("ETH/USD", Decimal("-0.000195"), 0)
    assert fee.occurred_at == datetime(2026, 10, 5, tzinfo=UTC)
    assert (income.symbol, income.qty, income.cash) == ("AAPL", 0, Decimal("3.12"))
    assert (nothing.qty, nothing.cash) == (0, 0)
    assert len(page.unreadable) == 1
    assert server.requests[0].path == "/v2/account/activities"
    assert server.requests[0].query["category"] == "non_trade_activity"
    assert server.requests[0].query["page_token"] == "t-1"


def test_a_poisoned_text_is_storable(serve: Serve) -> None:
    """Story 28: NUL and lone surrogates cannot be stored; the order must be."""
    _, broker = serve(answer(200, [order_json(note={"a\0": ["\0", "\ud800"]})]))
    (order,) = broker.orders(after=None, limit=1)
    text = json.dumps(order.raw, ensure_ascii=False)
    assert "\0" not in text and "\\u0000" not in text
    text.encode()
