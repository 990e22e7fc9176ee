"""/healthz, /readyz, /metrics: for whatever watches the process.

- healthz: alive, the loops tick. Asks neither the database nor the broker: killing this process
  would mend neither.
- readyz: decisions can be taken: the database answers within READY_S, is migrated, and the
  account's lease is known; of several accounts at least one's, so that one that its broker refuses
  does not keep the others from their decisions. A stand-by is ready too. Never asks the broker.
- metrics: Prometheus text; asks for a token where tokens are configured.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from torghut.domain.errors import TorghutError
from torghut.storage import leases
from torghut.web import documents
from torghut.web.parts import Staff, WebParts

READY_S = 2.0


class Readiness:
    """Asks whether decisions can be taken; one question under way, however many ask."""

    def __init__(self, parts: WebParts, staff: Staff) -> None:
        self._parts = parts
        self._staff = staff
        self._asking: asyncio.Future[dict[str, object]] | None = None

    async def ask(self) -> dict[str, object]:
        """`{"ready": bool, "reasons": […], …}` within READY_S."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._staff.probes.call(self._answer))
        try:
            return await asyncio.wait_for(asyncio.shield(self._asking), READY_S)
        except (TimeoutError, TorghutError):
            reason = f"the database does not answer within {READY_S:.0f} seconds"
            return {"ready": False, "reasons": [reason]}

    def _answer(self) -> dict[str, object]:
        facts = dict(self._parts.ready())
        reasons = [str(reason) for reason in _list(facts.pop("reasons", []))]
        if facts.pop("ready", True) is False and not reasons:
            reasons.append("the process is not ready")
        reasons += self._ask_database(facts)
        return {"ready": not reasons, "reasons": reasons, **facts}

    def _ask_database(self, facts: dict[str, object]) -> list[str]:
        labels = self._parts.settings.labels
        try:
            with self._parts.database.transaction() as tx:
                revision = tx.execute(
                    text("SELECT version_num FROM alembic_version")
                ).scalar_one_or_none()
                found = {one: leases.current(tx, one) for one in labels} if revision else {}
        except TorghutError:
            return ["the database does not answer"]
        except SQLAlchemyError:
            revision, found = None, {}
        if revision is None:
            return ["the database is not migrated"]
        facts["schema"] = revision
        known = {
            label: {"owner": lease[0], "valid": lease[2]}
            for label, lease in found.items()
            if lease is not None
        }
        if not known:
            return ["no process has taken the account's lease yet"]
        if len(labels) == 1:
            facts["lease"] = known[labels[0]]
        else:
            facts["leases"] = known
        return []


def router(parts: WebParts, staff: Staff) -> APIRouter:
    """The routes of watching."""
    routes = APIRouter(tags=["watching"])
    readiness = Readiness(parts, staff)

    @routes.get("/healthz", **documents.PROBE)
    async def healthz() -> Response:
        health = parts.health()
        return _json(health, 200 if health.get("alive", True) else 503)

    @routes.get("/readyz", **documents.PROBE)
    async def readyz() -> Response:
        answer = await readiness.ask()
        return _json(answer, 200 if answer["ready"] else 503)

    @routes.get("/metrics", **documents.METRICS)
    async def metrics() -> Response:
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _json(data: Mapping[str, object], status: int) -> Response:
    return Response(json.dumps(data, default=str), status, media_type="application/json")
