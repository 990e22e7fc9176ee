"""The exposure book: what is read, what each approval adds, and what that leaves for the next."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.domain.judging import NOW
from tests.factories import order
from torghut.domain.exposure import OrderCounts, Reservations, RestingOrder
from torghut.domain.exposure_book import Exposure, ExposureBook, SymbolExposure, Twin
from torghut.domain.orders import OrderRequest

D = Decimal


def book(
    held: dict[str, int] | None = None, marks: dict[str, int] | None = None, **exposure: object
) -> ExposureBook:
    return ExposureBook(
        Exposure(**exposure),  # type: ignore[arg-type]
        None if held is None else {name: D(qty) for name, qty in held.items()},
        {name: D(px) for name, px in (marks or {}).items()},
    )


def parts(**symbols: tuple[int, int, int]) -> dict[str, SymbolExposure]:
    return {name: SymbolExposure(*map(D, three)) for name, three in symbols.items()}


def read(
    of: ExposureBook, request: OrderRequest | None = None, strategy: str = "s",
    *, counted_today: bool = False, whole_account: bool = True,
) -> Reservations:  # fmt: skip
    return of.reservations(
        request or order(), strategy, counted_today=counted_today, whole_account=whole_account
    )


def take(of: ExposureBook, request: OrderRequest, strategy: str = "s", **over: object) -> None:
    values: dict[str, object] = {
        "size": request.qty, "notional": D(1000), "reference_px": D(100),
        "counted_today": False, "now": NOW, **over,
    }  # fmt: skip
    of.take(request, strategy, **values)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- what is read


def test_an_empty_book_reserves_nothing() -> None:
    assert read(book({})) == Reservations()
    unread = read(book({}), whole_account=False)
    assert unread == replace(
        Reservations(),
        others_gross=None, others_net_high=None, others_net_low=None, strategy_others=None,
    )  # fmt: skip


def test_what_stands_in_the_symbol_is_reserved() -> None:
    found = read(
        book(
            {},
            by_symbol=parts(AAPL=(1, 2, 3), MSFT=(4, 5, 6)),
            by_strategy={("s", "AAPL"): SymbolExposure(D(7), D(8), D(9)),
                         ("t", "AAPL"): SymbolExposure(D(70), D(80), D(90))},
            notional=D(55), rejects_in_a_row=4, rate_denials={"s": 2, "t": 3},
            reference_px={"AAPL": D(10), "MSFT": D(20)},
        )
    )  # fmt: skip
    assert (found.buy_qty, found.sell_qty, found.notional) == (2, 3, 55)
    assert (found.strategy_qty, found.strategy_buy_qty, found.strategy_sell_qty) == (7, 8, 9)
    assert (found.rejects_in_a_row, found.rate_denials) == (4, 2)
    assert found.mark_px == 10


def test_the_books_of_ledger_and_broker() -> None:
    mine = book({"AAPL": 5, "BTCUSD": 2}, by_symbol=parts(AAPL=(3, 0, 0)))
    assert (mine.broker_qty("AAPL"), mine.broker_qty("MSFT")) == (5, 0)
    assert mine.broker_qty("BTC/USD") == 2  # story 20
    assert (mine.ledger_qty("AAPL"), mine.ledger_qty("MSFT")) == (3, 0)
    assert book(None).broker_qty("AAPL") is None


def test_the_highest_price_known_marks() -> None:
    """Of what is open and of the market, whichever is more; crypto under either name."""
    for open_px, market_px in ((90, 100), (100, 90)):
        mine = book({}, {"AAPL": market_px}, reference_px={"AAPL": D(open_px)})
        assert read(mine).mark_px == 100
    assert read(book({}, {"BTCUSD": 7}), order(symbol="BTC/USD")).mark_px == 7
    both = book({}, {"BTCUSD": 7, "BTC/USD": 9})
    assert read(both, order(symbol="BTC/USD")).mark_px == 9
    assert read(book({})).mark_px is None


@pytest.mark.parametrize(
    ("part", "held", "gross", "high", "low"),
    [
        ((10, 0, 0), 10, 1000, 1000, 1000),
        ((10, 5, 0), 10, 1500, 1500, 1000),
        ((10, 0, 30), 10, 2000, 1000, -2000),
        ((10, 0, 0), 12, 1200, 1200, 1000),  # the worse book, either way
        ((12, 0, 0), 10, 1200, 1200, 1000),
        ((-10, 0, 0), -10, 1000, -1000, -1000),
        ((0, 0, 0), 0, 0, 0, 0),
    ],
)
def test_what_the_other_symbols_are_worth(
    part: tuple[int, int, int], held: int, gross: int, high: int, low: int
) -> None:
    found = read(book({"MSFT": held}, {"MSFT": 100}, by_symbol=parts(MSFT=part, AAPL=(9, 9, 9))))
    assert (found.others_gross, found.others_net_high, found.others_net_low) == (gross, high, low)


def test_a_position_that_only_the_broker_knows_counts() -> None:
    found = read(book({"MSFT": 3, "AAPL": 50}, {"MSFT": 100}))
    assert (found.others_gross, found.others_net_high) == (300, 300)


def test_without_the_broker_s_positions_ours_count() -> None:
    found = read(book(None, {"MSFT": 100}, by_symbol=parts(MSFT=(3, 0, 0))))
    assert (found.others_gross, found.others_net_low) == (300, 300)


def test_crypto_is_one_symbol_under_both_names() -> None:
    """Neither counted twice, nor among the others of itself (story 20)."""
    mine = book({"BTCUSD": 2}, {"BTCUSD": 100}, by_symbol={"BTC/USD": SymbolExposure(D(2))})
    assert read(mine, order(symbol="BTC/USD")).others_gross == 0
    assert read(mine).others_gross == 200
    plain = book({"BTCUSD": 2}, {"BTCUSD": 100})
    assert read(plain, order(symbol="BTC/USD")).others_gross == 0


def test_a_missing_price_makes_the_whole_unknown() -> None:
    """Fail closed; control: of what is flat no price is needed."""
    missing = book({"A": 1, "B": 1}, {"B": 1}, by_symbol=parts(A=(1, 0, 0), B=(1, 0, 0)))
    found = read(missing)
    assert (found.others_gross, found.others_net_high, found.others_net_low) == (None,) * 3
    flat = read(book({}, {"B": 1}, by_symbol=parts(A=(0, 0, 0), B=(1, 0, 0))))
    assert flat.others_gross == 1


def test_the_other_symbols_of_a_strategy() -> None:
    mine = {
        ("s", "A"): SymbolExposure(D(5), D(2), D(1)),
        ("s", "B"): SymbolExposure(D(-5), D(2), D(3)),
        ("s", "C"): SymbolExposure(D(1), D(0), D(9)),
        ("t", "A"): SymbolExposure(D(1000)),
        ("s", "AAPL"): SymbolExposure(D(1000)),
    }
    found = read(book({}, {"A": 10, "B": 100, "C": 1000}, by_strategy=mine))
    assert found.strategy_others == 7 * 10 + 8 * 100 + 8 * 1000
    assert read(book({}, {"A": 10, "B": 100}, by_strategy=mine)).strategy_others is None


def test_counts_of_the_account_are_those_of_all_strategies() -> None:
    counts = {
        "s": OrderCounts(open_orders=1, last_second=2, last_minute=3, today=4),
        "t": OrderCounts(open_orders=10, last_second=20, last_minute=30, today=40),
    }
    found = read(book({}, strategy_counts=counts))
    assert found.counts == OrderCounts(open_orders=11, last_second=22, last_minute=33, today=44)
    assert found.strategy_counts == counts["s"]
    again = read(book({}, strategy_counts=counts), counted_today=True)
    assert (again.counts.today, again.strategy_counts.today) == (43, 3)
    assert again.counts.last_minute == 33
    assert read(book({}), counted_today=True).counts.today == 0  # never below nothing
    assert read(book({}, strategy_counts=counts), strategy="u").strategy_counts == OrderCounts()


def test_the_newest_twin() -> None:
    def twin(seconds: int, **over: object) -> Twin:
        same = {"symbol": "AAPL", "side": "buy", "qty": D(10), "notional": None}
        return Twin(**{**same, **over}, sent_at=NOW - timedelta(seconds=seconds))  # type: ignore[arg-type]

    others = [twin(1, symbol="MSFT"), twin(1, side="sell"), twin(1, qty=D(11)),
              twin(1, qty=None, notional=D(10))]  # fmt: skip
    assert read(book({}, twins=tuple(others))).twin_at is None
    found = read(book({}, twins=(*others, twin(9), twin(5), twin(7))))
    assert found.twin_at == NOW - timedelta(seconds=5)


def test_own_orders_of_the_other_side() -> None:
    sell = RestingOrder(side="sell", limit_px=D(1), stop_px=None)
    buy = RestingOrder(side="buy", limit_px=D(2), stop_px=None)
    standing = {"AAPL": (("sell", sell), ("buy", buy)), "MSFT": (("sell", sell),)}
    assert read(book({}, resting=standing)).resting == (sell,)
    assert read(book({}, resting=standing), order(side="sell")).resting == (buy,)
    assert read(book({}, resting=standing), order(symbol="X")).resting == ()


# ---------------------------------------------------------------------- what an approval adds


def test_an_approval_is_what_the_next_one_is_judged_on() -> None:
    mine = book({}, notional=D(5))
    take(mine, order(qty="4"))
    take(mine, order(side="sell", qty="3"), notional=None)
    found = read(mine)
    assert (found.buy_qty, found.sell_qty, found.notional) == (4, 3, 1005)
    assert (found.strategy_buy_qty, found.strategy_sell_qty, found.strategy_qty) == (4, 3, 0)
    both = OrderCounts(open_orders=2, last_second=2, last_minute=2, today=2)
    assert found.counts == found.strategy_counts == both
    assert found.mark_px == 100
    other = read(mine, order(symbol="MSFT"), strategy="t")
    assert (other.others_gross, other.counts) == (400, both)
    assert (other.strategy_counts, other.strategy_buy_qty) == (OrderCounts(), 0)
    assert read(mine, order(symbol="MSFT")).strategy_others == 400


def test_an_order_counted_today_is_not_counted_again() -> None:
    mine = book({})
    take(mine, order(), counted_today=True)
    assert read(mine).counts == OrderCounts(open_orders=1, last_second=1, last_minute=1, today=0)


def test_an_approval_without_a_size_or_price_adds_neither() -> None:
    mine = book({})
    take(mine, order(), size=None, reference_px=None)
    found = read(mine)
    assert (found.buy_qty, found.mark_px, found.counts.open_orders) == (0, None, 1)


@pytest.mark.parametrize(("known", "mark"), [(50, 100), (150, 150)])
def test_an_approval_raises_the_mark_and_never_lowers_it(known: int, mark: int) -> None:
    mine = book({}, {"AAPL": known})
    take(mine, order())
    assert read(mine).mark_px == mark


def test_an_approval_is_a_twin_and_may_rest() -> None:
    mine = book({})
    take(mine, order(type="limit", limit_price="99", side="sell"))
    assert read(mine, order(side="sell")).twin_at == NOW
    assert read(mine, order(side="sell", qty="11")).twin_at is None
    assert read(mine).resting == (RestingOrder(side="sell", limit_px=D(99), stop_px=None),)
    take(mine, order(type="stop", stop_price="90", side="sell", symbol="MSFT"))
    stop = RestingOrder(side="sell", limit_px=None, stop_px=D(90))
    assert read(mine, order(symbol="MSFT")).resting == (stop,)
    take(mine, order(type="limit", limit_price="98", side="sell"))
    assert [own.limit_px for own in read(mine).resting] == [99, 98]
    take(mine, order(side="sell"))  # at the market: it does not stand
    assert len(read(mine).resting) == 2


def test_denials_for_rate_add_up() -> None:
    mine = book({}, rate_denials={"s": 1})
    mine.deny_for_rate("s")
    mine.deny_for_rate("t")
    assert (read(mine).rate_denials, read(mine, strategy="t").rate_denials) == (2, 1)


def test_the_exposure_that_was_read_is_left_alone() -> None:
    found = Exposure(by_symbol=parts(AAPL=(1, 1, 1)), strategy_counts={"s": OrderCounts()})
    before = (dict(found.by_symbol), dict(found.strategy_counts), found.twins)
    take(ExposureBook(found, {}, {}), order())
    assert (dict(found.by_symbol), dict(found.strategy_counts), found.twins) == before


def test_the_sums_of_several_others_are_kept_apart() -> None:
    """Gross, both ends of the net, and the strategy's: four sums that differ."""
    mine = book(
        {"B": 10, "C": -4, "D": 2},
        {"B": 100, "C": 10, "D": 1},
        by_symbol=parts(B=(10, 5, 1), C=(-4, 1, 2), D=(2, 3, 7)),
        by_strategy={("s", "B"): SymbolExposure(D(1)), ("s", "C"): SymbolExposure(D(-3))},
    )
    found = read(mine)
    assert found.others_gross == 15 * 100 + 6 * 10 + 5
    assert found.others_net_high == 15 * 100 - 3 * 10 + 5
    assert found.others_net_low == 9 * 100 - 6 * 10 - 5
    assert found.strategy_others == 1 * 100 + 3 * 10


@pytest.mark.parametrize("name", ["BTC/USD", "BTCUSD"])
def test_the_broker_may_name_crypto_either_way(name: str) -> None:
    mine = book({name: 2}, {name: 10})
    assert mine.broker_qty("BTC/USD") == 2
    assert read(mine, order(symbol="BTC/USD")).others_gross == 0
    assert read(mine, order(symbol="ETH/USD")).others_gross == 20
    assert book({"BTC/USD": 3, "BTCUSD": 4}).broker_qty("BTC/USD") == 3


def test_an_approval_is_a_twin_by_notional_too() -> None:
    mine = book({})
    by_notional = order(qty=None, notional="200")
    take(mine, by_notional, size=D(2))
    assert read(mine, by_notional).twin_at == NOW
    assert read(mine, order(qty=None, notional="201")).twin_at is None


def test_a_strategy_s_count_of_today_does_not_count_again_either() -> None:
    mine = book({})
    take(mine, order(), counted_today=True)
    take(mine, order(), counted_today=False)
    assert read(mine).strategy_counts.today == read(mine).counts.today == 1


# ---------------------------------------------------------------------- an order that is replaced


@pytest.mark.parametrize(("side", "name", "other"), [("buy", "buy_qty", "sell_qty"),
                                                     ("sell", "sell_qty", "buy_qty")])  # fmt: skip
def test_a_replaced_order_is_taken_out_and_nothing_else(side: str, name: str, other: str) -> None:
    of = book(
        {"AAPL": 0},
        by_symbol=parts(AAPL=(0, 30, 40), MSFT=(0, 5, 5)),
        by_strategy={("s", "AAPL"): SymbolExposure(D(0), D(20), D(25))},
        notional=D(900),
        strategy_counts={"s": OrderCounts(open_orders=3, last_minute=2, today=7)},
    )
    before = read(of)
    of.release(order(side=side), "s", qty=D(10), notional=D(400))
    after = read(of)
    assert getattr(after, name) == getattr(before, name) - 10
    assert getattr(after, other) == getattr(before, other)
    assert getattr(after, f"strategy_{name}") == getattr(before, f"strategy_{name}") - 10
    assert getattr(after, f"strategy_{other}") == getattr(before, f"strategy_{other}")
    assert after.notional == 500
    assert (after.counts.open_orders, after.strategy_counts.open_orders) == (2, 2)
    assert (after.counts.last_minute, after.strategy_counts.today) == (2, 7)
    assert read(of, order(symbol="MSFT")).buy_qty == 5


def test_no_more_is_taken_out_than_there_is() -> None:
    of = book({"AAPL": 0}, by_symbol=parts(AAPL=(7, 4, 4)), notional=D(100))
    of.release(order(side="sell"), "s", qty=D(10), notional=D(400))
    left = read(of)
    assert (left.sell_qty, left.buy_qty, left.notional) == (0, 4, 0)
    assert (left.strategy_sell_qty, left.strategy_buy_qty) == (0, 0)
    assert (left.counts.open_orders, left.strategy_counts.open_orders) == (0, 0)
    assert of.ledger_qty("AAPL") == 7
