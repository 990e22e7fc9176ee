"""Risk: each check at its limit, precedence, and limits that hold over any sequence (P7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.factories import order
from torghut.domain.exposure import AccountFacts, Facts, Reservations, TradingState
from torghut.domain.risk import (
    LIMIT_DEFAULTS,
    Check,
    DenyReason,
    Limit,
    Limits,
    Verdict,
    evaluate,
)

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
ACCOUNT = AccountFacts(
    equity=Decimal(100_000),
    last_equity=Decimal(100_000),
    buying_power=Decimal(100_000),
    blocked=False,
    observed_at=NOW,
)
FACTS = Facts(
    state=TradingState.ACTIVE,
    state_reason="default",
    account=ACCOUNT,
    bid_px=Decimal(99),
    ask_px=Decimal(100),
    quoted_at=NOW,
    broker_qty=Decimal(0),
)
OFF: dict[str, Decimal | None] = dict.fromkeys(LIMIT_DEFAULTS, None)


def limits(symbols: frozenset[str] | None = None, **values: object) -> Limits:
    """Every limit off except `values`."""
    given_ = {k: None if v is None else Decimal(str(v)) for k, v in values.items()}
    named: Mapping[str, Decimal | None] = {**OFF, **given_}
    assert named.keys() == OFF.keys()
    return Limits({k: Limit(v, "test") for k, v in named.items()}, symbols, "test", "v")


def judge(
    *,
    facts: Facts = FACTS,
    reserved: Reservations = Reservations(),
    event_ts: datetime = NOW,
    symbols: frozenset[str] | None = None,
    limited: Mapping[str, object] | None = None,
    **over: object,
) -> Verdict:
    """The verdict on a market order for 10 AAPL (100 each), changed by `over`."""
    policy = limits(symbols, **(limited or {}))
    return evaluate(order(**over), policy, facts, reserved, NOW, event_ts=event_ts)


def check(verdict: Verdict, code: DenyReason) -> Check:
    (found,) = (c for c in verdict.checks if c.code is code)
    return found


# (limit, reason, measured value of the case, the case, the case without its fact)
RESERVED = Reservations(open_orders=4, orders_last_minute=6, orders_today=8)
NO_QUOTE = replace(FACTS, bid_px=None, ask_px=None, quoted_at=None)
NO_ACCOUNT = replace(FACTS, account=None, broker_qty=None)
LOSING = replace(FACTS, account=replace(ACCOUNT, equity=Decimal(99_000)))
AGED = {"event_ts": NOW - timedelta(seconds=60)}
OLD_QUOTE = {"facts": replace(FACTS, quoted_at=NOW - timedelta(seconds=20))}
LIMITED_CHECKS = [
    ("max_order_notional", DenyReason.ORDER_NOTIONAL, 1000, {}, {"facts": NO_QUOTE}),
    ("max_order_qty", DenyReason.ORDER_QTY, 10, {},
     {"facts": NO_QUOTE, "qty": None, "notional": "5"}),
    ("max_position_notional", DenyReason.POSITION_NOTIONAL, 1000, {}, {"facts": NO_ACCOUNT}),
    ("max_open_orders", DenyReason.OPEN_ORDERS, 5, {"reserved": RESERVED}, None),
    ("max_orders_per_minute", DenyReason.ORDER_RATE, 7, {"reserved": RESERVED}, None),
    ("max_orders_per_day", DenyReason.ORDER_RATE, 9, {"reserved": RESERVED}, None),
    ("max_decision_age_s", DenyReason.DECISION_STALE, 60, AGED, None),
    ("max_quote_age_s", DenyReason.QUOTE_STALE, 20, OLD_QUOTE, {"facts": NO_QUOTE}),
    ("max_daily_loss", DenyReason.DAILY_LOSS, 1000, {"facts": LOSING}, {"facts": NO_ACCOUNT}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reason", "measured", "case"), [r[:4] for r in LIMITED_CHECKS])
def test_at_the_limit(name: str, reason: DenyReason, measured: int, case) -> None:
    """One below, at, and one above: only above is too much. Off lets anything pass."""
    above = judge(limited={name: measured - 1}, **case)
    assert (above.deny_reason, above.approved) == (reason, False)
    for limit in (measured, measured + 1, None):
        assert judge(limited={name: limit}, **case).approved, limit
    (failed,) = (c for c in above.checks if not c.passed)
    assert (failed.measured, failed.limit) == (str(measured), str(measured - 1))
    assert (name in failed.unit, failed.source) == (True, "test")


@pytest.mark.parametrize(
    ("name", "case", "missing"), [(r[0], r[3], r[4]) for r in LIMITED_CHECKS if r[4] is not None]
)
def test_missing_data_denies(name: str, case, missing) -> None:
    """Fail closed: what cannot be measured is not within its limit; control: off does not ask."""
    limited = {name: 10**9}
    assert judge(limited=limited, **{**case, **missing}).deny_reason is DenyReason.FACTS_UNAVAILABLE
    assert judge(**{**case, **missing}).approved


@pytest.mark.parametrize("missing", ["bid_px", "ask_px"])
def test_one_side_of_the_quote_is_enough(missing: str) -> None:
    facts = replace(FACTS, **{missing: None})
    assert judge(facts=facts, limited={"max_order_notional": 1000}).approved


def test_a_limit_order_needs_no_quote() -> None:
    limited = {"max_order_notional": 1000, "max_position_notional": 1000}
    verdict = judge(facts=NO_QUOTE, limited=limited, type="limit", limit_price="100")
    assert verdict.approved
    assert verdict.reference_px == 100


def test_a_sell_stop_is_sized_at_the_market_and_a_buy_stop_at_the_worse_price() -> None:
    assert judge(type="stop", stop_price="150").reference_px == 150
    assert judge(type="stop", stop_price="50").reference_px == 100
    assert judge(side="sell", type="stop", stop_price="90").reference_px == 99


# ---------------------------------------------------------------------- buying power


@pytest.mark.parametrize(("power", "approved"), [(999, False), (1000, True), (1001, True)])
def test_buying_power_at_its_limit(power: int, approved: bool) -> None:
    facts = replace(FACTS, account=replace(ACCOUNT, buying_power=Decimal(power)))
    verdict = judge(facts=facts, limited={"buying_power_reserve_pct": 0})
    assert verdict.approved is approved
    assert approved or verdict.deny_reason is DenyReason.BUYING_POWER


@pytest.mark.parametrize(
    ("reserve", "reserved", "approved"),
    [(50, 499, True), (50, 501, False), (60, 0, True), (100, 0, False), (None, 10**9, True)],
)
def test_buying_power_less_reserve_and_reservations(reserve, reserved, approved) -> None:
    power = 3000 if reserve != 60 else 2500
    facts = replace(FACTS, account=replace(ACCOUNT, buying_power=Decimal(power)))
    verdict = judge(
        facts=facts,
        reserved=Reservations(notional=Decimal(reserved)),
        limited={"buying_power_reserve_pct": reserve},
    )
    assert verdict.approved is approved


def test_buying_power_unknown_denies() -> None:
    verdict = judge(facts=NO_ACCOUNT, limited={"buying_power_reserve_pct": 0})
    assert verdict.deny_reason is DenyReason.FACTS_UNAVAILABLE


def test_an_order_that_closes_takes_no_buying_power() -> None:
    """P11: with nothing left the position can still be sold; one share more cannot."""
    broke = replace(FACTS, account=replace(ACCOUNT, buying_power=Decimal(-5)))
    held = replace(broke, broker_qty=Decimal(10), ledger_qty=Decimal(10))
    limited = {"buying_power_reserve_pct": 0}
    assert judge(facts=held, side="sell", limited=limited).approved
    more = judge(facts=held, side="sell", qty="11", limited=limited)
    assert more.deny_reason is DenyReason.BUYING_POWER


# ---------------------------------------------------------------------- standing


@pytest.mark.parametrize(
    ("facts", "symbols", "reason"),
    [
        (replace(FACTS, state=TradingState.HALTED), None, DenyReason.TRADING_HALTED),
        (replace(FACTS, state=TradingState.REDUCING), None, DenyReason.REDUCING_ONLY),
        (replace(FACTS, account=replace(ACCOUNT, blocked=True)), None, DenyReason.ACCOUNT_BLOCKED),
        (FACTS, frozenset({"MSFT"}), DenyReason.SYMBOL_NOT_ENABLED),
        (FACTS, frozenset(), DenyReason.SYMBOL_NOT_ENABLED),
        (FACTS, frozenset({"AAPL"}), None),
        (replace(FACTS, session_open=False), None, DenyReason.SESSION_CLOSED),
        (replace(FACTS, session_open=True), None, None),
    ],
)
def test_standing(facts: Facts, symbols, reason) -> None:
    assert judge(facts=facts, symbols=symbols).deny_reason is reason


@pytest.mark.parametrize(
    ("side", "qty", "held", "in_flight", "passes"),
    [
        ("sell", "10", 10, 0, True),
        ("sell", "11", 10, 0, False),
        ("sell", "10", 10, 1, False),  # another sell is already under way
        ("buy", "1", 10, 0, False),
        ("buy", "10", -10, 0, True),
        ("buy", "11", -10, 0, False),
        ("sell", "1", 0, 0, False),
    ],
)
def test_reducing_lets_only_reducing_orders_through(side, qty, held, in_flight, passes) -> None:
    qty_held = Decimal(held)
    facts = replace(
        FACTS, state=TradingState.REDUCING, broker_qty=qty_held, ledger_qty=qty_held
    )  # fmt: skip
    reserved = Reservations(sell_qty=Decimal(in_flight))
    verdict = judge(facts=facts, reserved=reserved, side=side, qty=qty)
    assert verdict.approved is passes
    assert passes or verdict.deny_reason is DenyReason.REDUCING_ONLY


def test_reducing_believes_neither_book_alone() -> None:
    """The books differ: what only one of them holds cannot be sold as reducing."""
    facts = replace(
        FACTS, state=TradingState.REDUCING, broker_qty=Decimal(10), ledger_qty=Decimal(4)
    )
    assert judge(facts=facts, side="sell", qty="4").approved
    assert not judge(facts=facts, side="sell", qty="5").approved


def test_reducing_without_a_snapshot_denies() -> None:
    facts = replace(NO_ACCOUNT, state=TradingState.REDUCING, ledger_qty=Decimal(10))
    assert not judge(facts=facts, side="sell", qty="1").approved


# ---------------------------------------------------------------------- precedence, completeness


def all_wrong() -> dict[str, object]:
    """A case in which every check that can fail does."""
    account = replace(ACCOUNT, blocked=True, equity=Decimal(1), buying_power=Decimal(0))
    yesterday = NOW - timedelta(days=1)
    halted = replace(FACTS, state=TradingState.HALTED, account=account)
    facts = replace(halted, quoted_at=yesterday, session_open=False)
    return {
        "facts": facts,
        "reserved": RESERVED,
        "event_ts": yesterday,
        "symbols": frozenset({"MSFT"}),
        "limited": dict.fromkeys(LIMIT_DEFAULTS, 0),
    }


def test_every_check_is_listed_and_the_first_of_the_order_names_the_verdict() -> None:
    verdict = judge(**all_wrong())  # type: ignore[arg-type]
    failed = [c.code for c in verdict.checks if not c.passed]
    never = {DenyReason.REDUCING_ONLY, DenyReason.FACTS_UNAVAILABLE}
    assert set(failed) == set(DenyReason) - never
    assert verdict.deny_reason is DenyReason.TRADING_HALTED


def test_precedence_step_by_step() -> None:
    """Mend the first fault, and the next in the order of DenyReason shows."""
    case = all_wrong()
    facts = case["facts"]
    assert isinstance(facts, Facts) and facts.account is not None
    seen: list[DenyReason] = []
    mends: list[dict[str, object]] = [
        {"facts": (facts := replace(facts, state=TradingState.ACTIVE))},
        {"facts": (facts := replace(facts, account=replace(facts.account, blocked=False)))},
        {"symbols": None},
        {"facts": (facts := replace(facts, session_open=True))},
        {"event_ts": NOW},
        {"facts": (facts := replace(facts, quoted_at=NOW))},
    ]
    left = dict.fromkeys(LIMIT_DEFAULTS, 0)
    for names in (("max_order_qty",), ("max_order_notional",), ("max_position_notional",),
                  ("max_open_orders",), ("max_orders_per_minute", "max_orders_per_day"),
                  ("max_daily_loss",), ("buying_power_reserve_pct",)):  # fmt: skip
        left |= dict.fromkeys(names, None)
        mends.append({"limited": dict(left)})
    for mend in mends:
        reason = judge(**case).deny_reason  # type: ignore[arg-type]
        assert reason is not None
        seen.append(reason)
        case |= mend
    assert judge(**case).approved  # type: ignore[arg-type]
    assert seen == [r for r in DenyReason if r in seen]
    assert len(set(seen)) == len(mends)


@pytest.mark.parametrize("code", ["ORDER_QTY", "ORDER_NOTIONAL", "DAILY_LOSS", "BUYING_POWER"])
def test_an_approved_verdict_lists_its_checks_too(code: str) -> None:
    """With a source for each, and what was measured, so that `explain` can tell the story."""
    verdict = judge(limited=dict.fromkeys(LIMIT_DEFAULTS, 10**6) | {"buying_power_reserve_pct": 0})
    assert verdict.approved
    listed = check(verdict, DenyReason[code])
    assert listed.measured is not None and listed.limit is not None and listed.source == "test"


def test_deterministic() -> None:
    first, second = (judge(**all_wrong()) for _ in range(2))  # type: ignore[arg-type]
    assert first == second
    assert [c.as_json() for c in first.checks] == [c.as_json() for c in second.checks]


# ---------------------------------------------------------------------- exposure (P7)


def test_reservations_count() -> None:
    """Filled 3 + in flight 4 + this order 10 = 17 shares at 100."""
    facts = replace(FACTS, broker_qty=Decimal(3), ledger_qty=Decimal(3))
    reserved = Reservations(buy_qty=Decimal(4), sell_qty=Decimal(100))
    for limit, passed in ((1700, True), (1699, False)):
        verdict = judge(facts=facts, reserved=reserved, limited={"max_position_notional": limit})
        measured = check(verdict, DenyReason.POSITION_NOTIONAL)
        assert (measured.measured, measured.passed) == ("1700", passed)


@pytest.mark.parametrize(("side", "expected"), [("buy", "1700"), ("sell", "1683")])
def test_the_worse_book_counts(side: str, expected: str) -> None:
    """Books of +7 and -7: a buy is judged on the one, a sell on the other."""
    facts = replace(FACTS, broker_qty=Decimal(7), ledger_qty=Decimal(-7))
    for swapped in (facts, replace(FACTS, broker_qty=Decimal(-7), ledger_qty=Decimal(7))):
        verdict = judge(facts=swapped, side=side, limited={"max_position_notional": 10**6})
        assert check(verdict, DenyReason.POSITION_NOTIONAL).measured == expected


def test_control_without_reservations_the_limit_would_be_passed() -> None:
    limited = {"max_position_notional": 1500}
    assert judge(limited=limited).approved
    assert not judge(limited=limited, reserved=Reservations(buy_qty=Decimal(10))).approved


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


@settings(max_examples=150, deadline=None)
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
            facts=replace(FACTS, bid_px=Decimal(100), broker_qty=held, ledger_qty=ledger),
            reserved=Reservations(buy_qty=reserved["buy"], sell_qty=reserved["sell"]),
            side=side,
            qty=str(size),
            limited={"max_position_notional": most * 100},
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
    verdict = judge(
        side="sell",
        type="limit",
        qty=str(qty),
        limit_price=str(limit_price),
        limited={"max_position_notional": 9900, "max_order_notional": 9900},
    )
    assert verdict.approved is (qty * max(99, limit_price) <= 9900)


def test_a_sell_without_a_quote_cannot_be_bounded() -> None:
    case = {"type": "limit", "limit_price": "0.01", "limited": {"max_order_notional": 100}}
    sell = judge(facts=NO_QUOTE, side="sell", **case)  # type: ignore[arg-type]
    assert sell.deny_reason is DenyReason.FACTS_UNAVAILABLE
    assert judge(facts=NO_QUOTE, side="buy", **case).approved  # type: ignore[arg-type]
