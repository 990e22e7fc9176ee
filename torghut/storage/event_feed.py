"""Events for whoever asks for them, from a place on that the asker keeps.

A place is what a sink's cursor is (torghut.storage.outbox), held by the asker: the window between
two snapshots of the database, and how far it was read, in the order of event_seq. So nothing is
skipped that was committed late, and the events of a decision come in their order.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Connection, text

from torghut.domain.outbox import OutboxEvent
from torghut.storage.outbox import EVENT_COLUMNS, NOTHING, event_of

PLACE_LENGTH_MAX = 2_000

_SNAPSHOT = r"[1-9][0-9]{0,18}:[1-9][0-9]{0,18}:(?:[1-9][0-9]{0,18}(?:,[1-9][0-9]{0,18})*)?"
_PLACE = re.compile(rf"([0-9]{{1,20}})/({_SNAPSHOT})/({_SNAPSHOT})?/([0-9]{{1,18}})")


class PlaceNotUsable(ValueError):
    """The text is no place, or one in another database."""


@dataclass(frozen=True, slots=True)
class Place:
    """Events that `base` sees were read; of those that `target` sees, the ones up to `after`."""

    cluster: int
    base: str
    target: str | None
    after: int

    def __str__(self) -> str:
        plain = f"{self.cluster}/{self.base}/{self.target or ''}/{self.after}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, value: str) -> Place:
        """Raises PlaceNotUsable."""
        try:
            padded = value.encode("ascii") + b"=" * (-len(value) % 4)
            plain = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        except (UnicodeError, binascii.Error):
            raise PlaceNotUsable("is no place in the events") from None
        match = _PLACE.fullmatch(plain) if len(value) <= PLACE_LENGTH_MAX else None
        if match is None:
            raise PlaceNotUsable("is no place in the events")
        cluster, base, target, after = match.groups()
        if not all(_ordered(snapshot) for snapshot in (base, target) if snapshot):
            raise PlaceNotUsable("is no place in the events")
        return cls(int(cluster), base, target, int(after))


def beginning(tx: Connection) -> Place:
    """Before all events."""
    return Place(_cluster(tx), NOTHING, None, 0)


def now(tx: Connection) -> Place:
    """After all events that there are."""
    snapshot = tx.execute(text("SELECT pg_current_snapshot()::text")).scalar_one()
    return Place(_cluster(tx), snapshot, None, 0)


def page(
    tx: Connection, place: Place, *, limit: int
) -> tuple[list[tuple[Place, OutboxEvent]], Place]:
    """The next events, each with the place after it, and the place after all of them.

    Raises PlaceNotUsable for a place of another database: its transactions mean nothing here.
    """
    if place.cluster != _cluster(tx):
        raise PlaceNotUsable("is of another database: begin anew")
    base = place.base
    if place.target is not None:
        if found := _window(tx, place, limit):
            return found, found[-1][0]
        base = place.target
    target = tx.execute(text("SELECT pg_current_snapshot()::text")).scalar_one()
    found = _window(tx, Place(place.cluster, base, target, 0), limit)
    return found, found[-1][0] if found else Place(place.cluster, target, None, 0)


def _window(tx: Connection, place: Place, limit: int) -> list[tuple[Place, OutboxEvent]]:
    rows = tx.execute(
        text(f"""
        SELECT {EVENT_COLUMNS} FROM events e
        WHERE e.xact_id >= pg_snapshot_xmin(CAST(:base AS pg_snapshot))
          AND e.xact_id < pg_snapshot_xmax(CAST(:target AS pg_snapshot))
          AND NOT pg_visible_in_snapshot(e.xact_id, CAST(:base AS pg_snapshot))
          AND pg_visible_in_snapshot(e.xact_id, CAST(:target AS pg_snapshot))
          AND e.event_seq > :after
        ORDER BY e.event_seq LIMIT :limit"""),
        {"base": place.base, "target": place.target, "after": place.after, "limit": limit},
    )
    return [
        (Place(place.cluster, place.base, place.target, row.event_seq), event_of(row))
        for row in rows
    ]


def _cluster(tx: Connection) -> int:
    return int(tx.execute(text("SELECT system_identifier FROM pg_control_system()")).scalar_one())


def _ordered(snapshot: str) -> bool:
    """What Postgres asks of a snapshot: xmin ≤ those under way, ascending, < xmax."""
    low, high, under_way = snapshot.split(":")
    numbers = [int(number) for number in under_way.split(",") if number]
    rising = all(one < other for one, other in pairwise(numbers))
    within = all(int(low) <= number < int(high) for number in numbers)
    return int(low) <= int(high) < 2**63 and rising and within
