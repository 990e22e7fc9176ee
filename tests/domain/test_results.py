"""What a decision's rows come to, for whoever sent it."""

from __future__ import annotations

import pytest

from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.results import FATAL, ErrorCode, result_of

ORDER = {"broker_order_id": "b", "status": "filled", "avg_px": "10.5"}

CASES = [
    ("planned", None, 0, None, None, None),
    ("approved", "never_left", 1, None, None, "unreachable"),
    ("approved", "account_refused", 1, None, None, "unauthorized"),
    ("approved", "rate_limited", 4, None, None, "rate_limited"),
    ("submitting", None, 1, None, None, None),
    ("in_doubt", "no_definite_answer", 1, None, None, "in_doubt"),
    ("in_doubt", "attempts_spent", 3, None, None, "in_doubt"),
    ("submitted", "accepted", 1, "new", True, None),
    ("submitted", "recovered", 1, "rejected", False, "refused"),  # story 38
    ("closed", "order_terminal", 2, "canceled", True, None),
    ("closed", "order_terminal", 2, "rejected", False, "refused"),
    ("denied", "max_order_qty", 0, None, False, "risk_violation"),
    ("canceled", "max_order_qty", 1, None, False, "risk_violation"),
    ("canceled", "canceled_by_operator", 0, None, False, "canceled"),
    ("rejected", "refused_by_broker", 1, None, False, "refused"),
    ("expired", "out_of_time", 0, None, False, "expired"),
    ("expired", "attempts_spent", 3, None, False, "attempts_spent"),
]


@pytest.mark.parametrize(("status", "reason", "attempts", "order", "success", "code"), CASES)
def test_result(
    status: str, reason: str, attempts: int, order: str | None, success: bool | None, code: str
) -> None:
    row = {"status": status, "status_reason": reason, "status_detail": "why", "attempts": attempts}
    found = result_of(row, {**ORDER, "status": order} if order else None, None)
    assert (found.success, found.error_code) == (success, code)
    assert (found.error is None) == (code is None)
    assert found.retry_count == max(0, attempts - 1)
    assert (found.order_id, found.fill_price) == (("b", "10.5") if order else (None, None))


def test_every_status_has_a_case_and_what_is_fatal() -> None:
    assert {case[0] for case in CASES} == {status.value for status in DecisionStatus}
    assert {code.value for code in FATAL} == {
        "invalid_symbol", "unauthorized", "insufficient_funds", "risk_violation", "refused",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('asset "XYZ" not found', ErrorCode.INVALID_SYMBOL),
        ("invalid symbol: XYZ", ErrorCode.INVALID_SYMBOL),
        ("could not find asset XYZ", ErrorCode.INVALID_SYMBOL),
        ("asset XYZ is not tradable", ErrorCode.INVALID_SYMBOL),
        ("insufficient buying power", ErrorCode.INSUFFICIENT_FUNDS),
        (
            "insufficient balance for USD (requested: 10)",
            ErrorCode.INSUFFICIENT_FUNDS,
        ),
        ("cost basis must be >= minimal amount of order 1", ErrorCode.REFUSED),
    ],
)
def test_refusals_in_the_words_of_the_broker(said: str, code: ErrorCode) -> None:
    row = {"status": "rejected", "status_reason": "refused_by_broker", "status_detail": "",
           "attempts": 1}  # fmt: skip
    found = result_of(row, None, said)
    assert (found.error_code, found.error) == (code, said)
