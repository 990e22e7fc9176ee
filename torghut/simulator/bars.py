"""Daily bars: read from a CSV file, or made up from the synthetic price.

CSV header: `date,symbol,open,high,low,close,volume`; one row per session and symbol.
"""

from __future__ import annotations

import csv
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from torghut.simulator.clock import NEW_YORK

COLUMNS = ("date", "symbol", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Bar:
    """Prices in USD of one period which starts at `starts_at` (UTC)."""

    symbol: str
    starts_at: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int


class BarFile:
    """The sessions of a CSV file, ascending; raises ValueError that names the faulty line."""

    def __init__(self, path: Path) -> None:
        self.by_day: dict[date, dict[str, Bar]] = {}
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"{path}: columns missing: {', '.join(sorted(missing))}")
            for row in reader:
                try:
                    day, bar = _read_row(row)
                except (ValueError, ArithmeticError) as error:
                    raise ValueError(f"{path}:{reader.line_num}: {error}") from error
                self.by_day.setdefault(day, {})[bar.symbol] = bar
        if not self.by_day:
            raise ValueError(f"{path}: no bars")
        self.days = sorted(self.by_day)
        self.first_prices: dict[str, Decimal] = {}
        self._by_symbol: dict[str, list[Bar]] = {}
        for day in self.days:
            for bar in self.by_day[day].values():
                self.first_prices.setdefault(bar.symbol, bar.open)
                self._by_symbol.setdefault(bar.symbol, []).append(bar)

    def bar(self, symbol: str, day: date) -> Bar | None:
        """The bar of a symbol on a day, or None."""
        return self.by_day.get(day, {}).get(symbol)

    def last_bar(self, symbol: str, until: date) -> Bar | None:
        """The latest bar of a symbol on or before a day, or None."""
        bars = self._by_symbol.get(symbol, [])
        index = bisect_right(bars, day_start(until), key=lambda bar: bar.starts_at)
        return bars[index - 1] if index else None

    def between(self, symbol: str, start: date, end: date) -> list[Bar]:
        """Bars of a symbol from `start` to `end`, both included."""
        bars = self._by_symbol.get(symbol, [])
        low = bisect_left(bars, day_start(start), key=lambda bar: bar.starts_at)
        high = bisect_right(bars, day_start(end), key=lambda bar: bar.starts_at)
        return bars[low:high]


def day_start(day: date) -> datetime:
    """Midnight in New York, the timestamp of a daily bar."""
    return datetime.combine(day, time(0), NEW_YORK).astimezone(UTC)


def _read_row(row: dict[str, str]) -> tuple[date, Bar]:
    day = date.fromisoformat(row["date"])
    prices = {name: Decimal(row[name]) for name in ("open", "high", "low", "close")}
    if not all(price.is_finite() and price > 0 for price in prices.values()):
        raise ValueError(f"prices must be > 0: {row}")
    volume = int(Decimal(row["volume"]))
    return day, Bar(row["symbol"], day_start(day), volume=volume, **prices)


def bar_json(bar: Bar) -> dict[str, Any]:
    """The Bar object of the market data API, whose amounts are JSON numbers."""
    typical = (bar.high + bar.low + bar.close) / 3
    return {
        "t": bar.starts_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "o": float(bar.open),
        "h": float(bar.high),
        "l": float(bar.low),
        "c": float(bar.close),
        "v": bar.volume,
        "n": max(bar.volume // 100, 1),
        "vw": round(float(typical), 6),
    }
