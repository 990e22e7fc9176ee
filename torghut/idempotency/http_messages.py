"""The two messages: what of a request is its key and its payload, what of a response is kept.

The key is a structured-field string (RFC 8941), `"8e03978e"`; without its quotes, as many clients
send it, it is the same key. The payload is method, path, query, media type and body, byte by byte.

Of a response status, headers and body are kept, but not what belongs to one connection
(hop-by-hop headers), to one instant (`Date`), or to one client (`Set-Cookie`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Scope

KEY_LENGTH_MAX = 255
REPLAYED = "idempotent-replayed"

_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(r"[!#-~](?:[ -~]*[!-~])?")
_NOT_KEPT = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "date",
        "set-cookie",
        "content-length",  # counted anew
        REPLAYED,
    }
)


class KeyMalformed(Exception):
    """The header is there and holds no key; the text completes "the Idempotency-Key …"."""


def key_of(scope: Scope) -> str | None:
    """The Idempotency-Key; None without one. Raises KeyMalformed."""
    given = Headers(scope=scope).getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1:
        raise KeyMalformed("is there more than once")
    text = given[0].strip()
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(text):
        key = text
    else:
        raise KeyMalformed('is neither a string in quotes, such as "8e03978e", nor a bare one')
    if not key:
        raise KeyMalformed("is empty")
    if len(key) > KEY_LENGTH_MAX:
        raise KeyMalformed(f"is {len(key)} characters long, at most {KEY_LENGTH_MAX} are allowed")
    return key


def by_authorization(scope: Scope) -> str:
    """Callers told apart by their Authorization header, of which only a digest is kept."""
    authorization = Headers(scope=scope).get("authorization")
    if authorization is None:
        return ""
    return hashlib.sha256(authorization.encode("latin-1", "replace")).hexdigest()


def request_digest(scope: Scope, body: bytes) -> str:
    """What makes two requests under one key the same request."""
    media_type = Headers(scope=scope).get("content-type", "").strip().lower()
    parts = (
        scope["method"].encode(),
        scope["path"].encode("utf-8", "surrogatepass"),
        scope.get("query_string", b""),
        media_type.encode("latin-1", "replace"),
        body,
    )
    whole = hashlib.sha256()
    for part in parts:
        whole.update(b"%d:" % len(part))  # lengths, so that no two splits are one text
        whole.update(part)
    return whole.hexdigest()


def head_of(start: Message, *, kept: bool) -> dict[str, object]:
    """Status and headers of a response, to be stored; `kept`: its body is stored beside them."""
    headers = list(start.get("headers", ()))
    named = {
        name.strip().lower()
        for field, value in headers
        if field.lower() == b"connection"
        for name in value.decode("latin-1").split(",")
    }
    stored = [
        (name, value.decode("latin-1"))
        for raw, value in headers
        if (name := raw.decode("latin-1").lower()) not in _NOT_KEPT | named
    ]
    return {"kind": "http", "status": start["status"], "headers": stored, "kept": kept}


def messages(head: Mapping[str, Any], body: bytes) -> Iterable[Message]:
    """The stored response once more, marked as replayed."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]]
    headers.append((REPLAYED.encode(), b"true"))
    if head["status"] >= 200 and head["status"] not in (204, 304):
        headers.append((b"content-length", str(len(body)).encode()))
    yield {"type": "http.response.start", "status": head["status"], "headers": headers}
    yield {"type": "http.response.body", "body": body}


def is_endless(start: Message) -> bool:
    """A stream of events is made to be read while it runs: it cannot be held back to be stored."""
    media_type = Headers(raw=list(start.get("headers", ()))).get("content-type", "")
    return media_type.partition(";")[0].strip().lower() == "text/event-stream"
