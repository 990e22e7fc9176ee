"""Refusals as RFC 9457 problem details: one shape for everything that is not a success.

```
{"type": "urn:torghut:problem:…", "title", "status", "detail", "request_id", …extensions}
```

`detail` is written for the sender and holds nothing of ours: no stack trace, no SQL, no address.
Extensions: `errors` [{field, problem}] of invalid input, `differing_fields` and `decision_hash` of
a conflict. What is unexpected becomes a 500 with the request id only; the rest is in the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from torghut.domain.errors import DatabaseUnavailable, Fault, InvalidDecision, NotDurable
from torghut.domain.values import shown_name

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
ERRORS_SHOWN_MAX = 100

log = structlog.get_logger(__name__)


class Problem(Exception):
    """A refusal with its status; `kind` names it in `type`, `extensions` go in as they are."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        extensions: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.extensions = dict(extensions or {})
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> Response:
        """The answer to send."""
        body = {
            "type": f"urn:torghut:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.extensions,
        }
        return Response(json.dumps(body), self.status, self.headers, MEDIA_TYPE)


def invalid(faults: Iterable[Fault], *, kind: str = "invalid-decision") -> Problem:
    """422 with every fault, up to ERRORS_SHOWN_MAX of them."""
    all_faults = list(faults)
    shown = [{"field": f.field, "problem": f.problem} for f in all_faults[:ERRORS_SHOWN_MAX]]
    if len(all_faults) > len(shown):
        more = len(all_faults) - len(shown)
        shown.append({"field": "", "problem": f"and {more} more that are not shown"})
    count = "1 fault" if len(all_faults) == 1 else f"{len(all_faults)} faults"
    return Problem(422, kind, f"{count} found; see errors", extensions={"errors": shown})


def unavailable(detail: str) -> Problem:
    """503: the same request again a little later."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})


def problem_of(error: Exception) -> Problem:
    """The problem an exception stands for; 500 for those nobody expected."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidDecision):
        return invalid(error.faults)
    if isinstance(error, DatabaseUnavailable):
        return unavailable(
            "the database does not answer; nothing is acknowledged. Send the same again: "
            "a decision that was stored after all is answered as replayed"
        )
    if isinstance(error, NotDurable):
        return unavailable(
            "the database did not confirm that the change is on every disk it must be on; "
            "nothing is acknowledged"
        )
    if isinstance(error, RequestValidationError):
        return invalid(_query_faults(error), kind="invalid-query")
    if isinstance(error, HTTPException):
        return Problem(
            error.status_code, "http", str(error.detail), headers=dict(error.headers or {})
        )
    return Problem(500, "internal", "something went wrong here; the log has it by request_id")


def request_id_of(request: Request) -> str:
    """The id the gate gave to the request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


async def answer(request: Request, error: Exception) -> Response:
    """Exception handler: the problem as an answer, and a log line where it is ours."""
    problem = problem_of(error)
    request_id = request_id_of(request)
    if problem.status == 500:
        log.exception("request failed", request_id=request_id, exc_info=error)
    elif problem.status > 500:
        log.warning("request not served", request_id=request_id, error=str(error))
    return problem.response(request_id)


def _query_faults(error: RequestValidationError) -> list[Fault]:
    """Faults of query parameters, without the values that were sent."""
    faults = []
    for item in error.errors():
        field = shown_name(item["loc"][-1]) if item["loc"] else ""
        text = "is not a known parameter" if item["type"] == "extra_forbidden" else item["msg"]
        faults.append(Fault(field, text.removeprefix("Value error, ")))
    return faults
