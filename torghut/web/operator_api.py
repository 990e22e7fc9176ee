"""POST /v1/halt and /v1/resume: an operator stops trading, and lets it go on.

Body: `{"reason": "why", "account": "…"?}`; without an account the global state is changed. The
answer is the scope's state now and before. The change is on disk when the answer is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial

import structlog
from fastapi import APIRouter, Request, Response

from torghut.domain.decisions import load_json
from torghut.domain.errors import Fault, InvalidDecision
from torghut.domain.values import parse_text, shown_name
from torghut.services import operator
from torghut.services.operator import REASON_LENGTH_MAX, Change, NotChanged
from torghut.web import documents
from torghut.web.bodies import read_body
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import invalid, request_id_of

ACTOR = "http"
BODY_BYTES_MAX = 16 * 1024

log = structlog.get_logger(__name__)


def router(parts: WebParts, staff: Staff) -> APIRouter:
    """The routes of operation."""
    routes = APIRouter(tags=["operation"])

    async def change(request: Request, *, halting: bool) -> Response:
        reason, account = _read(await read_body(request, bytes_max=BODY_BYTES_MAX))
        step = partial(
            operator.halt if halting else operator.resume,
            parts.database,
            operator.scope_of(account),
            actor=ACTOR,
            reason=reason,
            now=parts.clock(),
            own_account=parts.settings.account,
        )
        try:
            changed: Change = await staff.operators.call(step)
        except NotChanged as error:
            raise invalid([error.fault], kind="invalid-request") from None
        log.warning(
            "trading state set",
            **changed.as_json(),
            reason=reason,
            actor=ACTOR,
            request_id=request_id_of(request),
        )
        return Response(json.dumps(changed.as_json()), media_type="application/json")

    @routes.post("/halt", **documents.TRADING_STATE)
    async def halt(request: Request) -> Response:
        return await change(request, halting=True)

    @routes.post("/resume", **documents.TRADING_STATE)
    async def resume(request: Request) -> Response:
        return await change(request, halting=False)

    return routes


def _read(body: bytes) -> tuple[str, str | None]:
    """(reason, account or None). Raises Problem 422 naming every fault."""
    try:
        data = load_json(body)
    except InvalidDecision as error:
        raise invalid(error.faults, kind="invalid-request") from None
    if not isinstance(data, Mapping):
        raise invalid([Fault("", "must be a JSON object")], kind="invalid-request")
    faults = [
        Fault(shown_name(name), "is not a known field")
        for name in data
        if name not in ("reason", "account")
    ]
    texts: dict[str, str | None] = {}
    for name, length_max in (("reason", REASON_LENGTH_MAX), ("account", 64)):
        value = data.get(name)
        if value is None:
            if name == "reason":
                faults.append(Fault(name, "is missing"))
            continue
        try:
            texts[name] = parse_text(value, length_max=length_max)
        except ValueError as error:
            faults.append(Fault(name, str(error)))
    if faults:
        raise invalid(faults, kind="invalid-request")
    return texts["reason"] or "", texts.get("account")
