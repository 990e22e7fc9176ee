"""What the OpenAPI document says of the webhooks."""

from __future__ import annotations

from torghut.domain.alerts import FIELDS, NEEDED
from torghut.web.documents import BODY_PROBLEMS, Document, answer, problems

EXAMPLE: Document = {
    "secret": "long and random",
    "alert": "trend",
    "ticker": "AAPL",
    "action": "buy",
    "contracts": "10",
    "time": "2026-01-05T14:30:00Z",
    "timenow": "2026-01-05T14:35:00Z",
}

ALERT: Document = {
    "summary": "An alert of TradingView",
    "status_code": 201,
    "responses": {
        201: answer("Created: stored, and executed at most once", "Intake"),
        200: answer("Replayed: the same event was sent before", "Intake"),
        **BODY_PROBLEMS,
        **problems(
            s401="The secret is wrong",
            s404="The settings have no [webhooks.tradingview]",
            s409="The same event was sent before as another order; it stands in Attention",
            s422="Wrong or stale, see `errors`; it stands in Attention",
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": list(NEEDED),
                        "properties": {name: {"type": ["string", "number"]} for name in FIELDS},
                    },
                    "example": EXAMPLE,
                }
            },
        }
    },
}
