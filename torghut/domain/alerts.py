"""TradingView alerts: from the text of an alert to the JSON of a decision.

```
{"secret", "alert", "ticker", "exchange"?, "action", "contracts", "price"?,
 "time", "timenow", "event_id"?, "order_id"?, "comment"?}
```

1. **Identity.** `event_ts` is the bar's `time`, and `intent` the event: `event_id`, or the alert's
   name with the bar's time (and `order_id`). So the same alert of the same bar is one decision,
   however often and whenever it is sent; `timenow` is in neither.
2. **Age.** An alert whose `timenow` is older than `max_age_s` is refused: a late order is not what
   the chart meant. What is sent must be of its own bar or after it.
3. What the settings do not name is refused: the alert, and the symbol where symbols are listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from torghut.domain.errors import Fault, InvalidDecision
from torghut.domain.values import canonical_instant, parse_instant, parse_text, shown_name

SOURCE = "tradingview"
AHEAD_S_MAX = 60.0
FIELDS = (
    *("secret", "alert", "ticker", "exchange", "action", "contracts", "price"),
    *("time", "timenow", "event_id", "order_id", "comment"),
)
_TEXTS = {
    "alert": 64,
    "ticker": 64,
    "exchange": 32,
    "event_id": 128,
    "order_id": 64,
    "comment": 256,
}
NEEDED = ("alert", "ticker", "action", "contracts", "time", "timenow")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """What an alert stands for. `symbols`: `EXCHANGE:TICKER` or ticker → symbol; empty: any."""

    strategy: str
    order_type: str = "market"
    time_in_force: str = "day"
    extended_hours: bool = False
    symbols: Mapping[str, str] = field(default_factory=dict)


class StaleAlert(InvalidDecision):
    """The alert is too old, or of the future, to be traded."""


def decision_of(
    body: Mapping[str, Any],
    rules: Mapping[str, AlertRule],
    *,
    now: datetime,
    max_age_s: float,
    ttl: timedelta,
) -> dict[str, Any]:
    """The decision JSON that an alert stands for, to be parsed as any other.

    Raises InvalidDecision naming every fault, StaleAlert.
    """
    faults = [
        Fault(shown_name(name), "is not a known field") for name in body if name not in FIELDS
    ]
    faults += [Fault(name, "is missing") for name in NEEDED if body.get(name) in (None, "")]
    texts = {name: _text(body, name, length, faults) for name, length in _TEXTS.items()}
    bar, fired = _instant(body, "time", faults), _instant(body, "timenow", faults)
    rule = rules.get(texts["alert"]) if texts["alert"] else None
    if texts["alert"] and rule is None:
        faults.append(Fault("alert", "is not named in the settings, [webhooks.tradingview.alerts]"))
    symbol = _symbol(rule, texts["exchange"], texts["ticker"], faults) if rule else None
    if faults or rule is None or bar is None or fired is None or symbol is None:
        raise InvalidDecision(tuple(faults))
    _check_age(bar, fired, now, max_age_s)
    limit = {"limit_price": body.get("price")} if rule.order_type == "limit" else {}
    return {
        "strategy": rule.strategy,
        "symbol": symbol,
        "side": body["action"],
        "qty": body["contracts"],
        "type": rule.order_type,
        "time_in_force": rule.time_in_force,
        **({"extended_hours": True} if rule.extended_hours else {}),
        **limit,
        "event_ts": canonical_instant(bar),
        "intent": event_name(texts["alert"], bar, texts["event_id"], texts["order_id"]),
        "expires_at": canonical_instant(fired + ttl),
        **({"correlation_id": texts["comment"]} if texts["comment"] else {}),
    }


def event_name(alert: str, bar: datetime, event_id: str, order_id: str) -> str:
    """What tells this event apart from all others: the sender's own id, else alert and bar."""
    if event_id:
        return f"{SOURCE}:{event_id}"
    of_order = f":{order_id}" if order_id else ""
    return f"{SOURCE}:{alert}:{canonical_instant(bar)}{of_order}"


def _check_age(bar: datetime, fired: datetime, now: datetime, max_age_s: float) -> None:
    age_s = (now - fired).total_seconds()
    if age_s > max_age_s:
        problem = f"is {age_s:.0f} s old, at most {max_age_s:.0f} are allowed: too late to trade"
        raise StaleAlert((Fault("timenow", problem),))
    for name, instant in (("timenow", fired), ("time", bar)):
        if (instant - now).total_seconds() > AHEAD_S_MAX:
            raise StaleAlert((Fault(name, "lies in the future: is a clock wrong?"),))


def _symbol(rule: AlertRule, exchange: str, ticker: str, faults: list[Fault]) -> str | None:
    own_exchange, colon, rest = ticker.partition(":")
    bare = rest if colon else ticker
    whole = f"{exchange or own_exchange}:{bare}" if exchange or colon else bare
    if not rule.symbols:
        return bare
    found = rule.symbols.get(whole) or rule.symbols.get(bare)
    if found is None and ticker:
        faults.append(Fault("ticker", "is not among the symbols of this alert in the settings"))
    return found


def _text(body: Mapping[str, Any], name: str, length: int, faults: list[Fault]) -> str:
    value = body.get(name)
    if value in (None, ""):
        return ""
    try:
        return parse_text(value, length_max=length)
    except ValueError as error:
        faults.append(Fault(name, str(error)))
        return ""


def _instant(body: Mapping[str, Any], name: str, faults: list[Fault]) -> datetime | None:
    if body.get(name) in (None, ""):
        return None
    try:
        return parse_instant(body[name])
    except ValueError as error:
        faults.append(Fault(name, str(error)))
        return None
