"""One line per rule of the broker's: an order that breaks it, and one that just keeps it.

Prices are judged with the asset at 100. The same lines are put to the simulator
(tests/brokers/test_order_rules.py), which has rules of its own and must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from torghut.domain.errors import Fault
from torghut.domain.order_rules import BrokenRule, OrderRule, broken_rules
from torghut.domain.orders import OrderRequest, parse_order

Change = Mapping[str, object]

NOON = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)
PRICE = Decimal(100)
LIMIT: Change = {"type": "limit", "limit_price": "100"}
BTC: Change = {"symbol": "BTC/USD", "time_in_force": "gtc", "qty": "1"}
LEGS: Change = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "95"}}
BRACKET: Change = {"order_class": "bracket", **LEGS}
OCO: Change = {"order_class": "oco", "type": "limit", "side": "sell", "qty": "2", **LEGS}
TRAIL: Change = {"type": "trailing_stop", "trail_percent": "1"}


@dataclass(frozen=True)
class Case:
    """`broken` and `kept` change a market buy of 1 AAPL for the day; `qty` is the position."""

    rule: OrderRule
    broken: Change
    kept: Change
    qty: int = 0
    at: datetime = NOON
    kept_at: datetime | None = None

    def __str__(self) -> str:
        return self.rule.value


@dataclass(frozen=True)
class Put:
    """One of the two orders of a case, to be judged."""

    order: OrderRequest
    at: datetime
    qty: int

    def judged(self) -> tuple[BrokenRule, ...]:
        """What `broken_rules` says with every fact known."""
        return broken_rules(
            self.order,
            self.at,
            position_qty=Decimal(self.qty),
            reference_px=PRICE,
        )


def request(change: Change) -> OrderRequest:
    """A market buy of 1 AAPL for the day, changed."""
    data = {"symbol": "AAPL", "side": "buy", "type": "market", "qty": "1", **change}
    faults: list[Fault] = []
    order = parse_order({k: v for k, v in data.items() if v is not None}, faults)
    assert order is not None, faults
    return order


def broken(case: Case) -> Put:
    """The order that breaks the rule."""
    return Put(request(case.broken), case.at, case.qty)


def kept(case: Case) -> Put:
    """The order that keeps it."""
    return Put(request(case.kept), case.kept_at or case.at, case.qty)


def new_york(hour: int, minute: int) -> datetime:
    """A time of a Friday in New York, in winter."""
    return datetime(2026, 11, 20 + (hour >= 19), (hour + 5) % 24, minute, tzinfo=UTC)


R = OrderRule
# fmt: off
CASES = (
    Case(R.CRYPTO_TIME_IN_FORCE, {**BTC, "time_in_force": "day"}, BTC),
    Case(R.CRYPTO_TIME_IN_FORCE, {**BTC, "time_in_force": "fok"}, {**BTC, "time_in_force": "ioc"}),
    Case(R.CRYPTO_ORDER_TYPE, {**BTC, "type": "stop", "stop_price": "120"},
         {**BTC, "type": "stop_limit", "stop_price": "120", "limit_price": "121"}),
    Case(R.CRYPTO_ORDER_TYPE, {**BTC, **TRAIL}, BTC),
    Case(R.CRYPTO_ORDER_CLASS, {**BTC, **BRACKET}, BTC),
    Case(R.PRICE_INCREMENT, {**LIMIT, "limit_price": "99.001"}, {**LIMIT, "limit_price": "99.01"}),
    Case(R.PRICE_INCREMENT, {**LIMIT, "limit_price": "1.001"}, {**LIMIT, "limit_price": "1"}),
    Case(R.PRICE_INCREMENT, {**LIMIT, "limit_price": "0.99991", "qty": "9"},
         {**LIMIT, "limit_price": "0.9999", "qty": "9"}),
    Case(R.PRICE_INCREMENT, {"type": "stop", "stop_price": "101.005"},
         {"type": "stop", "stop_price": "101.01"}),
    Case(R.PRICE_INCREMENT, {**BRACKET, "take_profit": {"limit_price": "110.001"}}, BRACKET),
    Case(R.PRICE_INCREMENT, {**BRACKET, "stop_loss": {"stop_price": "95.001"}}, BRACKET),
    Case(R.PRICE_INCREMENT,
         {**BRACKET, "stop_loss": {"stop_price": "95", "limit_price": "94.999"}},
         {**BRACKET, "stop_loss": {"stop_price": "95", "limit_price": "94.99"}}),
    Case(R.NOTIONAL_MINIMUM, {"qty": None, "notional": "0.99"}, {"qty": None, "notional": "1"}),
    Case(R.COST_MINIMUM, {"qty": "0.009"}, {"qty": "0.011"}),
    Case(R.COST_MINIMUM, {**LIMIT, "limit_price": "0.5"},
         {**LIMIT, "limit_price": "0.5", "qty": "2"}),
    Case(R.COST_MINIMUM, {**BTC, "qty": "0.09"}, {**BTC, "qty": "0.11"}),
    Case(R.FRACTIONAL_TIME_IN_FORCE, {"qty": "1.5", "time_in_force": "gtc"}, {"qty": "1.5"}),
    Case(R.FRACTIONAL_TIME_IN_FORCE, {"qty": None, "notional": "5", "time_in_force": "ioc"},
         {"qty": None, "notional": "5"}),
    Case(R.FRACTIONAL_ORDER_CLASS, {**BRACKET, "qty": "1.5"}, {**BRACKET, "qty": "2"}),
    Case(R.FRACTIONAL_SHORT, {"side": "sell", "qty": "0.5"}, {"side": "sell"}),
    Case(R.EXTENDED_HOURS_ORDER, {"extended_hours": True}, {**LIMIT, "extended_hours": True}),
    Case(R.EXTENDED_HOURS_ORDER, {**LIMIT, "extended_hours": True, "time_in_force": "ioc"},
         {**LIMIT, "extended_hours": True, "time_in_force": "gtc"}),
    Case(R.EXTENDED_HOURS_CLASS, {**BRACKET, **LIMIT, "extended_hours": True},
         {**BRACKET, **LIMIT}),
    Case(R.TRAIL_PERCENT_MINIMUM, {**TRAIL, "trail_percent": "0.099"},
         {**TRAIL, "trail_percent": "0.1"}),
    Case(R.TRAIL_TIME_IN_FORCE, {**TRAIL, "time_in_force": "ioc"},
         {**TRAIL, "time_in_force": "gtc"}),
    Case(R.TRAIL_ORDER_CLASS, {**TRAIL, **BRACKET}, TRAIL),
    Case(R.CLASS_TIME_IN_FORCE, {**BRACKET, "time_in_force": "ioc"},
         {**BRACKET, "time_in_force": "gtc"}),
    Case(R.CLASS_TIME_IN_FORCE, {**OCO, "time_in_force": "fok"}, OCO, qty=2),
    Case(R.OCO_ORDER_TYPE, {**OCO, "type": "market"}, OCO, qty=2),
    Case(R.OCO_LIMIT_PRICE, {**OCO, "limit_price": "111"}, {**OCO, "limit_price": "110"}, qty=2),
    Case(R.ENTRY_OR_EXIT, OCO, {"side": "sell"}, qty=0),
    Case(R.ENTRY_OR_EXIT, {**BRACKET, "side": "sell", "take_profit": {"limit_price": "90"},
                           "stop_loss": {"stop_price": "105"}}, BRACKET, qty=2),
    Case(R.ENTRY_OR_EXIT, {"order_class": "oto", "side": "sell",
                           "stop_loss": {"stop_price": "105"}},
         {"order_class": "oto", "stop_loss": {"stop_price": "95"}}, qty=2),
    Case(R.TAKE_PROFIT_BEYOND_STOP, {**BRACKET, "take_profit": {"limit_price": "95"}}, BRACKET),
    Case(R.TAKE_PROFIT_BEYOND_STOP, {**BRACKET, "side": "sell"},
         {**BRACKET, "side": "sell", "take_profit": {"limit_price": "95"},
          "stop_loss": {"stop_price": "105"}}),
    Case(R.TAKE_PROFIT_BEYOND_STOP, {**OCO, "stop_loss": {"stop_price": "110"}}, OCO, qty=2),
    Case(R.EXIT_DISTANCE, {**BRACKET, "stop_loss": {"stop_price": "100"}},
         {**BRACKET, "stop_loss": {"stop_price": "99.99"}}),
    Case(R.EXIT_DISTANCE, {**BRACKET, **LIMIT, "limit_price": "98", "stop_loss":
                           {"stop_price": "98"}},
         {**BRACKET, **LIMIT, "limit_price": "98", "stop_loss": {"stop_price": "97.99"}}),
    Case(R.EXIT_DISTANCE, {**BRACKET, "take_profit": {"limit_price": "100"}},
         {**BRACKET, "take_profit": {"limit_price": "100.01"}}),
    Case(R.EXIT_DISTANCE, {**OCO, "stop_loss": {"stop_price": "100"}},
         {**OCO, "stop_loss": {"stop_price": "99.99"}}, qty=2),
    Case(R.AUCTION_WINDOW, {"time_in_force": "opg"}, {"time_in_force": "opg"},
         at=new_york(9, 28), kept_at=new_york(9, 27)),
    Case(R.AUCTION_WINDOW, {"time_in_force": "opg"}, {"time_in_force": "opg"},
         at=new_york(18, 59), kept_at=new_york(19, 0)),
    Case(R.AUCTION_WINDOW, {"time_in_force": "cls"}, {"time_in_force": "cls"},
         at=new_york(15, 50), kept_at=new_york(15, 49)),
    Case(R.AUCTION_WINDOW, {"time_in_force": "cls"}, {"time_in_force": "cls"},
         at=new_york(18, 59), kept_at=new_york(19, 0)),
)
# fmt: on
