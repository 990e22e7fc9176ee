"""Reading the risk limits again while the daemon runs.

```
SIGHUP ───────────────────────────┐
torghut limits reload ─▶ a row ───┴▶ this loop ─▶ settings ─▶ RiskPolicy ─▶ PolicyInForce
                         (asked for            │     └ wrong: the old limits stay
                          once a second)       └▶ event: the difference, or the refusal
```

1. Only the risk table is taken over. Other settings that changed are named in the event and need a
   restart; whether live mode demands its limits is judged by the mode that this process runs in.
2. The event is committed before the new limits are in force, and the claimer takes the policy anew
   for each claim: a claim is judged by one policy, never by half of each.
3. Every process on the database answers each request, standby or owner, under its own name. A
   request is answered until its event is committed; one that came while a process was starting is
   answered, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from torghut.clock import Clock
from torghut.config import Settings, risk_policy
from torghut.domain.errors import ConfigError
from torghut.domain.events import Event, EventKind
from torghut.domain.risk_policy import RiskPolicy
from torghut.storage import control
from torghut.storage.database import Database

ACTOR = "limits"
SIGNAL = "SIGHUP"
POLL_S = 1.0
STARTING_S = 60.0

log = structlog.get_logger(__name__)


class PolicyInForce:
    """The one place of a process's risk policy; `current` is replaced whole."""

    def __init__(self, policy: RiskPolicy) -> None:
        self.current = policy


@dataclass(frozen=True, slots=True)
class LimitChange:
    """One limit of one scope, before and after; None where it was not set there."""

    scope: str
    name: str
    before: str | None
    after: str | None

    def as_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {
            "scope": self.scope,
            "name": self.name,
            "before": self.before,
            "after": self.after,
        }


def difference(before: Mapping[str, object], after: Mapping[str, object]) -> list[LimitChange]:
    """What differs between two policies given as nested tables, sorted by scope and name."""
    old, new = dict(flat(before)), dict(flat(after))
    return [
        LimitChange(*key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def flat(
    table: Mapping[str, object], scope: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, str], str]]:
    """((scope, name), value as text) of every limit of a nested table; `off` for None."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*scope, name))
        elif isinstance(value, (list, tuple)):
            yield (".".join(scope), name), ",".join(str(item) for item in value)
        else:
            yield (".".join(scope), name), "off" if value is None else str(value).lower()


def listed(policy: RiskPolicy) -> list[dict[str, str]]:
    """Every limit and switch in force: its name, its value as text, where it was set."""
    return [
        {
            "limit": name,
            "value": value,
            "source": policy.source(name) if scope in ("risk", "switches") else f"risk.{scope}",
        }
        for (scope, name), value in flat(policy.tables())
    ]


class LimitReload:
    """Answers requests to read the limits again; `run_once` is called by one thread."""

    def __init__(
        self,
        owner: str,
        database: Database,
        limited: Sequence[tuple[Settings, PolicyInForce]],
        *,
        load: Callable[[], Settings],
        clock: Clock,
    ) -> None:
        """`limited`: each account's settings and its policy."""
        self._owner = owner
        self._database = database
        self._limited = limited
        self._load = load
        self._started_at = clock()
        self._answered: int | None = None
        self._signaled = threading.Event()

    def on_signal(self) -> None:
        """The next pass reads the limits again; safe in a signal handler."""
        self._signaled.set()

    def run_once(self, now: datetime) -> dict[str, int]:
        """Answer the newest request, if it has not been, and a signal; returns counts."""
        reloads = 0
        if self._signaled.is_set():
            self._reload(None, SIGNAL, now)
            self._signaled.clear()
            reloads += 1
        with self._database.transaction() as tx:
            newest = control.newest_reload(tx)
        if newest is None:
            self._answered = self._answered or 0
            return {"reloads": reloads}
        if self._answered is None and newest.requested_at < self._started_at - timedelta(
            seconds=STARTING_S
        ):
            self._answered = newest.reload_id
        if newest.reload_id != self._answered:
            self._reload(newest.reload_id, newest.actor, now)
            self._answered = newest.reload_id
            reloads += 1
        return {"reloads": reloads}

    def _reload(self, reload_id: int | None, asked_by: str, now: datetime) -> None:
        fresh: Settings | ConfigError
        try:
            fresh = self._load()
        except ConfigError as error:
            fresh = error
        for settings, in_force in self._limited:
            self._take_over(settings, in_force, fresh, reload_id, asked_by, now)

    def _take_over(
        self,
        settings: Settings,
        in_force: PolicyInForce,
        fresh: Settings | ConfigError,
        reload_id: int | None,
        asked_by: str,
        now: datetime,
    ) -> None:
        """One account's new limits, or why it keeps the old ones."""
        before = in_force.current
        about: dict[str, object] = {
            "reload_id": reload_id,
            "owner": self._owner,
            "asked_by": asked_by,
            "version_before": before.version,
        }
        try:
            own = _account_of(fresh, settings)
            after = risk_policy(settings.model_copy(update={"risk": own.risk}))
        except ConfigError as error:
            refused = {**about, "error": str(error)}
            self._report(settings.account, EventKind.LIMITS_REFUSED, refused, now)
            log.error("limits not reloaded; the old ones stay", error=str(error))
            return
        changes = [change.as_json() for change in difference(before.tables(), after.tables())]
        about |= {
            "version_after": after.version,
            "changes": changes,
            "needs_restart": _others_changed(settings, own),
        }
        self._report(settings.account, EventKind.LIMITS_RELOADED, about, now)
        in_force.current = after
        log.warning("limits reloaded", account=settings.account, **about)

    def _report(
        self, account: str, kind: EventKind, payload: Mapping[str, object], now: datetime
    ) -> None:
        event = Event(kind, ACTOR, account=account, payload=payload)
        with self._database.transaction() as tx:
            control.add_events(tx, [event], now=now)


def _account_of(fresh: Settings | ConfigError, running: Settings) -> Settings:
    """The account's fresh settings. Raises ConfigError."""
    if isinstance(fresh, ConfigError):
        raise fresh
    if not running.accounts and not fresh.accounts:
        return fresh
    if running.account not in fresh.labels:
        mend = "put it back, or restart without it"
        raise ConfigError(f"[accounts.{running.account}]", "is not in the settings any more", mend)
    return fresh.of(running.account)


def _others_changed(running: Settings, fresh: Settings) -> list[str]:
    """Outside names of the settings that differ and were not taken over; never their values."""
    return [
        alias if isinstance(alias := field.validation_alias, str) else f"TORGHUT_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if name != "risk" and getattr(running, name) != getattr(fresh, name)
    ]
