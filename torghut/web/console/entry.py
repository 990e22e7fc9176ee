"""The way in and out, what pages load, and the stream that keeps them live."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import structlog
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from torghut.storage import insights
from torghut.web.console.frame import CHOSEN, SIGN_IN, Frame, read_form, redirect
from torghut.web.console.live import Live
from torghut.web.console.rendering import HEADERS
from torghut.web.console.sessions import check_csrf, check_origin
from torghut.web.gate import RateLimit
from torghut.web.problems import Problem, request_id_of

MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SIGN_INS_PER_S = 2.0

log = structlog.get_logger(__name__)


def add(routes: APIRouter, frame: Frame) -> Live:
    """The routes; the stream's hub is ended by whoever ends the server."""
    _add_sign_in(routes, frame)
    _add_choice(routes, frame)
    _add_static(routes)

    async def newest() -> int:
        number: int = await frame.reader.ask(insights.newest_event)
        return number

    hub = Live(newest)

    async def live(request: Request) -> Response:
        if frame.session_of(request) is None:
            raise Problem(401, "unauthenticated", "sign in first")
        return StreamingResponse(hub.listen(), media_type="text/event-stream", headers=HEADERS)

    routes.add_api_route("/console/live", live, methods=["GET"], include_in_schema=False)
    return hub


def _add_sign_in(routes: APIRouter, frame: Frame) -> None:
    tries = RateLimit(SIGN_INS_PER_S)

    async def ask(request: Request) -> Response:
        if frame.session_of(request) is not None:
            return redirect("/")
        after = request.query_params.get("next", "/")
        return frame.show(request, None, "sign_in.html", {"after": after, "wrong": False})

    async def sign_in(request: Request) -> Response:
        try:
            check_origin(request)
            form = await read_form(request)
            client = request.client.host if request.client else ""
            if not tries.take(client):
                raise Problem(429, "rate-limited", "too many tries; wait a second")
        except Exception as error:  # noqa: BLE001 - shown as a page, and logged
            return frame.failed(request, None, error)
        session = frame.sessions.sign_in(form.get("token", ""))
        after = form.get("next", "/")
        if session is None:
            log.warning("sign-in refused", client=client, request_id=request_id_of(request))
            seen = {"after": after, "wrong": True}
            return frame.show(request, None, "sign_in.html", seen, status=403)
        log.info("signed in", actor=session.actor, request_id=request_id_of(request))
        response = redirect(after)
        frame.sessions.keep(response, request, session)
        return response

    async def sign_out(request: Request) -> Response:
        session = frame.session_of(request)
        try:
            check_origin(request)
            if session is not None:
                check_csrf(session, await read_form(request))
        except Exception as error:  # noqa: BLE001 - shown as a page, and logged
            return frame.failed(request, session, error)
        response = redirect(SIGN_IN)
        frame.sessions.end(response)
        return response

    for path, method, answer in (
        (SIGN_IN, "GET", ask),
        (SIGN_IN, "POST", sign_in),
        ("/console/sign-out", "POST", sign_out),
    ):
        routes.add_api_route(path, answer, methods=[method], include_in_schema=False)


def _add_choice(routes: APIRouter, frame: Frame) -> None:
    """Which account is looked at. It changes nothing but what this browser is shown."""

    async def choose(request: Request) -> Response:
        if frame.session_of(request) is None:
            return frame.ask_to_sign_in(request)
        response = redirect(request.query_params.get("next", "/"))
        account = request.query_params.get("name", "")
        if account in frame.parts.settings.labels:
            frame.sessions.choose(response, request, CHOSEN, account)
        return response

    path = "/console/account"
    routes.add_api_route(path, choose, methods=["GET"], include_in_schema=False)


def _add_static(routes: APIRouter) -> None:
    """Three files, read once; their address has no say in what is read."""
    kept: dict[str, tuple[bytes, str, str]] = {}
    for file in files("torghut.web.console").joinpath("static").iterdir():
        media_type = MEDIA_TYPES.get(f".{file.name.rpartition('.')[2]}")
        if media_type is not None:
            content = file.read_bytes()
            kept[file.name] = content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def static(request: Request, name: str) -> Response:
        if name not in kept:
            raise Problem(404, "http", "Not Found")
        content, media_type, tag = kept[name]
        headers = {**HEADERS, "Cache-Control": "no-cache", "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    path = "/console/static/{name}"
    routes.add_api_route(path, static, methods=["GET"], include_in_schema=False)
