"""What the interface's document says of the routes of plans."""

from __future__ import annotations

from torghut.web.documents import (
    AMOUNT,
    BODY_PROBLEMS,
    INSTANT,
    READ_PROBLEMS,
    UNCHANGED,
    Document,
    answer,
    problems,
)

PLAN_EXAMPLE: Document = {
    "correlation_id": "rebalance-2026-01",
    "items": [
        {"symbol": "AAPL", "action": "sell", "trade_amount": "1500"},
        {"symbol": "SPY", "action": "buy", "trade_amount": "1500"},
    ],
}
POST_PLAN: Document = {
    "summary": "Submit a rebalance plan: sells first, then buys by what they brought",
    "status_code": 201,
    "responses": {
        201: answer("Created: stored, and carried out once"),
        200: answer("Replayed: the same plan was sent before; what became of it"),
        **problems(s409="Its correlation_id stands for another plan: `differing_fields`"),
        **BODY_PROBLEMS,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["correlation_id"],
                        "properties": {
                            "correlation_id": {"type": "string", "maxLength": 128},
                            "strategy": {"type": "string", "default": "rebalance"},
                            "account": {"type": "string"},
                            "items": {"type": "array", "items": {"type": "object"}},
                            "targets": {"type": "object", "additionalProperties": AMOUNT},
                            "sizing": {"enum": ["whole", "fractional"], "default": "whole"},
                            "min_trade_amount": {**AMOUNT, "default": "1"},
                            "cash": AMOUNT,
                            "on_failure": {
                                "enum": ["continue", "keep", "undo"],
                                "default": "continue",
                            },
                            "event_ts": INSTANT,
                            "expires_at": INSTANT,
                        },
                    },
                    "example": PLAN_EXAMPLE,
                }
            },
        },
    },
}
ONE_PLAN: Document = {
    "responses": {
        200: answer("The plan, its items, its statistics by phase, and the steps of its saga"),
        **UNCHANGED,
        **problems(s404="Not known"),
        **READ_PROBLEMS,
    }
}
