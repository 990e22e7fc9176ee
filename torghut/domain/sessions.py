"""Market sessions: when the exchange of a symbol trades.

```
symbol ─┬─ has "/" (crypto) ──▶ always open
        └─ equity ────────────▶ XNYS: holidays, half days, 09:30 to 16:00 New York time
now    ── 04:00 … open │ open … close │ close … + 4 h │ otherwise
             extended  │     open     │   extended    │  closed       (session days only)
```

The calendar is the package exchange_calendars (New York Stock Exchange, "XNYS"). It is imported
on the first question, because that takes about a second, and kept as plain tuples, a decade at
a time. Functions are pure: `now` is an argument, aware, in any zone; answers are in UTC.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
EXTENDED_OPENS = time(4, 0)
EXTENDED_AFTER = timedelta(hours=4)  # to 20:00, and to 17:00 on half days
FIRST_YEAR, LAST_YEAR = 1970, 2199


class Phase(StrEnum):
    """What the market does at an instant."""

    OPEN = "open"
    EXTENDED = "extended"  # before or after the regular hours of a session day
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The market at one instant, UTC.

    `next_open` is the first regular opening after that instant. `close` is the first regular
    close after it: today's while the market is open. Crypto: `next_open` is the instant itself
    and `close` is None, as it never closes.
    """

    phase: Phase
    next_open: datetime
    close: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketClock:
    """What the broker says about the regular session of equities, as of its instant `told_at`."""

    is_open: bool
    told_at: datetime
    next_open: datetime
    next_close: datetime

    def holds_at(self, now: datetime) -> bool:
        """True as long as nothing has opened or closed since it was told."""
        return now < (self.next_close if self.is_open else self.next_open)


@dataclass(frozen=True, slots=True)
class _Hours:
    """Regular hours as three columns of equal length, ascending; instants UTC."""

    days: tuple[date, ...]
    opens: tuple[datetime, ...]
    closes: tuple[datetime, ...]


def is_crypto(symbol: str) -> bool:
    """True for a pair such as BTC/USD; equities have no slash."""
    return "/" in symbol


def session_state(symbol: str, now: datetime) -> Session:
    """The market of `symbol` at `now`; opening counts as open, closing does not.

    Raises ValueError if `now` has no zone or lies outside the years 1970 to 2199.
    """
    now = _utc(now)
    if is_crypto(symbol):
        return Session(phase=Phase.OPEN, next_open=now, close=None)
    hours = _hours(now)
    opened, closed = bisect_right(hours.opens, now), bisect_right(hours.closes, now)
    return Session(
        phase=Phase.OPEN if opened > closed else _outside_regular_hours(hours, now),
        next_open=hours.opens[opened],
        close=hours.closes[closed],
    )


def order_session(
    symbol: str, now: datetime, *, extended_hours: bool, clock: MarketClock | None
) -> datetime | None:
    """When the market opens for an order, UTC; None if it is open for it at `now`.

    A clock that holds at `now` overrules the calendar's regular hours, as on a day on which the
    exchange stays closed unexpectedly; the hours before and after them are the calendar's.
    Raises ValueError.
    """
    if is_crypto(symbol):
        return None
    session = session_state(symbol, now)
    is_open, opens_at = session.phase is Phase.OPEN, session.next_open
    if clock is not None and clock.holds_at(now):
        is_open, opens_at = clock.is_open, clock.next_open
    if is_open:
        return None
    if not extended_hours:
        return opens_at
    if session.phase is Phase.EXTENDED:
        return None
    early = datetime.combine(opens_at.astimezone(NEW_YORK).date(), EXTENDED_OPENS, NEW_YORK)
    return early.astimezone(UTC) if early > now else opens_at


def next_open(symbol: str, now: datetime) -> datetime:
    """The first regular opening after `now`, UTC; for crypto `now` itself. Raises ValueError."""
    return session_state(symbol, now).next_open


def latest_session(now: datetime) -> date:
    """The newest session that has closed at `now`: its daily bar is complete. Raises ValueError."""
    now = _utc(now)
    hours = _hours(now)
    return hours.days[bisect_right(hours.closes, now) - 1]


def _outside_regular_hours(hours: _Hours, now: datetime) -> Phase:
    local = now.astimezone(NEW_YORK)
    day = bisect_right(hours.days, local.date()) - 1
    if hours.days[day] != local.date() or local.time() < EXTENDED_OPENS:
        return Phase.CLOSED
    return Phase.EXTENDED if now < hours.closes[day] + EXTENDED_AFTER else Phase.CLOSED


def _utc(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise ValueError("now has no time zone")
    now = now.astimezone(UTC)
    if not FIRST_YEAR <= now.year <= LAST_YEAR:
        raise ValueError(f"no market calendar for the year {now.year}")
    return now


def _hours(now: datetime) -> _Hours:
    return _decade(now.year - now.year % 10)


@cache  # 23 decades at most
def _decade(first_year: int) -> _Hours:
    """Regular hours of a decade, with a month on either side for the neighbours of its ends."""
    import exchange_calendars  # here: a second of import that most commands never need

    calendar = exchange_calendars.get_calendar(
        "XNYS", start=f"{first_year - 1}-12-01", end=f"{first_year + 10}-01-31"
    )
    return _Hours(
        days=tuple(session.date() for session in calendar.sessions),
        opens=tuple(instant.to_pydatetime().astimezone(UTC) for instant in calendar.opens),
        closes=tuple(instant.to_pydatetime().astimezone(UTC) for instant in calendar.closes),
    )
