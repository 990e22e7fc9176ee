"""A decision and its identity: what makes two messages the same trade.

```
decision JSON ──parse_decision──▶ Decision
                                   ├─ decision_hash   who·what·when: account strategy symbol side
                                   │                  event_ts intent          → at most one order
                                   └─ payload_digest  how: type amounts prices tif class legs params
same hash, same digest  → replayed: the first answer again
same hash, other digest → conflict: nothing changes, `differing_fields` names the fields
```

Version 1 of the identity is frozen by published vectors (docs/identity-vectors.json). A change
is a new version beside it. Never in either: time of receipt, telemetry, `correlation_id`,
`expires_at`, results of sizing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from torghut.domain.errors import Fault, InvalidDecision
from torghut.domain.orders import ORDER_FIELDS, OrderRequest, parse_order, read_field
from torghut.domain.values import (
    canonical_instant,
    canonical_json,
    parse_instant,
    parse_text,
    plain_json,
    sha256_hex,
    shown_name,
)

HASH_VERSION = 1
PARAMS_BYTES_MAX = 16_384
_TEXT_LENGTHS = {"strategy": 128, "intent": 256, "account": 64, "correlation_id": 256}

_FIELDS = ORDER_FIELDS | {
    *("strategy", "event_ts", "intent", "expires_at", "account", "correlation_id", "params")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One trading decision, complete and checked. Instants are UTC, amounts `Decimal`."""

    account: str
    strategy: str
    order: OrderRequest
    event_ts: datetime
    expires_at: datetime
    intent: str = ""
    correlation_id: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    hash_version: int = HASH_VERSION
    decision_hash: str = ""
    payload_digest: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "decision_hash", sha256_hex(self.identity()))
        object.__setattr__(self, "payload_digest", sha256_hex(self.payload()))

    def identity(self) -> dict[str, object]:
        """The object whose canonical JSON is hashed into `decision_hash`."""
        return {
            "v": self.hash_version,
            "account": self.account,
            "strategy": self.strategy,
            "symbol": self.order.symbol,
            "side": self.order.side.value,
            "event_ts": canonical_instant(self.event_ts),
            "intent": self.intent,
        }

    def payload(self) -> dict[str, object]:
        """The object whose canonical JSON is hashed into `payload_digest`."""
        data = self.order.payload()
        if self.params:
            data["params"] = dict(self.params)
        return data


def parse_decision(
    data: object, *, account: str | None, ttl: timedelta, intent: str | None = None
) -> Decision:
    """A Decision from decision JSON (design: outside interfaces).

    `account` and `ttl` fill in `account` and `expires_at` (event_ts + ttl) where the sender gave
    none (without either account it is a fault); `intent` (an Idempotency-Key) likewise, and must
    not contradict one that was given. Raises InvalidDecision naming every fault.
    """
    if not isinstance(data, Mapping):
        raise InvalidDecision((Fault("", "must be a JSON object with the fields of a decision"),))
    faults = [
        Fault(shown_name(name), "is not a known field of a decision")
        for name in data
        if name not in _FIELDS
    ]
    order = parse_order(data, faults)
    texts = {name: _text(data.get(name), name, faults) for name in _TEXT_LENGTHS}
    event_ts = read_field(data, "event_ts", parse_instant, faults, required=True)
    expires_at = read_field(data, "expires_at", parse_instant, faults)
    params = _params(data, faults)
    given = texts["intent"] or None
    intent = _text(intent or None, "intent", faults)
    if intent is not None and given is not None and given != intent:
        faults.append(Fault("intent", "contradicts the Idempotency-Key; give one of them"))
    account = texts["account"] or account
    if account is None and not any(fault.field == "account" for fault in faults):
        faults.append(Fault("account", "is missing; there are several, and none is the default"))
    if faults or order is None or event_ts is None or account is None:
        raise InvalidDecision(tuple(faults))
    try:
        expiry = expires_at or event_ts + ttl
    except OverflowError:
        raise InvalidDecision((Fault("event_ts", "is too far in the future"),)) from None
    return Decision(
        account=account,
        strategy=texts["strategy"] or "",
        order=order,
        event_ts=event_ts,
        expires_at=expiry,
        intent=given or intent or "",
        correlation_id=texts["correlation_id"],
        params=params,
    )


def load_json(text: str | bytes) -> object:
    """JSON with exact numbers; NaN, infinities and repeated keys are refused.

    Raises InvalidDecision with the place of the fault.
    """
    try:
        return json.loads(
            text,
            parse_float=Decimal,
            parse_int=_exact_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_keys,
        )
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
    except RecursionError:
        problem = "is nested too deeply"
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except ValueError as error:
        problem = str(error)
    raise InvalidDecision((Fault("", problem),))


def differing_fields(first: Mapping[str, object], second: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the fields in which two payloads differ, sorted; nested ones as their parent."""
    names = sorted(set(first) | set(second))
    return tuple(name for name in names if _comparable(first, name) != _comparable(second, name))


def _comparable(payload: Mapping[str, object], name: str) -> bytes | None:
    """Canonical JSON of one field, None if it is absent; `==` would hold 1 and true to be equal."""
    return canonical_json({name: plain_json(payload[name])}) if name in payload else None


def _text(value: object, name: str, faults: list[Fault]) -> str | None:
    if value is None:
        if name == "strategy":
            faults.append(Fault(name, "is missing"))
        return None
    try:
        return parse_text(value, length_max=_TEXT_LENGTHS[name], empty=name == "intent")
    except ValueError as error:
        faults.append(Fault(name, str(error)))
        return None


def _params(data: Mapping[str, object], faults: list[Fault]) -> Mapping[str, object]:
    value = data.get("params")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        faults.append(Fault("params", "must be an object"))
        return {}
    try:
        plain = plain_json(value)
        assert isinstance(plain, dict)
        size = len(canonical_json(plain))
    except ValueError as error:
        faults.append(Fault("params", str(error)))
        return {}
    if size > PARAMS_BYTES_MAX:
        faults.append(Fault("params", f"is {size} bytes of JSON, at most {PARAMS_BYTES_MAX}"))
    return plain


def _exact_integer(digits: str) -> int | Decimal:
    """An int; beyond 300 digits a Decimal, as Python refuses to parse ints of over 4,300."""
    return int(digits) if len(digits) <= 300 else Decimal(digits)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"holds {name}, which is not a number JSON knows")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    data = dict(pairs)
    if len(data) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = sorted(ascii(key[:40]) for key, count in counts.items() if count > 1)[:10]
        raise ValueError("names a field twice: " + ", ".join(twice))
    return data
