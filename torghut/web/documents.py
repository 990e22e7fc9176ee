"""The OpenAPI 3.1 document: what the routes' own code does not say of itself.

The bodies of intake are read by torghut.domain and not by FastAPI, so their schema stands here;
a test holds its fields to be those that the domain knows.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI

from torghut.domain.orders import OrderClass, OrderType, Side, TimeInForce
from torghut.web.document_answers import complete

Document = dict[str, Any]

AMOUNT: Document = {
    "type": ["string", "number"],
    "description": "Decimal, greater than 0, at most 9 decimals; text keeps it exact.",
}
INSTANT: Document = {"type": "string", "format": "date-time"}

EXAMPLE: Document = {
    "strategy": "crossover",
    "symbol": "AAPL",
    "side": "buy",
    "type": "limit",
    "qty": "10",
    "limit_price": "187.50",
    "event_ts": "2026-01-05T14:30:00Z",
}

DECISION: Document = {
    "type": "object",
    "additionalProperties": False,
    "required": ["strategy", "symbol", "side", "type", "event_ts"],
    "properties": {
        "strategy": {"type": "string", "maxLength": 128},
        "symbol": {"type": "string", "maxLength": 32},
        "side": {"enum": [side.value for side in Side]},
        "type": {"enum": [kind.value for kind in OrderType]},
        "qty": {**AMOUNT, "description": "Shares; exactly one of qty and notional."},
        "notional": {**AMOUNT, "description": "Account currency."},
        "limit_price": AMOUNT,
        "stop_price": AMOUNT,
        "trail_price": AMOUNT,
        "trail_percent": AMOUNT,
        "time_in_force": {"enum": [tif.value for tif in TimeInForce], "default": "day"},
        "extended_hours": {"type": "boolean", "default": False},
        "order_class": {"enum": [kind.value for kind in OrderClass], "default": "simple"},
        "take_profit": {
            "type": "object",
            "additionalProperties": False,
            "required": ["limit_price"],
            "properties": {"limit_price": AMOUNT},
        },
        "stop_loss": {
            "type": "object",
            "additionalProperties": False,
            "required": ["stop_price"],
            "properties": {"stop_price": AMOUNT, "limit_price": AMOUNT},
        },
        "event_ts": {**INSTANT, "description": "When the signal happened; never now."},
        "intent": {
            "type": "string",
            "maxLength": 256,
            "description": "Tells decisions apart that are otherwise the same signal.",
        },
        "expires_at": {**INSTANT, "description": "Must not trade after this."},
        "account": {
            "type": "string",
            "description": "One that is traded here; needed where none is the default.",
        },
        "correlation_id": {"type": "string", "maxLength": 256},
        "params": {"type": "object", "description": "The sender's own; at most 16 KiB."},
    },
    "examples": [EXAMPLE],
}

STREAM_EXAMPLE = (
    'id: NzQ…\nevent: decision.planned\ndata: {"id":"…","kind":"decision.planned",…}\n\n'
)

_INTAKE: Document = {
    "type": "object",
    "examples": [
        {"decision_hash": "3024afce" + "0" * 56, "status": "planned", "result": "created"}
    ],
    "required": ["decision_hash", "status", "result"],
    "properties": {
        "decision_hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "status": {"type": "string"},
        "result": {"enum": ["created", "replayed"]},
    },
}
_PROBLEM: Document = {
    "type": "object",
    "examples": [
        {
            "type": "urn:torghut:problem:invalid-decision",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": "1 fault found; see errors",
            "request_id": "5f1d0c8e9a7b6c5d",
            "errors": [{"field": "qty", "problem": "must be greater than 0, not -1"}],
        }
    ],
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
        "decision_hash": {"type": "string"},
        "differing_fields": {"type": "array", "items": {"type": "string"}},
    },
}
_PAGE: Document = {
    "type": "object",
    "examples": [{"items": [{"id": 17, "status": "planned"}], "next_cursor": "17"}],
    "required": ["items", "next_cursor"],
    "properties": {
        "items": {"type": "array", "items": {"type": "object"}},
        "next_cursor": {"type": ["string", "null"]},
    },
}
_SCHEMAS: Document = {
    "Decision": DECISION,
    "Intake": _INTAKE,
    "Problem": _PROBLEM,
    "Page": _PAGE,
}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, name: str | None = None) -> Document:
    """An answer in JSON, of a schema by its name."""
    schema = _ref(name) if name else {"type": "object"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def problems(**descriptions: str) -> Document:
    """Answers that are problem details: `s404="…"`."""
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {
        status.removeprefix("s"): {"description": text, "content": content}
        for status, text in descriptions.items()
    }


BODY_PROBLEMS = problems(
    s408="The body did not arrive in time",
    s413="The body is too large",
    s415="Another media type is needed",
    s422="Every fault, in `errors`",
    s429="Too many requests a second",
    s503="The database does not answer; nothing was acknowledged. Send the same again",
)
READ_PROBLEMS = problems(s422="A parameter is wrong", s503="The database does not answer")
_LINES = {
    "application/x-ndjson": {"schema": {"type": "string"}, "example": json.dumps(EXAMPLE) + "\n"}
}
_LINES_ANSWERED = {
    "application/x-ndjson": {
        "schema": {"type": "string"},
        "example": '{"line": 1, "decision_hash": "3024afce…", "result": "created"}\n',
    }
}


def _key(description: str) -> Document:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", "maxLength": 255},
    }


_REPEATABLE = _key("The same request under the same key is answered with what it led to.")
_KEY_PROBLEMS = problems(
    s400="The Idempotency-Key is malformed",
    s409="A request with this Idempotency-Key is being carried out, or may have been",
)

POST_DECISION: Document = {
    "summary": "Submit one decision",
    "status_code": 201,
    "responses": {
        201: answer("Created: stored, and executed at most once", "Intake"),
        200: answer("Replayed: the same decision was sent before", "Intake"),
        **problems(s409="Sent before with another payload: `differing_fields`"),
        **BODY_PROBLEMS,
    },
    "openapi_extra": {
        "parameters": [_key("Becomes the decision's `intent`.")],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("Decision"), "example": EXAMPLE}},
        },
    },
}
POST_BATCH: Document = {
    "summary": "Submit decisions, one JSON object per line",
    "responses": {
        200: {
            "description": "One line each, in order: line, decision_hash, result, error?",
            "content": _LINES_ANSWERED,
        },
        **BODY_PROBLEMS,
    },
    "openapi_extra": {"requestBody": {"required": True, "content": _LINES}},
}
UNCHANGED: dict[int, Document] = {
    304: {"description": "As it was when it had the ETag of If-None-Match"}
}
LIST: Document = {"responses": {200: answer("Newest first", "Page"), **UNCHANGED, **READ_PROBLEMS}}
EVENTS: Document = {
    "summary": "What happened, in order; as a stream for who accepts text/event-stream",
    "responses": {
        200: {
            "description": "Oldest first; `next_cursor` is always there, for the next question",
            "content": {
                "application/json": {"schema": _ref("Page")},
                "text/event-stream": {"schema": {"type": "string"}, "example": STREAM_EXAMPLE},
            },
        },
        **UNCHANGED,
        **READ_PROBLEMS,
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "The `id` of the last event of a stream; goes before `after`.",
                "schema": {"type": "string", "maxLength": 2000},
            }
        ]
    },
}
ONE: Document = {
    "responses": {
        200: answer("Found by its hash, or by 8 or more first characters of it"),
        **UNCHANGED,
        **problems(s404="Not known"),
        **READ_PROBLEMS,
    }
}
STATES: Document = {
    "responses": {
        200: answer("Every scope's state: actor, reason, since"),
        **UNCHANGED,
        **READ_PROBLEMS,
    }
}
STATUS: Document = {
    "responses": {200: answer("How the account stands"), **UNCHANGED, **READ_PROBLEMS}
}
TRADING_STATE: Document = {
    "responses": {
        200: answer("The scope's state, now and before"),
        **_KEY_PROBLEMS,
        **BODY_PROBLEMS,
    },
    "openapi_extra": {
        "parameters": [_REPEATABLE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["reason"],
                        "properties": {
                            "reason": {"type": "string", "maxLength": 500},
                            "account": {
                                "type": "string",
                                "description": "This account only; without any name: global.",
                            },
                            "strategy": {
                                "type": "string",
                                "description": "This strategy only, on every account.",
                            },
                        },
                    },
                    "example": {"reason": "halt before the announcement"},
                }
            },
        },
    },
}
RESOLVE: Document = {
    "summary": "Close a discrepancy that was looked into",
    "responses": {
        200: answer("The discrepancy and its resolution, which names who and why"),
        **_KEY_PROBLEMS,
        **problems(s404="No such discrepancy", s409="Closed already, or it would come back"),
        **BODY_PROBLEMS,
    },
    "openapi_extra": {
        "parameters": [_REPEATABLE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["reason"],
                        "properties": {"reason": {"type": "string", "maxLength": 500}},
                    },
                    "example": {"reason": "canceled at the broker"},
                }
            },
        },
    },
}
ORDER_REQUEST: Document = {
    "responses": {
        200: answer("Asked for before, under the same Idempotency-Key"),
        202: answer("Recorded; what becomes of it is in GET /v1/actions and /v1/decisions"),
        **problems(s404="No such decision", s409="The key was used for another request"),
        **BODY_PROBLEMS,
    },
    "openapi_extra": {
        "parameters": [_REPEATABLE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["reason"],
                        "properties": {
                            "reason": {"type": "string", "maxLength": 500},
                            "account": {
                                "type": "string",
                                "description": "Not for one decision's order; needed where none "
                                "is the default.",
                            },
                            "symbol": {"type": "string", "description": "orders:cancel only."},
                            "strategy": {"type": "string", "description": "orders:cancel only."},
                            "qty": {**AMOUNT, "description": ":replace and :close only."},
                            "limit_price": {**AMOUNT, "description": ":replace only."},
                            "stop_price": {**AMOUNT, "description": ":replace only."},
                            "trail": {**AMOUNT, "description": ":replace only."},
                            "time_in_force": {"type": "string", "description": ":replace only."},
                        },
                    },
                    "example": {"reason": "the news changed"},
                }
            },
        },
    },
}
PROBE: Document = {"responses": {200: answer("Yes"), 503: answer("No, and why")}}
METRICS: Document = {
    "responses": {200: {"description": "Prometheus text", "content": {"text/plain": {}}}}
}


def describe(app: FastAPI) -> None:
    """Add the schemas above and the security scheme to the app's document."""
    generate = app.openapi

    def openapi() -> Document:
        document = generate()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(_SCHEMAS)
        complete(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
