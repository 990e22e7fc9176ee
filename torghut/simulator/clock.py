"""Wall clock and elapsed time: the only module of the simulator that reads them.

Everything else takes `now` (an aware UTC instant) or `elapsed_s` (seconds of a monotonic
clock) as an argument, so a run is a function of its seed and its inputs.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


def wall_now() -> datetime:
    """The current instant, UTC."""
    return datetime.now(UTC)  # noqa: TID251


def elapsed_s() -> float:
    """Seconds of a clock that never goes back; the origin is arbitrary."""
    return time.monotonic()


def rfc3339(instant: datetime | None) -> str | None:
    """`2026-11-20T15:04:05.123456Z`, the form of every order timestamp."""
    if instant is None:
        return None
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    """Read an RFC 3339 instant, or a date (midnight UTC). Nanoseconds are cut to microseconds.

    Raises ValueError when the text is neither.
    """
    cleaned = text.strip().replace(" ", "+")
    head, dot, tail = cleaned.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        cleaned = f"{head}.{tail[: min(digits, 6)]}{tail[digits:]}"
    instant = datetime.fromisoformat(cleaned)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
