"""Refusals of the middleware, as RFC 9457 problem details. Closed; docs/idempotency.md has them.

| kind | status |
|---|---|
| idempotency-key-missing, idempotency-key-malformed, idempotency-disconnected | 400 |
| idempotency-body-timeout | 408 |
| idempotency-in-progress, idempotency-outcome-unknown, idempotency-answer-not-kept | 409 |
| idempotency-body-too-large | 413 |
| idempotency-key-reused | 422 |
| idempotency-unavailable | 503 |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from starlette.responses import Response
from starlette.types import ASGIApp, Scope

RETRY_AFTER_S = 1
_NONE: Mapping[str, str] = MappingProxyType({})
_AGAIN: Mapping[str, str] = MappingProxyType({"Retry-After": str(RETRY_AFTER_S)})
_CLOSE: Mapping[str, str] = MappingProxyType({"Connection": "close"})  # the rest is not read


class Refusal(Exception):
    """An answer in place of the app's; nothing of the request has been carried out by it."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: Mapping[str, str] = _NONE
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = f"idempotency-{kind}"
        self.detail = detail
        self.headers = dict(headers)

    @classmethod
    def missing(cls) -> Refusal:
        return cls(400, "key-missing", "this operation needs an Idempotency-Key")

    @classmethod
    def malformed(cls, problem: str) -> Refusal:
        return cls(400, "key-malformed", f"the Idempotency-Key {problem}")

    @classmethod
    def disconnected(cls) -> Refusal:
        return cls(400, "disconnected", "the body ended early")

    @classmethod
    def slow(cls, seconds: float) -> Refusal:
        return cls(
            408, "body-timeout", f"the body did not arrive within {seconds:.0f} seconds", _CLOSE
        )

    @classmethod
    def too_large(cls, bytes_max: int) -> Refusal:
        detail = f"with an Idempotency-Key the body may have {bytes_max} bytes"
        return cls(413, "body-too-large", detail, _CLOSE)

    @classmethod
    def in_progress(cls) -> Refusal:
        detail = "a request with this Idempotency-Key is being carried out; ask again"
        return cls(409, "in-progress", detail, _AGAIN)

    @classmethod
    def unknown(cls) -> Refusal:
        return cls(
            409,
            "outcome-unknown",
            "a request with this Idempotency-Key ended before its answer was stored: whether it "
            "was carried out is not known. Look, and use another key if it was not",
        )

    @classmethod
    def not_kept(cls, status: int) -> Refusal:
        return cls(
            409,
            "answer-not-kept",
            f"the request with this Idempotency-Key was carried out and answered with {status}; "
            "that answer was too large to be kept",
        )

    @classmethod
    def reused(cls) -> Refusal:
        detail = "this Idempotency-Key was used for another request; give each its own"
        return cls(422, "key-reused", detail)

    @classmethod
    def unavailable(cls) -> Refusal:
        detail = "the database does not answer; nothing was carried out. Send the same again"
        return cls(503, "unavailable", detail, _AGAIN)


def problem(refusal: Refusal, _scope: Scope) -> ASGIApp:
    """The refusal as problem details."""
    body = {
        "type": f"urn:torghut:problem:{refusal.kind}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    return Response(json.dumps(body), refusal.status, refusal.headers, "application/problem+json")
