"""Data shipped with the package: real daily bars for the demonstration and for tests.

`daily-bars.csv` has the columns date,symbol,open,high,low,close,volume; README.md beside it
names the source.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def daily_bars_path() -> Path:
    """Where `daily-bars.csv` lies in this installation (a wheel is always unpacked)."""
    return Path(str(files(__name__) / "daily-bars.csv"))
