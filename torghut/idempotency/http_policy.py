"""What holds for one route, and how it is said: by a decorator on the endpoint.

    @app.post("/payments")
    @idempotent(required=True, ttl_s=7 * 86_400)
    async def pay(…): …

    @app.post("/events")
    @exempt
    async def stream(…): …

The decorator goes below the route's own, so that the framework gets the marked function. Routes of
Starlette and FastAPI are looked through, with mounted apps and included routers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

from torghut.idempotency.store import DAY_S

Endpoint = TypeVar("Endpoint", bound=Callable[..., object])

_MARK = "__idempotency__"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How requests of a route are treated.

    `required`: 400 without a key. `wait_s`: how long a second request waits for the first one's
    answer before 409. `on_takeover`: what a request does that finds the remains of one that died in
    the middle: `refuse` (409: its outcome is unknown) or `run_again`, for endpoints that may be
    carried out twice. `server_errors`: an answer of 5xx, or an exception, means that nothing
    happened (`release`: the next request runs), is an answer like others (`store`), or may have
    had an effect (`in_doubt`). `transient`: answers below 500 that are not kept either.
    """

    enabled: bool = True
    required: bool = False
    ttl_s: float = DAY_S
    wait_s: float = 0.0
    on_takeover: Literal["refuse", "run_again"] = "refuse"
    server_errors: Literal["release", "store", "in_doubt"] = "release"
    transient: frozenset[int] = frozenset({408, 425, 429})
    request_bytes_max: int = 1024 * 1024
    response_bytes_max: int = 1024 * 1024


def idempotent(**settings: Any) -> Callable[[Endpoint], Endpoint]:
    """Mark an endpoint: these fields of Policy, the others as the middleware's default has them."""
    replace(Policy(), **settings)  # a wrong name fails here and not with the first request

    def mark(endpoint: Endpoint) -> Endpoint:
        _set(endpoint, {"enabled": True, **settings})
        return endpoint

    return mark


def exempt(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint as one whose Idempotency-Key is not looked at here."""
    _set(endpoint, {"enabled": False})
    return endpoint


def _set(endpoint: object, settings: Mapping[str, object]) -> None:
    setattr(getattr(endpoint, "__func__", endpoint), _MARK, settings)  # of a method, its function


def policy_of(scope: Scope, default: Policy) -> Policy:
    """The policy of the route that a request will reach."""
    app = scope.get("app")
    endpoint = _endpoint(getattr(app, "routes", ()), scope)
    marked: Mapping[str, Any] | None = getattr(endpoint, _MARK, None)
    return default if marked is None else replace(default, **marked)


def _endpoint(routes: Iterable[BaseRoute], scope: Scope) -> object:
    for route in routes:
        # FastAPI keeps an included router as one entry; its routes are behind this method
        behind = getattr(route, "effective_route_contexts", None)
        for candidate in behind() if behind is not None else (route,):
            match, child = candidate.matches(dict(scope))
            if match is not Match.FULL:
                continue
            mounted = getattr(candidate, "starlette_route", None) or candidate
            if isinstance(mounted, Mount):
                return _endpoint(mounted.routes or (), {**scope, **child})
            return child.get("endpoint")
    return None
