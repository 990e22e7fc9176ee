"""State that survives a restart: an append-only journal of JSON lines.

    {"order": {...}}            an order after a change (the whole order)
    {"fill": {...}}             one execution
    {"entry": {...}}            a change of cash or a position that is no fill
    {"configuration": {...}}    account configuration
    {"market": {...}}           replay: day and phase reached

Lines are written before the request that caused them is answered, so killing the process loses
no acknowledged order; losing power can, unless fsync is on. A torn last line is dropped. At
start, and on request, the journal is rewritten with one line for each order and fill.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from torghut.simulator.book import BookEvent
from torghut.simulator.numbers import text
from torghut.simulator.orders import Entry, Fill, Order

_DECIMALS = frozenset(
    {"qty", "notional", "limit_price", "stop_price", "filled_qty", "filled_cost", "price",
     "reserve_price", "cum_qty", "leaves_qty", "fee_qty", "fee_cash", "cash", "trail_price",
     "trail_percent", "hwm"}
)  # fmt: skip


@dataclass(slots=True)
class SavedState:
    """What a journal holds."""

    orders: dict[str, Order] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    records: int = 0


def _plain(record: Order | Fill | Entry) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(record, name) for name in record.__slots__}
    for name, value in values.items():
        if isinstance(value, Decimal):
            values[name] = text(value)
        elif isinstance(value, datetime):
            values[name] = value.isoformat()
    return values


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if value is None:
            continue
        if name in _DECIMALS:
            values[name] = Decimal(value)
        elif name == "at" or name.endswith("_at"):
            values[name] = datetime.fromisoformat(value)
    return values


def load(path: Path) -> SavedState:
    """Read a journal; a file that does not exist is an empty one.

    Raises ValueError that names the line when a line before the last cannot be read.
    """
    state = SavedState()
    if not path.exists():
        return state
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            _apply(state, record)
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}:{number}: not a record of the simulator ({error}); "
                "move the file away to start with an empty book"
            ) from error
        state.records += 1
    return state


def _apply(state: SavedState, record: dict[str, Any]) -> None:
    if "order" in record:
        order = Order(**_typed(record["order"]))
        state.orders[order.id] = order
    elif "fill" in record:
        state.fills.append(Fill(**_typed(record["fill"])))
    elif "entry" in record:
        state.entries.append(Entry(**_typed(record["entry"])))
    else:
        state.documents.update(record)


class Journal:
    """The writing side. `observe` collects lines, `flush` hands them to the operating system."""

    def __init__(self, path: Path | None, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._lines: list[bytes] = []
        self._file: BinaryIO | None = None
        self.records = 0

    def start(self, state: SavedState) -> None:
        """Rewrite the file with this state and go on appending to it."""
        if self.path is None:
            return
        self.close()
        self.records = state.records
        records: list[dict[str, Any]] = [{"order": _plain(o)} for o in state.orders.values()]
        records += [{"fill": _plain(f)} for f in state.fills]
        records += [{"entry": _plain(e)} for e in state.entries]
        records += [{name: value} for name, value in state.documents.items()]
        new = self.path.with_suffix(self.path.suffix + ".new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.writelines(_line(record) for record in records)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        self._file = self.path.open("ab", buffering=0)

    def observe(self, event: BookEvent) -> None:
        """Note one event of the book."""
        if self._file is None:
            return
        self._lines.append(_line({"order": _plain(event.order)}))
        if event.fill is not None:
            self._lines.append(_line({"fill": _plain(event.fill)}))

    def enter(self, entry: Entry) -> None:
        """Note a change that is no fill."""
        if self._file is not None:
            self._lines.append(_line({"entry": _plain(entry)}))

    def note(self, name: str, value: Any) -> None:
        """Note a document, which replaces the one of that name."""
        if self._file is not None:
            self._lines.append(_line({name: value}))

    def flush(self) -> None:
        """Write what was noted; a kill of this process can no longer lose it."""
        if self._file is None or not self._lines:
            return
        self._file.write(b"".join(self._lines))
        self._lines.clear()
        if self._fsync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
