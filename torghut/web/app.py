"""The HTTP interface as one ASGI application.

```
request ─▶ gate ─▶ keyed ─▶ routes ─▶ workers ─▶ services · storage
           id host  answers  │
           rate     again    ├─ decisions_api   POST /v1/decisions, /v1/decisions:batch
           scope             ├─ reads_api       GET  /v1/decisions|executions|fills|positions|…
                             ├─ events_api      GET  /v1/events
                             ├─ operator_api    POST /v1/halt, /v1/reduce, /v1/resume
                             ├─ orders_api      POST …:cancel, …:replace, …:close, /v1/flatten
                             ├─ plans_api       POST, GET /v1/plans
                             ├─ webhooks_api    POST /webhooks/tradingview
                             ├─ probes          GET  /healthz, /readyz, /metrics
                             └─ console         GET  /, /console/…; POST /console/…
```

1. Whatever is not a success is problem details (torghut.web.problems), unknown routes included.
2. The event loop parses small things and waits; all that touches the database is on a few threads
   (torghut.web.workers), so that HTTP cannot take the connections that trading needs.
3. Nothing here decides anything about orders: it stores decisions and requests, and reads.

Failure behaviour: database away → 503 with Retry-After and nothing acknowledged; the process goes
on and serves again when the database does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from torghut.domain.errors import TorghutError
from torghut.idempotency.asgi import IdempotencyMiddleware
from torghut.web import (
    decisions_api,
    documents,
    events_api,
    keyed,
    operator_api,
    orders_api,
    plans_api,
    probes,
    reads_api,
    webhooks_api,
)
from torghut.web.console import routes as console
from torghut.web.gate import Gate, RateLimit
from torghut.web.keyring import Keyring
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem, answer
from torghut.web.reads_api import Reader

__all__ = ["WebParts", "create_app"]


def create_app(parts: WebParts) -> FastAPI:
    """The application; one per server, as its threads end with the server's lifespan."""
    staff = Staff(parts.desk)
    keys = keyed.key_store(parts.database)
    settings = parts.settings
    keyring = Keyring(
        settings.credentials(), parts.database, required=settings.require_token, clock=parts.clock
    )
    pages, live = console.router(parts, staff, keyring)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await keyring.look()
        yield
        live.close()
        staff.close()
        keys.close()
        keyring.close()

    app = FastAPI(
        title="Torghut",
        summary="Trading decisions in, broker orders out, exactly once.",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    for kind in (Problem, TorghutError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
    app.include_router(decisions_api.router(parts, staff), prefix="/v1")
    reader = Reader(parts, staff)
    reads = reads_api.router(parts, reader)
    feed = events_api.add(reads, reader)
    app.include_router(reads, prefix="/v1")
    app.include_router(operator_api.router(parts, staff), prefix="/v1")
    app.include_router(orders_api.router(parts, staff), prefix="/v1")
    app.include_router(plans_api.router(parts, staff, reader), prefix="/v1")
    app.include_router(webhooks_api.router(parts, staff))
    app.include_router(probes.router(parts, staff))
    app.include_router(pages)

    def end_streams() -> None:
        live.close()
        feed.close()

    app.state.end_streams = end_streams
    app.add_middleware(IdempotencyMiddleware, **keyed.around(staff, keys))
    app.add_middleware(
        Gate,
        keyring=keyring,
        rate=RateLimit(parts.rate_per_s),
        host=settings.http_host,
    )
    documents.describe(app)
    return app


def _version() -> str:
    try:
        return version("torghut")
    except PackageNotFoundError:
        return "0"
