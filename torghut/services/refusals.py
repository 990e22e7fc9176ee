"""Refused decisions, of the inbox and of streams: a person looks into them, and dismisses them.

They were answered; nothing waits for them. A decision that was mended is sent again by its sender.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from torghut.domain.errors import TorghutError
from torghut.domain.events import Event, EventKind
from torghut.services.operator import checked_reason
from torghut.storage import control, inbox
from torghut.storage.database import Database
from torghut.storage.inbox import Dismissed


class NothingDismissed(TorghutError):
    """No row was dismissed; the text says why."""


def dismiss(
    database: Database,
    account: str,
    ids: Sequence[int] | None,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> list[Dismissed]:
    """Dismiss the rows named, or all there are, with an event for each.

    Raises NotChanged (the reason), NothingDismissed, DatabaseUnavailable.
    """
    why = checked_reason(reason)
    with database.transaction() as tx:
        done = inbox.dismiss(tx, account, ids, actor=actor, why=why, now=now)
        missing = sorted(set(ids or ()) - {one.inbox_id for one in done})
        if missing:
            named = ", ".join(map(str, missing))
            raise NothingDismissed(f"refused decision {named}: unknown, or dismissed already")
        events = [
            Event(
                EventKind.INBOX_DISMISSED,
                actor,
                one.account,
                one.decision_hash,
                {
                    "inbox_id": one.inbox_id,
                    "source": one.source,
                    "result": one.result,
                    "reason": why,
                },
            )
            for one in done
        ]
        control.add_events(tx, events, now=now)
    return done
