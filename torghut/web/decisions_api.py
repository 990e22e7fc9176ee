"""POST /v1/decisions and /v1/decisions:batch: where decisions come in.

One decision: 201 created · 200 replayed (header Idempotent-Replayed) · 409 conflict, naming the
fields that differ · 422 with every fault, malformed JSON among them (line and column). An
`Idempotency-Key` becomes the decision's `intent`.

Batch: JSON lines in, JSON lines out, in the same order; a bad line never stops the others. The
answer is sent when all of it is committed, or is a 503 and then may be sent again as a whole:
lines stored in the first try are answered `replayed`.
"""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta

from fastapi import APIRouter, Request, Response

from torghut.domain.decisions import Decision
from torghut.domain.errors import Fault, InvalidDecision
from torghut.services.batch import (
    INVALID,
    conflict_text,
    counted,
    lines_of,
    read_decision,
    submit_lines,
)
from torghut.storage.rows import Intake, IntakeResult
from torghut.web import documents
from torghut.web.bodies import JSON_LINES, read_body
from torghut.web.counter import SOURCE
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem

BODY_BYTES_MAX = 256 * 1024
BATCH_BYTES_MAX = 16 * 1024 * 1024
BATCH_LINES_MAX = 100_000
BATCHES_AT_ONCE = 4
INLINE_BYTES_MAX = 8 * 1024  # what may be parsed on the event loop
KEY_LENGTH_MAX = 255


def router(parts: WebParts, staff: Staff) -> APIRouter:
    """The routes of intake."""
    routes = APIRouter(tags=["decisions"])
    accounts = parts.accounts
    ttl = timedelta(seconds=parts.settings.decision_ttl_s)
    batches = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def post_decision(request: Request) -> Response:
        body = await read_body(request, bytes_max=BODY_BYTES_MAX)

        def read() -> Decision:
            return read_decision(body, accounts=accounts, ttl=ttl, intent=idempotency_key(request))

        try:
            decision = read() if len(body) <= INLINE_BYTES_MAX else await staff.readers.call(read)
        except InvalidDecision:
            counted(INVALID)
            raise
        answer = await staff.counter.accept(decision)
        counted(answer.result.value)
        return answered(answer)

    async def post_batch(request: Request) -> Response:
        async with batches:  # each may hold a whole body in memory
            body = await read_body(request, bytes_max=BATCH_BYTES_MAX, media_types=JSON_LINES)
            if body.count(b"\n") > BATCH_LINES_MAX:
                raise Problem(413, "too-large", f"the batch has over {BATCH_LINES_MAX} lines")

            def submit() -> bytes:
                lines = lines_of(io.BytesIO(body))
                answers = submit_lines(lines, parts.desk, accounts=accounts, ttl=ttl, source=SOURCE)
                return b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)

            return Response(await staff.batches.call(submit), media_type=JSON_LINES[0])

    routes.add_api_route("/decisions", post_decision, methods=["POST"], **documents.POST_DECISION)
    routes.add_api_route("/decisions:batch", post_batch, methods=["POST"], **documents.POST_BATCH)
    return routes


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, None without one. Raises InvalidDecision if it is not usable."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    key = keys[0].strip()
    if len(keys) > 1:
        problem = "is there more than once"
    elif not key:
        problem = "is empty"
    elif len(key) > KEY_LENGTH_MAX:
        problem = f"is {len(key)} characters long, at most {KEY_LENGTH_MAX} are allowed"
    elif not (key.isascii() and key.isprintable()):
        problem = "holds characters other than printable ASCII"
    else:
        return key
    raise InvalidDecision((Fault("Idempotency-Key", problem),))


def answered(answer: Intake) -> Response:
    """What intake said, as an answer. Raises Problem 409 for a conflict."""
    if answer.result is IntakeResult.CONFLICT:
        raise Problem(
            409,
            "conflict",
            conflict_text(answer),
            extensions={
                "decision_hash": answer.decision_hash,
                "differing_fields": list(answer.differing),
            },
        )
    headers = {"Location": f"/v1/decisions/{answer.decision_hash}"}
    created = answer.result is IntakeResult.CREATED
    if not created:
        headers["Idempotent-Replayed"] = "true"
    content = json.dumps(
        {
            "decision_hash": answer.decision_hash,
            "status": answer.status.value,
            "result": answer.result.value,
        }
    )
    return Response(content, 201 if created else 200, headers, "application/json")
