"""What an operator does by hand, the same from the CLI and over HTTP.

    halt    nothing new is sent; what stands at the broker is still followed
    reduce  only orders that shrink a position are sent
    resume  back to active
    resolve a discrepancy that a person has looked into

Each is one transaction with its event, under an actor and a reason, and survives restarts (P11). A
scope is `global`, one account, or one strategy on every account; the strictest of those that apply
is in force, so an account stays halted until its own scope *and* the global one are active. A trip
of the program's own is lifted the same way, by a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from torghut.config import Settings
from torghut.domain.discrepancies import DRIFTS
from torghut.domain.errors import Fault, TorghutError
from torghut.domain.exposure import TradingState
from torghut.domain.values import parse_text
from torghut.storage import control, discrepancies, facts, leases
from torghut.storage.control import GLOBAL, TradingStates
from torghut.storage.database import Database

REASON_LENGTH_MAX = 500


class NotChanged(TorghutError):
    """The request to change a trading state is not usable; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class UnknownDiscrepancy(TorghutError):
    """There is no discrepancy of this id."""


class NotResolved(TorghutError):
    """The discrepancy is closed already, or would be open again at the next look."""


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


def scope_of(account: str | None, strategy: str | None = None) -> str:
    """The scope of an account or of a strategy; without either the global one.

    Raises NotChanged for both at once: a strategy's state holds on every account.
    """
    if account is not None and strategy is not None:
        raise NotChanged(Fault("strategy", "cannot go with an account: name one of them"))
    if strategy is not None:
        return control.strategy_scope(strategy)
    return GLOBAL if account is None else control.account_scope(account)


def states_now(database: Database, account: str) -> TradingStates:
    """What is in force at this moment. Raises DatabaseUnavailable."""
    with database.transaction() as tx:
        return control.trading_states(tx, account)


def change(
    state: TradingState,
    database: Database,
    scope: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
    settings: Settings,
) -> Change:
    """Put `scope` into `state`.

    An account must be one of the settings or one that a process has traded; a strategy must be
    in the settings, or have decided or been restricted before. Raises NotChanged (unknown scope, no
    usable reason), DatabaseUnavailable.
    """
    reason = checked_reason(reason)

    def write(tx: Connection) -> TradingState | None:
        _check_known(tx, scope, settings)
        before = control.set_trading_state(tx, scope, state, actor=actor, reason=reason, now=now)
        if before is not None and state is TradingState.ACTIVE:
            kind, _, name = scope.partition(":")
            if kind != "strategy":
                facts.forget_peak(tx, name or None)
        return before

    before = database.retried(write)
    return Change(scope, state if before is None else before, state)


halt = partial(change, TradingState.HALTED)
reduce = partial(change, TradingState.REDUCING)
resume = partial(change, TradingState.ACTIVE)


def resolve(
    database: Database, discrepancy_id: int, *, actor: str, reason: str, now: datetime
) -> dict[str, object]:
    """Close a discrepancy because a person says so, and keep who and why; plain JSON of it.

    Raises UnknownDiscrepancy, NotResolved, NotChanged (no usable reason), DatabaseUnavailable.
    """
    resolution = f"resolved by {actor}: {checked_reason(reason)}"
    with database.transaction() as tx:
        found = discrepancies.locked(tx, discrepancy_id)
        if found is None:
            raise UnknownDiscrepancy(
                f"no discrepancy {discrepancy_id}; list them: torghut discrepancies --all"
            )
        if found.kind in DRIFTS and found.resolution is None:
            raise NotResolved(
                f"discrepancy {discrepancy_id}, {found.kind} {found.subject}, would come back at"
                " the next look; take the broker's amount into our books instead: torghut accept"
                f" {found.subject} --account {found.account} --reason WHY"
            )
        if not discrepancies.resolve(
            tx, discrepancy_id, resolution=resolution, actor=actor, now=now
        ):
            raise NotResolved(f"discrepancy {discrepancy_id} is closed already: {found.resolution}")
    return {
        "id": discrepancy_id,
        "account": found.account,
        "kind": found.kind,
        "subject": found.subject,
        "resolution": resolution,
    }


def checked_reason(reason: str) -> str:
    """The reason as it is kept. Raises NotChanged."""
    try:
        return parse_text(reason.strip(), length_max=REASON_LENGTH_MAX)
    except ValueError as error:
        raise NotChanged(Fault("reason", str(error))) from None


def _check_known(tx: Connection, scope: str, settings: Settings) -> None:
    """A mistyped name would be "halted" while the real one goes on trading."""
    kind, _, name = scope.partition(":")
    if kind == "account" and name not in settings.labels and leases.current(tx, name) is None:
        raise NotChanged(
            Fault("account", f"{name!a} was never traded by a process on this database")
        )
    if (
        kind == "strategy"
        and name not in settings.strategies
        and not control.strategy_known(tx, name)
    ):
        raise NotChanged(
            Fault(
                "strategy", f"{name!a} is not in the settings and has never decided anything here"
            )
        )
