"""Do the events of a database say what docs/event.schema.json promises, and nothing beside it?"""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from sqlalchemy import text

from torghut.domain.event_schema import json_schema
from torghut.domain.outbox import Message, OutboxEvent
from torghut.storage.database import Database


@cache
def _validator() -> Any:
    return Draft202012Validator(json_schema(strict=True), format_checker=FormatChecker())


def faults_of(envelope: dict[str, object]) -> list[str]:
    """What is wrong with one envelope."""
    return [
        f"{envelope.get('kind')}: {'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in _validator().iter_errors(envelope)
    ]


def event_faults(database: Database) -> list[str]:
    """What is wrong with the events that there are; each fault once."""
    with database.transaction() as tx:
        rows = tx.execute(
            text("""SELECT event_seq AS seq, event_id::text AS event_id, kind, schema_version,
            created_at AS occurred_at, account, decision_hash, actor, payload
            FROM events ORDER BY event_seq""")
        ).mappings()
        events = [OutboxEvent(**row) for row in rows]
    found = [fault for event in events for fault in faults_of(Message.of(event).event.envelope())]
    return list(dict.fromkeys(found))
