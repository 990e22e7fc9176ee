"""All that may be live in an account (P7): filled + open + submitting + in doubt, and its pace.

One reading for one batch of decisions, inside the claiming transaction. What no limit of the
policy needs is not asked for; `wanted` names the limits that are on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, text

from torghut.domain.discrepancies import DRIFTS, GRAVE
from torghut.domain.exposure import OrderCounts, RestingOrder
from torghut.domain.exposure_book import Exposure, SymbolExposure, Twin

GRAVE_DISCREPANCIES = tuple(kind.value for kind in GRAVE)
"""Kinds of discrepancy that block new exposure whatever they amount to (P12)."""

_RATES = ("max_orders_per_second", "max_orders_per_minute", "max_repeated_executions")

_LIVE = text("""
WITH live AS (
  -- on their way, or their books were lost: only the decision tells of them
  SELECT d.symbol, d.strategy, d.side, 1 AS orders,
    coalesce(d.qty, d.notional / nullif(v.px, 0), 0) AS open_qty, v.px
  FROM trade_decisions d
  LEFT JOIN LATERAL (SELECT reference_px AS px FROM risk_verdicts v
    WHERE v.decision_id = d.decision_id AND v.outcome = 'approved'
    ORDER BY v.verdict_id DESC LIMIT 1) v ON true
  WHERE d.account = :account AND d.status IN ('submitting', 'in_doubt', 'submitted')
    AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.client_order_id = d.decision_hash)
  UNION ALL
  -- what stands at the broker; a decision's orders of one side (exits, a replaced order and its
  -- successor) exclude each other, and a held exit waits for an entry that is not filled
  SELECT e.symbol, coalesce(d.strategy, ''), e.side, count(*),
    max(greatest(coalesce(e.qty, e.notional / nullif(v.px, 0), 0) - e.cum_qty, 0)), max(v.px)
  FROM executions e LEFT JOIN trade_decisions d ON d.decision_id = e.decision_id
  LEFT JOIN LATERAL (SELECT reference_px AS px FROM risk_verdicts v
    WHERE v.decision_id = e.decision_id AND v.outcome = 'approved'
    ORDER BY v.verdict_id DESC LIMIT 1) v ON true
  WHERE e.account = :account AND NOT e.terminal AND e.status <> 'held'
  GROUP BY coalesce(e.decision_id, -e.execution_id), e.symbol, d.strategy, e.side
  UNION ALL
  -- a replacement that may be live and is not in the books: what it has open beyond the old order
  SELECT d.symbol, d.strategy, d.side, 0,
    greatest(a.open_qty - CASE WHEN e.terminal THEN 0 ELSE e.leaves_qty END, 0), NULL
  FROM order_actions a JOIN trade_decisions d USING (decision_id)
  JOIN executions e ON e.broker_order_id = a.broker_order_id
  WHERE a.account = :account AND a.operation = 'replace' AND a.status IN ('sending', 'in_doubt')
    AND NOT EXISTS (SELECT 1 FROM executions s WHERE s.client_order_id = a.client_order_id)
  UNION ALL
  -- an order that somebody replaced, its successor not in the books: as if all of it were open
  SELECT d.symbol, d.strategy, d.side, 1, coalesce(e.qty, 0) - e.cum_qty, NULL
  FROM trade_decisions d JOIN executions e USING (decision_id)
  WHERE d.account = :account AND d.status = 'submitted' AND e.status = 'replaced'
    AND NOT EXISTS (SELECT 1 FROM executions s
      WHERE s.broker_order_id = e.replaced_by OR s.replaces = e.broker_order_id)
    AND NOT EXISTS (SELECT 1 FROM order_actions a WHERE a.broker_order_id = e.broker_order_id
      AND a.decision_id = d.decision_id AND a.operation = 'replace'
      AND a.status IN ('sending', 'in_doubt')))
SELECT symbol, strategy, side, sum(orders)::int AS orders, sum(open_qty) AS open_qty, max(px) AS px
FROM live GROUP BY symbol, strategy, side
""")

# what the snapshot cannot know: orders not surely there yet, and orders made after it was taken;
# one that ended without a fill needs nothing, one that was replaced may live on in its successor
_UNSEEN_NOTIONAL = text("""
SELECT coalesce(sum(v.notional), 0) FROM (
  SELECT decision_id FROM trade_decisions
  WHERE account = :account AND status IN ('submitting', 'in_doubt')
  UNION
  SELECT decision_id FROM executions
  WHERE account = :account AND created_at > :observed_at AND decision_id IS NOT NULL
    AND NOT (terminal AND cum_qty = 0 AND status <> 'replaced')
  UNION
  SELECT decision_id FROM order_actions
  WHERE account = :account AND operation = 'replace' AND status IN ('sending', 'in_doubt')) d
JOIN LATERAL (SELECT notional FROM risk_verdicts v
  WHERE v.decision_id = d.decision_id AND v.outcome = 'approved'
  ORDER BY v.verdict_id DESC LIMIT 1) v ON true
""")

_POSITIONS = text("""
SELECT symbol, sum(qty) AS qty FROM (
  SELECT symbol, qty FROM positions WHERE account = :account
  UNION ALL
  SELECT symbol, CASE side WHEN 'buy' THEN cum_qty - ledger_qty ELSE ledger_qty - cum_qty END
  FROM executions WHERE account = :account AND cum_qty > ledger_qty) p
GROUP BY symbol
""")

_STRATEGY_POSITIONS = text("""
SELECT strategy, symbol, sum(qty) AS qty FROM (
  SELECT strategy, symbol, qty FROM strategy_positions WHERE account = :account AND qty <> 0
  UNION ALL
  SELECT coalesce(d.strategy, ''), e.symbol,
    CASE e.side WHEN 'buy' THEN e.cum_qty - e.ledger_qty ELSE e.ledger_qty - e.cum_qty END
  FROM executions e LEFT JOIN trade_decisions d USING (decision_id)
  WHERE e.account = :account AND e.cum_qty > e.ledger_qty) p
GROUP BY strategy, symbol
""")

# an order is a decision that was sent, however often, or a replacement; the decisions under
# judgement are not counted
_RECENT = text("""
SELECT d.strategy, count(*) FILTER (WHERE sent_at > :second_ago) AS last_second,
  count(*) AS last_minute
FROM (SELECT decision_id, max(intended_at) AS sent_at FROM submission_attempts
      WHERE operation = 'submit' AND intended_at > :minute_ago
        AND decision_id <> ALL (CAST(:judged AS bigint[]))
      GROUP BY decision_id
      UNION ALL
      SELECT decision_id, sent_at FROM order_actions
      WHERE account = :account AND operation = 'replace' AND sent_at > :minute_ago) a
JOIN trade_decisions d USING (decision_id)
WHERE d.account = :account GROUP BY d.strategy
""")

_TODAY = text("""
SELECT strategy, sum(orders)::int AS orders FROM (
  SELECT strategy, orders FROM order_counts WHERE account = :account AND day = :day
  UNION ALL
  SELECT d.strategy, 1 FROM order_actions a JOIN trade_decisions d USING (decision_id)
  WHERE a.account = :account AND a.operation = 'replace' AND a.sent_at >= :day_start) sent
GROUP BY strategy
""")

# since the last change of the strategy's state: who resumes it begins to count anew
_RATE_DENIALS = text("""
SELECT d.strategy, count(*) AS denials FROM risk_verdicts v
JOIN trade_decisions d USING (decision_id)
LEFT JOIN trading_states s ON s.scope = 'strategy:' || d.strategy
WHERE v.deny_reason = 'order_rate' AND v.judged_at > :minute_ago AND d.account = :account
  AND v.judged_at > coalesce(s.changed_at, '-infinity')
GROUP BY d.strategy
""")

_REJECTS = text("""
WITH answered AS (
  SELECT a.attempt_id, a.outcome FROM submission_attempts a
  JOIN trade_decisions d USING (decision_id)
  WHERE d.account = :account AND a.operation = 'submit'
    AND a.outcome IN ('accepted', 'exists', 'refused')
    -- by the instant, whose index knows where to begin: whoever resumes with a million attempts
    -- behind him must not have them all looked at for each claim
    AND a.intended_at > coalesce((SELECT changed_at FROM trading_states
                                  WHERE scope = 'account:' || :account), '-infinity')
  ORDER BY a.intended_at DESC, a.attempt_id DESC LIMIT :limit)
SELECT count(*) FROM answered WHERE attempt_id >
  coalesce((SELECT max(attempt_id) FROM answered WHERE outcome <> 'refused'), 0)
""")

_TWINS = text("""
SELECT d.symbol, d.side, d.qty, d.notional, max(a.intended_at) AS sent_at
FROM submission_attempts a JOIN trade_decisions d USING (decision_id)
WHERE a.operation = 'submit' AND a.intended_at > :since AND d.account = :account
  AND d.symbol = ANY (CAST(:symbols AS text[]))
  AND decision_id <> ALL (CAST(:judged AS bigint[]))
GROUP BY d.symbol, d.side, d.qty, d.notional
""")

_RESTING = text("""
SELECT symbol, side, limit_price, stop_price FROM executions
WHERE account = :account AND NOT terminal AND status <> 'held' AND order_type <> 'market'
  AND symbol = ANY (CAST(:symbols AS text[]))
UNION ALL
SELECT symbol, side, limit_price, (payload ->> 'stop_price')::numeric FROM trade_decisions
WHERE account = :account AND status IN ('submitting', 'in_doubt')
  AND symbol = ANY (CAST(:symbols AS text[])) AND order_type <> 'market'
""")

_LAST_FILLS = text("""
SELECT symbol, max(at) AS at FROM (
  SELECT symbol, max(transact_time) AS at FROM fills
  WHERE account = :account AND symbol = ANY (CAST(:symbols AS text[]))
    AND transact_time > :since GROUP BY symbol
  UNION ALL
  SELECT symbol, max(coalesce(broker_updated_at, updated_at)) FROM executions
  WHERE account = :account AND symbol = ANY (CAST(:symbols AS text[])) AND cum_qty > ledger_qty
  GROUP BY symbol) f
GROUP BY symbol
""")

_GRAVE = text("""
SELECT count(*) FROM discrepancies
WHERE account = :account AND resolved_at IS NULL AND (kind = ANY (CAST(:kinds AS text[]))
  OR kind = ANY (CAST(:drifts AS text[])) AND evidence @> '{"beyond_tolerance": true}')
""")


def read(
    tx: Connection,
    account: str,
    *,
    judged: Sequence[int],
    symbols: Sequence[str],
    wanted: Callable[..., bool],
    observed_at: datetime | None,
    day_start: datetime,
    look_back_s: Decimal,
    rejects_max: int,
    now: datetime,
) -> Exposure:
    """The exposure that the decisions `judged`, of `symbols`, are to be judged on.

    `wanted(*names)` says whether one of these limits is on. `observed_at` is when the account
    snapshot was asked for, `day_start` where "today" begins, `look_back_s` how far back duplicates
    and fills matter, `rejects_max` how many refusals in a row are of interest.
    """
    of_account = {"account": account}
    exposure = live(tx, account, by_strategy=wanted("max_strategy_exposure"))
    notional = tx.execute(
        _UNSEEN_NOTIONAL,
        {**of_account, "observed_at": observed_at or datetime.min.replace(tzinfo=now.tzinfo)},
    ).scalar_one()
    since = now - timedelta(seconds=float(look_back_s))
    here = {**of_account, "symbols": sorted(set(symbols)), "since": since, "judged": list(judged)}
    exposure = replace(
        exposure,
        notional=notional,
        resting=_resting(tx, here) if wanted("check_self_match") else {},
        strategy_counts=_counts(tx, account, exposure, wanted, judged, day_start, now),
    )
    if wanted("max_rate_denials"):
        rows = tx.execute(_RATE_DENIALS, {**of_account, "minute_ago": now - timedelta(minutes=1)})
        exposure = replace(exposure, rate_denials={r.strategy: r.denials for r in rows})
    if wanted("max_consecutive_rejects"):
        rejects = tx.execute(_REJECTS, {**of_account, "limit": rejects_max + 1}).scalar_one()
        exposure = replace(exposure, rejects_in_a_row=rejects)
    if wanted("max_open_discrepancies"):
        kinds = {"kinds": list(GRAVE_DISCREPANCIES), "drifts": [kind.value for kind in DRIFTS]}
        grave = tx.execute(_GRAVE, {**of_account, **kinds})
        exposure = replace(exposure, open_discrepancies=grave.scalar_one())
    if wanted("duplicate_window_s"):
        twins = tuple(Twin(**row._mapping) for row in tx.execute(_TWINS, here))
        exposure = replace(exposure, twins=twins)
    if wanted("cooldown_s"):
        fills = {row.symbol: row.at for row in tx.execute(_LAST_FILLS, here)}
        exposure = replace(exposure, last_fill_at=fills)
    return exposure


def live(tx: Connection, account: str, *, by_strategy: bool = False) -> Exposure:
    """Positions by our books and what is open, without the account's pace."""
    parts: dict[tuple[str, str], list[Decimal]] = {}
    open_orders: dict[str, int] = {}
    prices: dict[str, Decimal] = {}
    for row in tx.execute(_LIVE, {"account": account}):
        part = parts.setdefault((row.strategy, row.symbol), [Decimal(0), Decimal(0)])
        part[row.side != "buy"] += row.open_qty
        open_orders[row.strategy] = open_orders.get(row.strategy, 0) + row.orders
        if row.px is not None:
            prices[row.symbol] = max(row.px, prices.get(row.symbol, row.px))
    ledger = {row.symbol: row.qty for row in tx.execute(_POSITIONS, {"account": account})}
    symbols = {symbol: SymbolExposure(qty) for symbol, qty in ledger.items()}
    for (_, symbol), (buys, sells) in parts.items():
        known = symbols.get(symbol, SymbolExposure())
        symbols[symbol] = SymbolExposure(
            known.ledger_qty, known.buy_qty + buys, known.sell_qty + sells
        )
    return Exposure(
        by_symbol=symbols,
        by_strategy=_by_strategy(tx, account, parts) if by_strategy else {},
        reference_px=prices,
        strategy_counts={
            name: OrderCounts(open_orders=count) for name, count in open_orders.items()
        },
    )


def _by_strategy(
    tx: Connection, account: str, parts: dict[tuple[str, str], list[Decimal]]
) -> dict[tuple[str, str], SymbolExposure]:
    rows = tx.execute(_STRATEGY_POSITIONS, {"account": account})
    qty = {(row.strategy, row.symbol): row.qty for row in rows}
    nothing = [Decimal(0), Decimal(0)]
    return {
        key: SymbolExposure(qty.get(key, Decimal(0)), *parts.get(key, nothing))
        for key in {*qty, *parts}
    }


def _counts(
    tx: Connection,
    account: str,
    exposure: Exposure,
    wanted: Callable[..., bool],
    judged: Sequence[int],
    day_start: datetime,
    now: datetime,
) -> dict[str, OrderCounts]:
    counts = dict(exposure.strategy_counts)
    none = OrderCounts()
    if wanted(*_RATES):
        recent = {
            "account": account,
            "second_ago": now - timedelta(seconds=1),
            "minute_ago": now - timedelta(minutes=1),
            "judged": list(judged),
        }
        for row in tx.execute(_RECENT, recent):
            counts[row.strategy] = replace(
                counts.get(row.strategy, none),
                last_second=row.last_second,
                last_minute=row.last_minute,
            )
    if wanted("max_orders_per_day"):
        for row in tx.execute(
            _TODAY, {"account": account, "day": day_start.date(), "day_start": day_start}
        ):
            counts[row.strategy] = replace(counts.get(row.strategy, none), today=row.orders)
    return counts


def _resting(
    tx: Connection, here: dict[str, object]
) -> dict[str, tuple[tuple[str, RestingOrder], ...]]:
    resting: dict[str, tuple[tuple[str, RestingOrder], ...]] = {}
    for row in tx.execute(_RESTING, here):
        order = RestingOrder(side=row.side, limit_px=row.limit_price, stop_px=row.stop_price)
        resting[row.symbol] = (*resting.get(row.symbol, ()), (row.side, order))
    return resting


def reserved_by(tx: Connection, decision_id: int, qty: Decimal) -> Decimal:
    """What `qty` open shares of a decision's order hold of buying power, by its newest verdict."""
    held: Decimal | None = tx.execute(
        text("""
        SELECT least(v.notional, CAST(:qty AS numeric) * v.reference_px) FROM risk_verdicts v
        WHERE v.decision_id = :id AND v.outcome = 'approved' ORDER BY v.verdict_id DESC LIMIT 1"""),
        {"id": decision_id, "qty": qty},
    ).scalar_one_or_none()
    return held or Decimal(0)
