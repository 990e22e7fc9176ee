"""Every reason to deny: a case of its own, alone and beside every other; which one names it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import combinations

import pytest

from tests.domain.judging import (
    BY_PERSON,
    CLOSING,
    FACTS,
    HELD,
    NOW,
    PLAIN,
    Change,
    failed,
    judge,
    named,
)
from torghut.domain.deny_reasons import MEANING, PRECEDENCE
from torghut.domain.deny_reasons import DenyReason as R
from torghut.domain.exposure import RestingOrder, TradingState
from torghut.domain.limits import LIMITS
from torghut.domain.risk_case import Verdict

LATER = NOW + timedelta(seconds=1)
AGO = NOW - timedelta(seconds=20)
ASSET = FACTS.asset
assert ASSET is not None
RESTING = RestingOrder(side="sell", limit_px=Decimal(101), stop_px=None)


def off(name: str, limit: object, **case: object) -> Change:
    return Change(limited={name: limit}, **case)  # type: ignore[arg-type]


def asset(**over: bool) -> Change:
    return Change(facts={"asset": replace(ASSET, **over)}, switches={"check_assets": True})


CASES: dict[R, Change] = {
    R.TRADING_HALTED: Change(facts={"state": TradingState.HALTED}),
    R.LIVE_KEYS: Change(facts={"live_account_number": "B2"}),
    R.ACCOUNT_BLOCKED: Change(account={"blocked": True}),
    R.REDUCING_ONLY: Change(facts={"state": TradingState.REDUCING}),
    R.DISCREPANCY_OPEN: off("max_open_discrepancies", 0, facts={"open_discrepancies": 1}),
    R.STRATEGY_NOT_ENABLED: Change(switches={"strategies": frozenset({"other"})}),
    R.SYMBOL_NOT_ENABLED: Change(switches={"symbols": frozenset({"MSFT"})}),
    R.SYMBOL_RESTRICTED: Change(switches={"restricted_symbols": frozenset({"AAPL"})}),
    R.REPEATED_EXECUTION: off("max_repeated_executions", 0),
    R.ASSET_NOT_TRADABLE: asset(tradable=False),
    R.ASSET_NOT_FRACTIONABLE: asset(fractionable=False) | Change(order={"qty": "10.5"}),
    R.SHORT_NOT_ALLOWED: Change(switches={"shorts_allowed": False}, order={"side": "sell"}),
    R.ASSET_NOT_SHORTABLE: asset(shortable=False) | Change(order={"side": "sell"}),
    R.ORDER_RULE: Change(
        switches={"check_order_rules": True},
        order={"type": "stop", "stop_price": "101.001"},
    ),
    R.SESSION_CLOSED: Change(facts={"session_open": False}),
    R.DECISION_STALE: off("max_decision_age_s", 1, event_ts=AGO),
    R.FACTS_UNAVAILABLE: off("max_adv_pct", 50, facts={"daily_volume": None}),
    R.QUOTE_STALE: off("max_quote_age_s", 1, facts={"quoted_at": AGO}),
    R.QUOTE_CROSSED: Change(facts={"bid_px": Decimal(102), "ask_px": Decimal(100)}),
    R.PRICE_COLLAR: off("price_collar_bps", 10, order={"type": "stop", "stop_price": "120"}),
    R.ORDER_QTY: off("max_order_qty", 1),
    R.ORDER_TOO_SMALL: off("min_order_notional", 10**7),
    R.ORDER_NOTIONAL: off("max_order_notional", 1),
    R.VOLUME_SHARE: off("max_adv_pct", 0),
    R.POSITION_QTY: off("max_position_qty", 1),
    R.POSITION_NOTIONAL: off("max_position_notional", 1),
    R.POSITION_PCT_EQUITY: off("max_position_pct_equity", "0.1"),
    R.CONCENTRATION: off("max_concentration_pct", "0.1"),
    R.STRATEGY_EXPOSURE: off("max_strategy_exposure", 1),
    R.GROSS_EXPOSURE: off("max_gross_exposure", 1),
    R.NET_EXPOSURE: off("max_net_exposure", 1),
    R.OPEN_ORDERS: off("max_open_orders", 0),
    R.SELF_MATCH: Change(switches={"check_self_match": True}, reserved={"resting": (RESTING,)}),
    R.DUPLICATE_INTENT: off("duplicate_window_s", 60, reserved={"twin_at": AGO}),
    R.ORDER_RATE: off("max_orders_per_day", 0),
    R.COOLDOWN: off("cooldown_s", 60, facts={"last_fill_at": AGO}),
    R.CONSECUTIVE_REJECTS: off("max_consecutive_rejects", 0, reserved={"rejects_in_a_row": 1}),
    R.DAILY_LOSS: off("max_daily_loss", 1, account={"equity": Decimal(99_000)}),
    R.DRAWDOWN: off("max_drawdown_pct", 1, account={"peak_equity": Decimal(200_000)}),
    R.BUYING_POWER: off("buying_power_reserve_pct", 0, account={"buying_power": Decimal(1)}),
}


def codes(verdict: Verdict) -> set[R]:
    return {check.code for check in verdict.checks if not check.passed}


def together(first: Change, second: Change) -> bool:
    """True if two cases do not want different things of the same part."""
    parts = ("facts", "account", "reserved", "limited", "switches", "order")
    return all(
        getattr(first, part)[name] == getattr(second, part)[name]
        for part in parts
        for name in getattr(first, part).keys() & getattr(second, part).keys()
    )


def test_every_reason_has_a_case_and_every_limit_names_one() -> None:
    assert CASES.keys() == set(R) == MEANING.keys()
    assert list(PRECEDENCE) == list(R)
    assert {spec.reason for spec in LIMITS.values()} <= set(R)


@pytest.mark.parametrize("reason", list(R))
def test_alone(reason: R) -> None:
    verdict = judge(CASES[reason])
    assert (verdict.deny_reason, verdict.approved) == (reason, False)
    assert codes(verdict) == {reason}
    found = verdict.failed(reason)
    assert found is not None and found.as_json()["passed"] is False
    assert verdict.failed(R.LIVE_KEYS if reason is not R.LIVE_KEYS else R.BUYING_POWER) is None


def test_the_first_of_two_names_the_verdict_and_both_are_in_it() -> None:
    """Over every pair of cases that can be at once."""
    pairs = 0
    sells = {R.SHORT_NOT_ALLOWED, R.ASSET_NOT_SHORTABLE}  # the collar's case is a buy's
    for (one, first), (other, second) in combinations(CASES.items(), 2):
        if not together(first, second) or (one in sells and other is R.PRICE_COLLAR):
            continue
        found = codes(judge(first | second))
        assert {one, other} <= found, (one, other)
        order = list(R)
        assert judge(first | second).deny_reason is min(found, key=order.index), (one, other)
        pairs += 1
    assert pairs > 600


def test_every_check_is_in_every_verdict() -> None:
    """Passed, failed or off: the same list, so that verdicts can be compared."""
    wanted = [c.rule.name for c in judge(PLAIN).checks]
    assert {*LIMITS} - {"buying_power_reserve_pct"} <= set(wanted)
    assert len(wanted) == len(set(wanted))
    optional = {"state", "session", "fractionable", "shortable", "tradable"}
    for reason, case in CASES.items():
        names = [c.rule.name for c in judge(case).checks]
        assert set(names) ^ set(wanted) <= optional, reason
    whole = [c.rule.name for c in judge(asset() | Change(facts={"session_open": True})).checks]
    assert {*optional} <= set(whole)


def test_a_verdict_is_a_function_of_its_arguments() -> None:
    for case in CASES.values():
        first, second = judge(case), judge(case)
        assert first == second
        assert [c.as_json() for c in first.checks] == [c.as_json() for c in second.checks]


# ---------------------------------------------------------------------- switches


def lists(**switches: object) -> Change:
    return Change(switches=switches)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (lists(strategies=None), None),
        (lists(strategies=frozenset({"sample"})), None),
        (lists(strategies=frozenset()), R.STRATEGY_NOT_ENABLED),
        (lists(strategies=frozenset()) | BY_PERSON, None),
        (lists(strategies=frozenset()) | CLOSING, R.STRATEGY_NOT_ENABLED),
        (lists(symbols=frozenset({"AAPL"})), None),
        (lists(symbols=frozenset()), R.SYMBOL_NOT_ENABLED),
        (lists(symbols=frozenset()) | CLOSING, R.SYMBOL_NOT_ENABLED),
        (lists(restricted_symbols=frozenset({"MSFT"})), None),
        (lists(restricted_symbols=frozenset({"AAPL"})) | CLOSING, None),
        (lists(shorts_allowed=False), None),
        (lists(shorts_allowed=False) | CLOSING, None),
        (lists(shorts_allowed=False) | CLOSING | Change(order={"qty": "11"}), R.SHORT_NOT_ALLOWED),
        (lists(shorts_allowed=False) | Change(no_account=True, order={"side": "sell"}),
         R.FACTS_UNAVAILABLE),
        (Change(account={"shorting_enabled": False}, order={"side": "sell"}), R.SHORT_NOT_ALLOWED),
        (Change(account={"shorting_enabled": False}), None),
        (Change(account={"shorting_enabled": None}, order={"side": "sell"}), None),
        (Change(account={"shorting_enabled": False}, facts={"broker_qty": None}),
         R.FACTS_UNAVAILABLE),
        (CASES[R.SELF_MATCH] | lists(check_self_match=False), None),
        (asset(tradable=False) | lists(check_assets=False), None),
        (asset(listed=False), R.ASSET_NOT_TRADABLE),
        (Change(facts={"asset": None}, switches={"check_assets": True}), R.FACTS_UNAVAILABLE),
        (asset(fractionable=False), None),
        (asset(fractionable=False) | Change(order={"qty": None, "notional": "1000"}),
         R.ASSET_NOT_FRACTIONABLE),
        (asset(shortable=False), None),
        (asset(shortable=False) | CLOSING, None),
        (asset(shortable=False) | Change(facts={"broker_qty": None}), R.FACTS_UNAVAILABLE),
        (asset() | Change(facts={"broker_qty": None}), None),
    ],
)  # fmt: skip
def test_switches(case: Change, reason: R | None) -> None:
    assert judge(case).deny_reason is reason, failed(judge(case))


def test_a_broker_without_a_list_of_assets_is_not_asked_for_more() -> None:
    case = Change(
        facts={"asset": replace(ASSET, listed=None, tradable=False, shortable=False)},
        switches={"check_assets": True},
        order={"side": "sell", "qty": "0.5"},
    )
    verdict = judge(case)
    assert verdict.approved
    assert named(verdict, "tradable").measured == "not offered by this broker"


@pytest.mark.parametrize(
    ("case", "name", "measured", "limit"),
    [
        (PLAIN, "state", "active", "not halted"),
        (CASES[R.TRADING_HALTED], "state", "halted", "not halted"),
        (PLAIN, "mode", "paper", "the account that is meant"),
        (Change(facts={"live_account_number": "A1"}), "mode", "that account", None),
        (CASES[R.LIVE_KEYS], "mode", "another account", None),
        (PLAIN, "account", "open", "not blocked by the broker"),
        (CASES[R.ACCOUNT_BLOCKED], "account", "blocked", None),
        (PLAIN, "strategies", "sample", "any"),
        (lists(strategies=frozenset({"b", "a"})), "strategies", "sample", "a,b"),
        (PLAIN, "symbols", "AAPL", "any"),
        (lists(symbols=frozenset({"B", "AAPL"})), "symbols", "AAPL", "AAPL,B"),
        (PLAIN, "restricted_symbols", "AAPL", "any"),
        (CASES[R.SYMBOL_RESTRICTED], "restricted_symbols", "AAPL", "not one of AAPL"),
        (PLAIN, "shorts_allowed", "no short sale", "any"),
        (CASES[R.SHORT_NOT_ALLOWED], "shorts_allowed", "may sell short", "no short sale"),
        (Change(account={"shorting_enabled": False}), "shorts_allowed", "no short sale",
         "no short sale"),
        (PLAIN, "tradable", None, "off"),
        (asset(), "tradable", "tradable", "tradable"),
        (asset(tradable=False), "tradable", "not tradable", None),
        (asset(), "fractionable", "whole shares", "fractionable, or whole shares"),
        (asset() | Change(order={"qty": "0.5"}), "fractionable", "a fraction", None),
        (asset(), "shortable", "no short sale", "shortable, or no short sale"),
        (CASES[R.ASSET_NOT_SHORTABLE], "shortable", "may sell short", None),
        (Change(facts={"session_open": True}), "session", "open", "open"),
        (CASES[R.SESSION_CLOSED], "session", "closed", "open"),
        (PLAIN, "quote", "99", "100"),
        (PLAIN, "check_order_rules", None, "off"),
        (CASES[R.ORDER_RULE], "check_order_rules",
         "price_increment: stop_price 101.001, wanted 2 decimals from 1, 4 below", None),
        (lists(check_order_rules=True), "check_order_rules", "none broken",
         "no rule of the broker's broken"),
        (PLAIN, "check_self_match", "none", "off"),
        (CASES[R.SELF_MATCH], "check_self_match", "own order at 101",
         "no own order on the other side"),
        (CASES[R.BUYING_POWER], "buying_power", "1000", "1"),
    ],
)  # fmt: skip
def test_what_a_check_says(case: Change, name: str, measured: str | None, limit: str) -> None:
    told = named(judge(case), name).as_json()
    assert told["measured"] == measured
    assert limit is None or told["limit"] == limit


def test_where_a_rule_comes_from_is_said() -> None:
    whole = judge(asset() | Change(facts={"session_open": True, "state_reason": "global by x: y"}))
    sources = {c.rule.name: c.rule.source for c in whole.checks}
    assert sources["state"] == "global by x: y"
    assert sources["mode"] == "TORGHUT_LIVE_ACCOUNT_NUMBER"
    assert sources["session"] == "TORGHUT_SESSION_POLICY"
    assert sources["account"] == "broker account flags"
    assert sources["quote"] == "quote"
    assert sources["symbols"] == sources["tradable"] == "default"
    set_ = lists(sources=(("check_assets", "risk.check_assets"), ("symbols", "risk.symbols")))
    sources = {c.rule.name: c.rule.source for c in judge(asset() | set_).checks}
    assert sources["symbols"] == "risk.symbols"
    for name in ("tradable", "fractionable", "shortable"):
        assert sources[name] == "risk.check_assets"
    reducing = judge(CASES[R.REDUCING_ONLY] | Change(facts={"state_reason": "account:a by b: c"}))
    check = reducing.failed(R.REDUCING_ONLY)
    assert check is not None
    assert (check.rule.source, check.measured) == ("account:a by b: c", "opens")
    assert check.rule.limit == "reduces the position, all in flight counted"
    unshorted = judge(Change(account={"shorting_enabled": False}))
    assert named(unshorted, "shorts_allowed").rule.source == "broker account flags"


# ---------------------------------------------------------------------- standing


@pytest.mark.parametrize("number", ["", "a1", None])
def test_live_money_needs_the_very_account(number: str | None) -> None:
    """P10: an empty setting means no account, even one that is named so."""
    meant = Change(facts={"live_account_number": "A1"}, account={"account_number": number})
    expected = R.FACTS_UNAVAILABLE if number is None else R.LIVE_KEYS
    assert judge(meant).deny_reason is expected
    unnamed = Change(facts={"live_account_number": ""}, account={"account_number": number})
    assert judge(unnamed).deny_reason is expected
    assert judge(Change(facts={"live_account_number": "A1"})).approved  # control


def test_without_the_account_nothing_passes_even_with_no_limit_set() -> None:
    verdict = judge(Change(no_account=True))
    assert verdict.deny_reason is R.FACTS_UNAVAILABLE
    assert failed(verdict) == ["account"]
    assert failed(judge(Change(no_account=True, facts={"live_account_number": "A1"}))) == [
        "mode", "account",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("side", "qty", "held", "buying", "selling", "passes"),
    [
        ("sell", "10", 10, 0, 0, True),
        ("sell", "11", 10, 0, 0, False),
        ("sell", "10", 10, 0, 1, False),  # another sell is already under way
        ("sell", "10", 10, 99, 0, True),  # a buy under way may not happen
        ("buy", "1", 10, 0, 0, False),
        ("buy", "10", -10, 0, 0, True),
        ("buy", "11", -10, 0, 0, False),
        ("buy", "10", -10, 1, 0, False),
        ("sell", "1", 0, 0, 0, False),
        ("sell", "1", 0, 5, 0, False),
    ],
)
def test_reducing_lets_only_reducing_orders_through(
    side: str, qty: str, held: int, buying: int, selling: int, passes: bool
) -> None:
    case = Change(
        facts={"state": TradingState.REDUCING, "broker_qty": Decimal(held),
               "ledger_qty": Decimal(held)},
        reserved={"buy_qty": Decimal(buying), "sell_qty": Decimal(selling)},
        order={"side": side, "qty": qty},
    )  # fmt: skip
    verdict = judge(case)
    assert verdict.approved is passes
    assert passes or verdict.deny_reason is R.REDUCING_ONLY
    (reducing,) = (c for c in verdict.checks if c.code is R.REDUCING_ONLY)
    assert reducing.measured == ("reduces" if passes else "opens")


@pytest.mark.parametrize(("broker", "ledger"), [(10, 4), (4, 10)])
def test_reducing_believes_neither_book_alone(broker: int, ledger: int) -> None:
    """The books differ: what only one of them holds cannot be sold as reducing."""
    books = {"broker_qty": Decimal(broker), "ledger_qty": Decimal(ledger)}
    case = CASES[R.REDUCING_ONLY] | Change(facts=books, order={"side": "sell", "qty": "4"})
    assert judge(case).approved
    assert not judge(case | Change(order={"qty": "5"})).approved


def test_reducing_without_a_snapshot_denies() -> None:
    case = CASES[R.REDUCING_ONLY] | Change(facts=HELD | {"broker_qty": None})
    assert not judge(case | Change(order={"side": "sell"})).approved


def test_a_position_that_is_not_known_may_be_sold_short() -> None:
    """Fail closed by this check alone, not only because the account is missing."""
    unknown = lists(shorts_allowed=False) | Change(facts={"broker_qty": None})
    verdict = judge(unknown | Change(order={"side": "sell"}))
    assert failed(verdict) == ["shorts_allowed"]
    assert verdict.deny_reason is R.FACTS_UNAVAILABLE


def test_an_odd_number_of_shares_is_whole() -> None:
    assert judge(asset(fractionable=False) | Change(order={"qty": "11"})).approved


def test_states_have_no_unit() -> None:
    verdict = judge(CASES[R.REDUCING_ONLY] | Change(facts={"ask_px": None}))
    assert {c.rule.unit for c in verdict.checks if c.rule.name in ("state", "mode")} == {""}
    quote = named(verdict, "quote")
    assert (quote.measured, quote.rule.limit) == (Decimal(99), None)


def oco(**facts: object) -> Change:
    exits = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "90"}}
    return Change(
        facts=facts,
        switches={"check_order_rules": True},
        order={"type": "limit", "side": "sell", "qty": "10", "order_class": "oco", **exits,
               "limit_price": "110"},
    )  # fmt: skip


def test_a_rule_about_the_position_waits_until_it_stands_still() -> None:
    """An OCO needs a position; while fills are on their way nobody knows whether there is one."""
    flat = {"broker_qty": Decimal(0), "ledger_qty": Decimal(0)}
    assert failed(judge(oco(**flat))) == ["check_order_rules"]
    assert judge(oco(**flat | {"ledger_qty": Decimal(10)})).approved
    assert judge(oco(**flat) | Change(reserved={"buy_qty": Decimal(10)})).approved
    assert judge(oco(**HELD)).approved
