"""Why risk denies: the closed set of reasons, in order of precedence.

When several checks fail, the first reason of this list names the verdict; every failed check is
in it all the same. `MEANING` is what a person reads; docs/risk.md is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class DenyReason(StrEnum):
    """Why risk denied; closed, in order of precedence."""

    TRADING_HALTED = "trading_halted"
    LIVE_KEYS = "live_keys"
    ACCOUNT_BLOCKED = "account_blocked"
    REDUCING_ONLY = "reducing_only"
    DISCREPANCY_OPEN = "discrepancy_open"
    STRATEGY_NOT_ENABLED = "strategy_not_enabled"
    SYMBOL_NOT_ENABLED = "symbol_not_enabled"
    SYMBOL_RESTRICTED = "symbol_restricted"
    REPEATED_EXECUTION = "repeated_execution"
    ASSET_NOT_TRADABLE = "asset_not_tradable"
    ASSET_NOT_FRACTIONABLE = "asset_not_fractionable"
    SHORT_NOT_ALLOWED = "short_not_allowed"
    ASSET_NOT_SHORTABLE = "asset_not_shortable"
    ORDER_RULE = "order_rule"
    SESSION_CLOSED = "session_closed"
    DECISION_STALE = "decision_stale"
    FACTS_UNAVAILABLE = "facts_unavailable"
    QUOTE_STALE = "quote_stale"
    QUOTE_CROSSED = "quote_crossed"
    PRICE_COLLAR = "price_collar"
    ORDER_QTY = "order_qty"
    ORDER_TOO_SMALL = "order_too_small"
    ORDER_NOTIONAL = "order_notional"
    VOLUME_SHARE = "volume_share"
    POSITION_QTY = "position_qty"
    POSITION_NOTIONAL = "position_notional"
    POSITION_PCT_EQUITY = "position_pct_equity"
    CONCENTRATION = "concentration"
    STRATEGY_EXPOSURE = "strategy_exposure"
    GROSS_EXPOSURE = "gross_exposure"
    NET_EXPOSURE = "net_exposure"
    OPEN_ORDERS = "open_orders"
    SELF_MATCH = "self_match"
    DUPLICATE_INTENT = "duplicate_intent"
    ORDER_RATE = "order_rate"
    COOLDOWN = "cooldown"
    CONSECUTIVE_REJECTS = "consecutive_rejects"
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    BUYING_POWER = "buying_power"


R = DenyReason

PRECEDENCE: Mapping[DenyReason, int] = {reason: place for place, reason in enumerate(DenyReason)}

MEANING: Mapping[str, str] = {
    R.TRADING_HALTED: "trading is halted, for everything, the account or the strategy",
    R.LIVE_KEYS: "live mode, and the account reached is not the one that was named",
    R.ACCOUNT_BLOCKED: "the broker has blocked the account",
    R.REDUCING_ONLY: "only orders that reduce a position are allowed now",
    R.DISCREPANCY_OPEN: "our books and the broker's differ, and nobody has settled it",
    R.STRATEGY_NOT_ENABLED: "the strategy is not among the enabled ones",
    R.SYMBOL_NOT_ENABLED: "the symbol is not among the enabled ones",
    R.SYMBOL_RESTRICTED: "the symbol is on the restricted list",
    R.REPEATED_EXECUTION: "the strategy repeats itself too often; it is halted until resumed",
    R.ASSET_NOT_TRADABLE: "the broker does not know the asset or does not let it be traded",
    R.ASSET_NOT_FRACTIONABLE: "the asset is traded in whole shares only",
    R.SHORT_NOT_ALLOWED: "the order may sell short, which is not allowed here",
    R.ASSET_NOT_SHORTABLE: "the order may sell short, and the broker cannot borrow the asset",
    R.ORDER_RULE: "the order breaks a rule of the broker's, which would refuse it",
    R.SESSION_CLOSED: "the market is closed",
    R.DECISION_STALE: "the signal is too old",
    R.FACTS_UNAVAILABLE: "a fact that the check needs is not known",
    R.QUOTE_STALE: "the quote is too old",
    R.QUOTE_CROSSED: "the quote is crossed: its bid is above its ask",
    R.PRICE_COLLAR: "the limit or stop price is too far on the wrong side of the market",
    R.ORDER_QTY: "the order has too many shares",
    R.ORDER_TOO_SMALL: "the order is worth too little",
    R.ORDER_NOTIONAL: "the order is worth too much",
    R.VOLUME_SHARE: "the order is too large a part of the average daily volume",
    R.POSITION_QTY: "the position would have too many shares",
    R.POSITION_NOTIONAL: "the position would be worth too much",
    R.POSITION_PCT_EQUITY: "the position would be too large a part of the equity",
    R.CONCENTRATION: "the position would be too large a part of all that is held",
    R.STRATEGY_EXPOSURE: "the strategy would hold too much",
    R.GROSS_EXPOSURE: "long and short positions together would be worth too much",
    R.NET_EXPOSURE: "long less short positions would be worth too much",
    R.OPEN_ORDERS: "too many orders are open",
    R.SELF_MATCH: "the order would trade against an own order that stands",
    R.DUPLICATE_INTENT: "the same order was sent a moment ago under another decision",
    R.ORDER_RATE: "too many orders in too short a time",
    R.COOLDOWN: "the symbol was traded a moment ago",
    R.CONSECUTIVE_REJECTS: "the broker refused too many orders in a row",
    R.DAILY_LOSS: "the loss of the day is too large",
    R.DRAWDOWN: "the equity has fallen too far from its peak",
    R.BUYING_POWER: "the buying power does not cover it",
}
