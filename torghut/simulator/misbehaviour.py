"""What each kind of fault does with a request (the kinds are listed in `faults`)."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus

from torghut.simulator.broker import Broker
from torghut.simulator.clock import wall_now
from torghut.simulator.errors import ApiError
from torghut.simulator.faults import Fault
from torghut.simulator.http import HTML, Reply, reply_error, reply_json
from torghut.simulator.wire import Wire

GATEWAY_PAGE = (
    "<html>\r\n<head><title>{status} {phrase}</title></head>\r\n<body>\r\n"
    "<center><h1>{status} {phrase}</h1></center>\r\n<hr><center>nginx</center>\r\n"
    "</body>\r\n</html>\r\n"
)
SHORTLY_S = 0.01
REFUSAL_CODES = {403: 40310000, 422: 42210000}


@dataclass(frozen=True, slots=True)
class Incident:
    """One request that goes wrong. `work` does what was asked; `decorate` adds the usual
    headers; `later` runs a function after some seconds."""

    fault: Fault
    broker: Broker
    wire: Wire
    work: Callable[[], Reply]
    decorate: Callable[[Reply], Reply]
    later: Callable[[float, Callable[[], object]], None]

    async def run(self) -> None:
        """Misbehave."""
        await _ACTIONS[self.fault.kind](self)

    async def _answer(self, reply: Reply) -> None:
        await self.wire.answer(self.decorate(reply))

    async def accept_then_hang(self) -> None:
        """Do the work, answer nothing."""
        self.work()
        await self.wire.silence(self.fault.hold_s)

    async def accept_then_reset(self) -> None:
        """Do the work, reset the connection."""
        self.work()
        await self.wire.reset()

    async def accept_then_5xx(self) -> None:
        """Do the work, answer with a server error."""
        self.work()
        await self._answer(_server_error(self.fault))

    async def accept_then_refuse(self) -> None:
        """Do the work, answer with a refusal."""
        self.work()
        await self._answer(_refusal(self.fault))

    async def truncated_body(self) -> None:
        """Do the work, break off in the middle of the answer."""
        await self.wire.truncate(self.decorate(self.work()))

    async def garbage_body(self) -> None:
        """Do the work, answer 200 with no JSON."""
        self.work()
        await self._answer(Reply(200, b"\x00{upstream: connection lost"))

    async def empty_body(self) -> None:
        """Do the work, answer 200 with nothing."""
        self.work()
        await self._answer(Reply(200))

    async def other_id(self) -> None:
        """Do the work, answer with somebody else's order."""
        reply = self.work()
        if reply.order is None or reply.status != HTTPStatus.OK:
            await self._answer(reply)
            return
        shown = json.loads(reply.body)
        strange = self.broker.book.new_id()
        shown |= {"id": strange, "client_order_id": f"other-{strange}"}
        await self._answer(reply_json(shown))

    async def late_visibility(self) -> None:
        """Do the work; lookups and lists do not show it for a while."""
        reply = self.work()
        if reply.order is not None:
            self.broker.hide(reply.order, self.fault.visible_after_s)
        await self._answer(reply)

    async def slow(self) -> None:
        """Do the work, answer late."""
        reply = self.work()
        if await self.wire.pause(self.fault.delay_s):
            await self._answer(reply)

    async def late_accept(self) -> None:
        """Answer nothing, do the work later."""
        self.later(self.fault.delay_s, self.work)
        if self.fault.hang:
            await self.wire.silence(self.fault.hold_s)
        else:
            await self.wire.reset()

    async def late_activities(self) -> None:
        """Do the work; the order's fills are listed late."""
        reply = self.work()
        if reply.order is not None:
            orders = [reply.order, *self.broker.book.legs(reply.order)]
            self.broker.visibility.delay_activities(orders, self.fault.delay_s)
        await self._answer(reply)

    async def late_cancel(self) -> None:
        """Say that it is done, do it later."""
        self.later(self.fault.delay_s, self.work)
        await self._answer(Reply(HTTPStatus.NO_CONTENT))

    async def late_replace(self) -> None:
        """Begin the change, finish it later."""
        await self._answer(self._begun(self.fault.delay_s))

    async def fills_first(self) -> None:
        """Begin the change; the order fills before it takes effect."""
        await self._race(None)

    async def fills_part_first(self) -> None:
        """Begin the change; the order fills by half before it takes effect."""
        await self._race(Decimal("0.5"))

    def _begun(self, delay_s: float) -> Reply:
        with self.broker.delayed(delay_s):
            return self.work()

    async def _race(self, part: Decimal | None) -> None:
        reply = self._begun(max(self.fault.delay_s, SHORTLY_S))
        if reply.order is not None:
            old = self.broker.book.by_id.get(reply.order.replaces or "", reply.order)
            if old.is_open and not old.dormant:
                self.broker.fill_part(old, part)
        await self._answer(reply)

    async def refuse_5xx(self) -> None:
        """Do nothing, answer with a server error."""
        await self._answer(_server_error(self.fault))

    async def reset_before(self) -> None:
        """Do nothing, reset the connection."""
        await self.wire.reset()

    async def hang_before(self) -> None:
        """Do nothing, answer nothing."""
        await self.wire.silence(self.fault.hold_s)

    async def rate_limit(self) -> None:
        """Do nothing, answer 429."""
        if self.fault.html:
            reply = _page(429)
        else:
            reply = reply_error(ApiError(429, 42910000, "rate limit exceeded"))
        if not self.fault.rate_limit_headers:
            await self.wire.answer(reply)
            return
        reply = self.decorate(reply)
        reset_at = math.ceil(wall_now().timestamp() + self.fault.delay_s)
        reply.headers |= {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(reset_at)}
        await self.wire.answer(reply)

    async def unauthorized(self) -> None:
        """Do nothing, answer 401."""
        await self._answer(reply_error(ApiError(401, None, "unauthorized.")))

    async def forbidden(self) -> None:
        """Do nothing, answer 403."""
        await self._answer(reply_error(ApiError(403, None, "forbidden.")))

    async def reject(self) -> None:
        """Do nothing, answer with the refusal that the rule names."""
        await self._answer(_refusal(self.fault))


def _page(status: int) -> Reply:
    page = GATEWAY_PAGE.format(status=status, phrase=HTTPStatus(status).phrase)
    return Reply(status, page.encode(), HTML)


def _server_error(fault: Fault) -> Reply:
    if fault.html:
        return _page(fault.status)
    message = fault.message or "internal server error occurred"
    return reply_error(ApiError(fault.status, fault.code or fault.status * 100000 + 10000, message))


def _refusal(fault: Fault) -> Reply:
    code = fault.code or REFUSAL_CODES.get(fault.status)
    return reply_error(ApiError(fault.status, code, fault.message or "order refused"))


_ACTIONS: dict[str, Callable[[Incident], Awaitable[None]]] = {
    "accept_then_hang": Incident.accept_then_hang,
    "accept_then_reset": Incident.accept_then_reset,
    "accept_then_5xx": Incident.accept_then_5xx,
    "accept_then_refuse": Incident.accept_then_refuse,
    "truncated_body": Incident.truncated_body,
    "garbage_body": Incident.garbage_body,
    "empty_body": Incident.empty_body,
    "other_id": Incident.other_id,
    "late_visibility": Incident.late_visibility,
    "slow": Incident.slow,
    "late_accept": Incident.late_accept,
    "late_activities": Incident.late_activities,
    "late_cancel": Incident.late_cancel,
    "late_replace": Incident.late_replace,
    "fills_first": Incident.fills_first,
    "fills_part_first": Incident.fills_part_first,
    "refuse_5xx": Incident.refuse_5xx,
    "reset_before": Incident.reset_before,
    "hang_before": Incident.hang_before,
    "rate_limit": Incident.rate_limit,
    "unauthorized": Incident.unauthorized,
    "forbidden": Incident.forbidden,
    "reject": Incident.reject,
}
