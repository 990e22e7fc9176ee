"""An event as it leaves: the envelope that every sink gets, and the words for what a sink answers.

```json
{"id": "…", "schema_version": 1, "seq": 17, "kind": "order.submitted", "occurred_at": "…Z",
 "account": "paper", "decision_hash": "…", "actor": "executor", "payload": {…}}
```

`id` is stored with the event, so that it is the same in every delivery: what a consumer tells
repetitions by. docs/events.md documents each kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from torghut.domain.errors import TorghutError
from torghut.domain.values import canonical_instant


class SinkUnavailable(TorghutError):
    """The sink takes nothing now, or did not answer: the same event again later.

    `wait_s` is how long the sink itself asked to be left alone.
    """

    def __init__(self, problem: str, *, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


class EventRefused(TorghutError):
    """The sink will never take this event; it becomes a dead letter and the next one is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """One row of `events`. `seq` grows with each change of a decision; instants are UTC."""

    seq: int
    event_id: str
    kind: str
    schema_version: int
    occurred_at: datetime
    account: str | None
    decision_hash: str | None
    actor: str
    payload: Mapping[str, object]

    def envelope(self) -> dict[str, object]:
        """What a consumer gets, as plain JSON."""
        return {
            "id": self.event_id,
            "schema_version": self.schema_version,
            "seq": self.seq,
            "kind": self.kind,
            "occurred_at": canonical_instant(self.occurred_at),
            "account": self.account,
            "decision_hash": self.decision_hash,
            "actor": self.actor,
            "payload": dict(self.payload),
        }


@dataclass(frozen=True, slots=True)
class Message:
    """An event with its envelope as text: made once, the same for every sink."""

    event: OutboxEvent
    body: bytes

    @classmethod
    def of(cls, event: OutboxEvent) -> Message:
        """Raises EventRefused if the event cannot be written as JSON."""
        try:
            body = json.dumps(
                event.envelope(), ensure_ascii=False, allow_nan=False, separators=(",", ":")
            ).encode()
        except (TypeError, ValueError) as error:
            raise EventRefused(f"it cannot be written as JSON: {error}") from error
        return cls(event, body)
