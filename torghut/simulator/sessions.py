"""Regular sessions of the New York Stock Exchange, by rule, for any year.

09:30 to 16:00 New York time, Monday to Friday, without the exchange's holidays; 13:00 on the
early-close days. Closings declared for one occasion (funerals, storms) are not known here.
Rules: https://www.nyse.com/markets/hours-calendars
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from torghut.simulator.clock import NEW_YORK

OPEN = time(9, 30)
CLOSE = time(16, 0)
EARLY_CLOSE = time(13, 0)
MONDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = 0, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day; `opens` and `closes` are UTC instants."""

    day: date
    opens: datetime
    closes: datetime


def _nth_weekday(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _good_friday(year: int) -> date:
    """Two days before Easter Sunday (anonymous Gregorian algorithm, Meeus/Jones/Butcher)."""
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1) - timedelta(days=2)


def _observed(day: date) -> date:
    if day.weekday() == SUNDAY:
        return day + timedelta(days=1)
    return day - timedelta(days=1) if day.weekday() == SATURDAY else day


@lru_cache(maxsize=256)
def holidays(year: int) -> frozenset[date]:
    """Full closings of a year."""
    memorial = date(year, 5, 31)
    days = {
        _nth_weekday(year, 1, MONDAY, 3),
        _nth_weekday(year, 2, MONDAY, 3),
        _good_friday(year),
        memorial - timedelta(days=memorial.weekday()),
        _observed(date(year, 7, 4)),
        _nth_weekday(year, 9, MONDAY, 1),
        _nth_weekday(year, 11, THURSDAY, 4),
        _observed(date(year, 12, 25)),
    }
    if date(year, 1, 1).weekday() != SATURDAY:
        days.add(_observed(date(year, 1, 1)))
    if year >= 2022:
        days.add(_observed(date(year, 6, 19)))
    return frozenset(days)


def _closing_time(day: date) -> time:
    thanksgiving = _nth_weekday(day.year, 11, THURSDAY, 4)
    july_4_eve = day == date(day.year, 7, 3) and day.weekday() < FRIDAY
    christmas_eve = day == date(day.year, 12, 24) and day.weekday() < FRIDAY
    early = day == thanksgiving + timedelta(days=1) or july_4_eve or christmas_eve
    return EARLY_CLOSE if early else CLOSE


@lru_cache(maxsize=8192)
def session_on(day: date) -> Session | None:
    """The session of a calendar day, or None when the exchange is closed."""
    if day.weekday() >= SATURDAY or day in holidays(day.year):
        return None
    opens = datetime.combine(day, OPEN, NEW_YORK).astimezone(UTC)
    closes = datetime.combine(day, _closing_time(day), NEW_YORK).astimezone(UTC)
    return Session(day, opens, closes)


def session_or_regular(day: date) -> Session:
    """The session of a day, or regular hours on a day that the rules call closed."""
    opens = datetime.combine(day, OPEN, NEW_YORK).astimezone(UTC)
    closes = datetime.combine(day, CLOSE, NEW_YORK).astimezone(UTC)
    return session_on(day) or Session(day, opens, closes)


def sessions_between(start: date, end: date) -> list[Session]:
    """Sessions from `start` to `end`, both included."""
    days = (start + timedelta(days=n) for n in range((end - start).days + 1))
    return [session for day in days if (session := session_on(day)) is not None]


def current_session(now: datetime) -> Session | None:
    """The session that is open at `now`, or None."""
    session = session_on(now.astimezone(NEW_YORK).date())
    return session if session and session.opens <= now < session.closes else None


def next_open(now: datetime) -> datetime:
    """The first opening after `now`."""
    day = now.astimezone(NEW_YORK).date()
    while (session := session_on(day)) is None or session.opens <= now:
        day += timedelta(days=1)
    return session.opens


def next_close(now: datetime) -> datetime:
    """The first close after `now`."""
    day = now.astimezone(NEW_YORK).date()
    while (session := session_on(day)) is None or session.closes <= now:
        day += timedelta(days=1)
    return session.closes


def in_extended_hours(now: datetime) -> bool:
    """Overnight, pre-market or after-hours trading: any time outside the regular session from
    Sunday 20:00 to Friday 20:00 New York time."""
    if current_session(now) is not None:
        return False
    local = now.astimezone(NEW_YORK)
    evening = local.time() >= time(20, 0)
    if local.weekday() == SATURDAY:
        return False
    if local.weekday() == SUNDAY:
        return evening
    return not (local.weekday() == FRIDAY and evening)
