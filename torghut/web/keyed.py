"""`Idempotency-Key` of an operator's requests: the same again is answered with what it led to.

The middleware of torghut.idempotency, for the routes that are marked `@idempotent`: halt, reduce,
resume and resolve. Without the header they are as they were. Where a key is part of what a request
makes it is left to the route: decisions (it is their intent) and requests about orders (it is the
request_key of their rows, in the same transaction).
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Scope

from torghut import telemetry
from torghut.domain.errors import DatabaseUnavailable
from torghut.idempotency import Store
from torghut.idempotency.asgi import Policy, Refusal
from torghut.storage.database import Database
from torghut.web.parts import Staff
from torghut.web.problems import Problem, request_id_of

LEASE_S = 10.0  # how long a repeated halt is kept waiting by one that died
BODY_BYTES_MAX = 16 * 1024

ONLY_MARKED = Policy(enabled=False, request_bytes_max=BODY_BYTES_MAX)


def key_store(database: Database) -> Store:
    """The keys, in the daemon's own database and by its own transactions."""
    return Store(database.transaction, lease_s=LEASE_S, unavailable=(DatabaseUnavailable,))


def around(staff: Staff, store: Store) -> dict[str, Any]:
    """What the middleware is given, beside the app."""
    return {
        "store": store,
        "default": ONLY_MARKED,
        "refuse": _refused,
        "call": staff.operators.call,
        "observe": lambda answer: telemetry.KEYED_REQUESTS.labels(answer).inc(),
    }


def _refused(refusal: Refusal, scope: Scope) -> ASGIApp:
    problem = Problem(refusal.status, refusal.kind, refusal.detail, headers=refusal.headers)
    return problem.response(request_id_of(Request(scope)))
