"""POST /webhooks/tradingview: alerts of TradingView, each at most one decision.

```
secret ─▶ alert ─▶ decision ─▶ intake      201 · 200 replayed · 409
 401      422 ─▶ a row in Attention        404 where no [webhooks.tradingview] is set
```

1. The secret is in the path or in the body, and compared in constant time. Without the right one
   nothing of a request is kept but its count, and guesses are slowed down.
2. TradingView sends again what was answered 5xx: the same text is the same decision (200).
3. What cannot be traded is answered 422 or 409 with the reason, after it was put where a person
   sees it (torghut.services.alerts).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response

from torghut.domain.alerts import SOURCE, StaleAlert
from torghut.domain.decisions import Decision, load_json
from torghut.domain.errors import Fault, InvalidDecision
from torghut.services import alerts
from torghut.services.batch import INVALID, Accounts, conflict_text, counted
from torghut.storage.rows import Intake, IntakeResult
from torghut.web.alert_document import ALERT
from torghut.web.bodies import JSON, read_body
from torghut.web.decisions_api import answered
from torghut.web.gate import RateLimit
from torghut.web.parts import Staff, WebParts
from torghut.web.problems import Problem, invalid, request_id_of
from torghut.webhook_settings import TradingView

BODY_BYTES_MAX = 16 * 1024
MEDIA_TYPES = (*JSON, "text/plain")  # TradingView names the second where it takes a text for none
GUESSES_PER_S = 5.0

log = structlog.get_logger(__name__)


class Alerts:
    """Takes alerts for one account."""

    def __init__(self, parts: WebParts, staff: Staff, table: TradingView) -> None:
        self._parts = parts
        self._workers = staff.batches
        self._secret = table.secret.get_secret_value()
        self._rules = table.rules()
        self._max_age_s = table.max_age_s
        self._guesses = RateLimit(GUESSES_PER_S)

    async def take(self, request: Request, path_secret: str | None) -> Response:
        """Store the alert's decision, or refuse it."""
        body = await read_body(request, bytes_max=BODY_BYTES_MAX, media_types=MEDIA_TYPES)
        sent = body.decode("utf-8", "replace")
        data, fault = _object(sent)
        self._check(request, path_secret if path_secret is not None else data.get("secret"))
        decision = None if fault else self._read(data)
        if isinstance(decision, Decision):
            accept = partial(self._parts.desk.accept, [decision], source=SOURCE)
            (answer,) = await self._workers.call(accept)
            counted(answer.result.value)
            if answer.result is IntakeResult.CONFLICT:
                await self._refuse(request, sent, conflict_text(answer))
            return _logged(request, answer)
        error = decision if decision is not None else InvalidDecision((fault or Fault("", ""),))
        counted(INVALID)
        await self._refuse(request, sent, str(error))
        kind = "stale-alert" if isinstance(error, StaleAlert) else "wrong-alert"
        raise invalid(error.faults, kind=kind)

    def _check(self, request: Request, given: object) -> None:
        """Raises Problem 401 without the right secret, 429 for too many guesses."""
        text = given if isinstance(given, str) else ""
        if hmac.compare_digest(_digest(text), _digest(self._secret)):
            return
        client = request.client.host if request.client else ""
        if not self._guesses.take(client):
            raise Problem(429, "rate-limited", "too many tries", headers={"Retry-After": "1"})
        log.warning("alert without its secret", request_id=request_id_of(request))
        raise Problem(
            401,
            "wrong-secret",
            "the secret is not that of [webhooks.tradingview]; send it in the path or as `secret`",
            headers={"WWW-Authenticate": "Secret"},
        )

    def _read(self, data: Mapping[str, Any]) -> Decision | InvalidDecision:
        settings = self._parts.settings
        try:
            return alerts.read(
                data,
                self._rules,
                accounts=Accounts(settings.labels, settings.default_account),
                now=self._parts.clock(),
                max_age_s=self._max_age_s,
                ttl=timedelta(seconds=settings.decision_ttl_s),
            )
        except InvalidDecision as error:
            return error

    async def _refuse(self, request: Request, sent: str, problem: str) -> None:
        settings = self._parts.settings
        account = settings.default_account or settings.labels[0]
        keep = partial(
            alerts.refuse,
            *(self._parts.database, account, sent, problem),
            secret=self._secret,
            now=self._parts.clock(),
        )
        new = await self._workers.call(keep)
        log.warning("alert refused", problem=problem, new=new, request_id=request_id_of(request))


def router(parts: WebParts, staff: Staff) -> APIRouter:
    """The routes of webhooks."""
    routes = APIRouter(tags=["webhooks"])
    table = parts.settings.webhooks.tradingview
    taking = Alerts(parts, staff, table) if table is not None else None

    async def take(request: Request, secret: str | None = None) -> Response:
        if taking is None:
            raise Problem(404, "no-webhook", "no [webhooks.tradingview] is in the settings")
        return await taking.take(request, secret)

    @routes.post("/webhooks/tradingview", **ALERT)
    async def tradingview(request: Request) -> Response:
        return await take(request)

    @routes.post("/webhooks/tradingview/{secret}", **ALERT)
    async def tradingview_by_path(request: Request, secret: str) -> Response:
        return await take(request, secret)

    return routes


def _object(sent: str) -> tuple[dict[str, Any], Fault | None]:
    """The alert's JSON object; where it is none, an empty one and why."""
    try:
        data = load_json(sent)
    except InvalidDecision as error:
        return {}, error.faults[0]
    if not isinstance(data, dict):
        return {}, Fault("", "must be a JSON object")
    return data, None


def _logged(request: Request, answer: Intake) -> Response:
    log.info(
        "alert taken",
        decision_hash=answer.decision_hash,
        result=answer.result.value,
        request_id=request_id_of(request),
    )
    return answered(answer)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
