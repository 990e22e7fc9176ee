"""The risk policy: the `[risk]` table, checked and merged; pure.

    [risk]  ◁──  [risk.account.NAME]  ◁──  [risk.strategy.NAME]  ◁──  [risk.symbol.SYM]

The most specific setting of a limit wins. Counts that a strategy sets are its own, and the
account's hold beside them (torghut.domain.limits). `version` is a hash of everything that is in
force, defaults and the places of the settings included: what it judges, it judges byte for byte
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any

from torghut.domain.errors import ConfigError
from torghut.domain.limits import (
    COUNTED,
    LIMITS,
    LIVE_LIMITS,
    WHOLE_UNITS,
    Limit,
    Limits,
    Scope,
    Switches,
    limit_rules,
    switch_rules,
)
from torghut.domain.values import (
    canonical_amount,
    canonical_json,
    parse_amount,
    parse_symbol,
    parse_text,
)

TRIP_STATES = ("reducing", "halted")
_TABLES = (Scope.ACCOUNT, Scope.STRATEGY, Scope.SYMBOL)


class RiskPolicy:
    """The limits of one account, by strategy and symbol. Raises ConfigError for the first fault.

    `table` is the `[risk]` table as read; `live`: the limits that live money needs must be on.
    """

    def __init__(self, table: Mapping[str, Any], *, account: str, live: bool) -> None:
        rest = {str(name).lower(): value for name, value in table.items()}
        by_account, by_strategy, by_symbol = (_sub_tables(rest, scope) for scope in _TABLES)
        self._account = account
        self._switches = _switches(rest)
        self._everything = _limits(rest, Scope.EVERYTHING, "risk")
        self._accounts = _scoped(by_account, Scope.ACCOUNT)
        self._strategies = _scoped(by_strategy, Scope.STRATEGY)
        self._symbols = _scoped({k.upper(): v for k, v in by_symbol.items()}, Scope.SYMBOL)
        self._settle()
        if live:
            self._check_live()

    def _settle(self) -> None:
        """Work out what follows from the tables."""
        defaults = {name: Limit(spec.default, "default") for name, spec in LIMITS.items()}
        mine = self._accounts.get(self._account, {})
        self._account_limits = defaults | self._everything | mine
        tables = [self._account_limits, *self._strategies.values(), *self._symbols.values()]
        self._used = {name for t in tables for name, limit in t.items() if limit.value is not None}
        on = ("check_assets", "check_self_match")
        self._used |= {name for name in on if getattr(self._switches, name)}
        self._merged: dict[tuple[str, str], Limits] = {}
        self.text = canonical_json(self.as_json()).decode()
        self.version = sha256(self.text.encode()).hexdigest()[:16]

    def limits_for(self, strategy: str, symbol: str) -> Limits:
        """The limits in force for one decision."""
        key = (strategy, symbol)
        known = self._merged.get(key)
        if known is None:
            # bounded: a sender that makes up strategies must not make us keep them all
            if len(self._merged) >= 10_000:
                self._merged.clear()
            known = self._merged[key] = self._merge(strategy, symbol)
        return known

    @property
    def account_limits(self) -> Mapping[str, Limit]:
        """The limits of the account as a whole."""
        return self._account_limits

    @property
    def switches(self) -> Switches:
        """Lists and yes/no settings."""
        return self._switches

    def uses(self, *names: str) -> bool:
        """True if one of these limits or checks is on, for anything: its facts are needed then."""
        return not self._used.isdisjoint(names)

    def longest(self, *names: str) -> Decimal:
        """The largest value of these limits, for anything; 0 if all are off."""
        tables = [self._account_limits, *self._strategies.values(), *self._symbols.values()]
        values = (table[name].value for table in tables for name in names if name in table)
        return max((value for value in values if value is not None), default=Decimal(0))

    def as_json(self) -> dict[str, object]:
        """Everything in force as plain JSON; `from_json` reads it."""
        return {
            "account": self._account,
            **self.tables(),
            "sources": {
                "risk": {k: v.source for k, v in self.account_limits.items()},
                "switches": dict(self._switches.sources),
            },
        }

    def tables(self) -> dict[str, dict[str, Any]]:
        """What is in force, as the tables that would set it: for people, and to compare by."""
        switches = self._switches
        return {
            "risk": _plain_all(self._account_limits),
            "strategy": {k: _plain_all(v) for k, v in self._strategies.items()},
            "symbol": {k: _plain_all(v) for k, v in self._symbols.items()},
            "switches": {
                "strategies": _plain_list(switches.strategies),
                "symbols": _plain_list(switches.symbols),
                "restricted_symbols": _plain_list(switches.restricted_symbols),
                "shorts_allowed": switches.shorts_allowed,
                "check_assets": switches.check_assets,
                "check_self_match": switches.check_self_match,
                "check_order_rules": switches.check_order_rules,
                "trip_state": switches.trip_state,
            },
        }

    def source(self, name: str) -> str:
        """Where a limit or switch of the whole account was set."""
        if name in self._account_limits:
            return self._account_limits[name].source
        return dict(self._switches.sources).get(name, "default")

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> RiskPolicy:
        """The policy that `as_json` was taken of; raises ValueError if it is not one."""
        try:
            table = {"strategy": data["strategy"], "symbol": data["symbol"]}
            policy = RiskPolicy(table, account=data["account"], live=False)
            sources = data["sources"]
            policy._everything = {
                name: Limit(None if value == "off" else parse_amount(value), sources["risk"][name])
                for name, value in data["risk"].items()
            }
            policy._switches = _switches(
                {k: v for k, v in data["switches"].items() if v is not None},
                sources=sources["switches"],
            )
        except (AttributeError, KeyError, TypeError, ConfigError) as error:
            raise ValueError(f"not a stored policy: {error}") from None
        policy._settle()
        return policy

    def _merge(self, strategy: str, symbol: str) -> Limits:
        mine = self._strategies.get(strategy, {})
        shared = {name: limit for name, limit in mine.items() if name not in COUNTED}
        return Limits(
            strategy=strategy,
            rules=switch_rules(self._switches)
            | limit_rules({**self._account_limits, **shared, **self._symbols.get(symbol, {})}),
            own=limit_rules({k: v for k, v in mine.items() if k in COUNTED}, own=True),
            switches=self._switches,
            policy_version=self.version,
        )

    def _check_live(self) -> None:
        tables = [*self._strategies.values(), *self._symbols.values()]
        for name in LIVE_LIMITS:
            off = any(name in table and table[name].value is None for table in tables)
            if off or self.account_limits[name].value is None:
                raise ConfigError(
                    f"TORGHUT_RISK__{name.upper()}", "is off", "live mode needs it: set a value"
                )


def _sub_tables(table: dict[str, Any], scope: Scope) -> dict[str, Mapping[str, Any]]:
    value = table.pop(scope.value, {})
    if not isinstance(value, Mapping) or not all(isinstance(v, Mapping) for v in value.values()):
        raise ConfigError(
            f"[risk.{scope.value}]",
            "is not a table of tables",
            f"write [risk.{scope.value}.NAME] with limits",
        )
    return {str(k): v for k, v in value.items()}


def _scoped(tables: Mapping[str, Mapping[str, Any]], scope: Scope) -> dict[str, dict[str, Limit]]:
    return {name: _limits(t, scope, f"risk.{scope.value}.{name}") for name, t in tables.items()}


def _limits(table: Mapping[str, Any], scope: Scope, source: str) -> dict[str, Limit]:
    limits: dict[str, Limit] = {}
    for raw_name, raw in table.items():
        name = str(raw_name).lower()
        setting = f"TORGHUT_RISK__{name.upper()}" if source == "risk" else f"[{source}] {name}"
        if name not in LIMITS:
            known = ", ".join([*LIMITS, *_SWITCHES] if scope is Scope.EVERYTHING else LIMITS)
            raise ConfigError(setting, "is not a known limit", f"use one of: {known}")
        if scope not in LIMITS[name].scopes:
            mend = f"set it in {_places(name)}"
            raise ConfigError(setting, f"cannot be set for one {scope.value}", mend)
        limits[name] = Limit(_value(setting, name, raw), source)
    return limits


def _value(setting: str, name: str, raw: object) -> Any:
    if isinstance(raw, str) and raw.strip().lower() == "off":
        return None
    try:
        value = parse_amount(raw)
    except ValueError as error:
        raise ConfigError(setting, str(error), "write a number, or off") from None
    bounded = name in ("buying_power_reserve_pct", "max_drawdown_pct")
    if value < 0 or (bounded and value > 100):
        mend = "write a number from 0 on" + (" to 100" if bounded else "")
        raise ConfigError(setting, f"is {canonical_amount(value)}", mend)
    if value % 1 and LIMITS[name].unit in WHOLE_UNITS:
        problem = f"is {canonical_amount(value)}, where {LIMITS[name].unit} are counted"
        raise ConfigError(setting, problem, "write a whole number, or off")
    return value


def _places(name: str) -> str:
    scopes = LIMITS[name].scopes
    tables = [f"[risk.{scope.value}.NAME]" for scope in _TABLES if scope in scopes]
    return " or ".join(["[risk]", *tables])


def _switches(table: dict[str, Any], sources: Mapping[str, str] | None = None) -> Switches:
    """Take the switches out of the `[risk]` table."""
    values: dict[str, Any] = {}
    for name, read in _SWITCHES.items():
        raw = table.pop(name, None)
        if raw is not None:
            try:
                values[name] = read(raw)
            except ValueError as error:
                raise ConfigError(
                    f"TORGHUT_RISK__{name.upper()}", str(error), "see the table in README"
                ) from None
            # a variable that is set and empty is a slip: it must not stop all trading unsaid
            if sources is None and name in _ALLOWED and not values[name]:
                raise ConfigError(
                    f"TORGHUT_RISK__{name.upper()}",
                    "is an empty list, which would allow nothing",
                    f"name the {name} that trade, or leave it out to allow all; "
                    "to trade nothing: torghut halt",
                )
    found = {name: f"risk.{name}" for name in values} if sources is None else dict(sources)
    return Switches(**values, sources=tuple(sorted(found.items())))


def _symbol_list(raw: object) -> frozenset[str]:
    return frozenset(_each(raw, parse_symbol))


def _strategy_list(raw: object) -> frozenset[str]:
    return frozenset(_each(raw, lambda name: parse_text(name, length_max=128)))


def _each(raw: object, read: Callable[[object], str]) -> list[str]:
    names = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(names, (list, tuple)):
        raise ValueError("is not a list: write AAPL,MSFT")
    items = [name.strip() if isinstance(name, str) else name for name in names]
    try:
        return [read(item) for item in items if item != ""]
    except ValueError as error:
        raise ValueError(f"has an item that {error}") from None


def _yes_no(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise ValueError("must be true or false")


def _trip_state(raw: object) -> str:
    if raw not in TRIP_STATES:
        raise ValueError("must be one of " + ", ".join(TRIP_STATES))
    return str(raw)


_SWITCHES: Mapping[str, Callable[[object], object]] = {
    "strategies": _strategy_list,
    "symbols": _symbol_list,
    "restricted_symbols": _symbol_list,
    "shorts_allowed": _yes_no,
    "check_assets": _yes_no,
    "check_self_match": _yes_no,
    "check_order_rules": _yes_no,
    "trip_state": _trip_state,
}

_ALLOWED = ("strategies", "symbols")

SWITCHES = tuple(_SWITCHES)
"""Names of the settings in `[risk]` that are no limits."""


def _plain(limit: Limit) -> str:
    return "off" if limit.value is None else canonical_amount(limit.value)


def _plain_all(limits: Mapping[str, Limit]) -> dict[str, str]:
    return {name: _plain(limit) for name, limit in limits.items()}


def _plain_list(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)
