"""A second implementation of the identity, from docs/identity.md alone.

It imports nothing of torghut and no RFC 8785 package, so that the published vectors check the
code and not the other way round.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal

AMOUNTS = ("qty", "notional", "limit_price", "stop_price", "trail_price", "trail_percent")


def identity_and_payload(text: str, account: str) -> tuple[str, str]:
    """Canonical JSON texts of the identity and the payload of a decision in JSON."""
    data = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    identity = {
        "v": Decimal(1),
        "account": nfc(data.get("account") or account),
        "strategy": nfc(data["strategy"]),
        "symbol": data["symbol"].upper(),
        "side": data["side"],
        "event_ts": instant(data["event_ts"]),
        "intent": nfc(data.get("intent") or ""),
    }
    payload: dict[str, object] = {
        "type": data["type"],
        "time_in_force": data.get("time_in_force") or "day",
        "extended_hours": data.get("extended_hours") or False,
        "order_class": data.get("order_class") or "simple",
    }
    payload |= amounts(data, AMOUNTS)
    if data.get("take_profit"):
        payload["take_profit"] = amounts(data["take_profit"], ("limit_price",))
    if data.get("stop_loss"):
        payload["stop_loss"] = amounts(data["stop_loss"], ("stop_price", "limit_price"))
    if data.get("params"):
        payload["params"] = data["params"]
    return canonical(identity), canonical(payload)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def amounts(data: dict[str, object], names: tuple[str, ...]) -> dict[str, object]:
    return {name: amount(data[name]) for name in names if data.get(name) is not None}


def amount(value: object) -> str:
    text = f"{Decimal(str(value)):f}".lstrip("+")
    whole, _, fraction = text.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def instant(text: str) -> str:
    """Python reads at most six digits of a second; what is beyond them is zeros."""
    text = text.upper().replace(" ", "T").replace("Z", "+00:00")
    clock, dot, rest = text.partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{clock}.{digits[:6]:0<6}{rest[len(digits) :]}"
    at = datetime.fromisoformat(text).astimezone(UTC)
    day = f"{at.year:04}-{at.month:02}-{at.day:02}"
    return f"{day}T{at.hour:02}:{at.minute:02}:{at.second:02}.{at.microsecond:06}Z"


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def canonical(value: object) -> str:
    """RFC 8785 for dict, list, str, bool, None and Decimal."""
    if isinstance(value, dict):
        members = {nfc(key): item for key, item in value.items()}
        ordered = sorted(members, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(k)}:{canonical(members[k])}" for k in ordered) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, Decimal):
        return ecmascript_number(value)
    return json.dumps(nfc(value) if isinstance(value, str) else value, ensure_ascii=False)


def ecmascript_number(value: Decimal) -> str:
    """Number::toString of ECMA-262 for a decimal that is the shortest text of its double."""
    if not value:
        return "0"
    sign, raw, exponent = value.as_tuple()
    digits = "".join(map(str, raw)).lstrip("0")
    assert isinstance(exponent, int)
    point = len(digits) + exponent
    digits = digits.rstrip("0")
    count, minus = len(digits), "-" if sign else ""
    if count <= point <= 21:
        return minus + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{minus}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    mantissa = digits if count == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{minus}{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"
