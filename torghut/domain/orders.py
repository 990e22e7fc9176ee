"""OrderRequest: the order we want, checked; and Order: what the broker says about one.

An `OrderRequest` is built only by `parse_order`, which names every fault at once. Its
`payload()` is the canonical form that `payload_digest` covers (torghut.domain.decisions).

Structure is checked here, before anything is stored; the broker's own rules about a
structurally sound order (increments, tif per asset class) are in torghut.domain.order_rules.
Terms and field names: FIX and the Alpaca Trading API v2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from torghut.domain.errors import Fault
from torghut.domain.values import canonical_amount, parse_amount, parse_symbol, shown_name

T = TypeVar("T")
C = TypeVar("C", bound=StrEnum)


class Side(StrEnum):
    """Direction of an order (FIX 54); a short sale is a sell."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 for buy, -1 for sell."""
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    """How an order is priced (FIX 40), by Alpaca's names."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TRAILING_STOP = "trailing_stop"


class TimeInForce(StrEnum):
    """How long an order stands (FIX 59), by Alpaca's names."""

    DAY = "day"
    GTC = "gtc"
    OPG = "opg"
    CLS = "cls"
    IOC = "ioc"
    FOK = "fok"


class OrderClass(StrEnum):
    """Whether other orders hang on this one, by Alpaca's names."""

    SIMPLE = "simple"
    BRACKET = "bracket"
    OCO = "oco"
    OTO = "oto"


class OrderStatus:
    """The broker's order statuses that this project reasons about; others pass through as text."""

    TERMINAL = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})

    @staticmethod
    def is_terminal(status: str) -> bool:
        return status in OrderStatus.TERMINAL


@dataclass(frozen=True, slots=True)
class TakeProfit:
    """The leg that closes with a gain."""

    limit_price: Decimal


@dataclass(frozen=True, slots=True)
class StopLoss:
    """The leg that closes with a loss; with `limit_price` a stop-limit order."""

    stop_price: Decimal
    limit_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """Our order. Exactly one of `qty` (shares) and `notional` (account currency) is set."""

    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    extended_hours: bool = False
    order_class: OrderClass = OrderClass.SIMPLE
    take_profit: TakeProfit | None = None
    stop_loss: StopLoss | None = None

    def payload(self) -> dict[str, object]:
        """Everything that shapes the order, as canonical JSON data; absent fields are left out."""
        data: dict[str, object] = {
            "type": self.order_type.value,
            "time_in_force": self.time_in_force.value,
            "extended_hours": self.extended_hours,
            "order_class": self.order_class.value,
        }
        for name in _AMOUNT_FIELDS:
            amount = getattr(self, name)
            if amount is not None:
                data[name] = canonical_amount(amount)
        if self.take_profit is not None:
            data["take_profit"] = {"limit_price": canonical_amount(self.take_profit.limit_price)}
        if self.stop_loss is not None:
            legs = {"stop_price": canonical_amount(self.stop_loss.stop_price)}
            if self.stop_loss.limit_price is not None:
                legs["limit_price"] = canonical_amount(self.stop_loss.limit_price)
            data["stop_loss"] = legs
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The broker's snapshot of one order at one instant; `raw` is the body as it came.

    `status` is text, not an enum: an unknown status must never lose an order. Quantities are
    cumulative (`cum_qty`), as FIX names them; `avg_px` is None until something is filled.
    Lists have legs as orders of their own, too.
    """

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: str
    order_type: str
    time_in_force: str
    status: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    cum_qty: Decimal
    avg_px: Decimal | None
    created_at: datetime
    updated_at: datetime | None
    submitted_at: datetime | None  # what lists are sorted by; can be re-stamped
    replaces: str | None
    replaced_by: str | None
    raw: Mapping[str, object]
    legs: tuple[Order, ...] = ()  # orders that hang on this one, where the answer names them

    @property
    def terminal(self) -> bool:
        return OrderStatus.is_terminal(self.status)


_AMOUNT_FIELDS = (
    "qty",
    "notional",
    "limit_price",
    "stop_price",
    "trail_price",
    "trail_percent",
)

ORDER_FIELDS = frozenset(
    {
        *_AMOUNT_FIELDS,
        *("symbol", "side", "type", "time_in_force", "extended_hours"),
        *("order_class", "take_profit", "stop_loss"),
    }
)

_NEEDS: Mapping[OrderType, tuple[str, ...]] = {
    OrderType.MARKET: (),
    OrderType.LIMIT: ("limit_price",),
    OrderType.STOP: ("stop_price",),
    OrderType.STOP_LIMIT: ("limit_price", "stop_price"),
    OrderType.TRAILING_STOP: (),  # one of two trails, checked apart
}
_LEGS: Mapping[OrderClass, tuple[bool, bool]] = {
    # class: (take_profit required, stop_loss required); OTO takes exactly one of them
    OrderClass.SIMPLE: (False, False),
    OrderClass.BRACKET: (True, True),
    OrderClass.OCO: (True, True),
    OrderClass.OTO: (False, False),
}


def parse_order(data: Mapping[str, object], faults: list[Fault]) -> OrderRequest | None:
    """An OrderRequest from decision JSON; appends every fault and returns None if there is one."""
    before = len(faults)
    symbol = read_field(data, "symbol", parse_symbol, faults, required=True)
    side = _choice(data, "side", Side, faults)
    order_type = _choice(data, "type", OrderType, faults)
    tif = _choice(data, "time_in_force", TimeInForce, faults, default=TimeInForce.DAY)
    order_class = _choice(data, "order_class", OrderClass, faults, default=OrderClass.SIMPLE)
    amounts = {name: _positive(data, name, faults) for name in _AMOUNT_FIELDS}
    extended = data.get("extended_hours")
    if extended is not None and not isinstance(extended, bool):
        faults.append(Fault("extended_hours", "must be true or false"))
    take_profit = _leg(data, "take_profit", ("limit_price",), (), faults)
    stop_loss = _leg(data, "stop_loss", ("stop_price",), ("limit_price",), faults)
    _check_size(data, faults)
    if order_type is not None:
        _check_prices(order_type, order_class, data, faults)
    if order_class is not None:
        _check_class(order_class, data, faults)
    if len(faults) > before or symbol is None or side is None or order_type is None:
        return None
    assert tif is not None and order_class is not None
    return OrderRequest(
        symbol=symbol,
        side=side,
        order_type=order_type,
        time_in_force=tif,
        extended_hours=bool(extended),
        order_class=order_class,
        take_profit=TakeProfit(take_profit["limit_price"]) if take_profit else None,
        stop_loss=StopLoss(stop_loss["stop_price"], stop_loss.get("limit_price"))
        if stop_loss
        else None,
        **amounts,
    )


def order_from_payload(symbol: str, side: str, payload: Mapping[str, object]) -> OrderRequest:
    """The OrderRequest whose `payload()` was stored; raises ValueError on a damaged row."""
    faults: list[Fault] = []
    order = parse_order(
        {**{k: v for k, v in payload.items() if k in ORDER_FIELDS}, "symbol": symbol, "side": side},
        faults,
    )
    if order is None:
        raise ValueError("stored payload is no order: " + "; ".join(map(str, faults)))
    return order


def _check_size(data: Mapping[str, object], faults: list[Fault]) -> None:
    given = [name for name in ("qty", "notional") if data.get(name) is not None]
    if len(given) == 2:
        faults.append(Fault("qty", "and notional are both given; give one of them"))
    elif not given:
        faults.append(Fault("qty", "is missing; give qty or notional"))


def _check_prices(
    order_type: OrderType,
    order_class: OrderClass | None,
    data: Mapping[str, object],
    faults: list[Fault],
) -> None:
    needed = _NEEDS[order_type]
    elsewhere = "limit_price" if order_class is OrderClass.OCO else None  # in take_profit
    for name in ("limit_price", "stop_price"):
        if name in needed and data.get(name) is None and name != elsewhere:
            faults.append(Fault(name, f"is required for a {order_type} order"))
        if name not in needed and data.get(name) is not None:
            faults.append(Fault(name, f"does not belong to a {order_type} order"))
    trails = [n for n in ("trail_price", "trail_percent") if data.get(n) is not None]
    if order_type is OrderType.TRAILING_STOP:
        if len(trails) != 1:
            faults.append(Fault("trail_price", "or trail_percent, exactly one, is required"))
    else:
        faults.extend(Fault(n, f"does not belong to a {order_type} order") for n in trails)


def _check_class(order_class: OrderClass, data: Mapping[str, object], faults: list[Fault]) -> None:
    legs = [name for name in ("take_profit", "stop_loss") if data.get(name) is not None]
    required = _LEGS[order_class]
    for name, needed in zip(("take_profit", "stop_loss"), required, strict=True):
        if needed and name not in legs:
            faults.append(Fault(name, f"is required for order_class {order_class}"))
    if order_class is OrderClass.SIMPLE:
        faults.extend(Fault(n, "needs order_class bracket, oco or oto") for n in legs)
    if order_class is OrderClass.OTO and len(legs) != 1:
        faults.append(Fault("take_profit", "or stop_loss, exactly one, is required for oto"))


def _positive(data: Mapping[str, object], name: str, faults: list[Fault]) -> Decimal | None:
    amount = read_field(data, name, parse_amount, faults)
    if amount is not None and amount <= 0:
        faults.append(Fault(name, f"must be greater than 0, not {canonical_amount(amount)}"))
        return None
    return amount


def read_field(
    data: Mapping[str, object],
    name: str,
    parse: Callable[[object], T],
    faults: list[Fault],
    *,
    required: bool = False,
) -> T | None:
    """A field of decision JSON through its parser; a fault, or a missing required one, is None."""
    value = data.get(name)
    if value is None:
        if required:
            faults.append(Fault(name, "is missing"))
        return None
    try:
        return parse(value)
    except ValueError as error:
        faults.append(Fault(name, str(error)))
        return None


def _choice(
    data: Mapping[str, object],
    name: str,
    choices: type[C],
    faults: list[Fault],
    *,
    default: C | None = None,
) -> C | None:
    value = data.get(name)
    if value is None:
        if default is None:
            faults.append(Fault(name, "is missing"))
        return default
    if isinstance(value, str) and value in set(choices):
        return choices(value)
    faults.append(Fault(name, "must be one of " + ", ".join(choices)))
    return None


def _leg(
    data: Mapping[str, object],
    name: str,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    faults: list[Fault],
) -> dict[str, Decimal] | None:
    leg = data.get(name)
    if leg is None:
        return None
    if not isinstance(leg, Mapping):
        faults.append(Fault(name, "must be an object with " + ", ".join(required)))
        return None
    faults.extend(
        Fault(f"{name}.{shown_name(key)}", "is not a known field")
        for key in leg
        if key not in required + optional
    )
    prices: dict[str, Decimal] = {}
    nested: list[Fault] = []
    for key in required + optional:
        price = _positive(leg, key, nested)
        if price is not None:
            prices[key] = price
        elif key in required and leg.get(key) is None:
            nested.append(Fault(key, "is missing"))
    faults.extend(Fault(f"{name}.{fault.field}", fault.problem) for fault in nested)
    return prices
