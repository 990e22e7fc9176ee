"""POST /v1/plans: a rebalance plan comes in; GET /v1/plans, /v1/plans/{id}: what became of it.

201 created · 200 replayed (header Idempotent-Replayed), with what became of it · 409 conflict,
naming what differs · 422 with every fault. The plan's `correlation_id` is its idempotency key: the
header of that name is not looked at. The answer is sent when the plan is on disk; the owner of the
account works it off.
"""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from torghut.domain.decisions import load_json
from torghut.domain.errors import InvalidDecision
from torghut.domain.plans import InvalidPlan, PlanStatus, parse_plan
from torghut.services import plans
from torghut.services.plans import PlanAnswer
from torghut.storage import plan_reads
from torghut.storage.rows import IntakeResult
from torghut.web import documents, plan_documents
from torghut.web.bodies import read_body
from torghut.web.gate import caller_of
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem, invalid
from torghut.web.reads_api import CURSOR_MAX, Name, PageQuery, Reader, tagged

BODY_BYTES_MAX = 256 * 1024


class PlanQuery(PageQuery):
    """Plans have statuses of their own."""

    status: PlanStatus | None = None
    strategy: Name | None = None


def router(parts: WebParts, staff: Staff, reader: Reader) -> APIRouter:
    """The routes of plans."""
    routes = APIRouter(tags=["plans"])
    ttl = timedelta(seconds=parts.settings.decision_ttl_s)

    @routes.post("/plans", **plan_documents.POST_PLAN)
    async def post_plan(request: Request) -> Response:
        body = await read_body(request, bytes_max=BODY_BYTES_MAX)
        try:
            step = partial(_accept, parts, body, ttl, caller_of(request).actor)
            answer: PlanAnswer = await staff.operators.call(step)
        except (InvalidDecision, InvalidPlan) as error:
            raise invalid(error.faults, kind="invalid-plan") from None
        return _answered(answer)

    @routes.get("/plans", **documents.LIST)
    async def list_plans(request: Request, query: Annotated[PlanQuery, Query()]) -> Response:
        return await reader.page(request, plan_reads.plans, query)

    @routes.get("/plans/{plan_id}", **plan_documents.ONE_PLAN)
    async def get_plan(
        request: Request, plan_id: Annotated[int, Path(ge=1, le=CURSOR_MAX)]
    ) -> Response:
        found = await reader.ask(partial(plan_reads.plan, plan_id=plan_id))
        if found is None:
            raise Problem(404, "unknown-plan", "no plan has this id")
        return tagged(request, found)

    return routes


def _accept(parts: WebParts, body: bytes, ttl: timedelta, actor: str) -> PlanAnswer:
    settings = parts.settings
    request = parse_plan(
        load_json(body), accounts=settings.labels, default=settings.default_account
    )
    return plans.accept(parts.database, request, source=actor, ttl=ttl, now=parts.clock())


def _answered(answer: PlanAnswer) -> Response:
    if answer.result is IntakeResult.CONFLICT:
        raise Problem(
            409,
            "conflict",
            f"plan {answer.plan_id} has this correlation_id with other content: "
            f"{', '.join(answer.differing)}. A new plan needs a new correlation_id",
            extensions={"plan_id": answer.plan_id, "differing_fields": list(answer.differing)},
        )
    headers = {"Location": f"/v1/plans/{answer.plan_id}"}
    created = answer.result is IntakeResult.CREATED
    if not created:
        headers["Idempotent-Replayed"] = "true"
    content = {"plan_id": answer.plan_id, "result": answer.result.value, "plan": answer.plan}
    return Response(json.dumps(content), 201 if created else 200, headers, "application/json")
