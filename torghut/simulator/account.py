"""Cash and positions: a fold of fills, and of entries that somebody asked for.

    cash     = initial cash - sum(signed qty * price), less the fees taken of proceeds
    position = sum(signed qty), less the fees taken in coins

Buying power = multiplier * equity - gross position value - what open orders reserve.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from torghut.simulator.assets import Asset
from torghut.simulator.clock import rfc3339
from torghut.simulator.numbers import ZERO, text
from torghut.simulator.orders import Entry, Fill

RATIO_STEP = Decimal("0.000000001")
MAINTENANCE = Decimal("0.3")
INITIAL = Decimal("0.5")

DEFAULT_CONFIGURATION: dict[str, Any] = {
    "dtbp_check": "entry",
    "trade_confirm_email": "all",
    "suspend_trade": False,
    "no_shorting": False,
    "fractional_trading": True,
    "max_margin_multiplier": "4",
    "max_options_trading_level": 3,
    "pdt_check": "entry",
    "ptp_no_exception_entry": False,
    "disable_overnight_trading": False,
}
CONFIGURATION_CHOICES: dict[str, tuple[Any, ...]] = {
    "trade_confirm_email": ("all", "none"),
    "suspend_trade": (True, False),
    "no_shorting": (True, False),
    "fractional_trading": (True, False),
    "max_margin_multiplier": ("1", "2", "4"),
    "ptp_no_exception_entry": (True, False),
    "disable_overnight_trading": (True, False),
}


@dataclass(slots=True)
class Position:
    """Signed quantity and signed cost (average entry price * qty)."""

    qty: Decimal = ZERO
    cost: Decimal = ZERO

    @property
    def average_price(self) -> Decimal:
        """Average entry price, USD."""
        return self.cost / self.qty if self.qty else ZERO


@dataclass(slots=True)
class Account:
    """One brokerage account."""

    id: str
    account_number: str
    created_at: datetime
    initial_cash: Decimal
    cash: Decimal
    positions: dict[str, Position] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_CONFIGURATION))
    trading_blocked: bool = False
    account_blocked: bool = False

    @property
    def multiplier(self) -> Decimal:
        """How many times its equity the account may hold."""
        return Decimal(self.configuration["max_margin_multiplier"])

    def qty(self, symbol: str) -> Decimal:
        """Signed position, 0 when flat."""
        position = self.positions.get(symbol)
        return position.qty if position else ZERO

    def apply(self, fill: Fill) -> None:
        """Fold one fill into cash and the position."""
        sign = 1 if fill.side == "buy" else -1
        self.cash -= sign * fill.qty * fill.price + fill.fee_cash
        self._change(fill.symbol, sign * fill.qty - fill.fee_qty, fill.price)

    def adjust(self, entry: Entry) -> None:
        """Take in a change that is no fill."""
        self.cash += entry.cash
        if entry.symbol is not None:
            self._change(entry.symbol, entry.qty, entry.price or ZERO)

    def _change(self, symbol: str, change: Decimal, price: Decimal) -> None:
        position = self.positions.setdefault(symbol, Position())
        if position.qty * change >= 0:
            position.cost += change * price
        elif abs(change) <= abs(position.qty):
            position.cost += position.average_price * change
        else:
            position.cost = (position.qty + change) * price
        position.qty += change
        if not position.qty:
            del self.positions[symbol]


@dataclass(frozen=True, slots=True)
class Valuation:
    """The account at current prices, USD."""

    cash: Decimal
    long_value: Decimal
    short_value: Decimal
    reserved: Decimal
    multiplier: Decimal

    @property
    def equity(self) -> Decimal:
        """Cash and positions."""
        return self.cash + self.long_value + self.short_value

    @property
    def gross(self) -> Decimal:
        """Long and short values, both positive."""
        return self.long_value - self.short_value

    @property
    def buying_power(self) -> Decimal:
        """What may still be bought on margin."""
        return max(self.multiplier * self.equity - self.gross - self.reserved, ZERO)

    @property
    def cash_buying_power(self) -> Decimal:
        """What may still be bought of assets without margin."""
        return max(min(self.equity - self.gross, self.cash) - self.reserved, ZERO)


def account_json(account: Account, value: Valuation, last_equity: Decimal, now: datetime) -> Any:
    """The Account object of the trading API."""
    margin = value.gross * INITIAL
    maintenance = value.gross * MAINTENANCE
    regt = max(2 * value.equity - value.gross - value.reserved, ZERO)
    return {
        "id": account.id,
        "admin_configurations": {},
        "user_configurations": None,
        "account_number": account.account_number,
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "options_approved_level": 3,
        "options_trading_level": 3,
        "currency": "USD",
        "buying_power": text(value.buying_power),
        "regt_buying_power": text(regt),
        "effective_buying_power": text(value.buying_power),
        "non_marginable_buying_power": text(value.cash_buying_power),
        "options_buying_power": text(value.cash_buying_power),
        "cash": text(value.cash),
        "accrued_fees": "0",
        "pending_reg_taf_fees": "0",
        "portfolio_value": text(value.equity),
        "trading_blocked": account.trading_blocked,
        "transfers_blocked": False,
        "account_blocked": account.account_blocked,
        "created_at": rfc3339(account.created_at),
        "trade_suspended_by_user": account.configuration["suspend_trade"],
        "multiplier": text(account.multiplier),
        "shorting_enabled": not account.configuration["no_shorting"],
        "equity": text(value.equity),
        "last_equity": text(last_equity),
        "long_market_value": text(value.long_value),
        "short_market_value": text(value.short_value),
        "position_market_value": text(value.gross),
        "initial_margin": text(margin),
        "maintenance_margin": text(maintenance),
        "last_maintenance_margin": text(maintenance),
        "sma": text(value.equity),
        "balance_asof": now.date().isoformat(),
        "crypto_tier": 1,
        "intraday_adjustments": "0",
    }


def position_json(
    asset: Asset, position: Position, price: Decimal, yesterday: Decimal, held: Decimal
) -> dict[str, Any]:
    """The Position object of the trading API; quantities and values of a short are negative."""
    qty, cost = position.qty, position.cost
    profit = price * qty - cost
    intraday = (price - yesterday) * qty

    def ratio(part: Decimal, whole: Decimal) -> str:
        return text((part / whole).quantize(RATIO_STEP)) if whole else "0"

    return {
        "asset_id": asset.id,
        "symbol": asset.position_symbol,
        "exchange": asset.exchange,
        "asset_class": asset.asset_class,
        "asset_marginable": not asset.is_crypto,
        "qty": text(qty),
        "avg_entry_price": text(position.average_price.quantize(RATIO_STEP)),
        "side": "long" if qty > 0 else "short",
        "market_value": text(price * qty),
        "cost_basis": text(cost.quantize(RATIO_STEP)),
        "unrealized_pl": text(profit.quantize(RATIO_STEP)),
        "unrealized_plpc": ratio(profit, abs(cost)),
        "unrealized_intraday_pl": text(intraday),
        "unrealized_intraday_plpc": ratio(intraday, abs(yesterday * qty)),
        "current_price": text(price),
        "lastday_price": text(yesterday),
        "change_today": ratio(price - yesterday, yesterday),
        "qty_available": text(qty - held if qty > 0 else qty + held),
    }
