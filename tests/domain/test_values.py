"""Amounts, instants, symbols, texts and canonical JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.reference_identity import canonical, ecmascript_number
from torghut.domain.values import (
    canonical_amount,
    canonical_instant,
    canonical_json,
    parse_amount,
    parse_instant,
    parse_symbol,
    parse_text,
    plain_json,
    sha256_hex,
    shown_name,
)

AMOUNTS = st.decimals(
    min_value=Decimal("-1e19") + 1,
    max_value=Decimal("1e19") - 1,
    places=9,
    allow_nan=False,
    allow_infinity=False,
)


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1.00", "1"),
        (Decimal("1E+0"), "1"),
        ("1e2", "100"),
        (" 5 ", "5"),
        ("+.5", "0.5"),
        ("5.", "5"),
        ("-0.0", "0"),
        ("0e999", "0"),
        (0.1, "0.1"),
        (1e-9, "0.000000001"),
        ("007", "7"),
        ("-12.50", "-12.5"),
        ("9999999999999999999.999999999", "9999999999999999999.999999999"),
        ("1." + "0" * 100, "1"),
        ("1000e-3", "1"),
    ],
)
def test_an_amount_has_one_text(given_value: object, text: str) -> None:
    assert canonical_amount(parse_amount(given_value)) == text


@pytest.mark.parametrize(
    "refused",
    [
        "NaN",
        "sNaN",
        "Infinity",
        float("nan"),
        float("inf"),
        Decimal("-Infinity"),
        "",
        " ",
        "1_000",
        "1,000",
        "0x10",
        "٣",
        "1e",
        "1e9999",
        "--1",
        "1e19",
        "1e-10",
        "0.1234567891",
        True,
        None,
        [1],
        b"1",
    ],
)
def test_what_is_no_amount_is_refused(refused: object) -> None:
    with pytest.raises(ValueError):
        parse_amount(refused)


@pytest.mark.parametrize("text", ["1." + "0" * 40 + "1", "9999999999999999999.9999999999"])
def test_digits_beyond_the_precision_of_the_context_are_refused_not_rounded(text: str) -> None:
    with pytest.raises(ValueError, match="more than 9 decimals"):
        parse_amount(text)


@given(AMOUNTS)
def test_an_amount_is_kept_to_the_last_digit(amount: Decimal) -> None:
    text = canonical_amount(parse_amount(str(amount)))
    assert Decimal(text) == amount
    assert canonical_amount(parse_amount(text)) == text
    assert "e" not in text.lower() and not text.startswith("+")


@given(AMOUNTS, st.integers(0, 5), st.integers(-15, 15))
def test_the_spelling_of_a_number_does_not_matter(amount: Decimal, zeros: int, shift: int) -> None:
    plain = f"{amount:f}"
    shifted = f"{amount:f}".lstrip("-").replace(".", "")
    spelled = f"{'-' if amount < 0 else ''}{'0' * zeros}{shifted}{'0' * zeros}e{-9 - zeros}"
    assert parse_amount(plain) == parse_amount(plain + "0" * zeros) == parse_amount(spelled)
    assert parse_amount(f"{amount.scaleb(shift):f}e{-shift}") == amount


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-05T14:30:00Z", "2026-01-05T14:30:00.000000Z"),
        ("2026-01-05t09:30:00-05:00", "2026-01-05T14:30:00.000000Z"),
        ("2026-01-05 09:30:00.5-0500", "2026-01-05T14:30:00.500000Z"),
        ("2026-01-05T14:30:00.123456000z", "2026-01-05T14:30:00.123456Z"),
        ("2024-02-29T23:59:59+00:00", "2024-02-29T23:59:59.000000Z"),
        ("2024-02-29T23:30:00-05:00", "2024-03-01T04:30:00.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_an_instant_has_one_text_in_utc(text: str, instant: str) -> None:
    parsed = parse_instant(text)
    assert parsed.utcoffset() == timedelta(0)
    assert canonical_instant(parsed) == instant


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2026-01-05T14:30:00", "has no time zone"),
        ("2026-01-05", "is not an RFC 3339 time"),
        ("now", "is not an RFC 3339 time"),
        ("2026-01-05T14:30:00.1234567Z", "finer than a microsecond"),
        ("2026-02-29T14:30:00Z", "exists"),
        ("2026-01-05T24:00:00Z", "exists"),
        ("2026-01-05T23:59:60Z", "exists"),
        ("2026-01-05T14:30:00+05:60", "exists"),
        ("2026-01-05T14:30:00+24:00", "exists"),
        ("9999-12-31T23:00:00-05:00", "exists"),
        ("0001-01-01T00:00:00+01:00", "exists"),
        (1767623400, "must be a string"),
    ],
)
def test_what_is_no_instant_is_refused(text: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_instant(text)


@given(st.datetimes(), st.integers(-12 * 60, 14 * 60))
def test_an_instant_is_the_same_in_every_zone(local: datetime, offset_min: int) -> None:
    instant = local.replace(tzinfo=UTC)
    try:
        elsewhere = instant.astimezone(timezone(timedelta(minutes=offset_min)))
    except OverflowError:
        return
    assert parse_instant(elsewhere.isoformat()) == instant
    assert canonical_instant(elsewhere) == canonical_instant(instant)
    assert parse_instant(canonical_instant(instant)) == instant


def test_a_naive_instant_has_no_text() -> None:
    with pytest.raises(ValueError, match="time zone"):
        canonical_instant(datetime(2026, 1, 5, tzinfo=UTC).replace(tzinfo=None))


@pytest.mark.parametrize(
    ("text", "symbol"),
    [("aapl", "AAPL"), ("brk.b", "BRK.B"), ("BTC/usd", "BTC/USD"), ("A" * 32, "A" * 32)],
)
def test_a_symbol_is_upper_case(text: str, symbol: str) -> None:
    assert parse_symbol(text) == symbol


@pytest.mark.parametrize(
    "refused", ["", " AAPL", "AAPL\n", "A" * 33, "A" * 10_000, "AAPLİ", "ſ", "/USD", "$X", 7, None]
)
def test_what_is_no_symbol_is_refused_in_a_short_message(refused: object) -> None:
    with pytest.raises(ValueError) as caught:
        parse_symbol(refused)
    assert len(str(caught.value)) < 120 and str(caught.value).isascii()


def test_text_is_nfc_and_has_no_control_characters() -> None:
    assert parse_text("cafe\u0301", length_max=4 + 1) == "caf\u00e9"
    assert parse_text("a\u2028b \U0001f680", length_max=9) == "a\u2028b \U0001f680"
    assert parse_text("", length_max=1, empty=True) == ""
    assert parse_text("\t\x7f", length_max=9, control=True) == "\t\x7f"
    for refused in ("", "\x00", "\x7f", "\n", "\ud800", "abcdef", 1, None):
        with pytest.raises(ValueError):
            parse_text(refused, length_max=5)
    with pytest.raises(ValueError):
        parse_text("\0", length_max=5, control=True)


def test_text_that_grows_in_nfc_is_measured_afterwards() -> None:
    with pytest.raises(ValueError, match="NFC"):
        parse_text("\u0958" * 5, length_max=5)


def test_a_name_in_a_message_is_short_ascii() -> None:
    assert shown_name("qty") == "qty"
    assert shown_name("\ud800\n") == "\\ud800\\n"
    assert len(shown_name("x" * 10_000)) == 64


@pytest.mark.parametrize(
    ("value", "text"),
    [  # RFC 8785 appendix B, and the borders of the exponent form
        (333333333.33333329, "333333333.3333333"),
        (1e30, "1e+30"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (4.5, "4.5"),
        (0.002, "0.002"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1e-27, "1e-27"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_numbers_in_canonical_json(value: float, text: str) -> None:
    assert canonical_json({"x": plain_json(value)}) == f'{{"x":{text}}}'.encode()
    assert ecmascript_number(Decimal(repr(value))) == text


def test_canonical_json_sorts_by_utf16_and_escapes_as_little_as_it_can() -> None:
    value = {"\uff5e": 1, "\U0001f680": 2, "a": '"\\/\b\x1f\x7f\u2028'}
    text = '{"a":"\\"\\\\/\\b\\u001f\x7f\u2028","\U0001f680":2,"\uff5e":1}'
    assert canonical_json(value).decode() == text
    assert (
        sha256_hex({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )  # SHA-256 of "{}"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_has_the_ecmascript_text(value: float) -> None:
    ours = canonical_json({"x": plain_json(value)}).decode()
    assert ours == canonical({"x": Decimal(repr(value))})
    assert plain_json(plain_json(value)) == plain_json(value)


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 1.0), (1, Decimal("1.00")), (10**21, 1e21), (0, -0.0), (0.5, Decimal("5e-1"))],
)
def test_equal_numbers_in_params_are_one_value(first: object, second: object) -> None:
    assert canonical_json({"x": plain_json(first)}) == canonical_json({"x": plain_json(second)})


@pytest.mark.parametrize(
    "refused",
    [
        float("nan"),
        float("inf"),
        Decimal("1e400"),
        Decimal("1e9999999"),
        Decimal("1e-9999999"),
        2**53 + 1,
        10**5000,
        Decimal("0.1234567890123456789"),
        "\ud800",
        "\0",
        {"": 1},
        {1: 2},
        {"\u00e9": 1, "e\u0301": 2},
        {"x": b"bytes"},
        {"x": {1, 2}},
        "x" * 10_001,
    ],
    ids=lambda value: ascii(value)[:20] if not isinstance(value, int) else "integer",
)
def test_what_has_no_canonical_form_is_refused(refused: object) -> None:
    with pytest.raises(ValueError):
        plain_json(refused)


def test_depth_is_bounded() -> None:
    value: object = 1
    for _ in range(17):
        value = [value]
    with pytest.raises(ValueError, match="16 levels"):
        plain_json(value)
