"""What one HTTP answer of Alpaca proves. Pure: no I/O, no clock.

```
Reply (status, headers, body) ─┬─ submission_answer ──▶ Answer: one Outcome, by the table there
                               ├─ cancel_answer ──────▶ Answer: the same, a 2xx without an order
                               ├─ lookup_answer ──────▶ Lookup: found, or a definite 404
                               ├─ order_not_found, error_of ─▶ the broker's own words
                               └─ rate_of, retry_at ──▶ X-RateLimit-*
```

1. Only a definite answer gives a definite status (P4): what no row of the table names is IN_DOUBT.
2. A refusal is known by HTTP status *and* message. `code` is kept as evidence and decides nothing
   on its own: 40310000 is a dozen different refusals, and 40010001 arrives with 422.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from torghut.brokers.alpaca_mapping import MalformedBody, clean_text, load_json, order_of
from torghut.ports import Answer, Lookup, Outcome, RateState

BODY_BYTES_MAX = 4096
MESSAGE_LENGTH_MAX = 1000

_UNIQUE_ID = "client_order_id must be unique"
# Refusals of the keys or of the account, whatever the order was (contract sheet, "Errors").
# "account is not allowed to short" is not among them: a sell to open is refused, a buy is not.
_ACCOUNT_REFUSAL = re.compile(
    r"^\s*(forbidden|unauthorized)\b"
    r"|request is not authorized"
    r"|access key verification failed"
    r"|account is not authorized to trade"
    r"|account is restricted to liquidation only"
    r"|new orders are rejected by user request"
    r"|account( is| has been)? (blocked|suspended|disabled|closed)"
    r"|trading( is| has been)? (blocked|suspended|disabled)\b(?! for)(?!.*\basset\b)"
    r"|account is (not active|inactive)",
    re.IGNORECASE,
)
_ORDER_NOT_FOUND_CODE = "40410000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One complete HTTP answer. Header names are lower-case; `body` is decoded and redacted.

    `received_at` (UTC) is only used to turn a `Retry-After` in seconds into an instant.
    """

    status: int
    body: bytes
    received_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The body as evidence: cut to 4 KiB, always storable."""
        text = self.body[:BODY_BYTES_MAX].decode("utf-8", "replace").replace("\0", "\ufffd")
        return text.encode()[:BODY_BYTES_MAX].decode("utf-8", "ignore")

    @property
    def request_id(self) -> str | None:
        """X-Request-ID: what Alpaca's support asks for."""
        value = self.headers.get("x-request-id")
        return clean_text(value[:128]) if value else None


def submission_answer(reply: Reply, client_order_id: str) -> Answer:
    """What the answer to POST /orders, or to PATCH of one, proves; the first row that fits.

    | status, body                                          | outcome         |
    |-------------------------------------------------------|-----------------|
    | 2xx, readable order with our id                       | ACCEPTED        |
    | 4xx, message "client_order_id must be unique"         | EXISTS          |
    | 401, whatever the body: keys are judged first         | ACCOUNT_REFUSED |
    | 429, whatever the body                                | RATE_LIMITED    |
    | 400 403 422, message about keys or account            | ACCOUNT_REFUSED |
    | 400 403 422 with a JSON message; 404 with a code, too | REFUSED         |
    | everything else: other 2xx, 3xx, 5xx, 408, 409, HTML  | IN_DOUBT        |

    A JSON 404 without a code is a gateway that knows no such route, and a page of HTML is a
    gateway as well: neither is the broker's word about the order.
    """
    return _taken(reply, client_order_id) if 200 <= reply.status < 300 else _not_taken(reply)


def cancel_answer(reply: Reply) -> Answer:
    """What the answer to DELETE of an order proves: a 2xx that it was asked for, else as above.

    A 404 or 422 does not say how the order ended, only that it is to be asked for.
    """
    if 200 <= reply.status < 300:
        return Answer(
            outcome=Outcome.ACCEPTED,
            http_status=reply.status,
            body=reply.text,
            request_id=reply.request_id,
        )
    return _not_taken(reply)


def _not_taken(reply: Reply) -> Answer:
    code, message = error_of(reply)
    outcome = _refusal(reply.status, code, message)
    return Answer(
        outcome=outcome,
        http_status=reply.status,
        broker_code=code,
        message=message or f"HTTP {reply.status} without a readable message",
        body=reply.text,
        request_id=reply.request_id,
        retry_at=retry_at(reply) if outcome is Outcome.RATE_LIMITED else None,
    )


def _taken(reply: Reply, client_order_id: str) -> Answer:
    order, message = None, ""
    try:
        order = order_of(load_json(reply.body))
        if order.client_order_id != client_order_id:
            message = f"answered with another order: {order.client_order_id[:128]!r}"
    except MalformedBody as error:
        message = f"HTTP {reply.status}, but no readable order: {error}"
    return Answer(
        outcome=Outcome.IN_DOUBT if message else Outcome.ACCEPTED,
        order=None if message else order,
        http_status=reply.status,
        message=message,
        body=reply.text,
        request_id=reply.request_id,
    )


def _refusal(status: int, code: str | None, message: str) -> Outcome:
    if 400 <= status < 500 and _UNIQUE_ID in message.lower():
        return Outcome.EXISTS
    if status == 401:
        return Outcome.ACCOUNT_REFUSED
    if status == 429:
        return Outcome.RATE_LIMITED
    if status in (400, 403, 422) and message:
        account = _ACCOUNT_REFUSAL.search(message)
        return Outcome.ACCOUNT_REFUSED if account else Outcome.REFUSED
    if status == 404 and message and code is not None:
        return Outcome.REFUSED
    return Outcome.IN_DOUBT


def lookup_answer(reply: Reply, client_order_id: str) -> Lookup | None:
    """Found, or the broker's own "order not found"; None: the answer proves neither.

    Raises MalformedBody on a 200 that is unreadable or about another order.
    """
    if reply.status == 200:
        order = order_of(load_json(reply.body))
        if order.client_order_id != client_order_id:
            raise MalformedBody(f"another order came back: {order.client_order_id[:128]!r}")
        return Lookup(order=order, body=reply.text)
    return Lookup(order=None, body=reply.text) if order_not_found(reply) else None


def order_not_found(reply: Reply) -> bool:
    """A 404 that is the broker's own word; a gateway's 404 (HTML, "no Route matched") is not."""
    if reply.status != 404:
        return False
    code, message = error_of(reply)
    return code == _ORDER_NOT_FOUND_CODE or "order not found" in message.lower()


def asset_not_found(reply: Reply) -> bool:
    """A 404 about the asset itself; any other says that the broker keeps no such list."""
    return reply.status == 404 and "asset" in error_of(reply)[1].lower()


def error_of(reply: Reply) -> tuple[str | None, str]:
    """(code, message) of an error body; (None, "") when it is not a JSON object with a message."""
    try:
        body = load_json(reply.body)
    except MalformedBody:
        return None, ""
    if not isinstance(body, Mapping):
        return None, ""
    code, message = body.get("code"), body.get("message")
    shown = str(code)[:32] if isinstance(code, (int, str)) and not isinstance(code, bool) else None
    return shown, message.strip()[:MESSAGE_LENGTH_MAX] if isinstance(message, str) else ""


def retry_at(reply: Reply) -> datetime | None:
    """When to ask again: X-RateLimit-Reset (UNIX seconds), else Retry-After in seconds."""
    reset = rate_of(reply).reset_at
    if reset is not None:
        return reset
    wait_s = _header_number(reply, "retry-after")
    try:
        return None if wait_s is None else reply.received_at + timedelta(seconds=wait_s)
    except OverflowError:
        return None


def rate_of(reply: Reply) -> RateState:
    """X-RateLimit-* of one answer; None where a header is missing or no number."""
    limit = _header_number(reply, "x-ratelimit-limit")
    remaining = _header_number(reply, "x-ratelimit-remaining")
    reset_s = _header_number(reply, "x-ratelimit-reset")
    try:
        reset = None if reset_s is None else datetime.fromtimestamp(reset_s, UTC)
    except (OverflowError, ValueError, OSError):
        reset = None
    return RateState(limit=limit, remaining=remaining, reset_at=reset)


def _header_number(reply: Reply, name: str) -> int | None:
    value = reply.headers.get(name, "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 15 else None
