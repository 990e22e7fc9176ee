"""The shipped bars as facts for strategies, day by day."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache

from torghut.data import daily_bars_path
from torghut.ports import Bar, StrategyFacts

NUMBERS = ("open", "high", "low", "close", "volume")


@cache
def real_bars() -> dict[str, tuple[Bar, ...]]:
    """All bars by symbol, ascending."""
    with daily_bars_path().open() as file:
        rows = list(csv.DictReader(file))
    bars = [
        Bar(
            symbol=row["symbol"],
            session=date.fromisoformat(row["date"]),
            **{name: Decimal(row[name]) for name in NUMBERS},
        )
        for row in rows
    ]
    return {s: tuple(b for b in bars if b.symbol == s) for s in sorted({b.symbol for b in bars})}


def sessions() -> list[date]:
    return sorted({bar.session for bars in real_bars().values() for bar in bars})


def bar(symbol: str, day: str, close: object) -> Bar:
    px = Decimal(str(close))
    return Bar(
        symbol=symbol,
        session=date.fromisoformat(day),
        open=px,
        high=px,
        low=px,
        close=px,
        volume=Decimal(1000),
    )


def facts_of(
    bars: Mapping[str, Sequence[Bar]],
    day: date,
    *,
    positions: Mapping[str, Decimal] | None = None,
    equity: object = "100000",
) -> StrategyFacts:
    return StrategyFacts(
        strategy="tested",
        scheduled_for=datetime.combine(day, time(21, 5), UTC),
        bars=bars,
        positions=positions or {},
        equity=Decimal(str(equity)),
    )


def facts_on(
    day: date,
    *,
    positions: Mapping[str, Decimal] | None = None,
    equity: object = "100000",
    count: int = 60,
) -> StrategyFacts:
    """What the scheduler knows after the close of `day`: `count` real bars per symbol."""
    bars = {
        symbol: tuple(b for b in rows if b.session <= day)[-count:]
        for symbol, rows in real_bars().items()
    }
    return facts_of(bars, day, positions=positions, equity=equity)
