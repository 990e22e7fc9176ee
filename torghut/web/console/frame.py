"""The frame of every page and action: who asks, one transaction, a template, and what goes wrong.

A page's own part is a *look*: a function from a read-only transaction and what was asked to the
names of its template. An action's own part is a *step*: a function from who asks and the form's
fields to one sentence about what was done. Problems become pages, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog
from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection
from starlette.responses import RedirectResponse

from torghut.domain.errors import DatabaseUnavailable, Fault, InvalidDecision
from torghut.services.operator import NotChanged, NotResolved, UnknownDiscrepancy
from torghut.services.order_requests import RequestRefused, UnknownDecision
from torghut.services.refusals import NothingDismissed
from torghut.services.tie_out import NothingToAccept
from torghut.storage import queries
from torghut.storage.queries import HashNotUsable
from torghut.web.bodies import read_body
from torghut.web.console.rendering import HEADERS, Pages, now_text
from torghut.web.console.sessions import (
    Session,
    Sessions,
    check_csrf,
    check_origin,
    check_scope,
    stale_form,
)
from torghut.web.keyring import Keyring
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem, invalid, problem_of, request_id_of, unavailable
from torghut.web.reads_api import Reader

FORM = ("application/x-www-form-urlencoded",)
FORM_BYTES_MAX = 16 * 1024
FORM_FIELDS_MAX = 20
SIGN_IN = "/console/sign-in"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a page was asked for; `standing` is how the account stands (queries.standing)."""

    account: str
    query: Mapping[str, str]
    path: Mapping[str, str]
    now: datetime
    standing: Mapping[str, Any]


Look = Callable[[Connection, Asked], Mapping[str, Any]]
Step = Callable[[Session, Mapping[str, str], datetime], str]

CHOSEN = "torghut_account"
"""The cookie that says which account is looked at, where there are several."""


class Frame:
    """Makes routes of looks and steps."""

    def __init__(self, parts: WebParts, staff: Staff, keyring: Keyring) -> None:
        self.parts = parts
        self.reader = Reader(parts, staff)
        self.sessions = Sessions(keyring)
        self.pages = Pages()
        self._readers = staff.readers
        self._operators = staff.operators

    def page(self, routes: APIRouter, path: str, template: str, look: Look) -> None:
        """GET `path`: a look, shown by a template."""

        async def show(request: Request) -> Response:
            session = self.session_of(request)
            if session is None:
                return self.ask_to_sign_in(request)
            try:
                look_at = partial(self._look, look, request, self.account(request))
                seen = await self.reader.ask(look_at)
                shown = partial(self.show, request, session, template, seen)
                return await self._readers.call(shown)
            except Exception as error:  # noqa: BLE001 - shown as a page, and logged
                return self.failed(request, session, error)

        routes.add_api_route(path, show, methods=["GET"], include_in_schema=False)

    def action(self, routes: APIRouter, path: str, step: Step) -> None:
        """POST `path`: a step, and back to the page that the form was on."""

        async def act(request: Request) -> Response:
            session = self.session_of(request)
            if session is None and self.sessions.asks:
                return self.ask_to_sign_in(request)
            try:
                check_origin(request)
                if session is None:
                    raise stale_form()
                form = await read_form(request)
                check_csrf(session, form)
                form["account"] = self._account_of(form)
                check_scope(session)
                done = partial(step, session, form, self.parts.clock())
                said = await self._operators.call(done)
            except Exception as error:  # noqa: BLE001 - shown as a page, and logged
                return self.failed(request, session, error)
            log.warning(
                "console action",
                action=path,
                actor=session.actor,
                reason=form.get("reason", ""),
                request_id=request_id_of(request),
            )
            response = redirect(form.get("back", ""))
            self.sessions.say(response, request, said)
            return response

        routes.add_api_route(path, act, methods=["POST"], include_in_schema=False)

    # ------------------------------------------------------------------ pieces

    def account(self, request: Request) -> str:
        """The account that is looked at: the one that was chosen, else the default, else the
        first."""
        settings = self.parts.settings
        chosen = request.cookies.get(CHOSEN)
        if chosen in settings.labels:
            return str(chosen)
        return settings.default_account or settings.labels[0]

    def _account_of(self, form: Mapping[str, str]) -> str:
        """A form is about the account of its own page, whatever another tab has chosen since."""
        labels = self.parts.settings.labels
        named = form.get("account", labels[0] if len(labels) == 1 else "")
        if named not in labels:
            raise stale_form()
        return named

    def session_of(self, request: Request) -> Session | None:
        """Who asks; None if they have to sign in first."""
        session = self.sessions.of(request)
        if session is None and not self.sessions.asks and request.method == "GET":
            return self.sessions.local()
        return session

    def ask_to_sign_in(self, request: Request) -> Response:
        """To the sign-in, and back to this page after it."""
        if request.method != "GET":
            return redirect(SIGN_IN)
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return redirect(f"{SIGN_IN}?{urlencode({'next': here})}")

    def show(
        self,
        request: Request,
        session: Session | None,
        template: str,
        context: Mapping[str, Any],
        *,
        status: int = 200,
    ) -> Response:
        """A page with what every page has."""
        account = self.account(request)
        settings = self.parts.settings.of(account)
        common: dict[str, Any] = {
            "here": request.url.path,
            "back": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "session": session,
            "signs_in": self.sessions.asks,
            "account": account,
            "accounts": self.parts.settings.labels,
            "mode": settings.trading_mode,
            "shadow": not settings.trading_enabled,
            "said": self.sessions.said(request),
            "now": self.parts.clock(),
            "now_text": now_text(self.parts.clock()),
            "standing": None,
        }
        response = self.pages.page(template, {**common, **context}, status=status)
        if session is not None and self.sessions.of(request) is None:
            self.sessions.keep(response, request, session)
        if common["said"] is not None:
            self.sessions.heard(response)
        return response

    def failed(self, request: Request, session: Session | None, error: Exception) -> Response:
        """What went wrong, as a page."""
        problem = problem_of(_as_problem(error))
        if isinstance(error, DatabaseUnavailable) and request.method == "GET":
            problem = unavailable("the database does not answer; load the page again in a moment")
        if problem.status == 500:
            log.exception("page not served", request_id=request_id_of(request), exc_info=error)
        elif problem.status > 500:
            log.warning("page not served", request_id=request_id_of(request), error=str(error))
        context = {"problem": problem, "request_id": request_id_of(request)}
        return self.show(request, session, "problem.html", context, status=problem.status)

    def _look(
        self, look: Look, request: Request, account: str, tx: Connection
    ) -> Mapping[str, Any]:
        now = self.parts.clock()
        asked = Asked(
            account=account,
            query={name: value for name, value in request.query_params.items() if value.strip()},
            path={name: str(value) for name, value in request.path_params.items()},
            now=now,
            standing=queries.standing(tx, account, now=now),
        )
        return {"standing": asked.standing, "query": asked.query, **look(tx, asked)}


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises Problem 413, 415, 422."""
    body = await read_body(request, bytes_max=FORM_BYTES_MAX, media_types=FORM)
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX, errors="strict"
        )
    except ValueError:
        raise invalid([Fault("", "is no form")], kind="invalid-request") from None
    return dict(pairs)


def redirect(to: str) -> Response:
    """To a page of the console; anything else means the first one."""
    own = to == "/" or to.startswith(("/?", "/#", "/console/"))
    return RedirectResponse(to if own and to.isprintable() else "/", 303, headers=HEADERS)


def _as_problem(error: Exception) -> Exception:
    """The services' refusals as problems with a status."""
    if isinstance(error, NotChanged):
        return invalid([error.fault], kind="invalid-request")
    if isinstance(error, RequestRefused):
        if error.conflict:
            return Problem(409, "conflict", "this form was sent before; load its page again")
        return invalid(error.faults, kind="invalid-request")
    if isinstance(error, InvalidDecision):
        return invalid(error.faults, kind="invalid-request")
    if isinstance(error, UnknownDecision | UnknownDiscrepancy):
        return Problem(404, "unknown", str(error))
    if isinstance(error, NotResolved | NothingToAccept | NothingDismissed):
        return Problem(409, "not-resolved", str(error))
    if isinstance(error, HashNotUsable):
        return Problem(404, "unknown", str(error))
    return error
