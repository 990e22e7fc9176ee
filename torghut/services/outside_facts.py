"""What risk needs to know of the outside: quotes, assets, volumes, the market's clock and the
broker's account, fetched before the transaction that judges with them (story 18), each with the
instant at which it was asked for.

Quotes live in memory for `QUOTE_TTL_S`, assets and volumes for `ASSET_TTL_S`. The account
snapshot is a row, shared by all processes; when it is older than `ACCOUNT_TTL_S` it is asked for
again beside the work, because risk counts what happened since (torghut.storage.exposure); only
one older than `ACCOUNT_AGE_MAX_S` is waited for, and not used when the broker does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TypeVar

import structlog

from torghut.clock import Clock
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.domain.exposure import AssetFacts
from torghut.domain.sessions import MarketClock, latest_session
from torghut.ports import Broker, MarketData, Quote
from torghut.services.questions import Questions
from torghut.storage import facts
from torghut.storage.database import Database
from torghut.storage.rows import AccountSnapshot

QUOTE_TTL_S = 2.0
ASSET_TTL_S = 3600.0
VOLUME_SESSIONS = 20
ASSETS_AT_ONCE = 64
CLOCK_TTL_S = 30.0
CLOCK_AGE_MAX_S = 300.0
ACCOUNT_TTL_S = 5.0
ACCOUNT_AGE_MAX_S = 60.0
BUDGET_WAIT_S = 1.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


class OutsideFacts:
    """Facts of one account; all but `keep_fresh` are called by one thread at a time."""

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        market: MarketData,
        clock: Clock,
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._market = market
        self._clock = clock
        self._quotes: dict[str, tuple[datetime, Quote]] = {}
        self._assets: dict[str, tuple[datetime, AssetFacts]] = {}
        self._volumes: dict[str, tuple[datetime, Decimal]] = {}
        self._market_clock: tuple[datetime | None, MarketClock | None] = (None, None)
        self._refresher = ThreadPoolExecutor(1, "account")
        self._refreshing: Future[AccountSnapshot | None] | None = None

    def quotes(self, symbols: Collection[str], now: datetime) -> Mapping[str, Quote]:
        """Quotes not older than QUOTE_TTL_S where the market answers; missing ones are left out."""
        fresh = now - timedelta(seconds=QUOTE_TTL_S)
        wanted = [s for s in symbols if s not in self._quotes or self._quotes[s][0] < fresh]
        if wanted:
            try:
                for symbol, quote in self._market.quotes(wanted).items():
                    self._quotes[symbol] = (now, quote)
            except (BrokerUnavailable, BrokerRefused) as error:
                log.warning("quotes unavailable", symbols=len(wanted), error=str(error))
        return {s: self._quotes[s][1] for s in symbols if s in self._quotes and self._fresh(s, now)}

    def assets(self, symbols: Collection[str], now: datetime) -> Mapping[str, AssetFacts]:
        """Assets not older than ASSET_TTL_S; those that could not be asked for, or are too many
        for one pass at a request each, are left out."""
        known = _fresh(self._assets, symbols, now)
        missing = [symbol for symbol in symbols if symbol not in known]
        for symbol in missing[:ASSETS_AT_ONCE]:
            try:
                asset = self._ask(partial(_asset, symbol))
            except (BrokerUnavailable, BrokerRefused) as error:
                log.warning("asset unavailable", symbol=symbol, error=str(error))
                continue
            self._assets[symbol] = (now, asset)
            known[symbol] = asset
        return known

    def volumes(self, symbols: Collection[str], now: datetime) -> Mapping[str, Decimal]:
        """Average daily volume, shares, of the last VOLUME_SESSIONS sessions that have closed."""
        known = _fresh(self._volumes, symbols, now)
        wanted = [symbol for symbol in symbols if symbol not in known]
        if wanted:
            try:
                bars = self._market.daily_bars(
                    wanted, end=latest_session(now), count=VOLUME_SESSIONS
                )
            except (BrokerUnavailable, BrokerRefused) as error:
                log.warning("volumes unavailable", symbols=len(wanted), error=str(error))
                return known
            for symbol, days in bars.items():
                average = sum((bar.volume for bar in days), Decimal(0)) / len(days)
                self._volumes[symbol] = (now, average)
                known[symbol] = average
        return known

    def market_clock(self, now: datetime) -> MarketClock | None:
        """The broker's clock, not older than CLOCK_AGE_MAX_S; None if it is not answered, or tells
        another time than ours."""
        asked_at, clock = self._market_clock
        if asked_at is None or now - asked_at > timedelta(seconds=CLOCK_TTL_S):
            try:
                clock = self._ask(lambda broker: broker.market_clock())
            except (BrokerUnavailable, BrokerRefused) as error:
                log.warning("the market's clock is unavailable", error=str(error))
            self._market_clock = now, clock
        if clock is None or abs(now - clock.told_at) > timedelta(seconds=CLOCK_AGE_MAX_S):
            return None
        return clock

    def account(self, now: datetime) -> AccountSnapshot | None:
        """The newest account snapshot; None if there is none young enough to judge on."""
        with self._database.transaction() as tx:
            snapshot = facts.account_snapshot(tx, self._account)
        age = None if snapshot is None else now - snapshot.observed_at
        if age is None or age > timedelta(seconds=ACCOUNT_AGE_MAX_S):
            return self.refresh_account()
        if age > timedelta(seconds=ACCOUNT_TTL_S) and (
            self._refreshing is None or self._refreshing.done()
        ):
            self._refreshing = self._refresher.submit(self.refresh_account)
        return snapshot

    def keep_fresh(self) -> bool:
        """Refresh the snapshot if it is older than ACCOUNT_TTL_S; False if that failed."""
        with self._database.transaction() as tx:
            snapshot = facts.account_snapshot(tx, self._account)
        young = self._clock() - timedelta(seconds=ACCOUNT_TTL_S)
        if snapshot is not None and snapshot.observed_at > young:
            return True
        return self.refresh_account() is not None

    def close(self) -> None:
        """End the thread that asks beside the work."""
        self._refresher.shutdown(wait=False, cancel_futures=True)

    def refresh_account(self) -> AccountSnapshot | None:
        """Ask the broker for account and positions now and keep the answer; None if it fails."""
        asked_at = self._clock()
        try:
            answer = self._ask(lambda broker: broker.account())
            positions = self._ask(lambda broker: broker.positions())
        except (BrokerUnavailable, BrokerRefused) as error:
            log.warning("account facts unavailable", account=self._account, error=str(error))
            return None
        with self._database.transaction() as tx:
            facts.store_account(tx, self._account, answer, positions, observed_at=asked_at)
            return facts.account_snapshot(tx, self._account)

    def _ask(self, question: Callable[[Broker], T]) -> T:
        return self._questions.ask(question, budget_wait_s=BUDGET_WAIT_S, background=False)

    def _fresh(self, symbol: str, now: datetime) -> bool:
        # one TTL more than asked for: an outage of the data source shows as missing within seconds
        return now - self._quotes[symbol][0] <= timedelta(seconds=2 * QUOTE_TTL_S)


def _asset(symbol: str, broker: Broker) -> AssetFacts:
    return broker.asset(symbol)


def _fresh(
    kept: Mapping[str, tuple[datetime, T]], symbols: Collection[str], now: datetime
) -> dict[str, T]:
    oldest = now - timedelta(seconds=ASSET_TTL_S)
    return {s: kept[s][1] for s in symbols if s in kept and kept[s][0] > oldest}
