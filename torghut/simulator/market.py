"""Prices and the market's clock.

Three modes:

- `open`: wall clock; the market never closes; prices wander slowly around a base price.
- `real`: the same prices; regular NYSE hours decide whether an order is worked.
- `replay`: time stands still until the control API moves it from session to session of a bars
  file. A session has three phases: `open` (09:30, price = open, market open), `before_close`
  (15:59, the day's range has been traded through, price = close, market open) and `close`
  (16:00, market closed).

A synthetic price is a pure function of seed, symbol and instant, so it needs no state.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

from torghut.simulator import sessions
from torghut.simulator.assets import Asset, AssetList
from torghut.simulator.bars import Bar, BarFile, day_start
from torghut.simulator.clock import NEW_YORK, wall_now

MODES = ("open", "real", "replay")
PHASES = ("open", "before_close", "close")
REGULAR, EXTENDED, CLOSED = "regular", "extended", "closed"
SLOW_SWING, SLOW_PERIOD_S = 0.02, 5400.0
FAST_SWING, FAST_PERIOD_S = 0.001, 420.0


@dataclass(frozen=True, slots=True)
class Quote:
    """Best bid and ask and the last trade, USD."""

    symbol: str
    bid: Decimal
    ask: Decimal
    last: Decimal
    at: datetime


def price_step(price: Decimal) -> Decimal:
    """The minimum increment: a cent from $1, a hundredth of a cent below."""
    return Decimal("0.01") if price >= 1 else Decimal("0.0001")


@lru_cache(maxsize=512)
def _phases(seed: int, symbol: str) -> tuple[float, float]:
    rng = random.Random(f"{seed}:price:{symbol}")
    return rng.uniform(0, math.tau), rng.uniform(0, math.tau)


def synthetic_price(seed: int, asset: Asset, at: datetime) -> Decimal:
    """The made-up last price of an asset at an instant."""
    slow, fast = _phases(seed, asset.symbol)
    t = at.timestamp()
    swing = SLOW_SWING * math.sin(math.tau * t / SLOW_PERIOD_S + slow)
    swing += FAST_SWING * math.sin(math.tau * t / FAST_PERIOD_S + fast)
    price = asset.base_price * Decimal(repr(round(1 + swing, 9)))
    return price.quantize(price_step(asset.base_price), rounding=ROUND_HALF_UP)


class Market:
    """Prices, quotes, bars and the clock of one mode."""

    def __init__(
        self,
        mode: str,
        seed: int,
        assets: AssetList,
        bars: BarFile | None = None,
        wall: Callable[[], datetime] = wall_now,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"market must be one of {', '.join(MODES)}, not {mode!r}")
        if mode == "replay" and bars is None:
            raise ValueError("market 'replay' needs a bars file: give its path")
        self.mode = mode
        self.seed = seed
        self.assets = assets
        self.bars = bars
        self._wall = wall
        self._set_quotes: dict[str, tuple[Quote, timedelta]] = {}
        self.phase = "open"
        self._base = wall()
        self._ticks = 0
        if mode == "replay":
            self.enter(self.replay_bars.days[0], "open")

    @property
    def replay_bars(self) -> BarFile:
        """The bars file; only for replay."""
        if self.bars is None:
            raise ValueError("the market is not a replay: start with a bars file")
        return self.bars

    # --- time

    def now(self) -> datetime:
        """Market time, UTC; in replay each reading is a microsecond later than the one before."""
        if self.mode != "replay":
            return self._wall()
        self._ticks += 1
        return self._base + timedelta(microseconds=self._ticks)

    def today(self) -> date:
        """The calendar day in New York."""
        return self.now().astimezone(NEW_YORK).date()

    def enter(self, day: date, phase: str) -> None:
        """Move a replay to a phase of a session."""
        session = sessions.session_or_regular(day)
        starts = {
            "open": session.opens,
            "before_close": session.closes - timedelta(minutes=1),
            "close": session.closes,
        }
        self._base, self._ticks, self.phase = starts[phase], 0, phase

    def session(self, now: datetime) -> str:
        """`regular`, `extended` or `closed`."""
        if self.mode == "open":
            return REGULAR
        if self.mode == "replay":
            return CLOSED if self.phase == "close" else REGULAR
        if sessions.current_session(now):
            return REGULAR
        return EXTENDED if sessions.in_extended_hours(now) else CLOSED

    def next_open(self, now: datetime) -> datetime:
        """The next opening of the regular session."""
        ahead = self._replayed_sessions(now)
        return next((s.opens for s in ahead if s.opens > now), None) or sessions.next_open(now)

    def next_close(self, now: datetime) -> datetime:
        """The next close of the regular session: when a DAY order expires."""
        ahead = self._replayed_sessions(now)
        return next((s.closes for s in ahead if s.closes > now), None) or sessions.next_close(now)

    def _replayed_sessions(self, now: datetime) -> list[sessions.Session]:
        """Today's session and the next of the bars file, which knows closings no rule gives."""
        if self.mode != "replay":
            return []
        days = self.replay_bars.days
        first = bisect_left(days, now.astimezone(NEW_YORK).date())
        return [sessions.session_or_regular(day) for day in days[first : first + 2]]

    # --- prices

    def set_quote(
        self,
        symbol: str,
        last: Decimal,
        bid: Decimal | None = None,
        ask: Decimal | None = None,
        age: timedelta = timedelta(0),
    ) -> Quote:
        """Pin a symbol's price until `clear_quote`; `age` makes its timestamp that much old."""
        step = price_step(last)
        now = self.now()
        quote = Quote(symbol, last - step if bid is None else bid,
                      last + step if ask is None else ask, last, now - age)  # fmt: skip
        self._set_quotes[symbol] = (quote, age)
        return quote

    def clear_quotes(self) -> None:
        """Let every pinned price move again."""
        self._set_quotes.clear()

    def quote(self, asset: Asset, now: datetime) -> Quote:
        """The current quote of an asset."""
        pinned = self._set_quotes.get(asset.symbol)
        if pinned is not None:
            quote, age = pinned
            return Quote(quote.symbol, quote.bid, quote.ask, quote.last, now - age)
        last = self._last(asset, now)
        step = price_step(last)
        return Quote(asset.symbol, last - step, last + step, last, now)

    def _last(self, asset: Asset, now: datetime) -> Decimal:
        if self.mode == "replay":
            day = now.astimezone(NEW_YORK).date()
            bar = self.replay_bars.last_bar(asset.symbol, day)
            if bar is not None:
                traded_open = self.phase == "open" and bar.starts_at == day_start(day)
                return bar.open if traded_open else bar.close
        return synthetic_price(self.seed, asset, now)

    def previous_close(self, asset: Asset, now: datetime) -> Decimal:
        """The price at the close before the current day."""
        yesterday = now.astimezone(NEW_YORK).date() - timedelta(days=1)
        if self.mode == "replay":
            bar = self.replay_bars.last_bar(asset.symbol, yesterday)
            if bar is not None:
                return bar.close
        while (session := sessions.session_on(yesterday)) is None:
            yesterday -= timedelta(days=1)
        return synthetic_price(self.seed, asset, session.closes)

    # --- bars

    def daily_bars(self, asset: Asset, start: date, end: date) -> list[Bar]:
        """Bars of complete sessions (and, in replay, of the session traded through) ascending."""
        now = self.now()
        today = now.astimezone(NEW_YORK).date()
        last = min(end, today)
        if self.mode == "replay":
            if self.phase == "open":
                last = min(last, today - timedelta(days=1))
            recorded = self.replay_bars.between(asset.symbol, start, last)
            if recorded or asset.symbol in self.replay_bars.first_prices:
                return recorded
        found = sessions.sessions_between(start, last) if start <= last else []
        return [self._made_up_bar(asset, session) for session in found if session.opens < now]

    def _made_up_bar(self, asset: Asset, session: sessions.Session) -> Bar:
        return self.interval_bar(asset, day_start(session.day), session.opens, session.closes)

    def interval_bar(
        self, asset: Asset, starts_at: datetime, opens: datetime, closes: datetime
    ) -> Bar:
        """A synthetic bar from samples of the price between two instants."""
        width = (closes - opens) / 12
        prices = [synthetic_price(self.seed, asset, opens + width * n) for n in range(13)]
        rng = random.Random(f"{self.seed}:volume:{asset.symbol}:{starts_at.isoformat()}")
        seconds = (closes - opens).total_seconds()
        volume = int(rng.uniform(80, 400) * seconds)
        return Bar(asset.symbol, starts_at, prices[0], max(prices), min(prices), prices[-1], volume)
