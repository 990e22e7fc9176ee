"""docs/risk.md says what the code does: its tables are made from it."""

from __future__ import annotations

from tests.risk_reference import FILE, rendered
from torghut.domain.deny_reasons import MEANING, PRECEDENCE, DenyReason
from torghut.domain.limits import AT_LEAST, COUNTED, LIMITS, LIVE_LIMITS
from torghut.domain.risk_policy import SWITCHES


def test_the_document_is_current() -> None:
    """Mend it with `python -m tests.risk_reference`."""
    text = FILE.read_text(encoding="utf-8")
    assert rendered(text) == text


def test_every_switch_is_in_the_document() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert [name for name in SWITCHES if f"| `{name}` |" not in text] == []


def test_the_enumerations_are_closed() -> None:
    assert set(MEANING) == set(DenyReason) == set(PRECEDENCE)
    assert set(LIMITS) >= AT_LEAST and set(LIMITS) >= COUNTED and set(LIVE_LIMITS) <= set(LIMITS)
