"""Sessions of the New York Stock Exchange against dates known from its announcements."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torghut.data import daily_bars_path
from torghut.domain.sessions import (
    MarketClock,
    Phase,
    latest_session,
    next_open,
    order_session,
    session_state,
)

NEW_YORK = ZoneInfo("America/New_York")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ny(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("at", "phase"),
    [
        ("2026-01-05T03:59:59", "closed"),  # a Monday
        ("2026-01-05T04:00", "extended"),
        ("2026-01-05T09:29:59", "extended"),
        ("2026-01-05T09:30", "open"),
        ("2026-01-05T15:59:59.999999", "open"),
        ("2026-01-05T16:00", "extended"),
        ("2026-01-05T19:59:59", "extended"),
        ("2026-01-05T20:00", "closed"),
        ("2026-01-03T12:00", "closed"),  # Saturday
        ("2026-01-04T12:00", "closed"),  # Sunday
        ("2026-07-03T12:00", "closed"),  # Independence Day, observed
        ("2025-01-09T12:00", "closed"),  # day of mourning for President Carter
        ("2012-10-29T12:00", "closed"),  # Hurricane Sandy
        ("2026-04-03T12:00", "closed"),  # Good Friday
        ("2026-06-19T12:00", "closed"),  # Juneteenth
        ("2026-11-27T12:59:59", "open"),  # half day after Thanksgiving
        ("2026-11-27T13:00", "extended"),
        ("2026-12-24T14:00", "extended"),  # half day
        ("2026-12-24T16:59:59", "extended"),
        ("2026-12-24T17:00", "closed"),  # … after which there is less of an evening, too
        ("2026-11-27T19:00", "closed"),
        ("2026-03-09T09:30", "open"),  # first session of summer time
    ],
)
def test_phases(at: str, phase: str) -> None:
    assert session_state("AAPL", ny(at)).phase == phase


@pytest.mark.parametrize(
    ("now", "opens", "closes"),
    [
        ("2026-01-05T12:00", "2026-01-06T09:30", "2026-01-05T16:00"),
        ("2026-01-05T09:30", "2026-01-06T09:30", "2026-01-05T16:00"),
        ("2026-01-05T08:00", "2026-01-05T09:30", "2026-01-05T16:00"),
        ("2026-01-02T17:00", "2026-01-05T09:30", "2026-01-05T16:00"),
        ("2026-07-02T18:00", "2026-07-06T09:30", "2026-07-06T16:00"),
        ("2026-11-26T12:00", "2026-11-27T09:30", "2026-11-27T13:00"),
        ("2029-12-31T20:00", "2030-01-02T09:30", "2030-01-02T16:00"),
        ("2026-03-06T17:00", "2026-03-09T09:30", "2026-03-09T16:00"),
    ],
)
def test_the_next_open_and_close(now: str, opens: str, closes: str) -> None:
    session = session_state("AAPL", ny(now))
    assert (session.next_open, session.close) == (ny(opens), ny(closes))
    assert session.next_open.utcoffset() == timedelta(0)
    assert next_open("AAPL", ny(now)) == ny(opens)


def test_summer_time_moves_the_opening_in_utc() -> None:
    assert next_open("AAPL", ny("2026-03-06T08:00")) == datetime(2026, 3, 6, 14, 30, tzinfo=UTC)
    assert next_open("AAPL", ny("2026-03-09T08:00")) == datetime(2026, 3, 9, 13, 30, tzinfo=UTC)


@pytest.mark.parametrize("at", ["2026-01-03T03:00", "2026-12-25T12:00", "2026-01-05T12:00"])
def test_crypto_is_always_open(at: str) -> None:
    session = session_state("BTC/USD", ny(at))
    assert (session.phase, session.next_open, session.close) == (Phase.OPEN, ny(at), None)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-01-05T15:59:59", "2026-01-02"),
        ("2026-01-05T16:00", "2026-01-05"),
        ("2026-01-04T12:00", "2026-01-02"),
        ("2026-11-27T12:59", "2026-11-25"),
        ("2026-11-27T13:00", "2026-11-27"),
        ("2030-01-01T12:00", "2029-12-31"),
    ],
)
def test_the_latest_session_has_closed(now: str, day: str) -> None:
    assert latest_session(ny(now)) == date.fromisoformat(day)


def test_the_sessions_are_those_of_the_real_bars() -> None:
    with daily_bars_path().open() as file:
        days = sorted({date.fromisoformat(row["date"]) for row in csv.DictReader(file)})
    noons = [datetime(2010, 3, 1, 12, tzinfo=NEW_YORK) + timedelta(days=n) for n in range(1097)]
    ours = [noon.date() for noon in noons if session_state("IBM", noon).phase is Phase.OPEN]
    assert ours == days


@given(st.integers(0, 40 * 365 * 86_400), st.integers(-720, 840))
@settings(deadline=None)  # the first question of a decade loads its calendar
def test_the_answer_is_about_the_instant(after_s: int, offset_min: int) -> None:
    now = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=after_s)
    session = session_state("AAPL", now)
    assert session == session_state("AAPL", now.astimezone(timezone(timedelta(minutes=offset_min))))
    assert session.close is not None
    assert now < session.next_open < now + timedelta(days=12)
    assert (session.phase is Phase.OPEN) is (session.close < session.next_open)
    assert session_state("AAPL", session.next_open).phase is Phase.OPEN
    assert session_state("AAPL", session.close).phase is not Phase.OPEN
    assert latest_session(session.close) >= latest_session(now)


def test_what_cannot_be_answered_is_an_error() -> None:
    with pytest.raises(ValueError, match="time zone"):
        session_state("AAPL", ny("2026-01-05").replace(tzinfo=None))
    with pytest.raises(ValueError, match="no market calendar"):
        latest_session(datetime(1, 1, 1, tzinfo=UTC))


def test_the_calendar_is_imported_on_the_first_question_only() -> None:
    code = "import sys, torghut.domain.sessions; sys.exit('exchange_calendars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


CLOCK = MarketClock(
    is_open=False,
    told_at=utc("2026-01-05T15:00"),
    next_open=utc("2026-01-06T14:30"),
    next_close=utc("2026-01-06T21:00"),
)
SPECIAL = replace(CLOCK, is_open=True, next_close=utc("2026-01-10T21:00"))  # on a Saturday


@pytest.mark.parametrize(
    ("now", "extended", "clock", "opens"),
    [
        ("2026-01-05T15:00", False, None, None),  # open
        ("2026-01-05T13:00", False, None, "2026-01-05T14:30"),  # before the opening
        ("2026-01-05T13:00", True, None, None),
        ("2026-01-05T22:00", False, None, "2026-01-06T14:30"),  # after the close
        ("2026-01-05T22:00", True, None, None),
        ("2026-01-05T06:00", True, None, "2026-01-05T09:00"),  # at night: 04:00 in New York
        ("2026-01-06T02:00", True, None, "2026-01-06T09:00"),
        ("2026-01-10T15:00", True, None, "2026-01-12T09:00"),  # a Saturday
        ("2026-01-05T15:00", False, CLOCK, "2026-01-06T14:30"),  # shut unexpectedly
        ("2026-01-05T15:00", True, CLOCK, "2026-01-06T09:00"),
        ("2026-01-06T14:31", False, CLOCK, None),  # the clock is out of date: the calendar
        ("2026-01-10T15:00", False, SPECIAL, None),
    ],
)  # fmt: skip
def test_when_the_market_opens_for_an_order(
    now: str, extended: bool, clock: MarketClock | None, opens: str | None
) -> None:
    found = order_session("AAPL", utc(now), extended_hours=extended, clock=clock)
    assert found == (opens and utc(opens))
    assert order_session("BTC/USD", utc(now), extended_hours=extended, clock=clock) is None
