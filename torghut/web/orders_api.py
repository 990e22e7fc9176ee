"""POST: what an operator wants done to orders and positions that stand.

```
/v1/decisions/{hash}:cancel    {"reason"}
/v1/decisions/{hash}:replace   {"reason", qty? limit_price? stop_price? trail? time_in_force?}
/v1/orders:cancel              {"reason", account? symbol? strategy?}   without a filter: all
/v1/positions/{symbol}:close   {"reason", account? qty?}
/v1/flatten                    {"reason", account?}
```

202: recorded, the owner of the account works it off; 200 with Idempotent-Replayed: the same was
asked for under the same `Idempotency-Key` before. 409: that key was used for something else.
Without the header every request is a new one. `GET /v1/actions` lists what became of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from torghut.domain.decisions import load_json
from torghut.domain.errors import Fault, InvalidDecision
from torghut.domain.values import parse_amount, shown_name
from torghut.services import flattening, order_requests
from torghut.services.order_requests import Asker, Requested, RequestRefused, UnknownDecision
from torghut.storage.queries import HashNotUsable
from torghut.storage.rows import Intake, IntakeResult
from torghut.web import documents
from torghut.web.bodies import read_body
from torghut.web.decisions_api import idempotency_key
from torghut.web.gate import caller_of
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem, invalid

BODY_BYTES_MAX = 16 * 1024

Done = tuple[dict[str, object], bool]
"""The answer, and whether it had been given before."""


class RequestDesk:
    """Reads a request, has it recorded on the operators' thread, and answers."""

    def __init__(self, parts: WebParts, staff: Staff) -> None:
        self._clock = parts.clock
        self._workers = staff.operators

    async def do(
        self, request: Request, step: Callable[[Asker, dict[str, Any]], Done], *fields: str
    ) -> Response:
        """`step` with the asker and the body, which may have `fields` beside the reason."""
        body = _read(await read_body(request, bytes_max=BODY_BYTES_MAX), fields)
        key = idempotency_key(request) or os.urandom(16).hex()
        asker = Asker(caller_of(request).actor, str(body.pop("reason")), key, self._clock())
        try:
            document, replayed = await self._workers.call(partial(step, asker, body))
        except RequestRefused as error:
            raise _refused(error) from None
        except UnknownDecision:
            raise Problem(404, "unknown-decision", "no decision has this decision_hash") from None
        except HashNotUsable as error:
            raise invalid([Fault("decision_hash", str(error))], kind="invalid-hash") from None
        headers = {"Idempotent-Replayed": "true"} if replayed else {}
        status = 200 if replayed else 202
        return Response(json.dumps(document), status, headers, "application/json")


def router(parts: WebParts, staff: Staff) -> APIRouter:
    """The routes of order management."""
    routes = APIRouter(tags=["orders"])
    desk = RequestDesk(parts, staff)
    _add_orders(routes, parts, desk)
    _add_positions(routes, parts, desk)
    return routes


def _add_orders(routes: APIRouter, parts: WebParts, desk: RequestDesk) -> None:
    database = parts.database

    @routes.post("/decisions/{decision_hash}:cancel", **documents.ORDER_REQUEST)
    async def cancel(request: Request, decision_hash: str) -> Response:
        return await desk.do(
            request,
            lambda asker, _: _requested(order_requests.cancel(database, decision_hash, asker)),
        )

    @routes.post("/decisions/{decision_hash}:replace", **documents.ORDER_REQUEST)
    async def replace(request: Request, decision_hash: str) -> Response:
        return await desk.do(
            request,
            lambda asker, body: _requested(
                order_requests.replace(database, decision_hash, body, asker)
            ),
            *("qty", "limit_price", "stop_price", "trail", "time_in_force"),
        )

    @routes.post("/orders:cancel", **documents.ORDER_REQUEST)
    async def cancel_all(request: Request) -> Response:
        return await desk.do(
            request,
            lambda asker, body: _requested(
                order_requests.cancel_all(database, _account(parts, body), asker, **_filter(body))
            ),
            *("symbol", "strategy", "account"),
        )


def _add_positions(routes: APIRouter, parts: WebParts, desk: RequestDesk) -> None:
    database = parts.database

    @routes.post("/positions/{symbol:path}:close", **documents.ORDER_REQUEST)
    async def close(request: Request, symbol: str) -> Response:
        ttl = timedelta(seconds=parts.settings.decision_ttl_s)
        return await desk.do(
            request,
            lambda asker, body: _planned(
                order_requests.close(
                    database,
                    _account(parts, body),
                    symbol,
                    asker,
                    qty=_qty(body.get("qty")),
                    ttl=ttl,
                ),
                asker.key,
            ),
            *("qty", "account"),
        )

    @routes.post("/flatten", **documents.ORDER_REQUEST)
    async def flatten(request: Request) -> Response:
        def step(asker: Asker, body: dict[str, Any]) -> Done:
            found = flattening.request(database, _account(parts, body), asker)
            return found.as_json(), not found.created

        return await desk.do(request, step, "account")


def _requested(asked: Requested) -> Done:
    return asked.as_json(), asked.replayed


def _planned(answer: Intake, key: str) -> Done:
    document: dict[str, object] = {
        "request_key": key,
        "decision_hash": answer.decision_hash,
        "status": answer.status.value,
        "result": answer.result.value,
    }
    return document, answer.result is IntakeResult.REPLAYED


def _refused(error: RequestRefused) -> Problem:
    if error.conflict:
        return Problem(409, "conflict", str(error))
    return invalid(error.faults, kind="invalid-request")


def _account(parts: WebParts, body: dict[str, Any]) -> str:
    """The account that is meant, taken out of the body."""
    named = body.pop("account", None)
    if named is not None and (not isinstance(named, str) or not named):
        raise RequestRefused([Fault("account", "must be a string that is not empty")])
    return parts.account(named)


def _filter(body: Mapping[str, Any]) -> dict[str, str]:
    faults = [
        Fault(name, "must be a string that is not empty")
        for name, value in body.items()
        if not isinstance(value, str) or not value
    ]
    if faults:
        raise RequestRefused(faults)
    return dict(body)


def _qty(value: object) -> Decimal | None:
    if value is None:
        return None
    try:
        return parse_amount(value)
    except ValueError as error:
        raise RequestRefused([Fault("qty", str(error))]) from None


def _read(body: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    """The body's fields, `reason` among them. Raises Problem 422 naming every fault."""
    try:
        data = load_json(body)
    except InvalidDecision as error:
        raise invalid(error.faults, kind="invalid-request") from None
    if not isinstance(data, Mapping):
        raise invalid([Fault("", "must be a JSON object")], kind="invalid-request")
    faults = [
        Fault(shown_name(name), "is not a known field")
        for name in data
        if name not in ("reason", *fields)
    ]
    if not isinstance(data.get("reason"), str):
        faults.append(Fault("reason", "is missing, or no text"))
    if faults:
        raise invalid(faults, kind="invalid-request")
    return {name: value for name, value in data.items() if value is not None}
