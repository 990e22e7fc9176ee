"""An application with the middleware, on a real uvicorn server."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from torghut.idempotency import Store
from torghut.idempotency.asgi import IdempotencyMiddleware, exempt, idempotent
from torghut.web.server import HttpServer

LIMIT = 1000
KEY = "Idempotency-Key"


@dataclass
class Shop:
    """The application: `runs` says how often which body ran. `gate` holds /slow back."""

    store: Store
    how: dict[str, Any] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event = field(default_factory=threading.Event)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    status: int = 201

    def app(self) -> FastAPI:
        """The routes."""
        app = FastAPI()
        app.include_router(self._routes(), prefix="/v1")
        app.mount(
            "/mounted",
            Starlette(
                routes=[Route("/{n}", idempotent(required=True)(self._plain), methods=["POST"])]
            ),
        )
        app.add_middleware(IdempotencyMiddleware, self.store, observe=self.seen.append, **self.how)
        return app

    async def _plain(self, request: Request) -> Response:
        self.runs.append("mounted")
        return JSONResponse({"run": len(self.runs)})

    def _routes(self) -> APIRouter:
        routes = APIRouter()

        @routes.post("/orders")
        @routes.patch("/orders")
        @routes.get("/orders")
        async def order(request: Request) -> Response:
            body = await request.body()
            self.runs.append("order")
            headers = {"X-Run": str(len(self.runs)), "Connection": "X-Hop", "X-Hop": "1"}
            answer = Response(b"<" + body + b">", self.status, headers, "text/odd; charset=latin-1")
            answer.set_cookie("session", "secret")
            return answer

        @routes.post("/slow")
        def slow() -> dict[str, int]:
            self.runs.append("slow")
            number = len(self.runs)
            self.started.release()
            assert self.gate.wait(20)
            self.ended.release()
            return {"run": number}

        @routes.post("/broken")
        def broken() -> None:
            self.runs.append("broken")
            raise ZeroDivisionError

        @routes.post("/free")
        @exempt
        def free() -> int:
            self.runs.append("free")
            return len(self.runs)

        @routes.post("/needed")
        @idempotent(required=True, ttl_s=60)
        def needed() -> int:
            self.runs.append("needed")
            return len(self.runs)

        @routes.post("/again")
        @idempotent(on_takeover="run_again")
        def again() -> int:
            self.runs.append("again")
            return len(self.runs)

        @routes.post("/after")
        async def after() -> Response:
            self.runs.append("after")

            def background() -> None:
                assert self.gate.wait(20)
                self.ended.release()

            return JSONResponse(len(self.runs), background=BackgroundTask(background))

        self._add_streams(routes)
        return routes

    def _add_streams(self, routes: APIRouter) -> None:
        @routes.post("/stream/{chunks}")
        async def stream(chunks: int, kind: str = "text/plain") -> Response:
            self.runs.append("stream")

            async def parts() -> AsyncIterator[bytes]:
                for _ in range(chunks):
                    yield b"x" * 100

            return StreamingResponse(parts(), media_type=kind)


@contextmanager
def serving(shop: Shop) -> Iterator[httpx.Client]:
    """A client to the application."""
    server = HttpServer(shop.app(), "127.0.0.1", 0)
    server.start()
    base = f"http://127.0.0.1:{server.port}"
    try:
        with httpx.Client(base_url=base, timeout=30, trust_env=False) as client:
            yield client
    finally:
        shop.gate.set()
        server.stop()
