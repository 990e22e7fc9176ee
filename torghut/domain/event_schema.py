"""What each kind of event says: the payloads, and the JSON Schema of the envelope around them.

docs/events.md and docs/event.schema.json are made from this. Within a `schema_version` fields are
added and never taken away or given another meaning, so a consumer ignores what it does not know.
Amounts and prices are decimal text, instants RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torghut.domain.events import EventKind as K

SCHEMA_VERSION = 1

TEXT = {"type": "string"}
TEXT_OR_NULL = {"type": ["string", "null"]}
NUMBER = {"type": "integer"}
NUMBER_OR_NULL = {"type": ["integer", "null"]}
AMOUNT = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
SIDE = {"enum": ["buy", "sell"]}
OBJECT = {"type": "object"}
STATE = {"enum": ["active", "reducing", "halted"]}
TEXTS = {"type": "array", "items": TEXT}
CHANGES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["scope", "name", "before", "after"],
        "properties": {
            "scope": TEXT,
            "name": TEXT,
            "before": TEXT_OR_NULL,
            "after": TEXT_OR_NULL,
        },
    },
}

Fields = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Payload:
    """The fields of one kind: always there, sometimes there; `open` if evidence is beside them."""

    says: str
    always: Fields
    sometimes: Fields
    open: bool = False


def _payload(
    says: str, always: Fields | None = None, sometimes: Fields | None = None, *, open_: bool = False
) -> Payload:
    return Payload(says, always or {}, sometimes or {}, open_)


_BECAUSE: Fields = {"reason": TEXT}
_DETAILED: Fields = {"reason": TEXT, "detail": TEXT}
_ACTION: Fields = {"action_id": NUMBER, "operation": TEXT, "reason": TEXT, "detail": TEXT}
_RELOAD: Fields = {
    "reload_id": NUMBER_OR_NULL,
    "owner": TEXT,
    "asked_by": TEXT,
    "version_before": TEXT,
}
_ENDED: Fields = {"broker_order_id": TEXT, "symbol": TEXT, "cum_qty": AMOUNT}
_PLAN: Fields = {"plan_id": NUMBER, "correlation_id": TEXT}
_PLAN_ITEM: Fields = {**_PLAN, "position": NUMBER, "phase": SIDE, "symbol": TEXT}
_SAGA: Fields = {"saga_id": NUMBER, "saga_kind": TEXT, "saga_key": TEXT}
_SAGA_STEP: Fields = {**_SAGA, "step": TEXT}
_DIFFERENCE: Fields = {"kind": TEXT, "subject": TEXT}
_LETTER: Fields = {
    "dead_letter_id": NUMBER,
    "sink": TEXT,
    "event_id": TEXT,
    "event_kind": TEXT,
    "reason": TEXT,
}

PAYLOADS: Mapping[K, Payload] = {
    K.DECISION_PLANNED: _payload("stored", {"strategy": TEXT, "symbol": TEXT}),
    K.DECISION_APPROVED: _payload("approved by risk"),
    K.DECISION_DENIED: _payload("denied by risk", _BECAUSE),
    K.DECISION_EXPIRED: _payload(
        "out of time; `detail` if it had been in doubt", _BECAUSE, {"detail": TEXT}
    ),
    K.DECISION_CANCELED: _payload("called off before it was sent", _BECAUSE),
    K.DECISION_CLOSED: _payload("its order has ended"),
    K.SUBMIT_STARTED: _payload("the intent to send is committed", {"attempt_no": NUMBER}),
    K.SUBMITTED: _payload("the broker has the order", _DETAILED),
    K.REJECTED: _payload(
        "the broker refused the order, or (`broker_order_id`) took it and rejected it later",
        _DETAILED,
        {"broker_order_id": TEXT},
    ),
    K.IN_DOUBT: _payload("nobody knows whether the broker has it", _DETAILED),
    K.RECOVERED: _payload(
        "the order was found: by asking, or (`broker_order_id`) in the broker's lists or our books",
        {},
        {"reason": TEXT, "detail": TEXT, "broker_order_id": TEXT},
    ),
    K.RETURNED: _payload("surely not taken; it may be sent again", _DETAILED),
    K.REPLACED: _payload(
        "an order of ours was replaced; its successor if it is known by then",
        {**_ENDED, "replaced_by": TEXT_OR_NULL},
    ),
    K.CANCELED: _payload("an order of ours was canceled; it may have been filled in part", _ENDED),
    K.ADOPTED: _payload(
        "an order of somebody else was found", {"broker_order_id": TEXT, "symbol": TEXT}
    ),
    K.FILL_RECORDED: _payload(
        "a fill was booked",
        {"activity_id": TEXT, "symbol": TEXT, "side": SIDE, "last_qty": AMOUNT, "last_px": AMOUNT},
    ),
    K.POSITION_CHANGED: _payload(
        "fills or entries changed what the account holds; one for all of a symbol in one commit",
        {
            "symbol": TEXT,
            "qty_before": AMOUNT,
            "qty": AMOUNT,
            "avg_px": AMOUNT,
            "realized_pl": AMOUNT,
        },
    ),
    K.ENTRY_RECORDED: _payload(
        "position or cash changed without a fill; no `symbol`: cash alone",
        {
            "entry_key": TEXT,
            "kind": TEXT,
            "symbol": TEXT_OR_NULL,
            "qty": AMOUNT,
            "cash": AMOUNT,
            "reason": TEXT_OR_NULL,
        },
    ),
    K.ACTION_REQUESTED: _payload(
        "a cancel or a replacement was asked for",
        {"action_id": NUMBER, "request": OBJECT, "reason": TEXT},
    ),
    K.ACTION_STARTED: _payload(
        "it is being sent; `client_order_id` is a replacement's",
        {"action_id": NUMBER, "operation": TEXT, "broker_order_id": TEXT, "attempt_no": NUMBER},
        {"client_order_id": TEXT},
    ),
    K.ACTION_RETURNED: _payload("surely not taken, or to be asked for again", _ACTION),
    K.ACTION_CONFIRMING: _payload("the broker took it; the order has not ended", _ACTION),
    K.ACTION_IN_DOUBT: _payload("nobody knows whether it was taken", _ACTION),
    K.ACTION_DONE: _payload("done", _ACTION),
    K.ACTION_REFUSED: _payload("refused", _ACTION),
    K.ACTION_MOOT: _payload("there was nothing left to act on", _ACTION),
    K.FLATTEN_CHANGED: _payload(
        "the flattening of an account went on",
        {"flatten_id": NUMBER, "status": TEXT, "detail": TEXT_OR_NULL},
    ),
    K.PLAN_ACCEPTED: _payload(
        "a rebalance plan was stored", {**_PLAN, "strategy": TEXT, "items": NUMBER_OR_NULL}
    ),
    K.PLAN_ITEM_PLACED: _payload(
        "an item of a plan has a decision", {**_PLAN_ITEM, "trade_amount": AMOUNT, "qty": AMOUNT}
    ),
    K.PLAN_FUNDED: _payload(
        "the sells of a plan are settled: what they brought, what the buys may cost",
        {**_PLAN, "proceeds": AMOUNT, "budget": AMOUNT},
    ),
    K.PLAN_ITEM_SETTLED: _payload(
        "what became of an item of a plan",
        {**_PLAN_ITEM, "status": TEXT, "filled_qty": AMOUNT, "filled_value": AMOUNT},
        {"reason": TEXT},
    ),
    K.PLAN_ENDED: _payload(
        "a plan is completed, stopped or undone, with its statistics by phase",
        {**_PLAN, "status": TEXT, "statistics": OBJECT},
        _BECAUSE,
    ),
    K.SAGA_STARTED: _payload("a saga was started", _SAGA),
    K.SAGA_STEP_DONE: _payload("a step of a saga is done", _SAGA_STEP),
    K.SAGA_STEP_FAILED: _payload(
        "a step of a saga, or its compensation, failed and is tried again",
        {**_SAGA_STEP, "reason": TEXT, "failures": NUMBER, "undoing": {"type": "boolean"}},
    ),
    K.SAGA_COMPENSATING: _payload(
        "a step failed for good: what was done is undone", {**_SAGA_STEP, "reason": TEXT}
    ),
    K.SAGA_STEP_UNDONE: _payload("a step of a saga is undone", _SAGA_STEP),
    K.SAGA_COMPLETED: _payload("every step of a saga is done", _SAGA),
    K.SAGA_COMPENSATED: _payload(
        "every step of a saga that had begun is undone", {**_SAGA, "reason": TEXT}
    ),
    K.TRADING_STATE_CHANGED: _payload(
        "what may be traded changed",
        {"scope": TEXT, "before": STATE, "after": STATE, "reason": TEXT},
    ),
    K.LIMITS_RELOADED: _payload(
        "new risk limits are in force in one process",
        {**_RELOAD, "version_after": TEXT, "changes": CHANGES, "needs_restart": TEXTS},
    ),
    K.LIMITS_REFUSED: _payload("the old risk limits stay", {**_RELOAD, "error": TEXT}),
    K.DISCREPANCY_OPENED: _payload(
        "our books and the broker's differ; the evidence stands beside these",
        _DIFFERENCE,
        open_=True,
    ),
    K.DISCREPANCY_CLOSED: _payload("they do not any more", {**_DIFFERENCE, "resolution": TEXT}),
    K.DISCREPANCY_RESOLVED: _payload(
        "what `discrepancy.closed` is called in older rows; not written any more",
        {**_DIFFERENCE, "resolution": TEXT},
    ),
    K.LEASE_ACQUIRED: _payload(
        "a process took the account over", {"owner": TEXT, "fencing_token": NUMBER}
    ),
    K.DEAD_LETTER_RETRIED: _payload("a person has a refused event given again", _LETTER),
    K.DEAD_LETTER_DROPPED: _payload("a person gave a refused event up", _LETTER),
    K.SINK_FORGOTTEN: _payload(
        "a person gave up a sink that is not in the settings any more",
        {"sink": TEXT, "lag": NUMBER, "dead_letters": NUMBER, "reason": TEXT},
    ),
    K.INBOX_DISMISSED: _payload(
        "a person has looked into a refused decision of the inbox or of a stream",
        {"inbox_id": NUMBER, "source": TEXT, "result": TEXT, "reason": TEXT},
    ),
    K.TOKEN_CREATED: _payload(
        "a token of the HTTP interface was made",
        {"name": TEXT, "scopes": TEXTS, "expires_at": TEXT_OR_NULL},
    ),
    K.TOKEN_REVOKED: _payload("a token was ended", {"name": TEXT, "scopes": TEXTS, "reason": TEXT}),
}


def json_schema(*, strict: bool = False) -> dict[str, Any]:
    """The JSON Schema (2020-12) of an envelope; `strict` refuses fields that it does not name."""
    kinds = list(PAYLOADS)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Torghut event, schema version {SCHEMA_VERSION}",
        "type": "object",
        "required": [
            *("id", "schema_version", "seq", "kind", "occurred_at"),
            *("account", "decision_hash", "actor", "payload"),
        ],
        "additionalProperties": not strict,
        "properties": {
            "id": {"type": "string", "format": "uuid", "description": _SAYS["id"]},
            "schema_version": {"const": SCHEMA_VERSION, "description": _SAYS["schema_version"]},
            "seq": {"type": "integer", "minimum": 1, "description": _SAYS["seq"]},
            "kind": {"enum": [kind.value for kind in kinds], "description": _SAYS["kind"]},
            "occurred_at": {
                "type": "string",
                "format": "date-time",
                "description": _SAYS["occurred_at"],
            },
            "account": {**TEXT_OR_NULL, "description": _SAYS["account"]},
            "decision_hash": {
                "type": ["string", "null"],
                "pattern": "^[0-9a-f]{64}$",
                "description": _SAYS["decision_hash"],
            },
            "actor": {"type": "string", "description": _SAYS["actor"]},
            "payload": {"type": "object", "description": _SAYS["payload"]},
        },
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind.value}}},
                "then": {"properties": {"payload": _schema_of(PAYLOADS[kind], strict)}},
            }
            for kind in kinds
        ],
    }


_SAYS = {
    "id": "The same in every delivery: what repetitions are told by.",
    "schema_version": "Grows when a field is taken away or changes its meaning.",
    "seq": "Grows with each change of a decision; has gaps.",
    "kind": "What happened.",
    "occurred_at": "When, by the clock of the process that wrote it.",
    "account": "Label of the account; null where it concerns none or all.",
    "decision_hash": "The decision; null where it concerns none.",
    "actor": "Who did it: a part of Torghut, or a person (cli:NAME, http:TOKEN, console:TOKEN).",
    "payload": "What there is to say, by kind.",
}


def envelope_fields() -> Mapping[str, str]:
    """Each field of the envelope, and what it says."""
    return _SAYS


def _schema_of(payload: Payload, strict: bool) -> dict[str, object]:
    return {
        "description": payload.says,
        "required": list(payload.always),
        "properties": {**payload.always, **payload.sometimes},
        "additionalProperties": payload.open or not strict,
    }
