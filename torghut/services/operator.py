"""What an operator does by hand, the same from the CLI and over HTTP.

    halt    nothing new is sent; what stands at the broker is still followed
    resume  back to active

Each change is one transaction with its event, under an actor and a reason, and survives restarts
(P11). A scope is `global` or one account; the strictest of those that apply is in force, so an
account stays halted until its own scope *and* the global one are active.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from torghut.domain.errors import Fault, TorghutError
from torghut.domain.exposure import TradingState
from torghut.domain.values import parse_text
from torghut.storage import control, leases
from torghut.storage.control import GLOBAL
from torghut.storage.database import Database

REASON_LENGTH_MAX = 500


class NotChanged(TorghutError):
    """The request to change a trading state is not usable; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Change:
    """A scope's state now, and before; `changed` is False if it was the same already."""

    scope: str
    before: TradingState
    state: TradingState

    @property
    def changed(self) -> bool:
        return self.before is not self.state

    def as_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {
            "scope": self.scope,
            "before": self.before.value,
            "state": self.state.value,
            "changed": self.changed,
        }


def scope_of(account: str | None) -> str:
    """The scope of an account; None is the global one."""
    return GLOBAL if account is None else control.account_scope(account)


def halt(
    database: Database,
    scope: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
    own_account: str | None = None,
) -> Change:
    """Stop sending orders in `scope`.

    An account must be `own_account` (that of the settings) or one that a process has traded.
    Raises NotChanged (unknown account, no usable reason), DatabaseUnavailable.
    """
    _check_account(database, scope, own_account)
    return _change(database, scope, TradingState.HALTED, actor=actor, reason=reason, now=now)


def resume(
    database: Database,
    scope: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
    own_account: str | None = None,
) -> Change:
    """Make `scope` active again. Arguments and errors as `halt`."""
    _check_account(database, scope, own_account)
    return _change(database, scope, TradingState.ACTIVE, actor=actor, reason=reason, now=now)


def _check_account(database: Database, scope: str, own_account: str | None) -> None:
    """A mistyped account would be "halted" while the real one goes on trading."""
    account = scope.partition(":")[2]
    if scope == GLOBAL or account == own_account:
        return
    with database.transaction() as tx:
        if leases.current(tx, account) is None:
            raise NotChanged(
                Fault("account", f"{account!a} was never traded by a process on this database")
            )


def _change(
    database: Database,
    scope: str,
    state: TradingState,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> Change:
    try:
        reason = parse_text(reason.strip(), length_max=REASON_LENGTH_MAX)
    except ValueError as error:
        raise NotChanged(Fault("reason", str(error))) from None
    with database.transaction() as tx:
        before = control.set_trading_state(tx, scope, state, actor=actor, reason=reason, now=now)
    return Change(scope, state if before is None else before, state)
