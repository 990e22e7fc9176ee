"""Risk as a stage: judge claimed decisions inside the claiming transaction.

    claim (executor) ─▶ judge(tx, rows, …) ─▶ verdict rows ─▶ planned → approved | denied

The transaction holds the account's lease, so this is the only writer and decisions of one batch
see each other's reservations: limits hold when decisions race (P7). No call leaves the process
in here; quotes and the account snapshot were fetched before (services/outside_facts).

A decision whose facts are missing is not denied at once: it stays as it is and is judged again
shortly. While the broker itself does not answer, it waits until it expires, as it would after a
refused connection; where only a quote is missing it waits `facts_wait_s`, and then missing data
denies (fail closed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from torghut.config import RiskPolicy
from torghut.domain.exposure import AccountFacts, Facts, Reservations, TradingState
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.orders import Side
from torghut.domain.risk import DenyReason, Verdict, evaluate
from torghut.ports import Quote
from torghut.storage import attempts, facts
from torghut.storage.rows import AccountSnapshot, DecisionRow, Exposure, SymbolExposure

FACTS_RETRY_S = 0.5

_NEW_YORK = ZoneInfo("America/New_York")
_NOTHING = SymbolExposure(Decimal(0), Decimal(0), Decimal(0))


@dataclass(frozen=True, slots=True)
class Outside:
    """What was fetched before the transaction."""

    quotes: Mapping[str, Quote]
    account: AccountSnapshot | None
    session_open: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision with its verdict; None means that facts are missing and it waits."""

    row: DecisionRow
    verdict: Verdict | None


def judge(
    tx: Connection,
    account: str,
    rows: Sequence[DecisionRow],
    outside: Outside,
    policy: RiskPolicy,
    state: tuple[TradingState, str],
    *,
    facts_wait_s: float,
    now: datetime,
) -> list[Judged]:
    """Judge `rows` in order, each counting the approvals before it; stores the verdicts."""
    exposure = facts.exposure(
        tx,
        account,
        observed_at=outside.account.observed_at if outside.account else None,
        day_start=_day_start(now),
        now=now,
    )
    judged: list[Judged] = []
    stored: list[tuple[int, Verdict, Facts, Reservations]] = []
    for row in rows:
        seen = _facts(row, outside, exposure, state)
        reserved = _reservations(row, exposure)
        verdict = evaluate(
            row.order,
            policy.limits_for(row.strategy, row.order.symbol),
            seen,
            reserved,
            now,
            event_ts=row.event_ts,
        )
        waits = verdict.deny_reason is DenyReason.FACTS_UNAVAILABLE and (
            outside.account is None
            or row.status is DecisionStatus.APPROVED
            or now - row.created_at < timedelta(seconds=facts_wait_s)
        )
        judged.append(Judged(row, None if waits else verdict))
        if waits:
            continue
        stored.append((row.decision_id, verdict, seen, reserved))
        if verdict.approved:
            exposure = _with_order(exposure, row, verdict)
    attempts.add_verdicts(tx, stored, now=now)
    return judged


def _facts(
    row: DecisionRow, outside: Outside, exposure: Exposure, state: tuple[TradingState, str]
) -> Facts:
    symbol = row.order.symbol
    quote = outside.quotes.get(symbol)
    snapshot = outside.account
    return Facts(
        state=state[0],
        state_reason=state[1],
        account=None
        if snapshot is None
        else AccountFacts(
            equity=snapshot.equity,
            last_equity=snapshot.last_equity,
            buying_power=snapshot.buying_power,
            blocked=snapshot.blocked,
            observed_at=snapshot.observed_at,
        ),
        bid_px=quote.bid_px if quote else None,
        ask_px=quote.ask_px if quote else None,
        quoted_at=quote.quoted_at if quote else None,
        broker_qty=None if snapshot is None else _held(snapshot, symbol),
        ledger_qty=exposure.by_symbol.get(symbol, _NOTHING).ledger_qty,
        session_open=outside.session_open.get(symbol),
    )


def _held(snapshot: AccountSnapshot, symbol: str) -> Decimal:
    # crypto positions are named without the slash that orders carry (story 20)
    zero = Decimal(0)
    return snapshot.positions.get(symbol, snapshot.positions.get(symbol.replace("/", ""), zero))


def _reservations(row: DecisionRow, exposure: Exposure) -> Reservations:
    symbol = exposure.by_symbol.get(row.order.symbol, _NOTHING)
    return Reservations(
        buy_qty=symbol.buy_qty,
        sell_qty=symbol.sell_qty,
        notional=exposure.notional,
        open_orders=exposure.open_orders,
        orders_last_minute=exposure.orders_last_minute,
        orders_today=exposure.orders_today,
    )


def _with_order(exposure: Exposure, row: DecisionRow, verdict: Verdict) -> Exposure:
    """The exposure after approving `row`: what the next decision of the batch is judged on."""
    before = exposure.by_symbol.get(row.order.symbol, _NOTHING)
    size = verdict.size_qty or Decimal(0)
    if row.order.side is Side.BUY:
        after = replace(before, buy_qty=before.buy_qty + size)
    else:
        after = replace(before, sell_qty=before.sell_qty + size)
    return Exposure(
        by_symbol={**exposure.by_symbol, row.order.symbol: after},
        notional=exposure.notional + (verdict.notional or Decimal(0)),
        open_orders=exposure.open_orders + 1,
        orders_last_minute=exposure.orders_last_minute + 1,
        orders_today=exposure.orders_today + 1,
    )


def _day_start(now: datetime) -> datetime:
    """Midnight in New York: where a trading day's counts begin."""
    return now.astimezone(_NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)
