"""Trips: what a verdict or a loss does to the trading state, until a person resumes (P11).

| what                                              | scope    | becomes                          |
|---------------------------------------------------|----------|----------------------------------|
| a strategy repeats itself (`repeated_execution`)  | strategy | halted                           |
| too many refusals in a row                        | account  | `trip_state` (reducing, halted)  |
| daily loss or drawdown over its limit             | account  | `trip_state`                     |
| positions or cash differ (services/tie_out)       | account  | reducing                         |

`follow` acts on a verdict, in its transaction. `RiskWatch` looks at the account's losses by
itself, so that a loss trips even when nobody decides anything. A state is only ever tightened
here. After a person has resumed, a daily loss does not trip again on that day (its limit still
denies what would open), and the drawdown is measured from where the equity stood then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.domain.deny_reasons import DenyReason
from torghut.domain.exposure import TradingState, amount_text, daily_loss, drawdown_pct
from torghut.domain.risk_case import Check, Verdict
from torghut.domain.risk_policy import RiskPolicy
from torghut.domain.sessions import NEW_YORK
from torghut.storage import control, facts
from torghut.storage.database import Database
from torghut.storage.leases import fence
from torghut.storage.rows import Lease

ACTOR = "risk"

_OF_ACCOUNT = (DenyReason.CONSECUTIVE_REJECTS, DenyReason.DAILY_LOSS, DenyReason.DRAWDOWN)

log = structlog.get_logger(__name__)


def follow(
    tx: Connection,
    account: str,
    strategy: str,
    verdict: Verdict,
    policy: RiskPolicy,
    tripped: dict[str, tuple[TradingState, str]],
    *,
    now: datetime,
) -> None:
    """Trip what a denied verdict calls for; `tripped` learns the strategies halted on the way."""
    repeated = verdict.failed(DenyReason.REPEATED_EXECUTION)
    if repeated is not None and strategy not in tripped:
        reason = _reason(repeated)
        trip(tx, control.strategy_scope(strategy), TradingState.HALTED, reason, now=now)
        tripped[strategy] = (TradingState.HALTED, f"strategy:{strategy} by {ACTOR}: {reason}")
    for code in _OF_ACCOUNT:
        failed = verdict.failed(code)
        if failed is not None:
            trip_account(tx, account, code, _reason(failed), policy, now=now)


def trip_account(
    tx: Connection,
    account: str,
    code: DenyReason,
    reason: str,
    policy: RiskPolicy,
    *,
    now: datetime,
) -> bool:
    """Hold the account back, unless a person has resumed it in spite of that; True if it was."""
    scope = control.account_scope(account)
    if code is DenyReason.DAILY_LOSS:
        resumed_at = control.resumed_at(tx, scope, not_by=ACTOR)
        if resumed_at is not None and _day(resumed_at) == _day(now):
            return False
    return trip(tx, scope, TradingState(policy.switches.trip_state), reason, now=now)


class RiskWatch:
    """Looks at the losses of one account; `run_once` is called by one thread."""

    def __init__(self, account: str, database: Database, policy: Callable[[], RiskPolicy]) -> None:
        self._account = account
        self._database = database
        self._policy = policy

    def run_once(self, lease: Lease, now: datetime) -> dict[str, int]:
        """Trip the account if its newest snapshot shows a loss over a limit."""
        policy = self._policy()
        limits = policy.account_limits
        tripped = 0
        with self._database.transaction() as tx:
            snapshot = facts.account_snapshot(tx, self._account)
            if snapshot is None:
                return {}
            account = snapshot.facts()
            for code, name, measured in (
                (DenyReason.DAILY_LOSS, "max_daily_loss", daily_loss(account)),
                (DenyReason.DRAWDOWN, "max_drawdown_pct", drawdown_pct(account)),
            ):
                limit = limits[name].value
                if limit is None or measured is None or measured <= limit:
                    continue
                fence(tx, lease)
                reason = f"{name}: {amount_text(measured)} is over {amount_text(limit)}"
                tripped += trip_account(tx, self._account, code, reason, policy, now=now)
        return {"tripped": tripped}


def trip(
    tx: Connection,
    scope: str,
    state: TradingState,
    reason: str,
    *,
    now: datetime,
    actor: str = ACTOR,
) -> bool:
    """Hold a scope back; False if it is as strict already."""
    if not control.tighten(tx, scope, state, actor=actor, reason=reason, now=now):
        return False
    telemetry.TRIPS.labels(scope.partition(":")[0]).inc()
    log.error("tripped", scope=scope, state=state.value, reason=reason)
    return True


def _reason(check: Check) -> str:
    told = check.as_json()
    return f"{told['name']}: {told['measured']} is over {told['limit']} {told['unit']}".rstrip()


def _day(instant: datetime) -> object:
    return instant.astimezone(NEW_YORK).date()
