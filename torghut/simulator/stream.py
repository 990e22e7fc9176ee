"""`/stream`: the trade_updates websocket.

    client: authenticate (or auth)   -> server: authorization, authorized | unauthorized
    client: listen [trade_updates]   -> server: listening
    server: trade_updates            one message for each event of the book

Messages are JSON, in binary frames by default, as the paper environment sends them. Nothing is
replayed to a client that connects late. An account has one connection; another one is refused
with 429. A client that does not read fast enough is cut off once `BACKLOG` messages wait for it.
What goes wrong on request: the route `stream` in `faults`.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

from torghut.simulator.book import TRAILED, BookEvent
from torghut.simulator.broker import Broker
from torghut.simulator.clock import rfc3339
from torghut.simulator.faults import ON_MESSAGE, ON_SIGN_IN, STREAM, FaultPlan
from torghut.simulator.gateway import Credentials
from torghut.simulator.numbers import text
from torghut.simulator.orders import Order, order_json
from torghut.simulator.stream_session import Session

TRADE_UPDATES = "trade_updates"
EVENTS = (
    "new", "fill", "partial_fill", "canceled", "expired", "done_for_day", "replaced", "accepted",
    "rejected", "pending_new", "stopped", "pending_cancel", "pending_replace", "calculated",
    "suspended", "restated", "order_replace_rejected", "order_cancel_rejected", "held",
    "pending_review",
)  # fmt: skip
_NAMESPACE = uuid.UUID("0d0f3d1c-7f5e-5b53-8d0e-0d1f6f1b5c11")
_MESSAGE_KINDS = (*ON_MESSAGE, "freeze", "any")


class Stream:
    """The websocket clients of one broker."""

    def __init__(self, broker: Broker, credentials: Credentials, plan: FaultPlan) -> None:
        self.counts: Counter[str] = Counter()
        self._broker = broker
        self._credentials = credentials
        self._plan = plan
        self._sessions: set[Session] = set()
        self._listeners: set[Session] = set()

    # --- what is sent

    def observe(self, event: BookEvent) -> None:
        """Pass one event of the book on to every client that listens."""
        if event.kind == TRAILED:
            return
        for session in list(self._listeners):
            fault = None
            if self._plan.rules:
                order = event.order
                fault = self._plan.decide(
                    STREAM, order.symbol, order.client_order_id, _MESSAGE_KINDS
                )
            self.counts["messages"] += 1
            if not session.tell({"stream": TRADE_UPDATES, "data": self._data(event)}, fault):
                self._listeners.discard(session)

    def tell(self, order: Order, kind: str) -> None:
        """Send an event about an order that stays as it is. Raises ValueError."""
        if kind not in EVENTS:
            raise ValueError(f"event must be one of {', '.join(EVENTS)}, not {kind!r}")
        self.observe(BookEvent(kind, order, self._broker.market.now()))

    def cut(self) -> int:
        """Cut every connection; the number cut."""
        for session in list(self._sessions):
            session.cut()
        return len(self._sessions)

    def json(self) -> dict[str, Any]:
        """What the control API shows."""
        return {
            "connections": len(self._sessions),
            "listening": len(self._listeners),
            "since_reset": dict(self.counts),
        }

    def _data(self, event: BookEvent) -> dict[str, Any]:
        data: dict[str, Any] = {
            "event": event.kind,
            "timestamp": rfc3339(event.at),
            "order": order_json(event.order),
        }
        key = f"{event.order.id}:{event.kind}:{event.at.isoformat()}"
        if event.fill is not None:
            key = event.fill.id
            data |= {
                "price": text(event.fill.price),
                "qty": text(event.fill.qty),
                "position_qty": text(self._broker.book.account.qty(event.order.symbol)),
            }
        return {**data, "execution_id": str(uuid.uuid5(_NAMESPACE, key))}

    # --- one client

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one websocket (ASGI)."""
        await receive()
        if self._sessions and self._broker.switches.stream_connections == "one":
            self.counts["refused"] += 1
            await send({"type": "websocket.http.response.start", "status": 429, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"too many connections"})
            return
        self.counts["connections"] += 1
        await send({"type": "websocket.accept"})
        binary = self._broker.switches.stream_frames == "binary"
        session = Session(scope["state"]["transport"], send, binary=binary)
        self._sessions.add(session)
        try:
            await self._converse(receive, session)
        finally:
            self._sessions.discard(session)
            self._listeners.discard(session)
            session.end()

    async def _converse(self, receive: Any, session: Session) -> None:
        authorized = False
        while (message := await receive())["type"] == "websocket.receive":
            request = _read(message)
            action = request.get("action")
            if action in ("authenticate", "auth"):
                authorized = self._sign_in(request, session)
            elif action == "listen" and authorized:
                wanted = request.get("data", {}).get("streams", [])
                streams = [TRADE_UPDATES] if TRADE_UPDATES in wanted else []
                session.answer({"stream": "listening", "data": {"streams": streams}})
                if streams:
                    self._listeners.add(session)
                else:
                    self._listeners.discard(session)
            else:
                session.answer(_authorization("unauthorized", str(action)))

    def _sign_in(self, request: dict[str, Any], session: Session) -> bool:
        self.counts["sign_ins"] += 1
        fault = self._plan.decide(STREAM, kinds=ON_SIGN_IN) if self._plan.rules else None
        if fault is not None and fault.kind == "never_authorize":
            return False
        authorized = fault is None and self._credentials.accept_pair(*_keys(request))
        status = "authorized" if authorized else "unauthorized"
        session.answer(_authorization(status, str(request["action"])))
        return authorized


def _authorization(status: str, action: str) -> dict[str, Any]:
    return {"stream": "authorization", "data": {"status": status, "action": action}}


def _read(message: dict[str, Any]) -> dict[str, Any]:
    raw = message.get("text") or message.get("bytes") or b""
    try:
        request = json.loads(raw)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _keys(request: dict[str, Any]) -> tuple[str, str]:
    data = request.get("data")
    nested = data if isinstance(data, dict) else {}
    key = nested.get("key_id") or request.get("key")
    secret = nested.get("secret_key") or request.get("secret")
    return str(key or ""), str(secret or "")
