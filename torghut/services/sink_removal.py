"""A sink that is not in the settings any more is given up: its position and its dead letters go.

Until then its cursor stays, so that a sink left out by mistake goes on where it stood. Given up and
set up again, it is a new sink.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from torghut.domain.errors import TorghutError
from torghut.domain.events import Event, EventKind
from torghut.services.operator import checked_reason
from torghut.storage import control, outbox
from torghut.storage.database import Database
from torghut.storage.outbox import Forgotten


class NotForgotten(TorghutError):
    """The sink is unknown, or in use; the text says which."""


def forget(
    database: Database,
    sink: str,
    *,
    configured: Collection[str],
    actor: str,
    reason: str,
    now: datetime,
) -> Forgotten:
    """Give the sink up, with its event; returns what it had not got.

    `configured` are the sinks of these settings. Raises NotForgotten, NotChanged (the reason),
    DatabaseUnavailable.
    """
    why = checked_reason(reason)
    if sink in configured:
        raise NotForgotten(f"{sink} is in the settings: take [sinks.{sink}] out first")
    with database.transaction() as tx:
        done = outbox.forget(tx, sink, now=now)
        if done is None:
            (state,) = outbox.states(tx, sink) or (None,)
            if state is None:
                raise NotForgotten(f"no sink {sink!a} was ever given events")
            raise NotForgotten(f"{sink} is being served by {state.owner}: stop it first")
        payload: dict[str, object] = {
            "sink": sink,
            "lag": done.lag,
            "dead_letters": done.dead_letters,
            "reason": why,
        }
        control.add_events(tx, [Event(EventKind.SINK_FORGOTTEN, actor, payload=payload)], now=now)
    return done
