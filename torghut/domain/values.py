"""Numbers, instants, symbols and text as the domain knows them, and their one canonical form.

Everything that enters an identity goes through here first, so `1`, `1.0` and `"1.00"` are one
value and `AAPL` and `aapl` one symbol. Functions raise `ValueError` with a text that completes
the sentence "<field> …"; the parser of decisions adds the field's name.

Bounds: amounts fit `numeric(28,9)`; more decimals are refused, never rounded.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

import rfc8785

AMOUNT_DECIMALS_MAX = 9
AMOUNT_INTEGER_DIGITS_MAX = 19
SYMBOL_LENGTH_MAX = 32
JSON_DEPTH_MAX = 16

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./_-]*")
_AMOUNT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_INSTANT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,12}))?([Zz]|[+-]\d{2}:?\d{2})", re.ASCII
)
_SAFE_INTEGER_MAX = 2**53 - 1
_SPAN = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_SPAN_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_amount(value: object) -> Decimal:
    """A finite decimal from a JSON number or string, exact; NaN and infinities are refused."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError("must be a number or a string with a number")
    text = str(value).strip()
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"is not a finite decimal number: {_shown(text)}")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"is not a finite decimal number: {_shown(text)}") from None
    if not amount:
        return Decimal(0)
    if amount.adjusted() >= AMOUNT_INTEGER_DIGITS_MAX:
        raise ValueError(f"has more than {AMOUNT_INTEGER_DIGITS_MAX} digits before the point")
    digits = "".join(map(str, amount.as_tuple().digits))
    trailing_zeros = len(digits) - len(digits.rstrip("0"))
    if -(int(amount.as_tuple().exponent) + trailing_zeros) > AMOUNT_DECIMALS_MAX:
        raise ValueError(f"has more than {AMOUNT_DECIMALS_MAX} decimals")
    return amount.normalize()  # exact: 28 digits at most are left, the context's precision


def canonical_amount(amount: Decimal) -> str:
    """The one text of an amount: no exponent, no trailing zeros, no plus, no `-0`."""
    if not amount:
        return "0"
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_instant(value: object) -> datetime:
    """An aware UTC datetime from RFC 3339 text; a missing zone is refused.

    Digits beyond the microsecond must be zeros: cutting them could make two events one.
    """
    if not isinstance(value, str):
        raise ValueError("must be a string with an RFC 3339 time, such as 2026-01-05T14:30:00Z")
    match = _INSTANT.fullmatch(value)
    if match is None:
        if _INSTANT.fullmatch(value + "Z"):
            raise ValueError("has no time zone; end it with Z or an offset such as -05:00")
        raise ValueError(f"is not an RFC 3339 time: {_shown(value)}")
    day, clock, fraction, zone = match.groups()
    fraction = fraction or ""
    if fraction[6:].strip("0"):
        raise ValueError("is finer than a microsecond")
    zone = "+00:00" if zone in "Zz" else zone
    try:
        parsed = datetime.fromisoformat(f"{day}T{clock}.{fraction[:6]:0<6}{zone}")
        if clock.startswith("24") or zone[-2:] > "59":  # taken by some versions of Python
            raise ValueError
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"is not a date and time that exists: {_shown(value)}") from None


def parse_since(value: str, *, now: datetime) -> datetime:
    """An instant from RFC 3339 text, or from how long before `now` it was: `2h`, `3d`, `1d12h`."""
    spans = _SPAN.findall(value)
    try:
        if spans and "".join(n + unit for n, unit in spans) == value:
            return now - sum(
                (timedelta(**{_SPAN_UNITS[unit]: int(n)}) for n, unit in spans), timedelta()
            )
        return parse_instant(value)
    except OverflowError:
        raise ValueError("is too long ago") from None
    except ValueError as error:
        raise ValueError(f"{error}, or how long ago: 90m, 2h, 3d") from None


def canonical_instant(instant: datetime) -> str:
    """UTC with microseconds and `Z`: `2026-01-05T14:30:00.000000Z`."""
    if instant.tzinfo is None:
        raise ValueError("has no time zone")
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def parse_symbol(value: object) -> str:
    """Upper-cased ticker: letters, digits and `./_-`, at most 32 characters."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if len(value) > SYMBOL_LENGTH_MAX:
        raise ValueError(
            f"is {len(value)} characters long, at most {SYMBOL_LENGTH_MAX} are allowed"
        )
    symbol = value.upper() if value.isascii() else value
    if not _SYMBOL.fullmatch(symbol):
        raise ValueError(f"is not a symbol (letters, digits and ./_-): {_shown(value)}")
    return symbol


def parse_text(
    value: object, *, length_max: int, empty: bool = False, control: bool = False
) -> str:
    """NFC text without lone surrogates and, unless `control`, without control characters.

    NUL is always refused: Postgres cannot hold it.
    """
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if len(value) > length_max:
        raise ValueError(f"is {len(value)} characters long, at most {length_max} are allowed")
    if not value and not empty:
        raise ValueError("is empty")
    if not value.isascii():
        value = unicodedata.normalize("NFC", value)
        if len(value) > length_max:
            raise ValueError(f"is over {length_max} characters long in Unicode form NFC")
    if not value.isprintable():
        refused = ("Cs",) if control else ("Cc", "Cs")
        if "\0" in value or any(unicodedata.category(c) in refused for c in value):
            raise ValueError("contains control characters or lone surrogates")
    return value


def canonical_json(value: Mapping[str, object]) -> bytes:
    """RFC 8785 canonical JSON of plain JSON data, as UTF-8."""
    return rfc8785.dumps(value)  # type: ignore[arg-type]


def sha256_hex(value: Mapping[str, object]) -> str:
    """Lowercase hex SHA-256 of the canonical JSON of `value`: 64 characters."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def plain_json(value: object, *, depth: int = 0) -> object:
    """JSON data with numbers in one form (ints, else doubles that hold them exactly) and NFC text.

    For `params`, whose shape is the caller's. Raises ValueError for what has no canonical form.
    """
    if depth > JSON_DEPTH_MAX:
        raise ValueError(f"is nested deeper than {JSON_DEPTH_MAX} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return parse_text(value, length_max=10_000, empty=True, control=True)
    if isinstance(value, (int, float, Decimal)):
        return _plain_number(value)
    if isinstance(value, Mapping):
        plain = {
            parse_text(key, length_max=256): plain_json(item, depth=depth + 1)
            for key, item in value.items()
        }
        if len(plain) != len(value):
            raise ValueError("has two keys that are the same text in Unicode form NFC")
        return plain
    if isinstance(value, (list, tuple)):
        return [plain_json(item, depth=depth + 1) for item in value]
    raise ValueError(f"holds a {type(value).__name__}, which JSON does not have")


def _plain_number(value: int | float | Decimal) -> int | float:
    exact = Decimal(str(value))
    if not exact.is_finite():
        raise ValueError("holds NaN or an infinity")
    if not exact:
        return 0
    if exact.adjusted() < 16 and exact == exact.to_integral_value():
        whole = int(exact)
        if abs(whole) <= _SAFE_INTEGER_MAX:
            return whole
    number = float(exact)
    if Decimal(repr(number)) != exact:
        raise ValueError(f"holds {_shown(str(value))}, which a double cannot hold: send it as text")
    return number


def shown_name(name: object) -> str:
    """A short, plain ASCII form of somebody's field name: it ends up in logs and in JSON lines."""
    return ascii(str(name)[:64])[1:-1]


def _shown(text: str) -> str:
    """A short, printable form of somebody's input for an error message."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")
