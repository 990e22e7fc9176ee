"""Risk: prices, sizes, exposure and the market; limits that hold over any sequence (P7)."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.judging import CLOSING, NO_QUOTE, NOW, PLENTY, Change, judge, named
from torghut.domain.deny_reasons import DenyReason as R
from torghut.domain.exposure import RestingOrder
from torghut.domain.risk_case import product

UNQUOTED = Change(facts=NO_QUOTE)


def limit_order(price: str, side: str = "buy", **more: object) -> Change:
    return Change(order={"type": "limit", "limit_price": price, "side": side, **more})


def stop_order(price: str, side: str = "buy", **more: object) -> Change:
    return Change(order={"type": "stop", "stop_price": price, "side": side, **more})


def only(side: str) -> Change:
    """A quote with one side missing."""
    return Change(facts={f"{side}_px": None})


# ---------------------------------------------------------------------- prices and sizes


@pytest.mark.parametrize(
    ("case", "price"),
    [
        (Change(), 100),
        (Change(order={"side": "sell"}), 99),
        (only("ask"), 99),
        (only("bid") | Change(order={"side": "sell"}), 100),
        (UNQUOTED, None),
        (limit_order("90"), 90),
        (limit_order("110"), 110),
        (limit_order("90") | UNQUOTED, 90),
        (limit_order("90", "sell"), 99),  # the least it may bring bounds nothing from above
        (limit_order("110", "sell"), 110),
        (limit_order("90", "sell") | UNQUOTED, None),
        (stop_order("150"), 150),
        (stop_order("50"), 100),
        (stop_order("50", "sell"), 99),
        (stop_order("150") | UNQUOTED, None),
        (Change(order={"type": "stop_limit", "stop_price": "150", "limit_price": "120"}), 120),
        (Change(order={"type": "trailing_stop", "trail_price": "1"}), 100),
    ],
)
def test_the_price_that_bounds_the_cost(case: Change, price: int | None) -> None:
    verdict = judge(case)
    assert verdict.reference_px == price
    expected = None if price is None else price * 10
    assert verdict.notional == expected
    assert verdict.size_qty == 10


def test_an_order_by_notional_is_sized_at_that_price_rounded_up() -> None:
    by_notional = Change(order={"qty": None, "notional": "200"}, facts={"ask_px": Decimal(3)})
    assert judge(by_notional).size_qty == Decimal("66.666666667")
    assert judge(by_notional | UNQUOTED).size_qty is None
    assert judge(by_notional | Change(facts={"ask_px": Decimal(0)})).size_qty is None
    checked = named(judge(by_notional | Change(limited={"max_order_notional": 200})),
                    "max_order_notional")  # fmt: skip
    assert (checked.measured, checked.passed) == (200, True)  # as it was asked for, not as rounded


def test_nothing_times_an_unknown_price_is_nothing() -> None:
    zero, two = Decimal(0), Decimal(2)
    assert product(zero, None) == 0
    assert product(None, two) is product(two, None) is product(None, None) is None
    assert product(two, two) == 4


@pytest.mark.parametrize(
    ("seconds", "measured"), [(0, "0"), (1.5, "1.5"), (86_400 + 3, "86403"), (-2.25, "-2.25")]
)
def test_ages_are_exact_and_may_lie_ahead(seconds: float, measured: str) -> None:
    case = Change(event_ts=NOW - timedelta(seconds=seconds), limited={"max_decision_age_s": PLENTY})
    assert named(judge(case), "max_decision_age_s").as_json()["measured"] == measured


# ---------------------------------------------------------------------- the quote


@pytest.mark.parametrize(
    ("order", "bps"),
    [
        (Change(), 0),
        (limit_order("100"), 0),
        (limit_order("50"), 0),  # better than the market is not beyond it
        (limit_order("102"), 200),
        (stop_order("102"), 200),
        (limit_order("97.02", "sell"), 200),
        (limit_order("120", "sell"), 0),
        (stop_order("97.02", "sell"), 200),
        (Change(order={"type": "stop_limit", "stop_price": "103", "limit_price": "102"}), 300),
        (Change(order={"type": "stop_limit", "stop_price": "98.01", "limit_price": "99",
                       "side": "sell"}), 100),
        (only("bid") | limit_order("102"), 200),
        (only("ask") | limit_order("102"), None),
        (only("bid") | limit_order("50", "sell"), None),
        (UNQUOTED | Change(order={"side": "sell"}), 0),
    ],
)  # fmt: skip
def test_how_far_beyond_the_market(order: Change, bps: int | None) -> None:
    check = named(judge(order | Change(limited={"price_collar_bps": PLENTY})), "price_collar_bps")
    assert (check.measured, check.passed) == (bps, bps is not None)


def bracket(profit: str, class_: str = "bracket", **more: object) -> Change:
    buys = more.get("side", "buy") == "buy"
    far = "1" if buys else "900"
    legs = {"take_profit": {"limit_price": profit}, "stop_loss": {"stop_price": far}}
    return Change(order={"order_class": class_, **legs, **more})


@pytest.mark.parametrize(
    ("order", "bps"),
    [
        (bracket("99"), 0),
        (bracket("150"), 0),
        (bracket("98.01"), 100),  # the exit of a buy sells at the bid of 99
        (bracket("98.01", type="limit", limit_price="98.01"), 0),  # it works when that has filled
        (bracket("98.01", type="limit", limit_price="101"), 100),
        (bracket("98.01", type="limit", limit_price="102"), 200),
        (bracket("100", side="sell"), 0),
        (bracket("50", side="sell"), 0),
        (bracket("101", side="sell"), 100),
        (bracket("101", side="sell", type="limit", limit_price="101"), 0),
        (bracket("98.01", "oco", side="sell", type="limit"), 100),
        (bracket("101", "oco", side="buy", type="limit"), 100),
        (bracket("98.01", "oto", stop_loss=None), 100),
        (bracket("150") | UNQUOTED, None),
    ],
)  # fmt: skip
def test_how_far_beyond_the_market_a_take_profit_is(order: Change, bps: int | None) -> None:
    """A stop loss is not measured, however far it is."""
    check = named(judge(order | Change(limited={"price_collar_bps": PLENTY})), "price_collar_bps")
    assert (check.measured, check.passed) == (bps, bps is not None)


@pytest.mark.parametrize("bid", ["100", "100.01"])
def test_crossed_is_above_not_at(bid: str) -> None:
    case = Change(facts={"bid_px": Decimal(bid)})
    assert judge(case).approved is (bid == "100")
    assert judge(case | CLOSING).approved  # P11


def test_without_a_quote_there_is_none_to_be_crossed() -> None:
    assert named(judge(limit_order("90") | UNQUOTED), "quote").measured is None
    assert named(judge(limit_order("90") | only("bid")), "quote").measured is None


def test_an_order_with_a_price_of_its_own_needs_no_quote() -> None:
    wide = Change(limited={"max_quote_age_s": 5, "max_order_notional": 1000})
    assert judge(UNQUOTED | limit_order("100") | wide).approved
    assert judge(UNQUOTED | wide).deny_reason is R.FACTS_UNAVAILABLE
    sell = judge(UNQUOTED | limit_order("100", "sell") | wide)
    assert sell.deny_reason is R.FACTS_UNAVAILABLE
    # but an old quote is old, though the order has a price
    old = Change(facts={"quoted_at": NOW - timedelta(seconds=6)})
    assert judge(old | limit_order("100") | wide).deny_reason is R.QUOTE_STALE


# ---------------------------------------------------------------------- own orders


def resting(side: str, limit: str | None = None, stop: str | None = None) -> RestingOrder:
    return RestingOrder(
        side=side,
        limit_px=None if limit is None else Decimal(limit),
        stop_px=None if stop is None else Decimal(stop),
    )


BRACKET = {"order_class": "bracket", "take_profit": {"limit_price": "120"},
           "stop_loss": {"stop_price": "80"}, "time_in_force": "day"}  # fmt: skip


@pytest.mark.parametrize(
    ("order", "own", "meets"),
    [
        (limit_order("100"), [resting("sell", "101")], None),
        (limit_order("101"), [resting("sell", "101")], "own order at 101"),
        (limit_order("102"), [resting("sell", "101")], "own order at 101"),
        (limit_order("101", "sell"), [resting("buy", "100")], None),
        (limit_order("100", "sell"), [resting("buy", "100")], "own order at 100"),
        (limit_order("99", "sell"), [resting("buy", "100")], "own order at 100"),
        (limit_order("1"), [resting("sell", stop="90")], "own order at 90"),
        (Change(), [resting("sell", "500")], "own order at 500"),
        (stop_order("150"), [resting("sell", "500")], "own order at 500"),
        (limit_order("100"), [resting("sell", "150"), resting("sell", "100")], "own order at 100"),
        (limit_order("101", **BRACKET), [resting("sell", "100")], None),
        (Change(order={"type": "trailing_stop", "trail_price": "1"}), [resting("sell", "1")], None),
        (Change(), [], None),
    ],
)
def test_an_order_against_an_own_one(
    order: Change, own: list[RestingOrder], meets: str | None
) -> None:
    case = order | Change(switches={"check_self_match": True}, reserved={"resting": tuple(own)})
    check = named(judge(case), "check_self_match")
    assert (check.passed, check.measured) == (meets is None, meets or "none")


# ---------------------------------------------------------------------- exposure (P7)


def exposed(name: str, **case: object) -> object:
    change = Change(limited={name: PLENTY}, **case)  # type: ignore[arg-type]
    return named(judge(change), name).measured


def test_reservations_count() -> None:
    """Filled 3 + in flight 4 + this order 10 = 17 shares at 100."""
    facts = {"broker_qty": Decimal(3), "ledger_qty": Decimal(3)}
    reserved = {"buy_qty": Decimal(4), "sell_qty": Decimal(100)}
    for name, measured in (("max_position_qty", 17), ("max_position_notional", 1700)):
        assert exposed(name, facts=facts, reserved=reserved) == measured
    sold = {"facts": facts, "reserved": reserved, "order": {"side": "sell"}}
    assert exposed("max_position_qty", **sold) == 107


@pytest.mark.parametrize(("side", "expected"), [("buy", 1700), ("sell", 1683)])
@pytest.mark.parametrize(("broker", "ledger"), [(7, -7), (-7, 7)])
def test_the_worse_book_counts(side: str, expected: int, broker: int, ledger: int) -> None:
    """Books of +7 and -7: a buy is judged on the one, a sell on the other."""
    books = {"broker_qty": Decimal(broker), "ledger_qty": Decimal(ledger)}
    assert exposed("max_position_notional", facts=books, order={"side": side}) == expected


@pytest.mark.parametrize("name", ["max_position_notional", "max_gross_exposure",
                                  "max_net_exposure", "max_strategy_exposure"])  # fmt: skip
def test_what_is_held_is_worth_what_the_market_says(name: str) -> None:
    """A bid of 1 for one share more does not make a position of 900 shares worth 901."""
    held = {"broker_qty": Decimal(900), "ledger_qty": Decimal(900)}
    reserved = {"mark_px": Decimal(100), "strategy_qty": Decimal(900)}
    case = {"facts": held, "reserved": reserved, "order": {"qty": "1", "type": "limit"}}
    case["order"]["limit_price"] = "1"
    assert exposed(name, **case) == 90_100
    case["order"]["limit_price"] = "200"
    assert exposed(name, **case) == 180_200
    assert judge(Change(**case)).notional == 200  # what it takes from buying power is its own


def test_the_larger_end_counts_for_the_account() -> None:
    """A buy while a large sell stands: the account may yet be short."""
    reserved = {"sell_qty": Decimal(30)}
    assert exposed("max_gross_exposure", reserved=reserved) == 3000
    assert exposed("max_gross_exposure") == 1000
    short = {"broker_qty": Decimal(-5), "ledger_qty": Decimal(-5)}
    assert exposed("max_gross_exposure", facts=short) == 500


@pytest.mark.parametrize(
    ("high", "low", "side", "expected"),
    [(500, 500, "buy", 1500), (-2000, -2000, "buy", 2000), (-500, -3000, "buy", 3000),
     (700, -700, "sell", 1690), (0, 0, "sell", 990), (3000, 3000, "sell", 3000)],
)  # fmt: skip
def test_net_is_the_worse_of_its_ends(high: int, low: int, side: str, expected: int) -> None:
    others = {"others_net_high": Decimal(high), "others_net_low": Decimal(low)}
    assert exposed("max_net_exposure", reserved=others, order={"side": side}) == expected


@pytest.mark.parametrize(
    ("held", "buying", "selling", "side", "expected"),
    [(5, 3, 0, "buy", 1800), (5, 0, 30, "buy", 2500), (5, 3, 0, "sell", 792),
     (-5, 0, 3, "sell", 1782), (0, 0, 0, "sell", 990), (-20, 0, 0, "buy", 2000)],
)  # fmt: skip
def test_a_strategy_s_own_exposure(
    held: int, buying: int, selling: int, side: str, expected: int
) -> None:
    mine = {"strategy_qty": Decimal(held), "strategy_buy_qty": Decimal(buying),
            "strategy_sell_qty": Decimal(selling)}  # fmt: skip
    assert exposed("max_strategy_exposure", reserved=mine, order={"side": side}) == expected


def test_concentration_is_against_the_larger_of_gross_and_equity() -> None:
    small = {"equity": Decimal(100)}
    assert exposed("max_concentration_pct", account=small) == 100
    rich = {"equity": Decimal(4000)}
    assert exposed("max_concentration_pct", account=rich) == 25
    others = {"others_gross": Decimal(9000)}
    assert exposed("max_concentration_pct", account=rich, reserved=others) == 10


# ---------------------------------------------------------------------- buying power


@pytest.mark.parametrize(
    ("power", "reserve", "reserved", "approved"),
    [(999, 0, 0, False), (1000, 0, 0, True), (3000, 50, 500, True), (3000, 50, 501, False),
     (2500, 60, 0, True), (2499, 60, 0, False), (10**6, 100, 0, False), (0, None, 10**9, True)],
)  # fmt: skip
def test_buying_power_less_reserve_and_reservations(
    power: int, reserve: int | None, reserved: int, approved: bool
) -> None:
    case = Change(
        account={"buying_power": Decimal(power)},
        reserved={"notional": Decimal(reserved)},
        limited={"buying_power_reserve_pct": reserve},
    )
    assert judge(case).approved is approved
    rule = named(judge(case), "buying_power").rule
    assert rule.unit == "currency (buying power less reserve and reservations)"
    assert rule.source == "test"


def test_only_what_opens_takes_buying_power() -> None:
    """P11: with nothing left the position can still be sold; of 12 shares only 2 open."""
    broke = Change(account={"buying_power": Decimal(-5)}, limited={"buying_power_reserve_pct": 0})
    assert judge(broke | CLOSING).approved
    more = broke | CLOSING | Change(order={"qty": "12"})
    assert judge(more).deny_reason is R.BUYING_POWER
    assert judge(more).notional == 2 * 99


@pytest.mark.parametrize(
    ("side", "held", "qty", "position", "opening", "shorts"),
    [("sell", 10, "4", 0, 0, False), ("sell", 10, "10", 0, 0, False),
     ("sell", 10, "10.5", "0.5", "0.5", True), ("buy", -10, "4", 0, 0, False),
     ("buy", "-0.5", "1", "0.5", "0.5", False), ("buy", 5, "4", 9, 4, False),
     ("sell", -5, "4", 9, 4, True), ("sell", 0, "0.5", "0.5", "0.5", True)],
)  # fmt: skip
def test_what_of_an_order_opens(
    side: str, held: int | str, qty: str, position: int | str, opening: int | str, shorts: bool
) -> None:
    """The position at its end, the part that opens, and whether it may sell short."""
    books = {"broker_qty": Decimal(held), "ledger_qty": Decimal(held)}
    wide = {"max_position_qty": PLENTY, "buying_power_reserve_pct": 0}
    verdict = judge(Change(facts=books, order={"side": side, "qty": qty}, limited=wide))
    assert named(verdict, "max_position_qty").measured == Decimal(position)
    assert verdict.notional == Decimal(opening) * (100 if side == "buy" else 99)
    told = named(verdict, "shorts_allowed").measured
    assert told == ("may sell short" if shorts else "no short sale")


def test_the_worth_of_a_fraction_counts() -> None:
    assert exposed("max_gross_exposure", order={"qty": "0.5"}) == 50
    small = {"peak_equity": Decimal("0.5"), "equity": Decimal("0.25")}
    assert exposed("max_drawdown_pct", account=small) == 50


# ---------------------------------------------------------------------- any sequence


ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.integers(1, 40),
        st.sampled_from(["fill", "open", "lose"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(ORDERS)
def test_no_sequence_of_approvals_passes_the_position_limit(steps) -> None:
    """Whatever fills, stays open or is known to one book only: |position| x price <= limit.

    What may still come of all approved orders stays within it at every step, in both directions.
    """
    most = Decimal(50)
    held, ledger = Decimal(0), Decimal(0)
    reserved = {"buy": Decimal(0), "sell": Decimal(0)}
    standing = {"buy": Decimal(0), "sell": Decimal(0)}
    for side, size, fate, booked in steps:
        verdict = judge(
            Change(
                facts={"bid_px": Decimal(100), "broker_qty": held, "ledger_qty": ledger},
                reserved={"buy_qty": reserved["buy"], "sell_qty": reserved["sell"]},
                order={"side": side, "qty": str(size)},
                limited={"max_position_notional": most * 100},
            )
        )
        if not verdict.approved:
            continue
        qty = Decimal(size)
        if fate == "open":
            reserved[side] += qty
            standing[side] += qty
        elif fate == "fill":
            held += qty if side == "buy" else -qty
            if booked:
                ledger = held
            else:  # not in our books yet: there its reservation stands
                reserved[side] += qty
        assert held + standing["buy"] <= most
        assert standing["sell"] - held <= most


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 200))
def test_a_sell_is_never_counted_below_the_market(qty: int, limit_price: int) -> None:
    """The limit price of a sell is the least it may bring: it bounds no exposure (P7)."""
    limited = Change(limited={"max_position_notional": 9900, "max_order_notional": 9900})
    verdict = judge(limited | limit_order(str(limit_price), "sell", qty=str(qty)))
    assert verdict.approved is (qty * max(99, limit_price) <= 9900)
