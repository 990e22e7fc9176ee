"""The checks, in five lists. Which limit is compared with what is all that stands in here.

standing   states, keys, lists, asset, session: may this be traded at all
order      signal, quote, price and size of this order
exposure   the position, the strategy and the account if all that may be live is filled
pace       how many, how often, how soon again
account    losses, buying power
"""

from __future__ import annotations

from decimal import Decimal

from torghut.domain.deny_reasons import DenyReason
from torghut.domain.exposure import TradingState, amount_text, daily_loss, drawdown_pct
from torghut.domain.limits import Rule
from torghut.domain.order_rules import broken_rules
from torghut.domain.orders import OrderClass, OrderType, Side
from torghut.domain.risk_case import ZERO, Case, Checks, product

R = DenyReason
_BPS = Decimal(10_000)
_PERCENT = Decimal(100)
_TRAILING = OrderType.TRAILING_STOP
_BUYING_POWER_UNIT = "currency (buying power less reserve and reservations)"
_FLAGS = "broker account flags"
_ACCOUNT = Rule(R.ACCOUNT_BLOCKED, "account", "not blocked by the broker", "", _FLAGS)
_NO_SHORTS = Rule(R.SHORT_NOT_ALLOWED, "shorts_allowed", "no short sale", "", _FLAGS)
_KEYS = Rule(R.LIVE_KEYS, "mode", "the account that is meant", "", "TORGHUT_LIVE_ACCOUNT_NUMBER")
_SESSION = Rule(R.SESSION_CLOSED, "session", "open", "", "TORGHUT_SESSION_POLICY")


def standing(checks: Checks, case: Case) -> None:
    """States, keys, lists, asset and session."""
    facts, account = case.facts, case.facts.account
    state = Rule(R.TRADING_HALTED, "state", "not halted", "", facts.state_reason)
    checks.rule(state, facts.state is not TradingState.HALTED, facts.state)
    shrinks = "reduces the position, all in flight counted"
    reducing = Rule(R.REDUCING_ONLY, "reducing", shrinks, "", facts.state_reason)
    if facts.state is TradingState.REDUCING:
        checks.rule(reducing, case.closing, "reduces" if case.closing else "opens")
    else:
        checks.rule(reducing, True, f"not reducing: {facts.state}")
    _live_keys(checks, case)
    if account is None:
        checks.rule(_ACCOUNT, None, None)
    else:
        checks.rule(_ACCOUNT, not account.blocked, "blocked" if account.blocked else "open")
    checks.at_most("max_open_discrepancies", facts.open_discrepancies, case.closing)
    _lists(checks, case)
    _short(checks, case)
    _asset(checks, case)
    _order_rules(checks, case)
    if facts.session_open is None:
        checks.rule(_SESSION, True, "not asked: orders are sent in any session")
    else:
        checks.rule(_SESSION, facts.session_open, "open" if facts.session_open else "closed")


def _live_keys(checks: Checks, case: Case) -> None:
    meant = case.facts.live_account_number
    if meant is None:
        checks.rule(_KEYS, True, "paper")
        return
    account = case.facts.account
    number = None if account is None else account.account_number
    if number is None:
        checks.rule(_KEYS, None, None)
        return
    right = bool(meant) and number == meant
    checks.rule(_KEYS, right, "that account" if right else "another account")


def _lists(checks: Checks, case: Case) -> None:
    switches, symbol = checks.limits.switches, case.request.symbol
    strategy, enabled = checks.limits.strategy, switches.strategies
    checks.flag(
        "strategies", enabled is None or case.facts.by_person or strategy in enabled, strategy
    )
    checks.flag("symbols", switches.symbols is None or symbol in switches.symbols, symbol)
    free = symbol not in switches.restricted_symbols
    checks.flag("restricted_symbols", free or case.closing, symbol)


def _short(checks: Checks, case: Case) -> None:
    switches, account, shorts = checks.limits.switches, case.facts.account, case.shorts
    told = None if shorts is None else "may sell short" if shorts else "no short sale"
    if switches.shorts_allowed and account is not None and account.shorting_enabled is False:
        checks.rule(_NO_SHORTS, None if shorts is None else not shorts, told)
        return
    allowed = switches.shorts_allowed
    checks.flag("shorts_allowed", True if allowed else None if shorts is None else not shorts, told)


def _asset(checks: Checks, case: Case) -> None:
    asset, request, shorts = case.facts.asset, case.request, case.shorts
    if not checks.limits.switches.check_assets:
        checks.flag("tradable", True, None)
        return
    if asset is None:
        checks.flag("tradable", None, None)
        return
    if asset.listed is None:
        checks.flag("tradable", True, "not offered by this broker")
        return
    if asset.pair is not None:
        # its positions and orders have that name: under another one no limit would see them
        checks.flag("tradable", False, f"name it {asset.pair}")
    else:
        tradable = asset.listed and asset.tradable
        checks.flag("tradable", tradable, "tradable" if tradable else "not tradable")
    whole = request.qty is not None and not request.qty % 1
    checks.flag("fractionable", whole or asset.fractionable,
                "whole shares" if whole else "a fraction")  # fmt: skip
    told = None if shorts is None else "may sell short" if shorts else "no short sale"
    checks.flag("shortable", asset.shortable or (None if shorts is None else not shorts), told)


def _order_rules(checks: Checks, case: Case) -> None:
    """The broker's own rules about the order; those that are broken are named by their codes."""
    if not checks.limits.switches.check_order_rules:
        checks.flag("check_order_rules", True, None)
        return
    facts, reserved = case.facts, case.reserved
    # what is filling changes the position: then rules about it are left to the broker
    moving = reserved.buy_qty or reserved.sell_qty or facts.ledger_qty != facts.broker_qty
    broken = broken_rules(
        case.request,
        case.now,
        position_qty=None if moving else facts.broker_qty,
        reference_px=_market_px(case),
    )
    told = "; ".join(f"{rule.code}: {rule.measured}, wanted {rule.limit}" for rule in broken)
    checks.flag("check_order_rules", not broken, told or "none broken")


def _market_px(case: Case) -> Decimal | None:
    """Where a market order would fill, by either side of the quote if the other is missing."""
    far, near = case.facts.ask_px, case.facts.bid_px
    if case.request.side is Side.SELL:
        far, near = near, far
    return near if far is None else far


def order(checks: Checks, case: Case) -> None:
    """Signal, facts, quote, price and size of this order."""
    facts = case.facts
    checks.at_most("max_decision_age_s", case.seconds_since(case.event_ts))
    account = facts.account
    checks.at_most(
        "max_facts_age_s", None if account is None else case.seconds_since(account.observed_at)
    )
    # a price that the order names itself needs no quote to be measured by
    if facts.quoted_at is not None:
        checks.at_most("max_quote_age_s", case.seconds_since(facts.quoted_at), case.closing)
    else:
        checks.at_most("max_quote_age_s", None, case.closing or case.price is not None)
    bid, ask = facts.bid_px, facts.ask_px
    crossed = bid is not None and ask is not None and bid > ask
    crossing = Rule(R.QUOTE_CROSSED, "quote", ask, "bid, against the ask", "quote")
    checks.rule(crossing, not crossed or case.closing, bid)
    beyond = _worse(_beyond_market_bps(case), _exit_beyond_market_bps(case))
    checks.at_most("price_collar_bps", beyond, case.closing and beyond is None)
    # a person's close or flatten is one order, however large the position has become (P11)
    by_hand = case.closing and facts.by_person
    checks.at_most("max_order_qty", case.size, by_hand)
    checks.at_least("min_order_notional", case.notional, case.closing)
    unpriced = case.closing and case.notional is None
    checks.at_most("max_order_notional", case.notional, by_hand or unpriced)
    volume = facts.daily_volume
    share = None if case.size is None or not volume else case.size * _PERCENT / volume
    checks.at_most("max_adv_pct", share, case.closing)
    _self_match(checks, case)


def _beyond_market_bps(case: Case) -> Decimal | None:
    """How much worse than the quote's far side the order may trade; 0 where it is no worse."""
    request, facts = case.request, case.facts
    prices = [px for px in (request.limit_price, request.stop_price) if px is not None]
    if not prices:
        return ZERO
    if request.side is Side.BUY:
        return _bps(facts.ask_px, max(prices), buys=True)
    return _bps(facts.bid_px, min(prices), buys=False)


def _exit_beyond_market_bps(case: Case) -> Decimal | None:
    """The same of a take profit, which would trade at once where it is on the wrong side.

    It works when its entry has filled: an entry with a limit may have moved the market as far as
    that. A stop loss is not measured: it is meant to be far on the wrong side, and the price it
    gets is no worse than that of a market order.
    """
    request, facts = case.request, case.facts
    if request.take_profit is None:
        return ZERO
    entry = None if request.order_class is OrderClass.OCO else request.limit_price
    buys = (request.side is Side.BUY) is (request.order_class is OrderClass.OCO)
    reference = facts.ask_px if buys else facts.bid_px
    if reference is not None and entry is not None:
        reference = max(reference, entry) if buys else min(reference, entry)
    return _bps(reference, request.take_profit.limit_price, buys=buys)


def _bps(reference: Decimal | None, price: Decimal, *, buys: bool) -> Decimal | None:
    if not reference:
        return None
    beyond = price - reference if buys else reference - price
    return max(ZERO, beyond * _BPS / reference)


def _worse(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    return None if first is None or second is None else max(first, second)


def _self_match(checks: Checks, case: Case) -> None:
    """Against own orders that stand with a price; a market order does not stand.

    As Alpaca judges it: limits meet when they cross, anything without a limit meets everything;
    brackets and trailing stops are exempt.
    """
    switches, request = checks.limits.switches, case.request
    against: str | None = None
    if request.order_class is OrderClass.SIMPLE and request.order_type is not _TRAILING:
        ours = request.limit_price
        for resting in case.reserved.resting:
            theirs = resting.limit_px
            if ours is None or theirs is None:
                meets = True
            else:
                meets = ours >= theirs if request.side is Side.BUY else ours <= theirs
            if meets:
                against = amount_text(theirs if theirs is not None else resting.stop_px)
                break
    checks.flag(
        "check_self_match",
        against is None or not switches.check_self_match,
        "none" if against is None else f"own order at {against}",
    )


def exposure(checks: Checks, case: Case) -> None:
    """Position, strategy and account if all that may be live is filled."""
    reserved, closing = case.reserved, case.closing
    checks.at_most("max_position_qty", case.position)
    checks.at_most("max_position_notional", product(case.position, case.value_px))
    account = case.facts.account
    equity = None if account is None else account.equity
    worth, gross = case.worth, _sum(reserved.others_gross, case.worth)
    checks.at_most("max_position_pct_equity", _percent(worth, equity), closing)
    whole = None if gross is None or equity is None else max(gross, equity)
    checks.at_most("max_concentration_pct", _percent(worth, whole), closing)
    checks.at_most(
        "max_strategy_exposure", _sum(reserved.strategy_others, _strategy_worth(case)), closing
    )
    checks.at_most("max_gross_exposure", gross, closing)
    checks.at_most("max_net_exposure", _net(case), closing)


def _strategy_worth(case: Case) -> Decimal | None:
    if case.size is None:
        return None
    reserved, buys = case.reserved, case.request.side is Side.BUY
    high = reserved.strategy_qty + reserved.strategy_buy_qty + (case.size if buys else ZERO)
    low = reserved.strategy_sell_qty - reserved.strategy_qty + (ZERO if buys else case.size)
    return product(max(ZERO, high, low), case.value_px)


def _net(case: Case) -> Decimal | None:
    others_high, others_low = case.reserved.others_net_high, case.reserved.others_net_low
    high, low = product(case.highest, case.value_px), product(case.lowest, case.value_px)
    if high is None or low is None or others_high is None or others_low is None:
        return None
    return max(abs(others_high + high), abs(others_low + low))


def pace(checks: Checks, case: Case) -> None:
    """How many, how often, how soon again; this order makes each count one higher."""
    reserved, closing = case.reserved, case.closing
    # what a person sends to close is never held back by counts that a machine has used up (P11)
    by_hand = closing and case.facts.by_person
    counts, own = reserved.counts, reserved.strategy_counts
    checks.at_most("max_open_orders", counts.open_orders + 1, by_hand)
    checks.at_most("max_orders_per_second", counts.last_second + 1, by_hand)
    checks.at_most("max_orders_per_minute", counts.last_minute + 1, by_hand)
    checks.at_most("max_orders_per_day", counts.today + 1, by_hand)
    if checks.limits.own:
        checks.own_at_most("max_open_orders", own.open_orders + 1, by_hand)
        checks.own_at_most("max_orders_per_second", own.last_second + 1, by_hand)
        checks.own_at_most("max_orders_per_minute", own.last_minute + 1, by_hand)
        checks.own_at_most("max_orders_per_day", own.today + 1, by_hand)
    checks.at_most("max_repeated_executions", own.last_minute + 1, by_hand)
    checks.at_most("max_rate_denials", reserved.rate_denials, by_hand)
    twin, filled = reserved.twin_at, case.facts.last_fill_at
    checks.waited("duplicate_window_s", None if twin is None else case.seconds_since(twin), by_hand)
    checks.waited("cooldown_s", None if filled is None else case.seconds_since(filled), closing)
    checks.at_most("max_consecutive_rejects", reserved.rejects_in_a_row, closing)


def account(checks: Checks, case: Case) -> None:
    """Losses and buying power."""
    facts = case.facts.account
    checks.at_most("max_daily_loss", None if facts is None else daily_loss(facts), case.closing)
    checks.at_most("max_drawdown_pct", None if facts is None else drawdown_pct(facts), case.closing)
    _buying_power(checks, case)


def _buying_power(checks: Checks, case: Case) -> None:
    reserve = checks.limits.rules["buying_power_reserve_pct"]
    cost, account = case.cost, case.facts.account
    share = reserve.limit
    available: Decimal | None = None
    if account is not None and account.buying_power is not None and isinstance(share, Decimal):
        kept = account.buying_power * share / _PERCENT
        available = account.buying_power - kept - case.reserved.notional
    rule = Rule(R.BUYING_POWER, "buying_power", available, _BUYING_POWER_UNIT, reserve.source)
    if share is None:
        checks.rule(rule, True, cost)
        return
    # an order that opens nothing takes no buying power, whatever is left of it (P11)
    missing = cost is None or (bool(cost) and available is None)
    passed = cost is not None and (not cost or (available is not None and cost <= available))
    checks.rule(rule, None if missing else passed, cost)


def _sum(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    return None if first is None or second is None else first + second


def _percent(part: Decimal | None, whole: Decimal | None) -> Decimal | None:
    if part is not None and not part:
        return ZERO
    return None if part is None or not whole or whole < 0 else part * _PERCENT / whole
