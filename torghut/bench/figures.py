"""A figure of the bench, and how figures are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `name` is stable, `detail` says what was done."""

    name: str
    value: float
    unit: str
    detail: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def as_json(figures: Sequence[Figure]) -> str:
    """One document: {"figures": [{name, value, unit, detail}]}."""
    return json.dumps({"figures": [asdict(figure) for figure in figures]})


def as_table(figures: Sequence[Figure]) -> Table:
    """One line for each figure."""
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    shown.add_column("figure")
    shown.add_column("value", justify="right")
    shown.add_column("unit")
    shown.add_column("what")
    for figure in figures:
        value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:,.3g}"
        shown.add_row(figure.name, value, figure.unit, figure.detail)
    return shown
