"""GET /v1/events: what happened, as it is committed.

```
Accept: text/event-stream ─▶ a stream; `id` of each event is the place after it
anything else             ─▶ a page: {"items": […], "next_cursor": "…"}, the cursor for `after`
```

Where to begin: `Last-Event-ID` (what an EventSource sends when it comes back), else `after`; `0`
is the very beginning, and without either it is now. Nothing that was committed is skipped, each
event has the id that repetitions are told by, and those of a decision come in order
(torghut.storage.event_feed). A stream ends after STREAM_S and is to be asked for again: tokens are
looked at then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import StreamingResponse

from torghut.domain.errors import Fault, TorghutError
from torghut.domain.outbox import OutboxEvent
from torghut.storage import event_feed
from torghut.storage.event_feed import PLACE_LENGTH_MAX, Place, PlaceNotUsable
from torghut.web import documents
from torghut.web.problems import invalid, unavailable
from torghut.web.reads_api import PAGE_DEFAULT, PAGE_MAX, Reader, tagged

STREAM = "text/event-stream"
POLL_S = 0.5
QUIET_S = 15.0
STREAM_S = 300.0
STREAMS_MAX = 20
BEGINNING = "0"

Page = tuple[list[tuple[Place, OutboxEvent]], Place]


class EventQuery(BaseModel):
    """Where to begin, and how many at a time."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(
        default=None,
        min_length=1,
        max_length=PLACE_LENGTH_MAX,
        description="next_cursor of a page, or the id of an event of a stream; 0: the beginning",
    )
    limit: int = Field(default=PAGE_DEFAULT, ge=1, le=PAGE_MAX)


class Feed:
    """Pages and streams of events. Runs on the event loop, its questions on the readers."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._open = 0
        self._over = False

    async def first(self, after: str | None, limit: int) -> Page:
        """The first page from a place on. Raises Problem 422."""

        def ask(tx: Connection) -> Page:
            if after is None:
                return [], event_feed.now(tx)
            place = event_feed.beginning(tx) if after == BEGINNING else Place.parse(after)
            return event_feed.page(tx, place, limit=limit)

        try:
            found: Page = await self._reader.ask(ask)
        except PlaceNotUsable as error:
            raise invalid([Fault("after", str(error))], kind="invalid-query") from None
        return found

    async def stream(self, after: str | None, limit: int) -> Response:
        """A stream from a place on. Raises Problem 422, 503 if too many listen."""
        if self._open >= STREAMS_MAX or self._over:
            raise unavailable("too many listen to the events at once")
        begun = await self.first(after, limit)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._told(begun, limit), media_type=STREAM, headers=headers)

    def close(self) -> None:
        """End all streams, so that the server can end; from any thread."""
        self._over = True

    async def _told(self, begun: Page, limit: int) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        found, place = begun
        end, silent_since = clock() + STREAM_S, clock()
        self._open += 1
        try:
            yield b"retry: 2000\n\n" if found else f"retry: 2000\nid: {place}\n\n".encode()
            while not self._over and clock() < end:
                for after, event in found:
                    yield _message(after, event)
                    silent_since = clock()
                if len(found) < limit:
                    await asyncio.sleep(POLL_S)
                if clock() - silent_since >= QUIET_S:
                    silent_since = clock()
                    yield b": nothing new\n\n"
                found, place = await self._next(place, limit)
        finally:
            self._open -= 1

    async def _next(self, place: Place, limit: int) -> Page:
        try:
            found: Page = await self._reader.ask(lambda tx: event_feed.page(tx, place, limit=limit))
        except (TorghutError, SQLAlchemyError):
            return [], place  # the same again when the database is back
        return found


def add(routes: APIRouter, reader: Reader) -> Feed:
    """The route; the feed's streams are ended by whoever ends the server."""
    feed = Feed(reader)

    @routes.get("/events", tags=["events"], **documents.EVENTS)
    async def list_events(request: Request, query: Annotated[EventQuery, Query()]) -> Response:
        after = request.headers.get("last-event-id") or query.after
        if STREAM in request.headers.get("accept", ""):
            return await feed.stream(after, query.limit)
        found, place = await feed.first(after, query.limit)
        items = [event.envelope() for _, event in found]
        return tagged(request, {"items": items, "next_cursor": str(place)})

    return feed


def _message(after: Place, event: OutboxEvent) -> bytes:
    data = json.dumps(event.envelope(), ensure_ascii=True, separators=(",", ":"))
    return f"id: {after}\nevent: {event.kind}\ndata: {data}\n\n".encode()
