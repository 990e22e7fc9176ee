"""The limits: what each is called, measures, defaults to and where it may be set.

```
[risk]  ◁──  [risk.account.NAME]  ◁──  [risk.strategy.NAME]  ◁──  [risk.symbol.SYM]
                                         the most specific setting of a limit wins
```

A limit of an order or a position may be set anywhere. Counts of orders may be set for everything,
an account, and a strategy: the last one counts that strategy's own orders, and the account's limit
holds beside it. Limits of the account as a whole cannot be set for a strategy or symbol.

A limit that needs a quote or a volume even for orders that name their price is off until somebody
sets it: with it on, a missing quote denies. Sources of the set: SEC rule
15c3-5 (c), MiFID II RTS 6 article 15, FIA best practices for automated trading risk controls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from torghut.domain.deny_reasons import DenyReason as R


class Scope(StrEnum):
    """Where a limit is set."""

    EVERYTHING = "risk"
    ACCOUNT = "account"
    STRATEGY = "strategy"
    SYMBOL = "symbol"


_ANYWHERE = frozenset(Scope)
_COUNTED = frozenset({Scope.EVERYTHING, Scope.ACCOUNT, Scope.STRATEGY})
_ACCOUNT = frozenset({Scope.EVERYTHING, Scope.ACCOUNT})


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One limit: `says` is what is measured, in `unit`; a `default` of None is off."""

    name: str
    reason: R
    unit: str
    default: Decimal | None
    scopes: frozenset[Scope]
    says: str


def _spec(
    name: str, reason: R, unit: str, default: int | None, scopes: frozenset[Scope], says: str
) -> LimitSpec:
    return LimitSpec(
        name, reason, unit, None if default is None else Decimal(default), scopes, says
    )


_SPECS = (
    _spec("max_open_discrepancies", R.DISCREPANCY_OPEN, "discrepancies", 0, _ACCOUNT,
          "open discrepancies that concern orders twice, positions or cash"),
    _spec("max_repeated_executions", R.REPEATED_EXECUTION, "orders/min", None, _COUNTED,
          "orders of one strategy in a minute; above it the strategy is halted until resumed"),
    _spec("max_rate_denials", R.REPEATED_EXECUTION, "denials/min", 100, _COUNTED,
          "a strategy's denials for order_rate in a minute; above it the strategy is halted"),
    _spec("max_decision_age_s", R.DECISION_STALE, "s", None, _ANYWHERE,
          "age of the signal, from event_ts"),
    _spec("max_facts_age_s", R.FACTS_UNAVAILABLE, "s", 90, _ACCOUNT,
          "age of the broker's account and positions"),
    _spec("max_quote_age_s", R.QUOTE_STALE, "s", None, _ANYWHERE, "age of the quote"),
    _spec("price_collar_bps", R.PRICE_COLLAR, "bps", None, _ANYWHERE,
          "how much worse than the quote's far side the limit, stop or take profit price is"),
    _spec("max_order_qty", R.ORDER_QTY, "shares", None, _ANYWHERE, "size of the order"),
    _spec("min_order_notional", R.ORDER_TOO_SMALL, "currency", None, _ANYWHERE,
          "worth of the order, at least; closing orders are exempt"),
    _spec("max_order_notional", R.ORDER_NOTIONAL, "currency", 100_000, _ANYWHERE,
          "worth of the order"),
    _spec("max_adv_pct", R.VOLUME_SHARE, "%", None, _ANYWHERE,
          "size of the order against the average daily volume of 20 sessions"),
    _spec("max_position_qty", R.POSITION_QTY, "shares", None, _ANYWHERE,
          "size of the position if all that may be live is filled"),
    _spec("max_position_notional", R.POSITION_NOTIONAL, "currency", 1_000_000, _ANYWHERE,
          "worth of the position if all that may be live is filled"),
    _spec("max_position_pct_equity", R.POSITION_PCT_EQUITY, "%", None, _ANYWHERE,
          "worth of that position against the equity"),
    _spec("max_concentration_pct", R.CONCENTRATION, "%", None, _ANYWHERE,
          "worth of that position against the larger of gross exposure and equity"),
    _spec("max_strategy_exposure", R.STRATEGY_EXPOSURE, "currency", None, _COUNTED,
          "gross exposure of the strategy"),
    _spec("max_gross_exposure", R.GROSS_EXPOSURE, "currency", None, _ACCOUNT,
          "long and short positions together"),
    _spec("max_net_exposure", R.NET_EXPOSURE, "currency", None, _ACCOUNT,
          "long less short positions, either way"),
    _spec("max_open_orders", R.OPEN_ORDERS, "orders", None, _COUNTED,
          "orders that may be live, this one included"),
    _spec("duplicate_window_s", R.DUPLICATE_INTENT, "s", None, _ANYWHERE,
          "seconds since the same symbol, side and size was sent under another decision, at least"),
    _spec("max_orders_per_second", R.ORDER_RATE, "orders", None, _COUNTED,
          "orders in the last second, this one included"),
    _spec("max_orders_per_minute", R.ORDER_RATE, "orders", None, _COUNTED,
          "orders in the last minute, this one included"),
    _spec("max_orders_per_day", R.ORDER_RATE, "orders", None, _COUNTED,
          "orders since midnight in New York, this one included"),
    _spec("cooldown_s", R.COOLDOWN, "s", None, _ANYWHERE,
          "seconds since the last fill in the symbol, at least"),
    _spec("max_consecutive_rejects", R.CONSECUTIVE_REJECTS, "rejects", 100, _ACCOUNT,
          "orders that the broker refused in a row"),
    _spec("max_daily_loss", R.DAILY_LOSS, "currency", None, _ACCOUNT,
          "equity lost since the last close, realised and unrealised"),
    _spec("max_drawdown_pct", R.DRAWDOWN, "%", None, _ACCOUNT,
          "equity lost from its peak, realised and unrealised"),
    _spec("buying_power_reserve_pct", R.BUYING_POWER, "%", 0, _ACCOUNT,
          "share of the buying power that orders leave alone"),
)  # fmt: skip

LIMITS: Mapping[str, LimitSpec] = {spec.name: spec for spec in _SPECS}
"""Every limit by name, in the order of the checks."""

COUNTED = frozenset(
    {"max_open_orders", "max_orders_per_second", "max_orders_per_minute", "max_orders_per_day"}
)
"""Limits that hold for the account and, where a strategy sets its own, for that strategy too."""

WHOLE_UNITS = frozenset({"orders", "orders/min", "denials/min", "rejects", "discrepancies"})
"""Units in which there is nothing between one and the next."""

AT_LEAST = frozenset({"min_order_notional", "duplicate_window_s", "cooldown_s"})
"""Limits that the measured value must reach; it must not exceed any other."""

LIVE_LIMITS = ("max_order_notional", "max_orders_per_minute", "max_daily_loss")
"""Limits without which live mode does not start."""


class Limit(NamedTuple):
    """A limit as set: None is off; `source` says where."""

    value: Decimal | None
    source: str


class Rule(NamedTuple):
    """What a check compares with: a `limit` of None is off. Made once for many verdicts.

    `name` tells checks of the same code apart: the limit's, or what is looked at.
    """

    code: R
    name: str
    limit: Decimal | str | None
    unit: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """What is set as a list or a yes/no: None lists allow everything."""

    strategies: frozenset[str] | None = None
    symbols: frozenset[str] | None = None
    restricted_symbols: frozenset[str] = frozenset()
    shorts_allowed: bool = True
    check_assets: bool = True
    check_self_match: bool = True
    check_order_rules: bool = True
    trip_state: str = "reducing"  # what a loss or a row of rejects does to the account
    sources: tuple[tuple[str, str], ...] = ()  # name → where it was set, if it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that apply to one decision, and the version of the policy they come from.

    `rules` has one for every limit and switch by name; `own` those for counts that the decision's
    strategy sets for itself.
    """

    strategy: str
    rules: Mapping[str, Rule]
    own: Mapping[str, Rule]
    switches: Switches
    policy_version: str


def limit_rules(limits: Mapping[str, Limit], *, own: bool = False) -> dict[str, Rule]:
    """The rules of limits by name; `own`: counts of a strategy's own orders."""
    return {
        name: Rule(
            LIMITS[name].reason,
            f"{name} (strategy)" if own else name,
            limit.value,
            LIMITS[name].unit,
            limit.source,
        )
        for name, limit in limits.items()
    }


def switch_rules(switches: Switches) -> dict[str, Rule]:
    """The rules of what is a list or a yes/no."""
    sources = dict(switches.sources)

    def rule(code: R, name: str, limit: str, setting: str = "") -> Rule:
        return Rule(code, name, limit, "", sources.get(setting or name, "default"))

    def listed(names: frozenset[str] | None) -> str:
        return "any" if names is None else ",".join(sorted(names))

    restricted, assets = switches.restricted_symbols, "check_assets"
    rules = [
        rule(R.STRATEGY_NOT_ENABLED, "strategies", listed(switches.strategies)),
        rule(R.SYMBOL_NOT_ENABLED, "symbols", listed(switches.symbols)),
        rule(R.SYMBOL_RESTRICTED, "restricted_symbols",
             f"not one of {listed(restricted)}" if restricted else "any"),
        rule(R.SHORT_NOT_ALLOWED, "shorts_allowed",
             "any" if switches.shorts_allowed else "no short sale"),
        rule(R.ASSET_NOT_TRADABLE, "tradable",
             "tradable" if switches.check_assets else "off", assets),
        rule(R.ASSET_NOT_FRACTIONABLE, "fractionable", "fractionable, or whole shares", assets),
        rule(R.ASSET_NOT_SHORTABLE, "shortable", "shortable, or no short sale", assets),
        rule(R.ORDER_RULE, "check_order_rules",
             "no rule of the broker's broken" if switches.check_order_rules else "off"),
        rule(R.SELF_MATCH, "check_self_match",
             "no own order on the other side" if switches.check_self_match else "off"),
    ]  # fmt: skip
    return {rule.name: rule for rule in rules}
