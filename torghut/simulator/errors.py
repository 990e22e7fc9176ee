"""Refusals: the HTTP status, Alpaca's numeric code and its message, as one exception.

Clients must tell cases apart by status and message: code 40310000 covers many of them, and
the code of one case has been seen to vary. The text of each message follows measured answers
of the paper API where there are any (see docs/divergences.md).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from torghut.simulator.numbers import text

BAD_BODY = 40010000
INVALID = 40010001
FORBIDDEN = 40310000
NOT_FOUND = 40410000
UNPROCESSABLE = 42210000
RATE_LIMITED = 42910000


class ApiError(Exception):
    """The request is refused and nothing was changed."""

    def __init__(
        self, status: int, code: int | None, message: str, extra: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra or {}

    def body(self) -> dict[str, Any]:
        """The JSON object that is sent: `code` (absent for 401), `message` and further keys."""
        coded = {} if self.code is None else {"code": self.code}
        return {**coded, "message": self.message, **self.extra}


def bad_body() -> ApiError:
    """The body is not a JSON object of the right types."""
    return ApiError(400, BAD_BODY, "request body format is invalid")


def invalid(message: str) -> ApiError:
    """A field is missing or has a value that no order can have."""
    return ApiError(422, INVALID, message)


def unprocessable(message: str) -> ApiError:
    """The order is well formed, and breaks a trading rule."""
    return ApiError(422, UNPROCESSABLE, message)


def forbidden(message: str, **extra: Any) -> ApiError:
    """The account may not do this now."""
    return ApiError(403, FORBIDDEN, message, extra)


def order_not_found(reference: str) -> ApiError:
    """No order with this broker id or client id."""
    return ApiError(404, NOT_FOUND, f"order not found for {reference}")


def insufficient_qty(
    symbol: str, requested: Decimal, existing: Decimal, held: Decimal, related: list[str]
) -> ApiError:
    """Selling (or covering) more than the position has free of other open orders."""
    available = max(existing - held, Decimal(0))
    return forbidden(
        "insufficient qty available for order "
        f"(requested: {text(requested)}, available: {text(available)})",
        available=text(available),
        existing_qty=text(existing),
        held_for_orders=text(held),
        symbol=symbol,
        related_orders=related,
    )
