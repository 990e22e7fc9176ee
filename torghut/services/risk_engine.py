"""Risk as a stage: judge claimed decisions inside the claiming transaction.

    claim (executor) ─▶ judge(tx, rows, …) ─▶ verdict rows ─▶ planned → approved | denied
                                         └─▶ trips: a strategy or the account is held back

The transaction holds the account's lease, so this is the only writer and decisions of one batch
see each other's reservations: limits hold when decisions race (P7). No call leaves the process
in here; what is known of the outside was fetched before (services/outside_facts).

A decision whose facts are missing is not denied at once, nor one that the broker's last answer,
from before it, speaks against: it stays as it is and is judged again shortly. While the broker
itself does not answer, it waits until it expires, as it would after a refused connection; where
only a quote is missing it waits `facts_wait_s`, and then missing data denies (fail closed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from torghut.config import Settings
from torghut.domain.deny_reasons import DenyReason
from torghut.domain.exposure import AssetFacts, Facts, TradingState
from torghut.domain.exposure_book import Exposure, ExposureBook
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.order_actions import OPERATOR
from torghut.domain.orders import OrderRequest
from torghut.domain.risk import evaluate
from torghut.domain.risk_case import Verdict
from torghut.domain.risk_policy import RiskPolicy
from torghut.domain.sessions import NEW_YORK
from torghut.ports import Quote
from torghut.services import trips
from torghut.services.session_gate import SessionGate
from torghut.storage import attempts, exposure, verdicts
from torghut.storage.control import TradingStates
from torghut.storage.rows import AccountSnapshot, DecisionRow
from torghut.storage.verdicts import Judgement

FACTS_RETRY_S = 0.5
BROKER_SILENT_S = 15.0  # the account is asked for every few seconds: this old, nothing answers

_BY_SNAPSHOT = (
    DenyReason.REDUCING_ONLY,
    DenyReason.SHORT_NOT_ALLOWED,
    DenyReason.ASSET_NOT_SHORTABLE,
    DenyReason.BUYING_POWER,
)
_WHOLE_ACCOUNT = (
    "max_gross_exposure",
    "max_net_exposure",
    "max_concentration_pct",
    "max_strategy_exposure",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What was fetched before the transaction."""

    quotes: Mapping[str, Quote]
    assets: Mapping[str, AssetFacts]
    volumes: Mapping[str, Decimal]
    account: AccountSnapshot | None
    sessions: SessionGate


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision with its verdict; None means that facts are missing and it waits.

    `counted_today`: it was sent before, and is in today's count of orders already.
    """

    row: DecisionRow
    verdict: Verdict | None
    counted_today: bool


def judge(
    tx: Connection,
    account: str,
    rows: Sequence[DecisionRow],
    outside: Outside,
    policy: RiskPolicy,
    states: TradingStates,
    *,
    room: int,
    settings: Settings,
    now: datetime,
) -> list[Judged]:
    """Judge `rows` in order, each counting the approvals before it; stores the verdicts.

    Ends with the approval number `room`: the rows after it are left as they are.
    """
    if not rows:
        return []
    counted_before = _sent_today(tx, rows, now)
    found = _read(tx, account, rows, outside, policy, now)
    book = _book(found, outside)
    whole = policy.uses(*_WHOLE_ACCOUNT)
    tripped: dict[str, tuple[TradingState, str]] = {}
    judged: list[Judged] = []
    stored: list[Judgement] = []
    for row in rows:
        if not room:
            break
        counted = row.decision_id in counted_before
        reserved = book.reservations(
            row.order, row.strategy, counted_today=counted, whole_account=whole
        )
        state = tripped.get(row.strategy) or states.of(row.strategy)
        facts = _facts(row, outside, found, book, state, settings)
        limits = policy.limits_for(row.strategy, row.order.symbol)
        verdict = evaluate(row.order, limits, facts, reserved, now, event_ts=row.event_ts)
        waits = _waits(row, facts, verdict, outside, settings, now)
        judged.append(Judged(row, None if waits else verdict, counted))
        if waits:
            continue
        stored.append(
            Judgement(
                decision_id=row.decision_id, verdict=verdict, facts=facts, reservations=reserved
            )
        )
        if verdict.approved:
            room -= 1
            _take(book, row, verdict, counted, now)
        else:
            if verdict.deny_reason is DenyReason.ORDER_RATE:
                book.deny_for_rate(row.strategy)
            trips.follow(tx, account, row.strategy, verdict, policy, tripped, now=now)
    verdicts.add(tx, stored, now=now)
    return judged


def _waits(
    row: DecisionRow,
    facts: Facts,
    verdict: Verdict,
    outside: Outside,
    settings: Settings,
    now: datetime,
) -> bool:
    """True if a fact is missing that may still come; a broker that is silent is waited for.

    A position that the broker's last answer does not know yet is no reason to deny: where our
    books differ from an answer of before the decision, a newer one judges. Nor is buying power
    that the answer still held back for an order which has ended since.
    """
    account = outside.account
    silent_s = timedelta(seconds=BROKER_SILENT_S)
    if verdict.deny_reason in _BY_SNAPSHOT and account is not None:
        young = now - row.created_at < timedelta(seconds=settings.facts_wait_s)
        moved = (
            verdict.deny_reason is DenyReason.BUYING_POWER or facts.broker_qty != facts.ledger_qty
        )
        return young and moved and account.observed_at < row.created_at
    return verdict.deny_reason is DenyReason.FACTS_UNAVAILABLE and (
        account is None
        or now - account.observed_at > silent_s
        or row.status is DecisionStatus.APPROVED
        or now - row.created_at < timedelta(seconds=settings.facts_wait_s)
    )


def judge_replacement(
    tx: Connection,
    account: str,
    row: DecisionRow,
    wanted: OrderRequest,
    replaced_qty: Decimal,
    action_id: int,
    outside: Outside,
    policy: RiskPolicy,
    states: TradingStates,
    *,
    settings: Settings,
    now: datetime,
) -> Verdict:
    """Judge the order `wanted` in place of one of `row` with `replaced_qty` shares open: those are
    taken out of what may be live, the new ones come in. Stores the verdict, unless facts are
    missing: then the caller waits or gives up."""
    found = _read(tx, account, [row], outside, policy, now)
    book = _book(found, outside)
    released = exposure.reserved_by(tx, row.decision_id, replaced_qty)
    book.release(row.order, row.strategy, qty=replaced_qty, notional=released)
    reserved = book.reservations(
        wanted, row.strategy, counted_today=False, whole_account=policy.uses(*_WHOLE_ACCOUNT)
    )
    facts = _facts(row, outside, found, book, states.of(row.strategy), settings)
    limits = policy.limits_for(row.strategy, row.order.symbol)
    # the signal is as old as the request to replace: an operator's is made now
    verdict = evaluate(wanted, limits, facts, reserved, now, event_ts=now)
    if verdict.deny_reason is not DenyReason.FACTS_UNAVAILABLE:
        verdicts.add_policy(tx, policy.version, policy.text, now=now)
        judgement = Judgement(
            decision_id=row.decision_id,
            verdict=verdict,
            facts=facts,
            reservations=reserved,
            action_id=action_id,
            order=wanted,
        )
        verdicts.add(tx, [judgement], now=now)
    return verdict


def _take(
    book: ExposureBook, row: DecisionRow, verdict: Verdict, counted_today: bool, now: datetime
) -> None:
    book.take(
        row.order,
        row.strategy,
        size=verdict.size_qty,
        notional=verdict.notional,
        reference_px=verdict.reference_px,
        counted_today=counted_today,
        now=now,
    )


def _sent_today(tx: Connection, rows: Sequence[DecisionRow], now: datetime) -> set[int]:
    """Ids of the decisions that were sent before and are in today's count of orders already."""
    sent_before = [row.decision_id for row in rows if row.attempts]
    if not sent_before:
        return set()
    return attempts.submitted_since(tx, sent_before, since=day_start(now))


def day_start(now: datetime) -> datetime:
    """Midnight in New York: where a trading day's counts begin."""
    return now.astimezone(NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)


def _read(
    tx: Connection,
    account: str,
    rows: Sequence[DecisionRow],
    outside: Outside,
    policy: RiskPolicy,
    now: datetime,
) -> Exposure:
    return exposure.read(
        tx,
        account,
        judged=[row.decision_id for row in rows],
        symbols=[row.order.symbol for row in rows],
        wanted=policy.uses,
        observed_at=outside.account.observed_at if outside.account else None,
        day_start=day_start(now),
        look_back_s=policy.longest("duplicate_window_s", "cooldown_s"),
        rejects_max=int(policy.longest("max_consecutive_rejects")),
        now=now,
    )


def _book(found: Exposure, outside: Outside) -> ExposureBook:
    snapshot = outside.account
    marks = {} if snapshot is None else dict(snapshot.marks)
    for symbol, quote in outside.quotes.items():
        price = max((px for px in (quote.bid_px, quote.ask_px) if px is not None), default=None)
        if price is not None:
            marks[symbol] = price
    return ExposureBook(found, None if snapshot is None else snapshot.positions, marks)


def _facts(
    row: DecisionRow,
    outside: Outside,
    found: Exposure,
    book: ExposureBook,
    state: tuple[TradingState, str],
    settings: Settings,
) -> Facts:
    symbol = row.order.symbol
    quote = outside.quotes.get(symbol)
    snapshot = outside.account
    live = settings.trading_mode == "live"
    if row.strategy == OPERATOR and state[0] is TradingState.ACTIVE:
        # a closing order must not turn a position round, whatever came between (P11)
        state = (TradingState.REDUCING, f"decisions of the strategy {OPERATOR} only close")
    return Facts(
        state=state[0],
        state_reason=state[1],
        account=None if snapshot is None else snapshot.facts(),
        live_account_number=settings.live_account_number or "" if live else None,
        bid_px=quote.bid_px if quote else None,
        ask_px=quote.ask_px if quote else None,
        quoted_at=quote.quoted_at if quote else None,
        asset=outside.assets.get(symbol),
        daily_volume=outside.volumes.get(symbol),
        broker_qty=book.broker_qty(symbol),
        ledger_qty=book.ledger_qty(symbol),
        last_fill_at=found.last_fill_at.get(symbol),
        session_open=outside.sessions.open_for(row),
        open_discrepancies=found.open_discrepancies,
        by_person=row.strategy == OPERATOR,
    )
