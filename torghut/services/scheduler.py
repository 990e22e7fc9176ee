"""The scheduler: strategies run at their times, each tick once over replicas and restarts.

```
APScheduler ─ wakes ─▶ run_once(now) ─▶ for each strategy: fire times since its last tick
                                         newest: facts ─▶ decide ─▶ Tx: claim tick + decisions
                                         older ones, missed while nothing ran: skipped
```

A tick is the row `(strategy, scheduled_for)`; it is inserted in the transaction that stores the
tick's decisions, so it happens with them or not at all (story 35). Decisions carry
`event_ts = scheduled_for`. If power fails before the commit, the next run finds the tick missing
and runs it; `missed_ticks = "skip"` records it as skipped instead once it is MISSED_AFTER_S old.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import Connection

from torghut import telemetry
from torghut.clock import Clock
from torghut.domain.decisions import Decision, parse_decision
from torghut.domain.errors import BrokerUnavailable, ConfigError, InvalidDecision
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.sessions import latest_session
from torghut.domain.values import canonical_instant
from torghut.ports import Bar, MarketData, Strategy, StrategyFacts
from torghut.services.intake import store
from torghut.storage import control, facts, folds
from torghut.storage.database import Database
from torghut.storage.rows import Intake, IntakeResult
from torghut.strategy_settings import StrategyConfig

MISSED_AFTER_S = 60
MISSED_TICKS_MAX = 10_000

_NEW_YORK = ZoneInfo("America/New_York")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A strategy with its configuration and its clock of fire times."""

    name: str
    config: StrategyConfig
    strategy: Strategy
    trigger: CronTrigger

    @classmethod
    def create(cls, name: str, config: StrategyConfig, strategy: Strategy) -> Scheduled:
        """Raises ConfigError if the schedule is not five cron fields."""
        return cls(name, config, strategy, _trigger(name, config))

    def due(self, after: datetime, now: datetime) -> list[datetime]:
        """Fire times in (after, now], oldest first, at most the newest MISSED_TICKS_MAX."""
        times: list[datetime] = []
        previous = after
        while (
            fire := self.trigger.get_next_fire_time(previous, previous + timedelta(microseconds=1))
        ) is not None and fire <= now:
            times.append(fire)
            previous = fire
        return times[-MISSED_TICKS_MAX:]


def next_tick(name: str, config: StrategyConfig, now: datetime) -> datetime | None:
    """When a strategy runs next, None if never. Raises ConfigError as `Scheduled.create`."""
    fire: datetime | None = _trigger(name, config).get_next_fire_time(None, now)
    return fire


def _trigger(name: str, config: StrategyConfig) -> CronTrigger:
    try:
        return CronTrigger.from_crontab(config.schedule, timezone=_NEW_YORK)
    except ValueError as error:
        raise ConfigError(
            f"[strategies.{name}] schedule",
            f"is not a cron schedule: {error}",
            'write five fields in New York time, such as "5 16 * * mon-fri"',
        ) from None


class Scheduler:
    """Runs the ticks of one account's strategies."""

    def __init__(
        self,
        account: str,
        owner: str,
        database: Database,
        market: MarketData,
        scheduled: Sequence[Scheduled],
        *,
        decision_ttl_s: float,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._account = account
        self._owner = owner
        self._database = database
        self._market = market
        self._scheduled = scheduled
        self._ttl = timedelta(seconds=decision_ttl_s)
        self._clock = clock
        self._wake = wake
        self._timer = BackgroundScheduler(timezone="UTC")

    def start(self, wake_loop: Callable[[], None]) -> None:
        """Let APScheduler wake the loop at every fire time; polling finds what it misses."""
        for item in self._scheduled:
            telemetry.TICK_LATENESS.labels(item.name)
            self._timer.add_job(
                wake_loop, item.trigger, id=item.name, coalesce=True, misfire_grace_time=None
            )
        self._timer.start()

    def stop(self) -> None:
        if self._timer.running:
            self._timer.shutdown(wait=False)

    def run_once(self, now: datetime) -> Mapping[str, int]:
        """Run what is due; a strategy that fails does not keep the others from theirs."""
        counts = {"ticks": 0, "skipped": 0, "failed": 0}
        for item in self._scheduled:
            try:
                self._run_due(item, now, counts)
            except (
                BrokerUnavailable,
                ArithmeticError,
                LookupError,
                TypeError,
                ValueError,
            ) as error:
                counts["failed"] += 1
                log.warning("tick failed", strategy=item.name, error=str(error))
        return counts

    def run_tick(
        self, item: Scheduled, scheduled_for: datetime, *, expires_at: datetime | None = None
    ) -> list[Intake] | None:
        """One tick: facts, decide, claim with its decisions. None if it was claimed before.

        `expires_at` replaces `event_ts + ttl` where ticks are of another time (market replay).
        """
        decisions = self._decide(item, scheduled_for, expires_at)
        with self._database.transaction() as tx:
            claimed = control.claim_tick(
                tx,
                item.name,
                scheduled_for,
                outcome="ran",
                decisions=len(decisions),
                owner=self._owner,
                now=self._clock(),
            )
            if not claimed:
                return None
            answers = store(tx, decisions, source=f"strategy:{item.name}", clock=self._clock)
        created = sum(answer.result is IntakeResult.CREATED for answer in answers)
        telemetry.DECISION_STEPS.labels(DecisionStatus.PLANNED.value, "").inc(created)
        if answers:
            self._wake()
        return answers

    def _run_due(self, item: Scheduled, now: datetime, counts: dict[str, int]) -> None:
        with self._database.transaction() as tx:
            last = control.last_tick(tx, item.name)
            if last is None:
                # the beginning of its time: nothing before this was missed
                self._skip(tx, item, now)
                return
        times = item.due(last, now)
        for scheduled_for in times[:-1]:
            self._record_skipped(item, scheduled_for, counts)
        if not times:
            return
        newest = times[-1]
        missed = now - newest > timedelta(seconds=MISSED_AFTER_S)
        if missed and item.config.missed_ticks == "skip":
            self._record_skipped(item, newest, counts)
        elif self.run_tick(item, newest) is not None:
            counts["ticks"] += 1
            late_s = (self._clock() - newest).total_seconds()
            telemetry.TICK_LATENESS.labels(item.name).observe(late_s)

    def _record_skipped(
        self, item: Scheduled, scheduled_for: datetime, counts: dict[str, int]
    ) -> None:
        with self._database.transaction() as tx:
            self._skip(tx, item, scheduled_for)
        counts["skipped"] += 1

    def _skip(self, tx: Connection, item: Scheduled, scheduled_for: datetime) -> None:
        control.claim_tick(
            tx,
            item.name,
            scheduled_for,
            outcome="skipped",
            decisions=0,
            owner=self._owner,
            now=self._clock(),
        )

    def _decide(
        self, item: Scheduled, scheduled_for: datetime, expires_at: datetime | None
    ) -> list[Decision]:
        known = self._facts(item, scheduled_for)
        decisions: list[Decision] = []
        for proposal in item.strategy.decide(known):
            data: dict[str, object] = {
                "intent": "",
                **proposal,
                "strategy": item.name,
                "event_ts": canonical_instant(scheduled_for),
            }
            if expires_at is not None:
                data["expires_at"] = canonical_instant(expires_at)
            try:
                decisions.append(parse_decision(data, account=self._account, ttl=self._ttl))
            except InvalidDecision as error:
                log.error("strategy proposed no decision", strategy=item.name, error=str(error))
        return decisions

    def _facts(self, item: Scheduled, scheduled_for: datetime) -> StrategyFacts:
        bars: Mapping[str, Sequence[Bar]] = {}
        if item.strategy.bars_wanted:
            bars = self._market.daily_bars(
                item.config.symbols,
                end=latest_session(scheduled_for),
                count=item.strategy.bars_wanted,
            )
        with self._database.transaction() as tx:
            snapshot = facts.account_snapshot(tx, self._account)
            positions = folds.strategy_positions(tx, self._account, item.name)
        if snapshot is None or snapshot.equity is None:
            raise BrokerUnavailable("the account was not answered yet: its equity is not known")
        return StrategyFacts(
            strategy=item.name,
            scheduled_for=scheduled_for,
            bars=bars,
            positions={s: q for s, q in positions.items() if q != Decimal(0)},
            equity=snapshot.equity,
            params=item.config.params,
        )
