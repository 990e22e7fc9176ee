"""GET: decisions, executions, fills, positions, one decision and its story, the account's status,
the trading states, discrepancies.

Lists are newest first: `{"items": […], "next_cursor": "…" | null}`; the cursor goes back in as
`cursor` with the same filters. The questions themselves are torghut.storage.queries, which the
CLI asks too; they run on a few threads of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
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

    async def page(self, list_: List, query: PageQuery) -> Response:
        """One page of a list."""
        rows = await self.ask(lambda tx: list_(tx, query.filters()))
        items = rows[: query.limit]
        more = len(rows) > query.limit
        return _json({"items": items, "next_cursor": str(items[-1]["id"]) if more else None})

    async def one(self, question: One, decision_hash: str) -> Response:
        """What is known of one decision. Raises Problem 404, 422."""
        try:
            found = await self.ask(lambda tx: question(tx, decision_hash))
        except HashNotUsable as error:
            raise invalid([Fault("decision_hash", str(error))], kind="invalid-hash") from None
        if found is None:
            raise Problem(404, "unknown-decision", "no decision has this decision_hash")
        return _json(found)


def router(parts: WebParts, staff: Staff) -> APIRouter:
    """The routes of reading."""
    routes = APIRouter()
    reader = Reader(parts, staff)

    @routes.get("/decisions", tags=["decisions"], **documents.LIST)
    async def list_decisions(query: Annotated[DecisionQuery, Query()]) -> Response:
        return await reader.page(queries.decisions, query)

    @routes.get("/executions", tags=["orders"], **documents.LIST)
    async def list_executions(query: Annotated[ListQuery, Query()]) -> Response:
        return await reader.page(queries.executions, query)

    @routes.get("/fills", tags=["orders"], **documents.LIST)
    async def list_fills(query: Annotated[ListQuery, Query()]) -> Response:
        return await reader.page(queries.fills, query)

    @routes.get("/actions", tags=["orders"], **documents.LIST)
    async def list_actions(query: Annotated[ListQuery, Query()]) -> Response:
        return await reader.page(queries.actions, query)

    @routes.get("/positions", tags=["orders"], **documents.LIST)
    async def list_positions(query: Annotated[PositionQuery, Query()]) -> Response:
        return await reader.page(pnl.positions, query)

    @routes.get("/discrepancies", tags=["operation"], **documents.LIST)
    async def list_discrepancies(query: Annotated[DiscrepancyQuery, Query()]) -> Response:
        return await reader.page(queries.discrepancies, query)

    @routes.get("/decisions/{decision_hash}", tags=["decisions"], **documents.ONE)
    async def get_decision(decision_hash: str) -> Response:
        return await reader.one(queries.decision, decision_hash)

    @routes.get("/decisions/{decision_hash}/story", tags=["decisions"], **documents.ONE)
    async def get_story(decision_hash: str) -> Response:
        return await reader.one(queries.story, decision_hash)

    @routes.get("/status", tags=["operation"], **documents.STATUS)
    async def get_status(query: Annotated[StatusQuery, Query()]) -> Response:
        account = parts.account(query.account)
        stands = await reader.ask(lambda tx: queries.summary(tx, account))
        if account not in parts.settings.labels:
            return _json(stands)
        settings = parts.settings.of(account)
        mode = {"trading_mode": settings.trading_mode, "trading_enabled": settings.trading_enabled}
        return _json({**stands, **mode})

    @routes.get("/trading-states", tags=["operation"], **documents.STATES)
    async def get_states() -> Response:
        return _json({"items": await reader.ask(queries.trading_states)})

    return routes


def _json(data: object) -> Response:
    return Response(json.dumps(data), media_type="application/json")
