"""Judging in tests: one order for 10 AAPL, everything known and every limit off but what is named.

`Change` says what is different in a case, by part; changes add up, so that faults can be combined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.factories import order
from torghut.domain.exposure import (
    AccountFacts,
    AssetFacts,
    Facts,
    OrderCounts,
    Reservations,
    TradingState,
)
from torghut.domain.limits import LIMITS, Limit, Limits, Switches, limit_rules, switch_rules
from torghut.domain.risk import evaluate
from torghut.domain.risk_case import Check, Verdict

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
PLENTY = Decimal(10**9)
ACCOUNT = AccountFacts(
    equity=Decimal(100_000),
    last_equity=Decimal(100_000),
    buying_power=Decimal(100_000),
    blocked=False,
    observed_at=NOW,
    shorting_enabled=True,
    peak_equity=Decimal(100_000),
    account_number="A1",
)
FACTS = Facts(
    state=TradingState.ACTIVE,
    state_reason="default",
    account=ACCOUNT,
    bid_px=Decimal(99),
    ask_px=Decimal(100),
    quoted_at=NOW,
    asset=AssetFacts(listed=True, tradable=True, fractionable=True, shortable=True),
    daily_volume=Decimal(1000),
    broker_qty=Decimal(0),
)
NO_QUOTE = {"bid_px": None, "ask_px": None, "quoted_at": None}
HELD = {"broker_qty": Decimal(10), "ledger_qty": Decimal(10)}
STRATEGY = "sample"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What differs from the plain case; `no_account`: the broker's account is not known at all."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    no_account: bool = False
    reserved: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    own_counts: Mapping[str, int] = field(default_factory=dict)
    limited: Mapping[str, object] = field(default_factory=dict)
    own: Mapping[str, object] = field(default_factory=dict)
    switches: Mapping[str, Any] = field(default_factory=dict)
    order: Mapping[str, object] = field(default_factory=dict)
    event_ts: datetime | None = None

    def __or__(self, other: Change) -> Change:
        parts = {
            name: {**getattr(self, name), **getattr(other, name)}
            for name, value in vars(self).items()
            if isinstance(value, Mapping)
        }
        return Change(
            **parts,
            no_account=self.no_account or other.no_account,
            event_ts=other.event_ts or self.event_ts,
        )


PLAIN = Change()
CLOSING = Change(facts=HELD, order={"side": "sell"})
BY_PERSON = Change(facts={"by_person": True})


def limits(
    limited: Mapping[str, object] = {}, own: Mapping[str, object] = {}, **switches: Any
) -> Limits:
    """Every limit off except `limited`, set by "test"; `own` are the strategy's."""

    def made(values: Mapping[str, object]) -> dict[str, Limit]:
        return {
            name: Limit(None if value is None else Decimal(str(value)), "test")
            for name, value in values.items()
        }

    assert LIMITS.keys() >= {*limited, *own}
    set_ = Switches(
        **{"check_assets": False, "check_self_match": False, "check_order_rules": False, **switches}
    )
    off: dict[str, object] = dict.fromkeys(LIMITS)
    return Limits(
        strategy=STRATEGY,
        rules=switch_rules(set_) | limit_rules(made({**off, **limited})),
        own=limit_rules(made(own), own=True),
        switches=set_,
        policy_version="v",
    )


def judge(change: Change = PLAIN) -> Verdict:
    """The verdict on a market order for 10 AAPL at 99/100, with `change`."""
    account = None if change.no_account else replace(ACCOUNT, **change.account)
    facts = replace(FACTS, account=account, **change.facts)
    if change.no_account:
        facts = replace(facts, broker_qty=None)
    reserved = Reservations(
        **{
            "counts": OrderCounts(**change.counts),
            "strategy_counts": OrderCounts(**change.own_counts),
            **change.reserved,
        }
    )
    return evaluate(
        order(**change.order),
        limits(change.limited, change.own, **change.switches),
        facts,
        reserved,
        NOW,
        event_ts=change.event_ts or NOW,
    )


def named(verdict: Verdict, name: str) -> Check:
    """The check of a name."""
    (found,) = (check for check in verdict.checks if check.rule.name == name)
    return found


def failed(verdict: Verdict) -> list[str]:
    """Names of the checks that failed."""
    return [check.rule.name for check in verdict.checks if not check.passed]
