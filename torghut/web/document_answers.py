"""What every operation of the OpenAPI document has in common: who may ask, what may come back.

The gate answers before any route does, so that its answers belong to each of them: written once
here, from the gate's own rules.
"""

from __future__ import annotations

from typing import Any

from torghut.web.gate import OPEN_PATHS, WEBHOOKS, scope_needed

Document = dict[str, Any]

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_METHODS = ("get", "post")


def complete(document: Document) -> None:
    """Add to each operation its scope, and the answers of the gate and of the framework."""
    document["security"] = [{"token": []}]
    document["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of `torghut token create`, with the scope that each operation"
            " names: read, submit or operate. Where none was made, none is needed.",
        }
    }
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                _complete(item[method], method.upper(), path)


def _complete(operation: Document, method: str, path: str) -> None:
    common: dict[str, str] = {}
    if path in OPEN_PATHS:
        operation["security"] = []
    elif path.startswith(WEBHOOKS):
        operation["security"] = []
        common["429"] = "Too many requests a second"
    else:
        operation["security"] = [{"token": [scope_needed(method, path).value]}]
        common |= {
            "401": "No token, or one that is not known, revoked or over",
            "403": "The token has not the scope, or the Host is no loopback name",
            "429": "Too many requests a second",
            "503": "The database does not answer; the same again a little later",
        }
    if "{" in path:
        common["404"] = "There is nothing of this name"
    if "requestBody" in operation:
        common["400"] = "The body ended early, or a header is malformed"
    responses = operation.setdefault("responses", {})
    for status, says in common.items():
        responses.setdefault(status, {"description": says, "content": PROBLEM})
    if "401" in responses:
        responses["401"]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    for status in ("429", "503"):
        if status in responses and path not in OPEN_PATHS:
            responses[status]["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
