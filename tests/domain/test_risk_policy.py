"""The policy: the most specific setting wins, faults are named, and it survives being stored."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torghut.domain.errors import ConfigError
from torghut.domain.limits import COUNTED, LIMITS, LIVE_LIMITS, WHOLE_UNITS, Limit, Scope, Switches
from torghut.domain.risk_policy import SWITCHES, RiskPolicy

LIVE = {"max_orders_per_minute": 10, "max_daily_loss": 1000}


def policy(label: str = "paper", /, live: bool = False, **table: Any) -> RiskPolicy:
    return RiskPolicy(table, account=label, live=live)


def refused(live: bool = False, **table: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        policy(live=live, **table)
    return caught.value


def found(of: RiskPolicy, name: str, strategy: str = "s", symbol: str = "AAPL") -> tuple[Any, str]:
    rule = of.limits_for(strategy, symbol).rules[name]
    return rule.limit, rule.source


def test_each_limit_has_its_default() -> None:
    plain = policy()
    for name, spec in LIMITS.items():
        assert found(plain, name) == (spec.default, "default")
        assert plain.account_limits[name] == Limit(spec.default, "default")
        rule = plain.limits_for("s", "AAPL").rules[name]
        assert (rule.code, rule.name, rule.unit) == (spec.reason, name, spec.unit)
    assert plain.limits_for("s", "AAPL").own == {}
    assert plain.switches == Switches()


def test_the_most_specific_wins() -> None:
    name = "max_order_qty"
    tables: dict[str, Any] = {
        name: 1,
        "account": {"paper": {name: 2}, "other": {name: 99}},
        "strategy": {"s": {name: 3}},
        "symbol": {"aapl": {name: "4"}},
    }
    assert found(policy(**tables), name) == (4, "risk.symbol.AAPL")
    del tables["symbol"]
    assert found(policy(**tables), name) == (3, "risk.strategy.s")
    assert found(policy(**tables), name, "t") == (2, "risk.account.paper")
    assert found(policy("third", **tables), name, "t") == (1, "risk")


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_a_count_of_a_strategy_stands_beside_the_account_s(name: str) -> None:
    mine = policy(**{name: 9, "strategy": {"s": {name: 3, "max_order_qty": 1}}})
    assert found(mine, name) == (9, "risk")
    own = mine.limits_for("s", "AAPL").own
    assert list(own) == [name]
    rule = own[name]
    assert (rule.limit, rule.source, rule.name) == (3, "risk.strategy.s", f"{name} (strategy)")
    assert (rule.code, rule.unit) == (LIMITS[name].reason, LIMITS[name].unit)
    assert mine.limits_for("t", "AAPL").own == {}


@pytest.mark.parametrize(("name", "scope"), [(name, scope) for name in LIMITS for scope in Scope])
def test_where_a_limit_may_be_set(name: str, scope: Scope) -> None:
    place = "AAPL" if scope is Scope.SYMBOL else "paper"
    table = {name: 7} if scope is Scope.EVERYTHING else {scope.value: {place: {name: 7}}}
    if scope in LIMITS[name].scopes:
        policy(**table)
        return
    error = refused(**table)
    assert error.setting == f"[risk.{scope.value}.{place}] {name}"
    assert str(error).count(f"cannot be set for one {scope.value}") == 1
    assert "set it in [risk]" in str(error)
    assert f"[risk.{scope.value}.NAME]" not in str(error)
    assert "[risk.account.NAME]" in str(error)


@pytest.mark.parametrize(
    ("table", "setting", "problem"),
    [
        ({"max_order": 1}, "TORGHUT_RISK__MAX_ORDER", "is not a known limit; use one of: "),
        ({"symbol": {"AAPL": {"nope": 1}}}, "[risk.symbol.AAPL] nope", "is not a known limit"),
        ({"symbol": {"AAPL": {"shorts_allowed": 1}}}, "[risk.symbol.AAPL] shorts_allowed",
         "is not a known limit"),
        ({"max_order_qty": -1}, "TORGHUT_RISK__MAX_ORDER_QTY", "is -1; write a number from 0 on$"),
        ({"max_order_qty": "x"}, "TORGHUT_RISK__MAX_ORDER_QTY",
         "is not a finite decimal number: 'x'; write a number, or off"),
        ({"max_order_qty": True}, "TORGHUT_RISK__MAX_ORDER_QTY", "write a number, or off"),
        ({"max_drawdown_pct": "100.5"}, "TORGHUT_RISK__MAX_DRAWDOWN_PCT",
         "is 100.5; write a number from 0 on to 100"),
        ({"buying_power_reserve_pct": 101}, "TORGHUT_RISK__BUYING_POWER_RESERVE_PCT", "is 101"),
        ({"strategy": 5}, "[risk.strategy]",
         "is not a table of tables; write [risk.strategy.NAME] with limits"),
        ({"strategy": {"s": 5}}, "[risk.strategy]", "is not a table of tables"),
        ({"account": []}, "[risk.account]", "is not a table of tables"),
        *(({name: "1.5"}, f"TORGHUT_RISK__{name.upper()}",
           f"is 1.5, where {spec.unit} are counted; write a whole number, or off$")
          for name, spec in LIMITS.items() if spec.unit in WHOLE_UNITS),
        ({"strategy": {"s": {"max_orders_per_minute": 0.5}}},
         "[risk.strategy.s] max_orders_per_minute", "is 0.5, where orders are counted"),
        ({"symbols": ""}, "TORGHUT_RISK__SYMBOLS",
         "is an empty list, which would allow nothing; name the symbols that trade, or leave it "),
        ({"symbols": []}, "TORGHUT_RISK__SYMBOLS", "to trade nothing: torghut halt$"),
        ({"strategies": " , "}, "TORGHUT_RISK__STRATEGIES", "name the strategies that trade, or "),
        ({"symbols": 5}, "TORGHUT_RISK__SYMBOLS",
         "SYMBOLS: is not a list: write AAPL,MSFT; see"),
        ({"symbols": ["A B"]}, "TORGHUT_RISK__SYMBOLS", "has an item that "),
        ({"strategies": ["x" * 129]}, "TORGHUT_RISK__STRATEGIES", "has an item that "),
        ({"restricted_symbols": {}}, "TORGHUT_RISK__RESTRICTED_SYMBOLS", "is not a list"),
        ({"shorts_allowed": "maybe"}, "TORGHUT_RISK__SHORTS_ALLOWED",
         "must be true or false; see the table in README"),
        ({"trip_state": "active"}, "TORGHUT_RISK__TRIP_STATE",
         "must be one of reducing, halted; see the table in README"),
    ],
)  # fmt: skip
def test_faults(table: dict[str, Any], setting: str, problem: str) -> None:
    error = refused(**table)
    assert error.setting == setting
    assert problem in f"{error}$", str(error)


def test_whole_numbers_lists_and_fractions_of_what_is_not_counted_are_taken() -> None:
    """The control of the faults: what is counted comes out whole, the rest may be a fraction."""
    assert "max_orders_per_minute" in {n for n, s in LIMITS.items() if s.unit in WHOLE_UNITS}
    of = policy(max_orders_per_minute="10.0", max_order_qty="1.5", cooldown_s=0.5,
                restricted_symbols="")  # fmt: skip
    values = [of.account_limits[n].value for n in ("max_orders_per_minute", "max_order_qty")]
    assert values == [10, Decimal("1.5")]
    assert of.switches.restricted_symbols == frozenset()


def test_a_stored_policy_that_allowed_nothing_is_still_read() -> None:
    """Replay judges by what was in force then, even if it could not be set today."""
    stored = policy(symbols="AAPL").as_json()
    stored["switches"] = {**cast(dict[str, Any], stored["switches"]), "symbols": []}
    read = RiskPolicy.from_json(stored)
    assert read.switches.symbols == frozenset()


def test_what_is_known_is_told_where_it_may_be_set() -> None:
    everywhere, one = str(refused(nope=1)), str(refused(symbol={"A": {"nope": 1}}))
    assert all(f"{name}" in everywhere for name in (*LIMITS, *SWITCHES))
    assert "trip_state" not in one and "max_order_qty, " in one


@pytest.mark.parametrize("name", ["max_drawdown_pct", "buying_power_reserve_pct", "max_order_qty"])
@pytest.mark.parametrize("value", [0, 100, "Off", " off "])
def test_edges_of_values(name: str, value: object) -> None:
    expected = None if isinstance(value, str) else value
    assert found(policy(**{name.upper(): value}), name) == (expected, "risk")


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("symbols", "aapl, MSFT ,", {"AAPL", "MSFT"}),
        ("restricted_symbols", [], set()),
        ("restricted_symbols", "", set()),
        ("restricted_symbols", ("GME",), {"GME"}),
        ("strategies", ["a", "b c"], {"a", "b c"}),
        ("strategies", "a,b", {"a", "b"}),
        ("strategies", ["x" * 128], {"x" * 128}),
        *(("shorts_allowed", raw, True) for raw in (True, "TRUE", "yes", "on", "1", 1, " yes ")),
        *(("check_assets", raw, False) for raw in (False, "false", "No", "off", "0", 0)),
        ("check_self_match", "no", False),
        ("trip_state", "halted", "halted"),
        ("trip_state", "reducing", "reducing"),
    ],
)
def test_switches(name: str, raw: object, value: object) -> None:
    of = policy(**{name: raw})
    assert getattr(of.switches, name) == value
    assert dict(of.switches.sources) == {name: f"risk.{name}"}


def test_every_switch_is_a_setting() -> None:
    assert {*SWITCHES, "sources"} == set(Switches.__dataclass_fields__)


# ---------------------------------------------------------------------- live


@pytest.mark.parametrize("name", LIVE_LIMITS)
def test_live_needs_its_limits(name: str) -> None:
    policy(live=True, **LIVE)  # control
    error = refused(live=True, **{**LIVE, name: "off"})
    assert (error.setting, "is off; live mode needs it: set a value" in str(error)) == (
        f"TORGHUT_RISK__{name.upper()}", True,
    )  # fmt: skip
    assert refused(live=True, **LIVE, account={"paper": {name: "off"}}).setting == error.setting
    policy(live=True, **LIVE, account={"another": {name: "off"}})
    policy(**{name: "off"})
    for scope in (Scope.STRATEGY, Scope.SYMBOL):
        if scope in LIMITS[name].scopes:
            off = refused(live=True, **LIVE, **{scope.value: {"X": {name: "off"}}})
            assert off.setting == error.setting
            policy(live=True, **LIVE, **{scope.value: {"X": {name: 1}}})


# ---------------------------------------------------------------------- what is asked of it


def test_what_is_on_anywhere_is_used() -> None:
    plain = policy()
    assert plain.uses("max_order_notional") and plain.uses("cooldown_s", "max_order_notional")
    assert not plain.uses("cooldown_s") and not plain.uses("cooldown_s", "max_adv_pct")
    assert plain.uses("check_assets") and plain.uses("check_self_match")
    assert not policy(check_assets=False).uses("check_assets")
    assert not policy(check_self_match=False).uses("check_self_match")
    assert policy(symbol={"X": {"cooldown_s": 1}}).uses("cooldown_s")
    assert policy(strategy={"X": {"cooldown_s": 1}}).uses("cooldown_s")
    assert policy(account={"paper": {"cooldown_s": 1}}).uses("cooldown_s")
    assert not policy(account={"other": {"cooldown_s": 1}}).uses("cooldown_s")
    assert not policy(max_order_notional="off").uses("max_order_notional")


def test_the_longest_of_any() -> None:
    of = policy(cooldown_s=3, strategy={"s": {"cooldown_s": 5}}, symbol={"X": {"cooldown_s": 4}})
    assert of.longest("cooldown_s") == of.longest("duplicate_window_s", "cooldown_s") == 5
    assert of.longest("duplicate_window_s") == 0
    assert policy(symbol={"X": {"cooldown_s": 4}}).longest("cooldown_s") == 4


def test_merged_limits_are_kept_but_not_for_ever() -> None:
    of = policy()
    first = of.limits_for("s", "AAPL")
    assert of.limits_for("s", "AAPL") is first
    assert (first.strategy, first.policy_version) == ("s", of.version)
    assert first.switches is of.switches
    for number in range(9_999):
        of.limits_for(f"s{number}", "AAPL")
    assert of.limits_for("s", "AAPL") is first
    of.limits_for("one more", "AAPL")
    assert of.limits_for("s", "AAPL") is not first
    assert of.limits_for("s", "AAPL") == first


# ---------------------------------------------------------------------- version and storing


def test_the_version_follows_everything_in_force() -> None:
    base = policy().version
    assert len(base) == 16 and base == policy().version
    assert policy(max_order_qty="5.0").version == policy(max_order_qty=5).version != base
    differing: list[dict[str, Any]] = [
        {"max_order_notional": 100_000},  # the same value, but set
        {"strategy": {"s": {"max_order_qty": 1}}},
        {"symbol": {"S": {"max_order_qty": 1}}},
        {"account": {"paper": {"max_order_qty": 1}}},
        {"shorts_allowed": False}, {"shorts_allowed": True}, {"check_assets": False},
        {"check_self_match": False}, {"trip_state": "halted"}, {"symbols": ["A"]},
        {"strategies": ["A"]}, {"restricted_symbols": ["A"]},
    ]  # fmt: skip
    versions = {policy(**table).version for table in differing}
    assert len({*versions, base}) == len(differing) + 1
    assert policy("live").version != base


TABLES = st.fixed_dictionaries(
    {},
    optional={
        "max_order_qty": st.sampled_from([1, "off", "2.50"]),
        "max_daily_loss": st.sampled_from([100, "off"]),
        "account": st.sampled_from([{}, {"paper": {"max_order_qty": 5, "max_daily_loss": "off"}}]),
        "strategy": st.sampled_from([{}, {"s": {"max_order_qty": 7, "max_open_orders": 2}}]),
        "symbol": st.sampled_from([{}, {"aapl": {"max_order_qty": "off"}}]),
        "symbols": st.sampled_from(["AAPL", ["AAPL", "MSFT"]]),
        "strategies": st.sampled_from([["s"], "s,t"]),
        "restricted_symbols": st.just("GME"),
        "shorts_allowed": st.booleans(),
        "check_assets": st.booleans(),
        "check_self_match": st.booleans(),
        "trip_state": st.sampled_from(["reducing", "halted"]),
    },
)


@given(TABLES)
def test_a_stored_policy_judges_the_same(table: dict[str, Any]) -> None:
    """Through JSON and back: the same version, and the same rules for everyone."""
    first = policy(**table)
    second = RiskPolicy.from_json(json.loads(json.dumps(first.as_json())))
    assert second.version == first.version
    for strategy in ("s", "t"):
        for symbol in ("AAPL", "MSFT"):
            assert second.limits_for(strategy, symbol) == first.limits_for(strategy, symbol)
    assert second.switches == first.switches
    assert second.account_limits == first.account_limits
    assert second.uses("max_order_qty") == first.uses("max_order_qty")


def test_what_is_stored() -> None:
    told = policy(max_order_qty="off", symbol={"X": {"cooldown_s": "1.0"}}, symbols="B,A").as_json()
    assert told["account"] == "paper"
    risk, switches, sources = told["risk"], told["switches"], told["sources"]
    assert isinstance(risk, dict) and isinstance(switches, dict) and isinstance(sources, dict)
    assert risk.keys() == LIMITS.keys() and risk["max_order_qty"] == "off"
    assert risk["max_order_notional"] == "100000"
    assert (told["symbol"], told["strategy"]) == ({"X": {"cooldown_s": "1"}}, {})
    assert switches == {
        "strategies": None, "symbols": ["A", "B"], "restricted_symbols": [], "shorts_allowed": True,
        "check_assets": True, "check_self_match": True, "check_order_rules": True,
        "trip_state": "reducing",
    }  # fmt: skip
    assert sources["switches"] == {"symbols": "risk.symbols"}
    assert (sources["risk"]["max_order_qty"], sources["risk"]["cooldown_s"]) == ("risk", "default")


@pytest.mark.parametrize("broken", [{}, {"risk": 5}, {"switches": {"symbols": 5}}])
def test_what_is_no_stored_policy(broken: dict[str, Any]) -> None:
    data = {**policy().as_json(), **broken} if broken else {}
    with pytest.raises(ValueError, match="not a stored policy"):
        RiskPolicy.from_json(data)


def test_amounts_are_exact() -> None:
    assert found(policy(max_order_notional="0.1"), "max_order_notional")[0] == Decimal("0.1")


def test_the_places_of_a_limit_in_words() -> None:
    error = refused(symbol={"X": {"max_orders_per_day": 1}})
    assert str(error).endswith("set it in [risk] or [risk.account.NAME] or [risk.strategy.NAME]")


def test_where_a_setting_of_the_account_was_made() -> None:
    made = policy(max_order_qty=5, symbols="A", account={"paper": {"max_daily_loss": 3}})
    assert made.source("max_order_qty") == "risk"
    assert made.source("max_daily_loss") == "risk.account.paper"
    assert made.source("cooldown_s") == "default"
    assert made.source("symbols") == "risk.symbols"
    assert made.source("shorts_allowed") == "default"
