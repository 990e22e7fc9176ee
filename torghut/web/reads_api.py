"""GET: decisions, executions, fills, positions, one decision and its story, the account's status,
the trading states, discrepancies.

Lists are newest first: `{"items": […], "next_cursor": "…" | null}`; the cursor goes back in as
`cursor` with the same filters. Who asks again and again sends the `ETag` of the last answer as
`If-None-Match`, and is told 304 while nothing changed. The questions themselves are
torghut.storage.queries, which the CLI asks too; they run on a few threads of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import Connection

from torghut.domain.errors import Fault
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.values import parse_instant, parse_symbol
from torghut.storage import pnl, queries
from torghut.storage.queries import Filters, HashNotUsable
from torghut.web import documents
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem, invalid

PAGE_DEFAULT = 50
PAGE_MAX = 500
CURSOR_MAX = 2**63 - 1

List = Callable[[Connection, Filters], list[dict[str, Any]]]
One = Callable[[Connection, str], dict[str, Any] | None]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


class PageQuery(BaseModel):
    """Filters of every list; an unknown parameter is refused, as a mistyped filter shows all."""

    model_config = ConfigDict(extra="forbid")

    account: Name | None = None
    since: Annotated[datetime, BeforeValidator(parse_instant)] | None = Field(
        default=None, description="RFC 3339 with a zone; inclusive"
    )
    limit: int = Field(default=PAGE_DEFAULT, ge=1, le=PAGE_MAX)
    cursor: int | None = Field(default=None, ge=1, le=CURSOR_MAX, description="next_cursor")

    def filters(self) -> Filters:
        """As storage wants them, with one row more than the page: is there another page?"""
        given = self.model_dump(exclude={"cursor", "limit"})
        return Filters(**given, limit=self.limit + 1, before=self.cursor)


class ListQuery(PageQuery):
    """Lists of what belongs to a symbol and a strategy."""

    status: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")] | None = None
    symbol: Annotated[str, BeforeValidator(parse_symbol)] | None = None
    strategy: Name | None = None


class DecisionQuery(ListQuery):
    """Decisions have statuses of ours."""

    status: DecisionStatus | None = None


class PositionQuery(ListQuery):
    """A position is open or flat."""

    status: Literal["open", "flat"] | None = None


class DiscrepancyQuery(PageQuery):
    """A discrepancy is open or resolved."""

    status: Literal["open", "resolved"] | None = None


class StatusQuery(BaseModel):
    """How one account stands."""

    model_config = ConfigDict(extra="forbid")

    account: Name | None = None


class Reader:
    """Asks the read service on the readers' threads, and makes answers of what it says."""

    def __init__(self, parts: WebParts, staff: Staff) -> None:
        self._database = parts.database
        self._workers = staff.readers

    async def ask(self, question: Callable[[Connection], Any]) -> Any:
        """The question's answer, from a transaction of its own."""

        def answer() -> Any:
            with self._database.transaction() as tx:
                queries.begin(tx)
                return question(tx)

        return await self._workers.call(answer)

    async def page(self, request: Request, list_: List, query: PageQuery) -> Response:
        """One page of a list."""
        rows = await self.ask(lambda tx: list_(tx, query.filters()))
        items = rows[: query.limit]
        more = len(rows) > query.limit
        last = str(items[-1]["id"]) if more else None
        return tagged(request, {"items": items, "next_cursor": last})

    async def one(self, request: Request, question: One, decision_hash: str) -> Response:
        """What is known of one decision. Raises Problem 404, 422."""
        try:
            found = await self.ask(lambda tx: question(tx, decision_hash))
        except HashNotUsable as error:
            raise invalid([Fault("decision_hash", str(error))], kind="invalid-hash") from None
        if found is None:
            raise Problem(404, "unknown-decision", "no decision has this decision_hash")
        return tagged(request, found)


def router(parts: WebParts, reader: Reader) -> APIRouter:
    """The routes of reading."""
    routes = APIRouter()

    @routes.get("/decisions", tags=["decisions"], **documents.LIST)
    async def list_decisions(
        request: Request, query: Annotated[DecisionQuery, Query()]
    ) -> Response:
        return await reader.page(request, queries.decisions, query)

    @routes.get("/executions", tags=["orders"], **documents.LIST)
    async def list_executions(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        return await reader.page(request, queries.executions, query)

    @routes.get("/fills", tags=["orders"], **documents.LIST)
    async def list_fills(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        return await reader.page(request, queries.fills, query)

    @routes.get("/actions", tags=["orders"], **documents.LIST)
    async def list_actions(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        return await reader.page(request, queries.actions, query)

    @routes.get("/positions", tags=["orders"], **documents.LIST)
    async def list_positions(
        request: Request, query: Annotated[PositionQuery, Query()]
    ) -> Response:
        return await reader.page(request, pnl.positions, query)

    @routes.get("/discrepancies", tags=["operation"], **documents.LIST)
    async def list_discrepancies(
        request: Request, query: Annotated[DiscrepancyQuery, Query()]
    ) -> Response:
        return await reader.page(request, queries.discrepancies, query)

    @routes.get("/decisions/{decision_hash}", tags=["decisions"], **documents.ONE)
    async def get_decision(request: Request, decision_hash: str) -> Response:
        return await reader.one(request, queries.decision, decision_hash)

    @routes.get("/decisions/{decision_hash}/story", tags=["decisions"], **documents.ONE)
    async def get_story(request: Request, decision_hash: str) -> Response:
        return await reader.one(request, queries.story, decision_hash)

    @routes.get("/status", tags=["operation"], **documents.STATUS)
    async def get_status(request: Request, query: Annotated[StatusQuery, Query()]) -> Response:
        account = parts.account(query.account)
        stands = await reader.ask(lambda tx: queries.summary(tx, account))
        if account not in parts.settings.labels:
            return tagged(request, stands)
        settings = parts.settings.of(account)
        mode = {"trading_mode": settings.trading_mode, "trading_enabled": settings.trading_enabled}
        return tagged(request, {**stands, **mode})

    @routes.get("/trading-states", tags=["operation"], **documents.STATES)
    async def get_states(request: Request) -> Response:
        return tagged(request, {"items": await reader.ask(queries.trading_states)})

    return routes


def tagged(request: Request, data: object) -> Response:
    """JSON with an ETag; 304 without it for who has the same already (If-None-Match)."""
    body = json.dumps(data).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
