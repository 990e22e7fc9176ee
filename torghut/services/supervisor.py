"""The supervisor: who owns the account, which loops run, and how it all ends.

```
standby ──acquire──▶ owner ──lease lost──▶ standby            (checked every TTL/5)
                      │ loops: executor · settler · reconciler · live updates · fills · guard · risk
SIGTERM  ─▶ stop claiming ─▶ finish what is in flight ─▶ release the lease ─▶ end
hand_over ─▶ stop claiming ─▶ finish what is in flight ─▶ release the lease ─▶ standby
```

1. The heartbeat renews at TTL/5, from a thread that does nothing else (story 45). When a renewal
   fails for a reason, the lease is held as long as its last confirmed term by our own monotonic
   clock, less a margin; then the loops stop writing. Postgres checks each write again: `fence`.
2. A fresh owner name per process (story 42) and a fresh fencing token per term.
3. The broker's account is checked before the first claim of a term: in live mode its number must
   be the third key (P10). A wrong one is `refused`: the lease is given up, and not sought until a
   later check finds it in order. The process ends if it has no other account.
4. A clean shutdown hands the account over at once. `hand_over` does so while the process goes on,
   and is given up if what is in flight does not end in time: nothing is broken off for it.
5. `guided`: the lease is sought only when torghut.services.seats says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

import structlog
from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.errors import ConfigError, DatabaseUnavailable
from torghut.domain.events import Event, EventKind
from torghut.services.executor import Executor
from torghut.services.live_updates import LiveUpdates
from torghut.services.loops import Loop
from torghut.services.pulse import REST_S
from torghut.services.settler import Settler
from torghut.storage import control, leases
from torghut.storage.database import Database
from torghut.storage.rows import Lease

EXECUTOR_POLL_S = REST_S
SETTLER_POLL_S = REST_S
LIVE_POLL_S = 0.25
SHUTDOWN_S = 20.0
HAND_OVER_S = 20.0
STAY_S = 60.0
CHECK_AGAIN_S = 30.0

Pass = Callable[[Lease, datetime], Mapping[str, int]]

log = structlog.get_logger(__name__)


class Supervisor:
    """Runs one account in this process: every loop that needs its lease."""

    def __init__(
        self,
        account: str,
        owner: str,
        database: Database,
        *,
        lease_ttl_s: float,
        reconcile_interval_s: float,
        verify_account: Callable[[], None],
        clock: Clock,
        first_check: Callable[[], None] | None = None,
        guided: bool = False,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        """`verify_account` raises ConfigError if the broker's account may not be traded, and is
        asked once a term; `first_check` likewise, before the
        lease is sought (None: it was checked); `released` hears that the lease is free."""
        self._account = account
        self._owner = owner
        self._database = database
        self._ttl_s = lease_ttl_s
        self._verify_account = verify_account
        self._clock = clock
        self._lease: Lease | None = None
        self._valid_until = 0.0
        self._verified_token = 0
        self._heard = False
        self._guided = guided
        self._released = released
        self._seeking = threading.Event()
        self._draining = threading.Event()
        self._leaving_since: float | None = None
        self._stay_until = 0.0
        self._passes = 0
        self._claiming = False
        self._lock = threading.Lock()
        self.refused: ConfigError | None = None
        self.cleared = first_check is None
        self._first_check = first_check or verify_account
        self._checked_at = -CHECK_AGAIN_S
        self.stopped = threading.Event()
        self.owned = threading.Event()
        self._heartbeat = self._loop("lease", self._beat, lease_ttl_s / 5)
        self._reconcile_interval_s = reconcile_interval_s
        self._loops: list[Loop] = []
        self._executor: Executor | None = None
        self._live: LiveUpdates | None = None
        telemetry.LEASE_HELD.labels(account).set_function(lambda: float(self.lease is not None))

    def start(
        self,
        executor: Executor,
        settler: Settler,
        live: LiveUpdates,
        *,
        more: Mapping[str, tuple[Pass, float]] = MappingProxyType({}),
    ) -> None:
        """Begin to seek the lease, and to work while it is held; `live` runs the reconciler.

        `more` are further passes of the owner, by name, with the seconds between them.
        """
        self._executor = executor
        self._live = live
        self._executor_loop = self._loop("executor", self._run_executor, EXECUTOR_POLL_S)
        reconcile = self._owned("reconciler", live.run_pass)
        self._reconcile_loop = self._loop("reconciler", reconcile, self._reconcile_interval_s)
        folding = self._loop(
            "live_updates", self._owned("live_updates", live.run_once), LIVE_POLL_S
        )
        filling = self._loop("fills", self._owned("fills", live.run_fills), LIVE_POLL_S)
        settle = self._owned("settler", settler.run_once)
        self._loops = [
            self._executor_loop,
            self._loop("settler", settle, SETTLER_POLL_S),
            self._reconcile_loop,
            folding,
            filling,
        ]
        for name, (run_once, interval_s) in more.items():
            self._loops.append(self._loop(name, self._owned(name, run_once), interval_s))
        self._heartbeat.start()
        for loop in self._loops:
            loop.start()
        live.start(folding.wake, self._reconcile_loop.wake, filling.wake)

    def wake(self) -> None:
        """There is something to execute."""
        self._executor_loop.wake()

    def wake_loop(self, name: str) -> None:
        """There is work for the loop of this name."""
        for loop in self._loops:
            if loop.name == name:
                loop.wake()

    def seek(self) -> None:
        """The lease may be taken: try it now."""
        self._seeking.set()
        self._heartbeat.wake()

    def stand_by(self) -> None:
        """The account is another's."""
        self._heard = True

    def hand_over(self) -> None:
        """Give the account up as soon as nothing is under way, for another process to take."""
        with self._lock:
            held = self._lease is not None and self._leaving_since is None
            if not held or time.monotonic() < self._stay_until:
                return
            self._leaving_since = time.monotonic()
        log.info("handing the account over", account=self._account)
        self._executor_loop.wake()

    @property
    def lease(self) -> Lease | None:
        """The lease, if it is held and safely valid by our own clock."""
        with self._lock:
            return self._lease if time.monotonic() < self._valid_until else None

    @property
    def holds(self) -> bool:
        """True while the lease is ours, if only to be given up."""
        return self._lease is not None

    def owns(self, fencing_token: int) -> bool:
        """True while the account is ours under this very token, by our own clock."""
        lease = self.lease
        return lease is not None and lease.fencing_token == fencing_token

    @property
    def lease_known(self) -> bool:
        """True once the database has said whose the account is: ours, or another's."""
        return self._heard

    @property
    def loops(self) -> list[Loop]:
        """All loops, for health."""
        return [self._heartbeat, *self._loops]

    def stop(self) -> None:
        """Clean shutdown: finish what is in flight, hand the lease over, end. Returns when done."""
        with self._lock:
            self._draining.set()
        if self._live is not None and not self._live.stop():
            log.info("the trade-update stream is left to end by itself")
        deadline = time.monotonic() + SHUTDOWN_S
        while self._submitting and time.monotonic() < deadline:
            self._executor_loop.wake()
            self.stopped.wait(0.02)
        for loop in self._loops:
            loop.stop(max(0.1, deadline - time.monotonic()))
        self._heartbeat.stop(self._ttl_s)
        try:
            self._release()
        except DatabaseUnavailable as error:
            log.warning("lease not handed over; it runs out by itself", error=str(error))
        self.stopped.set()

    # ------------------------------------------------------------------ lease

    def _beat(self, now: datetime) -> Mapping[str, int]:
        if not self.cleared:
            self._release()
            self._check_account()
        elif self._left():
            self._release()
        elif self._lease is not None or not self._guided or self._seeking.is_set():
            self._seeking.clear()
            self._seek_or_renew(now)
        return {}

    def _seek_or_renew(self, now: datetime) -> None:
        asked_at = time.monotonic()
        with self._lock:
            lease = self._lease
        with self._database.transaction() as tx:
            if lease is None:
                renewed = leases.acquire(tx, self._account, self._owner, ttl_s=self._ttl_s)
                if renewed is not None:
                    self._note_acquired(tx, renewed, now)
            else:
                renewed = leases.renew(tx, lease, ttl_s=self._ttl_s)
        with self._lock:
            self._heard = True
            self._lease = renewed
            # our term began at the latest when we asked; a fifth is left for what is under way
            self._valid_until = asked_at + self._ttl_s * 0.8 if renewed else 0.0
            if renewed is None:
                self._leaving_since = None
        if renewed is None:
            telemetry.forget_account(self._account)
        if lease is None and renewed is not None:
            telemetry.LEASE_CHANGES.labels("acquired").inc()
            telemetry.LEASE_SINCE.labels(self._account).set(now.timestamp())
            self.owned.set()
            log.info("account owned", account=self._account, fencing_token=renewed.fencing_token)
            for loop in self._loops:
                loop.wake()
        elif lease is not None and renewed is None:
            telemetry.LEASE_CHANGES.labels("lost").inc()
            self.owned.clear()
            log.warning("lease lost", account=self._account)

    def _release(self) -> None:
        """Give the lease back, if there is one. Raises DatabaseUnavailable: it runs out then."""
        with self._lock:
            lease, self._lease = self._lease, None
            self._leaving_since = None
        if lease is None:
            return
        self.owned.clear()
        telemetry.forget_account(self._account)
        with self._database.transaction() as tx:
            leases.release(tx, lease)
        telemetry.LEASE_CHANGES.labels("released").inc()
        log.info("account handed over", account=self._account)
        self._released()

    def _left(self) -> bool:
        """True once everything of a hand-over is written; after HAND_OVER_S it is called off."""
        with self._lock:
            since = self._leaving_since
            if since is None:
                return False
            if not self._passes and not self._submitting:
                return True
            if time.monotonic() - since > HAND_OVER_S:
                self._leaving_since, self._stay_until = None, time.monotonic() + STAY_S
                log.warning("not handed over: orders are still under way", account=self._account)
        return False

    def _check_account(self) -> None:
        """Ask again for an account that may not be traded; raises BrokerUnavailable."""
        if time.monotonic() - self._checked_at < CHECK_AGAIN_S:
            return
        try:
            self._first_check()
        except ConfigError as error:
            self._refuse(error)
            return
        self.refused, self.cleared = None, True

    def _refuse(self, error: ConfigError) -> None:
        self.refused, self.cleared = error, False
        self._checked_at = time.monotonic()
        log.error("refused", account=self._account, error=str(error))

    def _note_acquired(self, tx: Connection, lease: Lease, now: datetime) -> None:
        control.ensure_scopes(tx, self._account, now=now)
        payload = {"owner": lease.owner, "fencing_token": lease.fencing_token}
        event = Event(EventKind.LEASE_ACQUIRED, "supervisor", self._account, None, payload)
        control.add_events(tx, [event], now=now)

    # ------------------------------------------------------------------ loops

    @property
    def _submitting(self) -> bool:
        """Something is under way at the broker, or a pass may be about to claim it."""
        return self._claiming or (self._executor is not None and self._executor.in_flight > 0)

    def _run_executor(self, now: datetime) -> Mapping[str, int]:
        lease = self._working_lease()
        if lease is None or self._executor is None:
            return {}
        with self._lock:
            if self._lease is None:  # given up since
                return {}
            claiming = not self._draining.is_set() and self._leaving_since is None
            self._claiming = claiming
        try:
            counts = self._executor.run_once(lease, now, claiming=claiming)
        finally:
            self._claiming = False
        if counts.get("claimed") or counts.get("recorded"):
            self._executor_loop.wake()  # there may be more
        if self._leaving_since is not None:
            self._heartbeat.wake()
        return counted("executor", counts)

    def _loop(
        self, name: str, run_once: Callable[[datetime], Mapping[str, int]], interval_s: float
    ) -> Loop:
        return Loop(name, run_once, interval_s=interval_s, clock=self._clock, account=self._account)

    def _owned(self, name: str, run_once: Pass) -> Callable[[datetime], Mapping[str, int]]:
        """Run a pass only while the account is ours, and not about to be another's."""

        def run(now: datetime) -> Mapping[str, int]:
            lease = self._working_lease()
            with self._lock:
                given_up = self._lease is None or self._leaving_since is not None
                if lease is None or given_up:
                    return {}
                self._passes += 1
            try:
                return counted(name, run_once(lease, now))
            finally:
                with self._lock:
                    self._passes -= 1

        return run

    def _working_lease(self) -> Lease | None:
        lease = self.lease
        if lease is None or not self.cleared:
            return None
        if lease.fencing_token != self._verified_token:
            try:
                self._verify_account()
            except ConfigError as error:
                self._refuse(error)
                self._heartbeat.wake()
                return None
            self._verified_token = lease.fencing_token
        return lease


def counted(loop: str, counts: Mapping[str, int]) -> Mapping[str, int]:
    """Add a pass's counts to the metrics; returns them."""
    for what, count in counts.items():
        if count:
            telemetry.STEPS.labels(loop, what).inc(count)
    return counts
