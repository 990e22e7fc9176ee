"""Deterministic keys: story 36, no "now", nothing cut off, one value one text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torghut.idempotency import order_key, payload_digest, risk_check_key, signal_key
from torghut.idempotency.keys import amount, instant

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "identity-vectors.json").read_text())
ACCEPTED = [v for v in VECTORS["vectors"] if "decision_hash" in v]
IDENTITY = ("strategy", "symbol", "side", "event_ts", "intent")
REFUSED = [
    v
    for v in VECTORS["vectors"]
    if v.get("error_fields") in (["event_ts"], ["symbol"], ["strategy"])
    and not v["name"].startswith(("several", "hour 24", "offset of"))
]
AT = "2026-01-05T14:30:00Z"


def identity(vector: dict[str, str]) -> dict[str, str]:
    data = json.loads(vector["decision"])
    given = {name: data[name] for name in IDENTITY if data.get(name) is not None}
    return {"account": data.get("account") or vector["account"], **given}


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda v: v["name"].replace(" ", "-"))
def test_an_order_has_the_published_identity(vector: dict[str, str]) -> None:
    """One identity, not a second one: the key of an order is its decision_hash."""
    assert order_key(**identity(vector)) == vector["decision_hash"]


@pytest.mark.parametrize("vector", REFUSED, ids=lambda v: v["name"].replace(" ", "-"))
def test_what_has_no_identity_has_no_key(vector: dict[str, str]) -> None:
    with pytest.raises((ValueError, AttributeError, OverflowError)):
        order_key(**identity(vector))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6), st.integers(0, 5))
def test_an_amount_has_one_text(value: Decimal, zeros: int) -> None:
    """However it is written, and back again."""
    written = amount(value)
    assert amount(f"{value:f}" + ("" if not zeros else "0" * zeros)) == written
    assert amount(f"{value:e}") == written
    assert Decimal(written) == value
    assert amount(written) == written
    assert not re.search(r"[eE+]|^-0$|\.$|\.\d*0$", written)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "NaN", "-Infinity", "1_0", "", True])
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"amount|number"):
        amount(value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"amount|number"):
        signal_key(strategy="s", symbol="A", event_ts=AT, values={"x": value})  # type: ignore[dict-item]


@given(st.datetimes().filter(lambda at: 2 <= at.year <= 9998), st.integers(-14, 14))
def test_an_instant_has_one_text_in_whatever_zone(at: datetime, hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    there = at.replace(tzinfo=UTC).astimezone(zone)
    assert instant(there) == instant(there.isoformat()) == instant(at.replace(tzinfo=UTC))
    with pytest.raises(ValueError, match="zone"):
        instant(at)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5).filter(str.isprintable),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(JSON, JSON)
def test_payloads_have_the_same_digest_if_they_are_the_same(one: object, other: object) -> None:
    """And only then, up to Unicode form."""

    def plain(value: object) -> str:
        return unicodedata.normalize("NFC", json.dumps(value, sort_keys=True, ensure_ascii=False))

    assert (payload_digest(one) == payload_digest(other)) == (plain(one) == plain(other))


def test_numbers_of_a_payload_are_values_and_not_spellings() -> None:
    assert payload_digest({"qty": 1}) == payload_digest({"qty": 1.0})
    assert payload_digest({"qty": 1}) == payload_digest({"qty": Decimal("1.00")})
    assert payload_digest({"qty": 1}) != payload_digest({"qty": "1"})
    assert payload_digest({"qty": 1}) != payload_digest({"qty": True})
    for bad in (float("nan"), float("inf"), {1: 2}, {"x": object()}, "\ud800"):
        with pytest.raises(ValueError, match=r"number|payload"):
            payload_digest({"x": bad})
    with pytest.raises(ValueError, match="NFC"):
        payload_digest({"é": 1, "e\u0301": 2})


def test_kinds_of_keys_do_not_meet() -> None:
    order = order_key(account="a", strategy="s", symbol="A", side="buy", event_ts=AT)
    keys = {
        order,
        signal_key(strategy="s", symbol="A", event_ts=AT),
        signal_key(strategy="s", symbol="A", event_ts=AT, name="cross"),
        signal_key(strategy="s", symbol="A", event_ts=AT, values={"x": 1}),
        risk_check_key(order=order, policy="v1"),
        risk_check_key(order=order, policy="v2"),
        risk_check_key(order=order, policy="v1", check="collar"),
    }
    assert len(keys) == 7
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
    assert signal_key(
        strategy="s", symbol="a", event_ts="2026-01-05T09:30:00-05:00", values={"x": "1.0"}
    ) == signal_key(strategy="s", symbol="A", event_ts=AT, values={"x": 1})
    with pytest.raises(ValueError, match="order_key"):
        risk_check_key(order="x", policy="v1")


def test_a_key_is_the_same_in_another_process_at_another_time() -> None:
    """Nothing of the process or of the clock is in it: hash seeds and zones differ here."""
    script = (
        "from torghut.idempotency.keys import signal_key\n"
        f"print(signal_key(strategy='s', symbol='A', event_ts='{AT}', values={{'b': 1, 'a': 2}}))"
    )
    environment = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    here = signal_key(strategy="s", symbol="A", event_ts=AT, values={"a": 2, "b": 1})
    assert done.stdout.strip() == here
