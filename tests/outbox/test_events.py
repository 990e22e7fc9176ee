"""The published schema: current, complete, and true of what a real run writes.

Beside this, every test with a `Rig` holds the events of its run against the schema when it ends.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from jsonschema import Draft202012Validator

from tests.event_faults import event_faults, faults_of
from tests.event_reference import FILE, SCHEMA, rendered, schema_text
from tests.outbox.parts import NOW, Kept, drain, relay
from tests.services.rig import ACCOUNT, Rig
from torghut.domain.event_schema import PAYLOADS, SCHEMA_VERSION, json_schema
from torghut.domain.events import EventKind
from torghut.domain.exposure import TradingState
from torghut.services import operator


def test_documents_are_current() -> None:
    """Mend it with `python -m tests.event_reference`."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()
    text = FILE.read_text(encoding="utf-8")
    assert text == rendered(text)


def test_every_kind_has_a_payload() -> None:
    assert PAYLOADS.keys() == set(EventKind)
    Draft202012Validator.check_schema(json_schema())
    assert SCHEMA_VERSION == 1, "what the default of events.schema_version is"


def test_a_run_writes_what_the_schema_says(make_rig: Callable[..., Rig]) -> None:
    """From the decision to the fill, with doubt, refusal, denial and a halt; as a sink gets it."""
    rig = make_rig(absence_grace_s=0)
    first = rig.send(intent="first")
    rig.fault("accept_then_reset")
    rig.drive([first])
    rig.send(intent="second", qty="0.5", type="limit", limit_price="1")
    rig.execute()
    for state in (TradingState.HALTED, TradingState.ACTIVE):
        operator.change(
            state, rig.database, "global", actor="test", reason="why", now=NOW,
            settings=rig.settings,
        )  # fmt: skip
    for _ in range(3):
        rig.reconcile()
        rig.time.pass_s(5)
    assert event_faults(rig.database) == []
    drain(relay(rig.database, sink := Kept()))
    kinds = {message.event.kind for message in sink.messages}
    assert kinds >= {
        "decision.planned", "order.submit_started", "order.in_doubt", "order.recovered",
        "trading_state.changed", "fill.recorded",
    }, kinds  # fmt: skip
    assert {message.event.account for message in sink.messages} <= {ACCOUNT, None}


WRONG: list[tuple[str, object]] = [
    ("payload", {"strategy": "s"}),
    ("payload", {"strategy": "s", "symbol": "A", "more": 1}),
    ("payload", {"strategy": 1, "symbol": "A"}),
    ("kind", "decision.invented"),
    ("decision_hash", "ABC"),
    ("schema_version", 2),
    ("occurred_at", None),
    ("more", 1),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_control_the_schema_sees_what_is_wrong(field: str, value: object) -> None:
    envelope: dict[str, object] = {
        "id": "0b54e3f0-0000-4000-8000-000000000000",
        "schema_version": 1,
        "seq": 1,
        "kind": "decision.planned",
        "occurred_at": "2026-01-05T21:00:00.000000Z",
        "account": "paper",
        "decision_hash": "ab" * 32,
        "actor": "cli",
        "payload": {"strategy": "s", "symbol": "A"},
    }
    assert faults_of(envelope) == []
    assert faults_of({**envelope, field: value})
