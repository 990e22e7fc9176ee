"""What a person does about events that a sink refused: has them tried again, or drops them.

Each is one transaction with an event for every dead letter, under an actor and a reason. The relay
tries again by itself only what a person asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from torghut.domain.errors import TorghutError
from torghut.domain.events import Event, EventKind
from torghut.domain.values import parse_text
from torghut.storage import control, dead_letters
from torghut.storage.database import Database
from torghut.storage.dead_letters import DeadLetter

REASON_LENGTH_MAX = 500


class NothingSettled(TorghutError):
    """No dead letter was moved; the text says why."""


class NoReason(TorghutError):
    """The reason is empty, or no text that can be kept."""


def retry(
    database: Database,
    ids: Sequence[int] | None,
    *,
    sink: str | None,
    actor: str,
    reason: str,
    now: datetime,
) -> list[DeadLetter]:
    """Have dead letters tried again: those named, or all (of one sink).

    Raises NoReason, NothingSettled, DatabaseUnavailable.
    """
    kind = EventKind.DEAD_LETTER_RETRIED
    return _settle(database, ids, sink, kind, "retrying", actor, reason, now)


def drop(
    database: Database,
    ids: Sequence[int] | None,
    *,
    sink: str | None,
    actor: str,
    reason: str,
    now: datetime,
) -> list[DeadLetter]:
    """Give dead letters up; they are kept, and not shown any more. Raises as `retry`."""
    kind = EventKind.DEAD_LETTER_DROPPED
    return _settle(database, ids, sink, kind, "dropped", actor, reason, now)


def _settle(
    database: Database,
    ids: Sequence[int] | None,
    sink: str | None,
    kind: EventKind,
    after: str,
    actor: str,
    reason: str,
    now: datetime,
) -> list[DeadLetter]:
    try:
        why = parse_text(reason.strip(), length_max=REASON_LENGTH_MAX)
    except ValueError as error:
        raise NoReason(f"--reason {error}; say why, it is kept") from None
    with database.transaction() as tx:
        moved = dead_letters.settle(tx, ids, sink=sink, after=after, now=now)
        missing = sorted(set(ids or ()) - {one.dead_letter_id for one in moved})
        if missing:
            named = ", ".join(map(str, missing))
            raise NothingSettled(f"dead letter {named}: unknown, settled or {after} already")
        events = [
            Event(
                kind,
                actor,
                decision_hash=one.decision_hash,
                payload={
                    "dead_letter_id": one.dead_letter_id,
                    "sink": one.sink,
                    "event_id": one.event_id,
                    "event_kind": one.kind,
                    "reason": why,
                },
            )
            for one in moved
        ]
        control.add_events(tx, events, now=now)
    return moved
