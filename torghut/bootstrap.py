"""The composition root: the only place that names concrete parts, with torghut.account_unit.

```
settings ─▶ database (embedded or URL) ─▶ schema check ─▶ brokers (simulators or Alpaca) ─▶ Daemon
Daemon: an AccountUnit for each account · seats · pulse · limits · inbox · stream intakes · relays ·
listener;
HTTP around it: torghut.serving
```

Start order is by what must be known first: settings (78), the database (1), the schema (1), the
broker's account (78 when it is the wrong one or the keys are refused; a broker that does not
answer is waited for). Where there are several accounts each is asked while the others go on, and
the process ends only when none of them may be traded. Everything is closed in the opposite order.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import structlog

from torghut import telemetry
from torghut.account_unit import AccountUnit
from torghut.clock import utc_now
from torghut.config import Settings, load
from torghut.parts import (
    Adapters,
    check_tokens,
    inbox_loop,
    open_broker,
    open_intakes,
    open_relays,
    own_simulator,
    owner_name,
    warn_of_lossy_commits,
)
from torghut.places import (
    Reach,
    arm_recovery_point,
    last_port,
    notify,
    open_database,
    reach,
    simulator_home,
)
from torghut.services import key_cleanup, limit_reload, pulse, seats
from torghut.services.intake import IntakeDesk
from torghut.services.key_cleanup import KeyCleanup
from torghut.services.limit_reload import LimitReload
from torghut.services.loops import Loop
from torghut.services.pulse import Pulse
from torghut.services.seats import Seats
from torghut.simulator import SimConfig
from torghut.sinks import opening as sinks
from torghut.storage import wake
from torghut.storage.database import Database
from torghut.storage.database_faults import DatabaseFault
from torghut.storage.pulse import Work
from torghut.streams import opening as streams

STALLED_AFTER_S = 60.0
SIMULATOR_STATE = "simulator-state.jsonl"

log = structlog.get_logger(__name__)


class Daemon:
    """Everything that runs in one process: a unit for each account, and what they share."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        at: Mapping[str, Reach],
        adapters: Adapters = open_broker,
    ) -> None:
        """`at`: account → its broker."""
        self.settings = settings
        self.database = database
        self.owner = owner_name()
        alone = len(settings.labels) == 1
        self.units = {
            one.account: AccountUnit(
                one, database, self.owner, at[one.account], alone=alone, adapters=adapters
            )
            for one in settings.each()
        }
        self._show_own_state()
        limited = [(unit.settings, unit.policy) for unit in self.units.values()]
        self.limits = LimitReload(self.owner, database, limited, load=load, clock=utc_now)
        self._limits_loop = Loop(
            "limits", self.limits.run_once, interval_s=limit_reload.POLL_S, clock=utc_now
        )
        chairs = {label: unit.supervisor for label, unit in self.units.items()}
        self._seats = Seats(self.owner, database, chairs, ttl_s=settings.lease_ttl_s)
        self._seats_loop = Loop(
            "seats",
            self._seats.run_once,
            interval_s=seats.LOOK_S,
            clock=utc_now,
            backoff_cap_s=pulse.BACKOFF_CAP_S,
        )
        self.desk = IntakeDesk(database, utc_now, self._wake)
        self._inbox_loop = inbox_loop(self.settings, self.database, self._wake)
        self._pulse = Pulse(database, settings.labels, owned=self._owned, wake=self._wake_for)
        self._pulse_loop = Loop(
            "pulse",
            self._pulse.run_once,
            interval_s=pulse.POLL_S,
            clock=utc_now,
            backoff_cap_s=pulse.BACKOFF_CAP_S,
        )
        self.intakes = open_intakes(settings, database, self.desk)
        self.relays = open_relays(settings, database, self.owner, random.Random())
        self._listener = wake.Listener(database)
        self._stopping = threading.Event()
        self._listening = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        """Start all loops; raises ConfigError if the only account may not be traded."""
        units = list(self.units.values())
        if len(units) == 1:
            units[0].verify()
        cleanup = {"key-cleanup": (KeyCleanup(self.database).run_once, key_cleanup.POLL_S)}
        units[0].start(cleanup)  # one owner of all does
        for unit in units[1:]:
            unit.start()
        self._seats_loop.start()
        self._limits_loop.start()
        self.relays.start()
        self._inbox_loop.start()
        self._pulse_loop.start()
        self.intakes.start()
        if not self.database.pooled:  # LISTEN needs a server process of its own: polling is enough
            self._listening.start()

    def stop(self) -> None:
        """Clean shutdown: nothing new, finish what is in flight, hand the accounts over."""
        self._stopping.set()
        self._seats_loop.stop(5)
        self._seats.withdraw()
        self._limits_loop.stop(5)
        self._pulse_loop.stop(5)
        self._inbox_loop.stop(5)
        self.intakes.stop()
        with ThreadPoolExecutor(len(self.units), "stop") as pool:  # none waits for another
            list(pool.map(AccountUnit.stop, self.units.values()))
        self.relays.stop()

    def health(self) -> Mapping[str, object]:
        """Alive: no loop is overdue by STALLED_AFTER_S. Asks nobody outside."""
        own = [self._limits_loop, self._seats_loop, self._pulse_loop, self._inbox_loop]
        own += [*self.intakes.loops, *self.relays.loops]
        loops = [loop for unit in self.units.values() for loop in unit.supervisor.loops]
        several = len(self.units) > 1
        stalled = {
            f"{loop.account} {loop.name}" if several and loop.account else loop.name: round(
                loop.overdue_s, 1
            )
            for loop in [*loops, *own]
            if loop.overdue_s > STALLED_AFTER_S
        }
        return {"alive": not stalled, "stalled_s": stalled}

    def ready(self) -> Mapping[str, object]:
        """Whether this process knows who owns each account; the database is asked elsewhere."""
        states = {label: unit.state() for label, unit in self.units.items()}
        if len(states) == 1:
            return next(iter(states.values()))
        return {"accounts": states}

    def wait_owner(self, timeout_s: float) -> bool:
        """True once this process owns all its accounts; False if not within `timeout_s` each."""
        return all(unit.supervisor.owned.wait(timeout_s) for unit in self.units.values())

    def wait(self, stop: threading.Event) -> None:
        """Run until `stop` is set; raises ConfigError when no account may be traded."""
        while not stop.wait(0.2):
            refused = [unit.supervisor.refused for unit in self.units.values()]
            if refused[0] is not None and None not in refused:
                raise refused[0]

    def _show_own_state(self) -> None:
        """Gauges that are read when they are asked for."""
        for fault in DatabaseFault:
            telemetry.DATABASE_FAULTS.labels(fault)
        telemetry.POOL_IN_USE.set_function(lambda: self.database.connections_in_use)
        telemetry.POOL_LIMIT.set(self.database.connections_max)

    def _wake(self, accounts: Collection[str]) -> None:
        """There is work: our own loops at once; other replicas own the other accounts."""
        elsewhere = set()
        for account in accounts:
            unit = self.units.get(account)
            if unit is not None:
                unit.supervisor.wake()
            if unit is None or not unit.owned:
                elsewhere.add(account)
        if elsewhere:
            notify(self.database, elsewhere)

    def _owned(self) -> list[str]:
        return [label for label, unit in self.units.items() if unit.owned]

    def _wake_for(self, account: str, work: Work) -> None:
        if work is Work.INBOX:
            self._inbox_loop.wake()
        else:
            self.units[account].wake(work)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._heard(self._listener.wait())
            except psycopg.Error as error:
                log.debug("listener disconnected", error=type(error).__name__)
                self._stopping.wait(1.0)
        self._listener.close()

    def _heard(self, topics: Collection[str]) -> None:
        everything = "" in topics
        for label, unit in self.units.items():
            if everything or wake.ACCOUNT + label in topics:
                unit.supervisor.wake()
        if everything or wake.SEATS in topics:
            self._seats_loop.wake()


@contextmanager
def running_daemon(
    settings: Settings,
    *,
    migrating: bool = False,
    simulator: SimConfig | None = None,
    name: str = "torghut",
    adapters: Adapters = open_broker,
) -> Iterator[Daemon]:
    """A started daemon with everything it needs, stopped in order at the end.

    `simulator` replaces the default one where the broker is `sim`; `name` is the embedded
    database's.
    """
    arm_recovery_point(settings)
    sinks.check_clients(settings.sinks)
    streams.check_clients(settings.intakes)
    with ExitStack() as stack:
        database = stack.enter_context(open_database(settings, migrating=migrating, name=name))
        warn_of_lossy_commits(database)
        check_tokens(settings, database)
        for one in settings.each():
            if one.broker == "sim":
                directory = simulator_home(one)
                config = simulator or SimConfig(
                    port=last_port(directory), control_port=0, state=directory / SIMULATOR_STATE
                )
                stack.enter_context(own_simulator(directory, config))
        at = {one.account: reach(one) for one in settings.each()}
        daemon = Daemon(settings, database, at, adapters)
        stack.callback(daemon.stop)
        daemon.start()
        yield daemon
