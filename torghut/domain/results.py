"""What became of a decision, in one line for whoever sent it: the answer of a retrying executor.

| status                        | `success`                              | `error_code`    |
|-------------------------------|----------------------------------------|-----------------|
| planned, approved, submitting | null: not known yet                    | of the last try |
| in_doubt                      | null                                   | in_doubt        |
| submitted, closed             | true; false if rejected after all      | null; refused   |
| denied; canceled by risk      | false                                  | risk_violation  |
| rejected                      | false                                  | by the refusal  |
| expired, canceled             | false                                  | expired, …      |

`success` says that there is an order, not that it was filled. An order that was found by asking is
one only if the broker did not reject it (story 38). Of the codes `FATAL` is never tried again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torghut.domain.lifecycle import DecisionStatus, Reason

S = DecisionStatus


class ErrorCode(StrEnum):
    """Why there is no order, or none yet."""

    INVALID_SYMBOL = "invalid_symbol"
    UNAUTHORIZED = "unauthorized"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    RISK_VIOLATION = "risk_violation"
    REFUSED = "refused"  # by the broker, for another reason
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    IN_DOUBT = "in_doubt"
    ATTEMPTS_SPENT = "attempts_spent"
    EXPIRED = "expired"
    CANCELED = "canceled"


FATAL = frozenset(
    {
        *(ErrorCode.INVALID_SYMBOL, ErrorCode.UNAUTHORIZED, ErrorCode.INSUFFICIENT_FUNDS),
        *(ErrorCode.RISK_VIOLATION, ErrorCode.REFUSED),
    }
)
"""Never tried again by itself. After `unauthorized` the account is halted, and a person resumes."""

_PENDING = frozenset({S.PLANNED, S.APPROVED, S.SUBMITTING, S.IN_DOUBT})
_BY_REASON: Mapping[str, ErrorCode] = {
    Reason.ACCOUNT_REFUSED: ErrorCode.UNAUTHORIZED,
    Reason.RATE_LIMITED: ErrorCode.RATE_LIMITED,
    Reason.NEVER_LEFT: ErrorCode.UNREACHABLE,
    Reason.ATTEMPTS_SPENT: ErrorCode.ATTEMPTS_SPENT,
    Reason.OUT_OF_TIME: ErrorCode.EXPIRED,
    Reason.CANCELED_BY_OPERATOR: ErrorCode.CANCELED,
}
_SYMBOL = re.compile(
    r"(asset|symbol)\b.*(not found|not tradable|not active|invalid|unknown)"
    r"|(invalid|unknown) (asset|symbol)|could not find asset",
    re.IGNORECASE,
)
_FUNDS = re.compile(r"insufficient|not enough (buying power|funds|cash)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Result:
    """`fill_price` is the average of what is filled so far, `retry_count` the attempts after the
    first; None for what is not known."""

    success: bool | None
    order_id: str | None
    fill_price: str | None
    error: str | None
    retry_count: int
    error_code: ErrorCode | None


def result_of(
    decision: Mapping[str, Any], order: Mapping[str, Any] | None, refusal: str | None
) -> Result:
    """The result of a decision's row (`status, status_reason, status_detail, attempts`), its newest
    order (`broker_order_id, status, avg_px`) and what the broker said when it refused one."""
    status = DecisionStatus(decision["status"])
    code, error = _fault(status, decision, order, refusal)
    pending = status in _PENDING
    return Result(
        success=None if pending else code is None,
        order_id=None if order is None else order["broker_order_id"],
        fill_price=None if order is None else order["avg_px"],
        error=error,
        retry_count=max(0, int(decision["attempts"]) - 1),
        error_code=code,
    )


def _fault(
    status: DecisionStatus,
    decision: Mapping[str, Any],
    order: Mapping[str, Any] | None,
    refusal: str | None,
) -> tuple[ErrorCode | None, str | None]:
    reason, detail = decision["status_reason"], decision["status_detail"]
    if status in (S.SUBMITTED, S.CLOSED):
        if order is not None and order["status"] == "rejected":
            return ErrorCode.REFUSED, "the broker took the order, and rejected it later"
        return None, None
    said = f"{reason}: {detail}" if detail else reason
    if status is S.REJECTED:
        return _refused(refusal or detail or ""), refusal or said
    if status is S.IN_DOUBT:
        return ErrorCode.IN_DOUBT, said
    if reason in _BY_REASON:
        return _BY_REASON[reason], said
    if status in (S.DENIED, S.CANCELED):
        return ErrorCode.RISK_VIOLATION, said
    return (ErrorCode.EXPIRED, said) if status is S.EXPIRED else (None, None)


def _refused(message: str) -> ErrorCode:
    if _SYMBOL.search(message):
        return ErrorCode.INVALID_SYMBOL
    return ErrorCode.INSUFFICIENT_FUNDS if _FUNDS.search(message) else ErrorCode.REFUSED
