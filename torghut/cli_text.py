"""Pieces of what the command line shows: text that is safe to print, times and amounts in words.

Stored text is never interpreted: no markup (everything is a `Text`), and what is not printable
(escape sequences in a broker's answer, bidirectional marks) is shown as �.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

BAD = "bold red"
GOOD = "green"
_STYLES = {
    **dict.fromkeys(("denied", "rejected", "in_doubt", "halted"), BAD),
    **dict.fromkeys(("expired", "canceled", "submitting", "reducing"), "yellow"),
    **dict.fromkeys(("submitted", "closed", "filled", "active"), GOOD),
}

Data = Mapping[str, Any]
Row = tuple[str | Text, ...]


def printable(value: object) -> str:
    """One line of text for a terminal: white space is one space, what is not printable is �."""
    return _replaced(" ".join(str(value).split()))


def _replaced(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def line(*parts: str | tuple[str, str]) -> Text:
    """A Text of parts, plain or (text, style), made printable; nothing in them is markup."""
    text = Text(overflow="fold")
    for part in parts:
        plain, style = (part, "") if isinstance(part, str) else part
        text.append(_replaced(plain))
        if style:
            text.stylize(style, len(text) - len(plain))
    return text


def standing(status: str) -> tuple[str, str]:
    """A status with its style, for `line`."""
    return status, _STYLES.get(status, "")


def fields(data: Data) -> str:
    """`name value, name value` of an event's payload or a discrepancy's evidence."""
    return printable(", ".join(f"{name} {value}" for name, value in data.items()))


def times(count: int) -> str:
    """`once`, else `N times`."""
    return "once" if count == 1 else f"{count} times"


def order_in_words(data: Data) -> str:
    """`buy 10 AAPL limit 189.5`, from any row that has the order's fields."""
    size = data.get("qty") or f"{data.get('notional')} worth of"
    text = f"{data['side']} {size} {data['symbol']} {data['type']}"
    prices = {"limit_price": "", "stop_price": "stop ", "trail_price": "trail "}
    text += "".join(f" {name}{data[key]}" for key, name in prices.items() if data.get(key))
    return text + (f" trail {data['trail_percent']}%" if data.get("trail_percent") else "")


def order_now(order: Data) -> str:
    """`filled, 10 of 10 filled at 189.2 on average`, from an execution's row."""
    price = f" at {order['avg_px']} on average" if order["avg_px"] else ""
    size = order["qty"] or f"{order['notional']} worth"
    return f"{order['status']}, {order['cum_qty']} of {size} filled{price}"


def duration(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `5 min 3 s`, `2 h 5 min`, `3 d 4 h`; never negative."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for size, unit, small, small_unit in ((60, "min", 1, "s"), (3600, "h", 60, "min")):
        if seconds < size * (60 if size == 60 else 24):
            return f"{int(seconds // size)} {unit} {int(seconds % size // small)} {small_unit}"
    return f"{int(seconds // 86_400)} d {int(seconds % 86_400 // 3600)} h"


def after(instant: str | None, start: str) -> str:
    """How long after `start` an instant was: `+12 ms`; `-3.0 s` if it was before it."""
    if instant is None:
        return ""
    seconds = seconds_between(start, instant)
    return ("-" if seconds < 0 else "+") + duration(abs(seconds))


def moment(instant: str | None) -> str:
    """`2026-01-05 14:30:00` of an RFC 3339 instant, UTC."""
    return "" if instant is None else instant[:19].replace("T", " ")


def seconds_between(start: str, end: str) -> float:
    """Seconds from one RFC 3339 instant to another."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def grid(rows: Sequence[Row]) -> Table:
    """Rows of cells without lines; the last cell takes what is left of the width, folded."""
    shown = Table.grid(padding=(0, 2, 0, 0))
    for place in range(len(rows[0]) if rows else 0):
        last = place == len(rows[0]) - 1
        shown.add_column(no_wrap=not last, overflow="fold")
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else line(cell) for cell in row))
    return shown


def section(title: str, *content: RenderableType) -> Group:
    """A titled part after an empty line, its content indented."""
    return Group(
        line(""), line((title, "bold")), *(Padding(c, (0, 0, 0, 2), expand=False) for c in content)
    )
