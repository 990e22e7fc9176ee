"""The control API: what a test or demo may see and change behind the broker's back.

Runs on a port of its own, in the same thread as the trading API, and needs no keys. Its
documentation is at /docs of that port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Protocol

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from torghut.simulator.bars import bar_json
from torghut.simulator.broker import Broker
from torghut.simulator.clock import rfc3339
from torghut.simulator.errors import ApiError
from torghut.simulator.faults import FaultPlan, FaultRule
from torghut.simulator.gateway import Gateway
from torghut.simulator.ledger import Ledger
from torghut.simulator.orders import Entry, activity_id, activity_json, entry_json, order_json
from torghut.simulator.stream import Stream


class Parts(Protocol):
    """What the control API works on."""

    broker: Broker
    gateway: Gateway
    plan: FaultPlan
    ledger: Ledger
    stream: Stream

    def settle(self) -> None:
        """Save what happened, and go on with what is due."""

    def save(self) -> dict[str, Any]:
        """Write the state file anew."""

    def reset(self) -> None:
        """Start over with an empty book."""

    def adjust(self, entry: Entry) -> None:
        """Change cash or a position without a fill."""

    def note(self, name: str, value: Any) -> None:
        """Save a document."""


class Strict(BaseModel):
    """A request body without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class FaultBody(Strict):
    """A fault rule; see the table of kinds in `faults`."""

    route: str
    kind: str
    probability: float = 1.0
    count: int | None = None
    after: int = 0
    symbol: str | None = None
    client_order_id: str | None = None
    status: int | None = None
    code: int | None = None
    message: str | None = None
    html: bool | None = None
    hang: bool | None = None
    rate_limit_headers: bool | None = None
    delay_s: float | None = None
    hold_s: float | None = None
    visible_after_s: float = 2.0


class AdvanceBody(Strict):
    """Replay: the session to go to (default: the next) and the phase of it."""

    to: date | None = None
    phase: str = "before_close"


class PriceBody(Strict):
    """A pinned price in USD; bid and ask default to one tick around it."""

    symbol: str
    price: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    age_s: float = 0.0


class FillBody(Strict):
    """A forced fill: the open rest at the quote by default. `late` fills a closed order."""

    qty: Decimal | None = None
    price: Decimal | None = None
    late: bool = False


class EntryBody(Strict):
    """A change of cash or of a position that is no fill: `cash` in USD, `qty` signed, `price` what
    a unit costs. With a `type` (CSD, CFEE, JNLS …) an activity tells of it."""

    cash: Decimal = Decimal(0)
    symbol: str | None = None
    qty: Decimal = Decimal(0)
    price: Decimal | None = None
    type: str = ""


class EventBody(Strict):
    """A trade update to send about an order as it stands."""

    event: str


def control_app(parts: Parts) -> FastAPI:
    """The ASGI application of the control port."""

    async def settled() -> AsyncIterator[None]:
        yield
        parts.settle()

    app = FastAPI(title="Torghut simulator control", dependencies=[Depends(settled)])

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status)

    @app.exception_handler(ValueError)
    async def wrong_value(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"message": str(error)}, 422)

    _add_books(app, parts)
    _add_faults(app, parts)
    _add_market(app, parts)
    _add_orders(app, parts)
    _add_stream(app, parts)
    return app


def _add_books(app: FastAPI, parts: Parts) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Alive; with the market's time."""
        market = parts.broker.market
        return {"status": "ok", "mode": market.mode, "now": rfc3339(market.now())}

    @app.get("/ledger")
    async def ledger() -> dict[str, Any]:
        """Every order ever accepted, by client_order_id, and totals."""
        return parts.ledger.json()

    @app.get("/requests")
    async def requests() -> dict[str, Any]:
        """HTTP requests by route, and POST /v2/orders by client_order_id."""
        gateway = parts.gateway
        return {
            "routes": dict(gateway.requests),
            "posts_by_client_order_id": dict(gateway.posts_by_client_id),
        }

    @app.post("/entries")
    async def enter(body: EntryBody) -> dict[str, Any]:
        """Change cash or a position behind everybody's back, or with an activity."""
        book = parts.broker.book
        asset = parts.broker.market.assets.find(body.symbol) if body.symbol else None
        if body.symbol and asset is None:
            raise HTTPException(404, f"asset {body.symbol} is not known")
        at = parts.broker.market.now()
        entry = Entry(
            activity_id(at, book.new_id()), body.type, at, body.cash,
            asset.symbol if asset else None, body.qty, body.price,
        )  # fmt: skip
        parts.adjust(entry)
        return entry_json(entry)

    @app.post("/state/save")
    async def save() -> dict[str, Any]:
        """Rewrite the state file and force it to disk."""
        return parts.save()

    @app.post("/reset")
    async def reset() -> dict[str, Any]:
        """Empty book, ledger, counters, faults and state file; a replay starts anew."""
        parts.reset()
        return {"status": "ok"}


def _add_faults(app: FastAPI, parts: Parts) -> None:
    @app.get("/faults")
    async def faults() -> dict[str, Any]:
        """The rules in force with their counters."""
        return {"rules": [rule.json() for rule in parts.plan.rules]}

    @app.post("/faults")
    async def add_faults(body: FaultBody | list[FaultBody]) -> dict[str, Any]:
        """Add one rule or several."""
        bodies = body if isinstance(body, list) else [body]
        rules = [FaultRule(**item.model_dump()) for item in bodies]
        for rule in rules:
            parts.plan.check(rule)
        added = [parts.plan.add(rule) for rule in rules]
        return {"rules": [rule.json() for rule in added]}

    @app.delete("/faults")
    async def remove_faults(id: int | None = None) -> dict[str, Any]:
        """Remove one rule, or all."""
        return {"removed": parts.plan.remove(id)}

    @app.get("/switches")
    async def switches() -> dict[str, Any]:
        """The behaviour switches."""
        return asdict(parts.broker.switches)

    @app.post("/switches")
    async def set_switches(changes: dict[str, Any]) -> dict[str, Any]:
        """Set some switches; all of them are answered."""
        parts.broker.switches = parts.broker.switches.changed(changes)
        parts.broker.matcher.sweep(parts.broker.elapsed_s())
        return asdict(parts.broker.switches)


def _add_market(app: FastAPI, parts: Parts) -> None:
    @app.get("/market")
    async def market_state() -> dict[str, Any]:
        """Mode, time, phase, and the sessions of a replay."""
        market = parts.broker.market
        days = market.bars.days if market.bars else []
        return {
            "mode": market.mode,
            "now": rfc3339(market.now()),
            "date": market.today().isoformat(),
            "phase": market.phase if market.mode == "replay" else None,
            "sessions": [day.isoformat() for day in days],
        }

    @app.post("/market/advance")
    async def advance(body: AdvanceBody | None = None) -> dict[str, Any]:
        """Replay: go on to a session. `finished` when there is no such session."""
        body = body or AdvanceBody()
        day = parts.broker.advance(body.to, body.phase)
        if day is None:
            return {"date": None, "phase": None, "bars": {}, "finished": True}
        parts.note("market", {"date": day.isoformat(), "phase": body.phase})
        bars = parts.broker.market.replay_bars.by_day[day]
        return {
            "date": day.isoformat(),
            "phase": body.phase,
            "bars": {symbol: bar_json(bar) for symbol, bar in sorted(bars.items())},
            "finished": False,
        }

    @app.post("/market/price")
    async def set_price(body: PriceBody) -> dict[str, Any]:
        """Pin a symbol's price (or, without a price, unpin all), and match resting orders."""
        market = parts.broker.market
        if body.price is None:
            market.clear_quotes()
            return {"symbol": None}
        asset = market.assets.find(body.symbol)
        if asset is None:
            raise HTTPException(404, f"asset {body.symbol} is not known")
        if body.price <= 0:
            raise ValueError("price must be > 0")
        age = timedelta(seconds=body.age_s)
        quote = market.set_quote(asset.symbol, body.price, body.bid, body.ask, age)
        parts.broker.matcher.sweep(parts.broker.elapsed_s())
        return {
            "symbol": quote.symbol,
            "bid": str(quote.bid),
            "ask": str(quote.ask),
            "last": str(quote.last),
        }


def _add_orders(app: FastAPI, parts: Parts) -> None:
    @app.post("/orders/{reference}/fill")
    async def fill(reference: str, body: FillBody | None = None) -> dict[str, Any]:
        """Fill an order, named by broker id or client_order_id."""
        order = parts.broker.any_order(reference)
        wanted = body or FillBody()
        made = parts.broker.force_fill(order, wanted.qty, wanted.price, wanted.late)
        return {"order": order_json(order), "activity": activity_json(made, order)}

    async def end(reference: str, status: str) -> dict[str, Any]:
        order = parts.broker.any_order(reference)
        parts.broker.force_status(order, status)
        return {"order": order_json(order)}

    @app.post("/orders/{reference}/cancel")
    async def cancel(reference: str) -> dict[str, Any]:
        """Cancel an open order from outside."""
        return await end(reference, "canceled")

    @app.post("/orders/{reference}/expire")
    async def expire(reference: str) -> dict[str, Any]:
        """Let an open order expire."""
        return await end(reference, "expired")

    @app.post("/orders/{reference}/reject")
    async def reject(reference: str) -> dict[str, Any]:
        """Reject an open order after its acceptance."""
        return await end(reference, "rejected")


def _add_stream(app: FastAPI, parts: Parts) -> None:
    @app.get("/stream")
    async def stream() -> dict[str, Any]:
        """The websockets: open and listening now, and since the last reset."""
        return parts.stream.json()

    @app.post("/stream/cut")
    async def cut() -> dict[str, Any]:
        """Cut every websocket now; the number cut."""
        return {"cut": parts.stream.cut()}

    @app.post("/orders/{reference}/event")
    async def tell(reference: str, body: EventBody) -> dict[str, Any]:
        """Send a trade update about an order, of any event that Alpaca documents."""
        order = parts.broker.any_order(reference)
        parts.stream.tell(order, body.event)
        return {"order": order_json(order)}
