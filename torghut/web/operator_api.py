"""POST /v1/halt, /v1/reduce, /v1/resume, /v1/discrepancies/{id}:resolve: an operator stops trading,
lets it go on, and closes discrepancies that were looked into.

Body: `{"reason": "why", "account": "…"?, "strategy": "…"?}`; without either name the global state
is changed, and a discrepancy takes the reason alone. The answer is the scope's state now and
before, or the discrepancy. The change is on disk when the answer is sent.

With an `Idempotency-Key` (torghut.web.keyed) the same again is answered with what it led to then,
so that a late repetition of a resume does not undo the halt that came after it. Who repeats a halt
whose process died halts; a reduction or a resumption that may have been carried out is not carried
out again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Request, Response

from torghut.domain.decisions import load_json
from torghut.domain.errors import Fault, InvalidDecision
from torghut.domain.exposure import TradingState
from torghut.domain.values import parse_text, shown_name
from torghut.idempotency.asgi import idempotent
from torghut.services import operator
from torghut.services.operator import (
    REASON_LENGTH_MAX,
    Change,
    NotChanged,
    NotResolved,
    UnknownDiscrepancy,
)
from torghut.web import documents
from torghut.web.bodies import read_body
from torghut.web.gate import caller_of
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem, invalid, request_id_of
from torghut.web.reads_api import CURSOR_MAX

BODY_BYTES_MAX = 16 * 1024

_LENGTHS = {"reason": REASON_LENGTH_MAX, "account": 64, "strategy": 128}

log = structlog.get_logger(__name__)


def router(parts: WebParts, staff: Staff) -> APIRouter:
    """The routes of operation."""
    routes = APIRouter(tags=["operation"])

    async def change(request: Request, state: TradingState) -> Response:
        asked = _read(await read_body(request, bytes_max=BODY_BYTES_MAX), tuple(_LENGTHS))
        reason = asked.get("reason") or ""
        actor = caller_of(request).actor
        try:
            step = partial(
                operator.change,
                state,
                parts.database,
                operator.scope_of(asked.get("account"), asked.get("strategy")),
                actor=actor,
                reason=reason,
                now=parts.clock(),
                settings=parts.settings,
            )
            changed: Change = await staff.operators.call(step)
        except NotChanged as error:
            raise invalid([error.fault], kind="invalid-request") from None
        log.warning(
            "trading state set",
            **changed.as_json(),
            reason=reason,
            actor=actor,
            request_id=request_id_of(request),
        )
        return Response(json.dumps(changed.as_json()), media_type="application/json")

    @routes.post("/halt", **documents.TRADING_STATE)
    @idempotent(on_takeover="run_again")
    async def halt(request: Request) -> Response:
        return await change(request, TradingState.HALTED)

    @routes.post("/reduce", **documents.TRADING_STATE)
    @idempotent()
    async def reduce(request: Request) -> Response:
        return await change(request, TradingState.REDUCING)

    @routes.post("/resume", **documents.TRADING_STATE)
    @idempotent()
    async def resume(request: Request) -> Response:
        return await change(request, TradingState.ACTIVE)

    _add_resolve(routes, parts, staff)
    return routes


def _add_resolve(routes: APIRouter, parts: WebParts, staff: Staff) -> None:
    @routes.post("/discrepancies/{discrepancy_id}:resolve", **documents.RESOLVE)
    @idempotent(on_takeover="run_again")  # a closed one stays closed: 409
    async def resolve(
        request: Request, discrepancy_id: Annotated[int, Path(ge=1, le=CURSOR_MAX)]
    ) -> Response:
        asked = _read(await read_body(request, bytes_max=BODY_BYTES_MAX), ("reason",))
        step = partial(
            operator.resolve,
            parts.database,
            discrepancy_id,
            actor=caller_of(request).actor,
            reason=asked.get("reason") or "",
            now=parts.clock(),
        )
        try:
            resolved = await staff.operators.call(step)
        except NotChanged as error:
            raise invalid([error.fault], kind="invalid-request") from None
        except UnknownDiscrepancy:
            raise Problem(404, "unknown-discrepancy", "no discrepancy has this id") from None
        except NotResolved as error:
            raise Problem(409, "not-resolved", str(error)) from None
        log.warning("discrepancy resolved", **resolved, request_id=request_id_of(request))
        return Response(json.dumps(resolved), media_type="application/json")


def _read(body: bytes, fields: Sequence[str]) -> dict[str, str | None]:
    """Reason, and what else is named of `fields`. Raises Problem 422 naming every fault."""
    try:
        data = load_json(body)
    except InvalidDecision as error:
        raise invalid(error.faults, kind="invalid-request") from None
    if not isinstance(data, Mapping):
        raise invalid([Fault("", "must be a JSON object")], kind="invalid-request")
    faults = [
        Fault(shown_name(name), "is not a known field") for name in data if name not in fields
    ]
    texts: dict[str, str | None] = {}
    for name in fields:
        value = data.get(name)
        if value is None:
            if name == "reason":
                faults.append(Fault(name, "is missing"))
            continue
        try:
            texts[name] = parse_text(value, length_max=_LENGTHS[name])
        except ValueError as error:
            faults.append(Fault(name, str(error)))
    if faults:
        raise invalid(faults, kind="invalid-request")
    return texts
