"""Charts: SVG made here by pygal, without the style and script that it would bring along.

The page's own style sheet colours them, so they follow light and dark, and the
Content-Security-Policy needs no exception. `chart` adds a summary in words for those who do not
see the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from xml.etree import ElementTree

import pygal
from markupsafe import Markup

WIDTH = 860
HEIGHT = 230
LABELS = 6

Point = tuple[datetime, Decimal]

_SVG = "http://www.w3.org/2000/svg"
_UNWANTED = ("defs", "title", "desc")


def line_chart(
    points: Sequence[Point], *, said: str, unit: str = "", filled: bool = False
) -> Markup:
    """One series over time as inline SVG; `said` is what the picture says, in words."""
    first, last = points[0][0], points[-1][0]
    span_s = (last - first).total_seconds()
    form = "%H:%M:%S" if span_s < 900 else "%H:%M" if span_s < 86_400 else "%Y-%m-%d"
    step = (last - first) / (LABELS - 1)
    chart = pygal.DateTimeLine(
        css=[],
        js=[],
        no_prefix=True,
        width=WIDTH,
        height=HEIGHT,
        margin=8,
        show_dots=False,
        show_legend=False,
        fill=filled,
        max_scale=6,
        truncate_label=-1,
        x_value_formatter=lambda at: at.strftime(form),
        value_formatter=lambda value: (
            f"{value:,.0f}{unit}" if abs(value) >= 100 else f"{value:,.1f}{unit}"
        ),
    )
    chart.x_labels = [first + step * n for n in range(LABELS)] if first < last else [first]
    chart.add("", [(at, float(value)) for at, value in points])
    return _bare(chart.render_tree(), said)


def drawdown(points: Sequence[Point]) -> list[Point]:
    """How far each value is below the highest before it, in per cent: 0 or less."""
    found: list[Point] = []
    peak = Decimal(0)
    for at, value in points:
        peak = max(peak, value)
        found.append((at, (value / peak - 1) * 100 if peak > 0 else Decimal(0)))
    return found


def _bare(tree: ElementTree.Element, said: str) -> Markup:
    """The tree without what is no picture: styles, scripts, comments, hidden texts for tooltips."""
    for parent in list(tree.iter()):
        parent.attrib.pop("style", None)
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag in _UNWANTED:
                parent.remove(child)
    tree.attrib.pop("id", None)
    tree.attrib["role"] = "img"
    tree.attrib["aria-label"] = said
    tree.attrib["class"] = "chart"
    # every text in it is a number or a date of ours, and ElementTree escapes it
    return Markup(ElementTree.tostring(tree, encoding="unicode"))  # noqa: S704
