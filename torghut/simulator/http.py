"""Requests, replies and routes: the little HTTP vocabulary of the simulator's handlers.

A handler is a plain function from `Request` to `Reply`. It runs to its end without waiting, so
the book never changes under it, and a fault can be put between its work and its answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from torghut.simulator.clock import parse_rfc3339
from torghut.simulator.errors import ApiError, bad_body, invalid
from torghut.simulator.orders import Order

JSON = "application/json; charset=UTF-8"
HTML = "text/html"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@dataclass
class Request:
    """One HTTP request with its body read."""

    method: str
    path: str
    query_string: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    params: tuple[str, ...] = ()

    @cached_property
    def query(self) -> dict[str, str]:
        """Query parameters; of a repeated one the last."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @cached_property
    def json(self) -> Any:
        """The body as JSON with decimals exact. Raises ApiError 400."""
        try:
            return json.loads(self.body, parse_float=Decimal, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise bad_body() from error

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """An integer query parameter. Raises ApiError 422."""
        raw = self.query.get(name) or str(default)
        if not re.fullmatch(r"-?\d{1,9}", raw) or not low <= int(raw) <= high:
            raise invalid(f"{name} must be an integer between {low} and {high}")
        return int(raw)

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """A query parameter from a closed set. Raises ApiError 422."""
        value = (self.query.get(name) or default).lower()
        if value not in allowed:
            raise invalid(f"invalid {name}: {value}")
        return value

    def instant(self, name: str) -> datetime | None:
        """An RFC 3339 query parameter, or None. Raises ApiError 422."""
        raw = self.query.get(name)
        if not raw:
            return None
        try:
            return parse_rfc3339(raw)
        except ValueError as error:
            raise invalid(f"{name} must be an RFC 3339 timestamp or a date") from error

    def names(self, name: str) -> list[str]:
        """A comma-separated query parameter."""
        return [part.strip() for part in self.query.get(name, "").split(",") if part.strip()]


@dataclass(slots=True)
class Reply:
    """One HTTP response. `order` is the order it shows, for faults that need it."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    order: Order | None = None


Handler = Callable[[Request], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """A path with `{}` for each variable segment. `name` is what fault rules call it."""

    name: str
    method: str
    path: str
    handler: Handler


def reply_json(value: Any, status: int = 200, order: Order | None = None) -> Reply:
    """A JSON reply."""
    return Reply(status, json.dumps(value, separators=(",", ":")).encode(), order=order)


def reply_error(error: ApiError) -> Reply:
    """A refusal."""
    return reply_json(error.body(), error.status)


class Routes:
    """Finds the route of a request: exact paths first, then patterns in order."""

    def __init__(self, routes: list[Route]) -> None:
        self._exact = {(r.method, r.path): r for r in routes if "{}" not in r.path}
        self._patterns = [
            (r.method, re.compile(re.escape(r.path).replace(r"\{\}", "([^/]+)")), r)
            for r in routes
            if "{}" in r.path
        ]
        self.names = sorted({route.name for route in routes})

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
        """The route and the variable segments, or None."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, ()
        for wanted, pattern, route in self._patterns:
            match = pattern.fullmatch(path) if wanted == method else None
            if match:
                return route, match.groups()
        return None
