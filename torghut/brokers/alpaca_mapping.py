"""Alpaca's JSON to our words, and our order to Alpaca's JSON. Pure: no I/O, no clock.

```
bytes ──load_json──▶ data ──▶ order_of · account_of · position_of · fill_of · quote_of · bar_of
OrderRequest ──order_body──▶ the body of POST /orders
```

1. Amounts are exact both ways: JSON numbers are read as their text, and sent as text.
2. Unknown statuses, types and extra fields pass; a field that must be there and is not, or cannot
   be read, is `MalformedBody`. Nothing is filled in by guessing.
3. Texts that no Postgres column can hold (NUL, lone surrogates) are replaced on reading, so that
   one poisoned row cannot block the writer of all others.

What an answer as a whole proves is judged in torghut.brokers.alpaca_answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from torghut.domain.exposure import AssetFacts
from torghut.domain.orders import Order, OrderClass, OrderRequest
from torghut.domain.sessions import MarketClock, is_crypto
from torghut.domain.values import canonical_instant
from torghut.ports import AccountEntry, Bar, BrokerAccount, BrokerPosition, FillActivity, Quote

_SORTED_BY = ("submitted_at", "created_at")
COMPLEX_CLASSES = frozenset({OrderClass.BRACKET.value, OrderClass.OCO.value, OrderClass.OTO.value})
AMOUNT_EXPONENT_MAX = 40  # 10^40: beyond any price or quantity, below what hurts to format

_NEW_YORK = ZoneInfo("America/New_York")
# Orders are bought or sold; activities tell more of a side than their orders do.
_FILL_SIDES = {
    "buy_minus": "buy",
    "sell_plus": "sell",
    "sell_short": "sell",
    "sell_short_exempt": "sell",
}
_INSTANT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
# Position symbols of crypto pairs come without the slash that orders have; longest quote first.
_CRYPTO_QUOTES = ("USDT", "USDC", "USD", "BTC")


class MalformedBody(ValueError):
    """The broker's JSON lacks a field that must be there, or holds one that cannot be read."""


def order_body(order: OrderRequest, client_order_id: str) -> dict[str, object]:
    """The JSON body of POST /orders; amounts as exact decimal text.

    alpaca-py's own request models hold floats, which cannot say 0.1 or nine decimals.
    """
    body = order.payload()
    body.update(symbol=order.symbol, side=order.side.value, client_order_id=client_order_id)
    return body


def load_json(body: bytes) -> object:
    """The JSON of a body: integers as int, other numbers as their exact text.

    Raises MalformedBody: not UTF-8, not JSON, NaN or infinities, nested too deeply.
    """
    try:
        text = body.decode("utf-8")
        data = json.loads(text, parse_float=str, parse_constant=_refuse_constant)
        return _storable(data) if "\\u" in text else data
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON ({type(error).__name__})") from None


def order_of(data: object) -> Order:
    """An Order from Alpaca's Order object. Raises MalformedBody naming the field.

    Needs id, client_order_id, status, a creation time and, once something is filled,
    filled_qty; an mleg parent has neither symbol nor side.
    """
    row = _object(data)
    status = _text(row, "status")
    filled = amount_of(row, "filled_qty")
    if filled is None and status in ("filled", "partially_filled"):
        raise MalformedBody(f"filled_qty is missing in an order that is {status}")
    created = instant_of(row, "created_at") or instant_of(row, "submitted_at")
    if created is None:
        raise MalformedBody("created_at is missing")
    return Order(
        broker_order_id=_text(row, "id"),
        client_order_id=_text(row, "client_order_id"),
        symbol=_optional_text(row, "symbol") or "",
        side=_optional_text(row, "side") or "",
        order_type=_optional_text(row, "type") or _optional_text(row, "order_type") or "",
        time_in_force=_optional_text(row, "time_in_force") or "",
        status=status,
        qty=amount_of(row, "qty"),
        notional=amount_of(row, "notional"),
        limit_price=amount_of(row, "limit_price"),
        stop_price=amount_of(row, "stop_price"),
        cum_qty=filled if filled is not None else Decimal(0),
        avg_px=amount_of(row, "filled_avg_price"),
        created_at=created,
        updated_at=instant_of(row, "updated_at"),
        submitted_at=instant_of(row, "submitted_at"),
        replaces=_optional_text(row, "replaces"),
        replaced_by=_optional_text(row, "replaced_by"),
        raw=row,
        legs=legs_of(row),
    )


def legs_of(row: Mapping[str, object]) -> tuple[Order, ...]:
    """The legs that an Order object names; one that cannot be read is left to the lists."""
    named = row.get("legs")
    legs: list[Order] = []
    for leg in named if isinstance(named, list) else ():
        with suppress(MalformedBody):
            legs.append(order_of(leg))
    return tuple(legs)


def has_legs(order: Order) -> bool:
    """Do other orders hang on this one, or it on another?"""
    return order.raw.get("order_class") in COMPLEX_CLASSES


_ENDED = frozenset({"ACCOUNT_CLOSED", "DISABLED", "INACTIVE", "REJECTED", "SUBMISSION_FAILED"})
"""Statuses of an account that does not trade (any more)."""


def account_of(data: object) -> BrokerAccount:
    """A BrokerAccount. `blocked` where a flag or the status says so; a flag that is missing says
    nothing: they come and go with versions of the API, and the broker itself refuses the orders of
    an account that it has blocked. A flag of another form than yes or no is taken for a yes.
    """
    row = _object(data)
    flags = ("account_blocked", "trading_blocked", "trade_suspended_by_user")
    status = _optional_text(row, "status") or ""
    return BrokerAccount(
        account_number=_text(row, "account_number"),
        status=status,
        currency=_optional_text(row, "currency") or "",
        cash=amount_of(row, "cash"),
        equity=amount_of(row, "equity"),
        buying_power=amount_of(row, "buying_power"),
        blocked=status in _ENDED or any(row.get(flag) not in (None, False) for flag in flags),
        raw=row,
    )


def asset_of(data: object, asked: str) -> AssetFacts:
    """The Asset `asked` for; without the flag `tradable` it is not one, and nothing is known
    (`listed` None)."""
    row = _object(data)
    name = _optional_text(row, "symbol") or asked
    if not isinstance(row.get("tradable"), bool):
        return AssetFacts(listed=None)
    active = row.get("status") in (None, "active")
    return AssetFacts(
        listed=True,
        tradable=row["tradable"] is True and active,
        fractionable=row.get("fractionable") is True,
        shortable=row.get("shortable") is True,
        pair=name if is_crypto(name) and name != asked else None,
    )


def clock_of(data: object) -> MarketClock:
    """A MarketClock. Raises MalformedBody naming the field."""
    row = _object(data)
    if not isinstance(is_open := row.get("is_open"), bool):
        raise MalformedBody("is_open is no true or false")
    told_at, opens_at, closes_at = (
        instant_of(row, name) for name in ("timestamp", "next_open", "next_close")
    )
    if told_at is None or opens_at is None or closes_at is None:
        raise MalformedBody("timestamp, next_open or next_close is missing in a clock")
    return MarketClock(is_open=is_open, told_at=told_at, next_open=opens_at, next_close=closes_at)


def position_of(data: object) -> BrokerPosition:
    """A BrokerPosition, short quantities negative; "BTCUSD" becomes "BTC/USD" as orders have it."""
    row = _object(data)
    symbol, qty = _text(row, "symbol"), required_amount(row, "qty")
    if row.get("side") == "short" and qty > 0:
        qty = -qty
    if row.get("asset_class") == "crypto":
        symbol = _pair(symbol)
    return BrokerPosition(
        symbol=symbol,
        qty=qty,
        avg_px=amount_of(row, "avg_entry_price"),
        current_price=amount_of(row, "current_price"),
    )


def fill_of(data: object) -> FillActivity:
    """A FillActivity from one row of /account/activities/FILL; a short sale is a sell."""
    row = _object(data)
    side = _text(row, "side")
    at = instant_of(row, "transaction_time")
    if at is None:
        raise MalformedBody("transaction_time is missing")
    return FillActivity(
        activity_id=_text(row, "id"),
        broker_order_id=_text(row, "order_id"),
        symbol=_text(row, "symbol"),
        side=_FILL_SIDES.get(side, side),
        last_qty=required_amount(row, "qty"),
        last_px=required_amount(row, "price"),
        cum_qty=required_amount(row, "cum_qty"),
        leaves_qty=required_amount(row, "leaves_qty"),
        transact_time=at,
        raw=row,
    )


def entry_of(data: object) -> AccountEntry:
    """An AccountEntry from a row of /account/activities that is no fill; a canceled one is 0."""
    row = _object(data)
    at = instant_of(row, "created_at")
    if at is None and (day := _optional_text(row, "date")):
        at = instant_of({"date": f"{day[:10]}T00:00:00Z"}, "date")
    if at is None:
        raise MalformedBody("date is missing")
    kind, symbol = _text(row, "activity_type"), _optional_text(row, "symbol") or None
    void = row.get("status") == "canceled"
    qty = amount_of(row, "qty") or Decimal(0)
    return AccountEntry(
        activity_id=_text(row, "id"),
        activity_type=kind,
        symbol=_pair(symbol) if symbol and kind == "CFEE" else symbol,
        # a dividend says of how many shares it is; those it leaves alone
        qty=Decimal(0) if void or symbol is None or kind.startswith("DIV") else qty,
        px=amount_of(row, "price"),
        cash=Decimal(0) if void else amount_of(row, "net_amount") or Decimal(0),
        occurred_at=at,
        raw=row,
    )


def quote_of(symbol: str, data: object) -> Quote:
    """A Quote from {"bp","ap","t"}; a price of 0 means that side has none."""
    row = _object(data)
    at = instant_of(row, "t")
    if at is None:
        raise MalformedBody("t is missing")
    bid, ask = amount_of(row, "bp"), amount_of(row, "ap")
    return Quote(symbol=symbol, bid_px=bid or None, ask_px=ask or None, quoted_at=at)


def bar_of(symbol: str, data: object) -> Bar:
    """A daily Bar from {"t","o","h","l","c","v"}; its session is the day in New York of `t`."""
    row = _object(data)
    at = instant_of(row, "t")
    if at is None:
        raise MalformedBody("t is missing")
    return Bar(
        symbol=symbol,
        session=at.astimezone(_NEW_YORK).date(),
        open=required_amount(row, "o"),
        high=required_amount(row, "h"),
        low=required_amount(row, "l"),
        close=required_amount(row, "c"),
        volume=required_amount(row, "v"),
    )


def last_instant(rows: Sequence[object], name: str = "submitted_at") -> datetime | None:
    """The instant `name` of the last order of a list of which it can be read."""
    for row in reversed(rows):
        if isinstance(row, Mapping):
            with suppress(MalformedBody):
                if (instant := instant_of(row, name)) is not None:
                    return instant
    return None


def one_instant(rows: Sequence[object]) -> bool:
    """Do the first and the last order of a list share the instant that it is sorted by?"""
    return last_instant(rows[:1]) == last_instant(rows)


def descending(rows: Sequence[object]) -> bool:
    """Does a list run backwards, however its orders may have been stamped again?"""
    ends = [(last_instant(rows[:1], n), last_instant(rows, n)) for n in _SORTED_BY]
    return all(first is not None and last is not None and first > last for first, last in ends)


def instant_of(row: Mapping[str, object], name: str) -> datetime | None:
    """UTC from RFC 3339 text, cut (never rounded) to microseconds; None where absent or null."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise MalformedBody(f"{name} is no text")
    match = _INSTANT.fullmatch(value)
    if match is None:
        raise MalformedBody(f"{name} is no RFC 3339 time: {value[:40]!r}")
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    try:
        text = f"{day}T{clock}.{(fraction or '')[:6]:0<6}{zone}"
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedBody(f"{name} is no time that exists: {value[:40]!r}") from None


def amount_of(row: Mapping[str, object], name: str) -> Decimal | None:
    """An exact, finite Decimal from text or a number; None where absent, null or empty."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise MalformedBody(f"{name} is no amount")
    try:
        amount = Decimal(value)
    except (InvalidOperation, ValueError):
        raise MalformedBody(f"{name} is no amount: {str(value)[:40]!r}") from None
    digits = amount.as_tuple()
    if not amount.is_finite() or not isinstance(digits.exponent, int):
        raise MalformedBody(f"{name} is not finite")
    if max(abs(amount.adjusted()), abs(digits.exponent)) > AMOUNT_EXPONENT_MAX:
        raise MalformedBody(f"{name} is beyond any amount: {str(value)[:40]!r}")
    return amount


def required_amount(row: Mapping[str, object], name: str) -> Decimal:
    """`amount_of`, raising MalformedBody where there is none."""
    amount = amount_of(row, name)
    if amount is None:
        raise MalformedBody(f"{name} is missing")
    return amount


def instant_param(instant: datetime) -> str:
    """An instant as a query parameter: RFC 3339, UTC, microseconds."""
    return canonical_instant(instant)


def _pair(symbol: str) -> str:
    """ "BTCUSD" as orders have it: "BTC/USD"."""
    quote = next((q for q in _CRYPTO_QUOTES if symbol.endswith(q) and symbol != q), "")
    return f"{symbol.removesuffix(quote)}/{quote}" if quote and "/" not in symbol else symbol


def _object(data: object) -> Mapping[str, object]:
    if not isinstance(data, Mapping):
        raise MalformedBody(f"expected a JSON object, got {type(data).__name__}")
    return data


def _text(row: Mapping[str, object], name: str) -> str:
    value = _optional_text(row, name)
    if not value:
        raise MalformedBody(f"{name} is missing")
    return value


def _optional_text(row: Mapping[str, object], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise MalformedBody(f"{name} is no text")
    return value


def _storable(value: object) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _storable(item) for key, item in value.items()}
    return value


def clean_text(text: str) -> str:
    """Text that Postgres can hold: lone surrogates become ?, NUL becomes U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _refuse_constant(name: str) -> object:
    raise ValueError(name)
