"""The one place that reads the clock; everything else gets `now` as an argument or a `Clock`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present instant, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 - this is the place
