"""Deterministic keys: SHA-256, whole, of RFC 8785 canonical JSON. Nothing here reads a clock.

    order_key       who, what, when: the same as Torghut's decision_hash (docs/identity.md)
    signal_key      one signal of one strategy for one symbol
    risk_check_key  one judgement of one order under one policy
    payload_digest  any JSON data: does a second request under a key say the same?

Amounts are decimals as text in one form, so that 1, 1.0 and "1.00" are one value; instants are UTC
with microseconds, and need a zone; symbols are upper case, text is in Unicode form NFC. What has
no one form is refused with ValueError: NaN, infinities, naive times, two keys that are one in NFC.
A float is taken as it is written: 0.1 is 0.1.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import rfc8785

DEPTH_MAX = 16
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./_-]{0,31}")
_AMOUNT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_BEYOND_MICROSECONDS = re.compile(r"\.\d{6}\d*[1-9]")

Amount = Decimal | int | float | str


def order_key(
    *,
    account: str,
    strategy: str,
    symbol: str,
    side: str,
    event_ts: datetime | str,
    intent: str = "",
) -> str:
    """Key of an order; `event_ts` is when the signal happened, `intent` tells equal ones apart."""
    if side not in ("buy", "sell"):
        raise ValueError("side must be buy or sell")
    return _hash(
        {
            "v": 1,
            "account": _text(account),
            "strategy": _text(strategy),
            "symbol": _symbol(symbol),
            "side": side,
            "event_ts": instant(event_ts),
            "intent": _text(intent, empty=True),
        }
    )


def signal_key(
    *,
    strategy: str,
    symbol: str,
    event_ts: datetime | str,
    name: str = "",
    values: Mapping[str, Amount] | None = None,
) -> str:
    """Key of a signal: `name` is its kind, `values` the amounts that make it another one."""
    return _hash(
        {
            "v": 1,
            "kind": "signal",
            "strategy": _text(strategy),
            "symbol": _symbol(symbol),
            "event_ts": instant(event_ts),
            "name": _text(name, empty=True),
            "values": {_text(key): amount(value) for key, value in (values or {}).items()},
        }
    )


def risk_check_key(*, order: str, policy: str, check: str = "") -> str:
    """Key of a judgement: of `order` (an order_key) by `policy` (its version); `check` is one of
    its checks, or all."""
    if not re.fullmatch("[0-9a-f]{64}", order):
        raise ValueError("order must be an order_key: 64 hexadecimal digits")
    return _hash(
        {
            "v": 1,
            "kind": "risk_check",
            "order": order,
            "policy": _text(policy),
            "check": _text(check, empty=True),
        }
    )


def payload_digest(payload: object) -> str:
    """Digest of JSON data, with Decimals and instants in it as text. Raises ValueError."""
    return _hash(_plain(payload, 0))


def amount(value: Amount) -> str:
    """The one text of an amount: no exponent, no trailing zeros, no plus, no `-0`."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError("an amount is a number or a string with one")
    written = str(value).strip()
    if not _AMOUNT.fullmatch(written):
        raise ValueError(f"{written[:40]!a} is not a finite decimal number")
    try:
        number = Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{written[:40]!a} is not a finite decimal number") from None
    if not number:
        return "0"
    if abs(number.adjusted()) > 64:
        raise ValueError(f"{written[:40]!a} is no amount: over 64 digits")
    plain = format(number, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def instant(value: datetime | str) -> str:
    """UTC with microseconds and `Z`; a time without a zone is refused."""
    if isinstance(value, str):
        if _BEYOND_MICROSECONDS.search(value):
            raise ValueError("the time is finer than a microsecond")
        value = datetime.fromisoformat(value.replace("z", "Z"))
    if value.tzinfo is None:
        raise ValueError("the time has no zone")
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def _hash(document: object) -> str:
    return hashlib.sha256(rfc8785.dumps(document)).hexdigest()  # type: ignore[arg-type]


def _symbol(value: str) -> str:
    symbol = value.upper() if value.isascii() else value
    if not _SYMBOL.fullmatch(symbol):
        raise ValueError(f"{value[:40]!a} is not a symbol (letters, digits and ./_-)")
    return symbol


def _text(value: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise ValueError("a name is a string")
    normal = unicodedata.normalize("NFC", value)
    if not normal and not empty:
        raise ValueError("a name is empty")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in normal):
        raise ValueError("a name holds control characters or lone surrogates")
    return normal


def _plain(value: object, depth: int) -> object:
    """JSON data in one form; numbers become text, so that none loses a digit."""
    if depth > DEPTH_MAX:
        raise ValueError(f"the payload is nested deeper than {DEPTH_MAX} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        normal = unicodedata.normalize("NFC", value)
        if any(unicodedata.category(character) == "Cs" for character in normal):
            raise ValueError("the payload holds lone surrogates")
        return normal
    if isinstance(value, (int, float, Decimal)):
        return {"number": amount(value)}
    if isinstance(value, datetime):
        return {"instant": instant(value)}
    if isinstance(value, Mapping):
        plain = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError("the payload has a key that is no string")
            plain[unicodedata.normalize("NFC", key)] = _plain(item, depth + 1)
        if len(plain) != len(value):
            raise ValueError("the payload has two keys that are the same text in Unicode form NFC")
        return {"object": plain}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    raise ValueError(f"the payload holds a {type(value).__name__}, which JSON does not have")
