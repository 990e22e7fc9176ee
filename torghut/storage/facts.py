"""What risk is judged on: the broker's account snapshot, and all that may be live (P7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation

from sqlalchemy import Connection, text

from torghut.ports import BrokerAccount
from torghut.storage.rows import AccountSnapshot, Exposure, SymbolExposure


def store_account(
    tx: Connection,
    account: str,
    answer: BrokerAccount,
    positions: Mapping[str, Decimal],
    *,
    observed_at: datetime,
) -> None:
    """Keep the newest snapshot; `observed_at` is when the question was asked."""
    tx.execute(
        text("""
        INSERT INTO broker_accounts AS b (account, account_number, status, currency, cash, equity,
          buying_power, blocked, positions, raw, observed_at)
        VALUES (:account, :number, :status, :currency, :cash, :equity, :buying_power, :blocked,
          CAST(:positions AS jsonb), CAST(:raw AS jsonb), :observed_at)
        ON CONFLICT (account) DO UPDATE SET account_number = excluded.account_number,
          status = excluded.status, currency = excluded.currency, cash = excluded.cash,
          equity = excluded.equity, buying_power = excluded.buying_power,
          blocked = excluded.blocked, positions = excluded.positions, raw = excluded.raw,
          observed_at = excluded.observed_at
        WHERE b.observed_at < excluded.observed_at"""),
        {
            "account": account,
            "number": answer.account_number,
            "status": answer.status,
            "currency": answer.currency,
            "cash": answer.cash,
            "equity": answer.equity,
            "buying_power": answer.buying_power,
            "blocked": answer.blocked,
            "positions": json.dumps({symbol: str(qty) for symbol, qty in positions.items()}),
            "raw": json.dumps(dict(answer.raw), default=str),
            "observed_at": observed_at,
        },
    )


def account_snapshot(tx: Connection, account: str) -> AccountSnapshot | None:
    """The newest snapshot, None if the broker has never answered."""
    row = tx.execute(
        text("""
        SELECT account_number, equity, cash, buying_power, blocked, positions, raw, observed_at
        FROM broker_accounts WHERE account = :account"""),
        {"account": account},
    ).one_or_none()
    if row is None:
        return None
    return AccountSnapshot(
        account_number=row.account_number,
        equity=row.equity,
        last_equity=_decimal(row.raw.get("last_equity")),
        cash=row.cash,
        buying_power=row.buying_power,
        blocked=row.blocked,
        positions={symbol: Decimal(qty) for symbol, qty in row.positions.items()},
        observed_at=row.observed_at,
    )


def _decimal(value: object) -> Decimal | None:
    """A finite number out of a raw body; None for anything that cannot be calculated with."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


_LIVE = text("""
SELECT d.symbol, d.side, count(*) AS orders,
  sum(greatest(coalesce(d.qty, d.notional / nullif(v.reference_px, 0), 0)
      - coalesce(e.cum_qty, 0), 0)) AS open_qty
FROM trade_decisions d
LEFT JOIN executions e ON e.client_order_id = d.decision_hash
LEFT JOIN LATERAL (SELECT reference_px FROM risk_verdicts v
  WHERE v.decision_id = d.decision_id ORDER BY v.verdict_id DESC LIMIT 1) v ON true
WHERE d.account = :account AND d.status IN ('submitting', 'in_doubt', 'submitted')
  AND NOT coalesce(e.terminal, false)
GROUP BY d.symbol, d.side
UNION ALL
SELECT e.symbol, e.side, count(*), sum(e.leaves_qty) FROM executions e
LEFT JOIN trade_decisions d ON d.decision_hash = e.client_order_id AND d.account = e.account
WHERE e.account = :account AND NOT e.terminal
  AND (d.status IS NULL OR d.status NOT IN ('submitting', 'in_doubt', 'submitted'))
GROUP BY e.symbol, e.side
""")

# what the snapshot cannot know: orders not surely there yet, and orders made after it was taken
_UNSEEN_NOTIONAL = text("""
SELECT coalesce(sum(v.notional), 0) FROM (
  SELECT decision_id FROM trade_decisions
  WHERE account = :account AND status IN ('submitting', 'in_doubt')
  UNION
  SELECT decision_id FROM executions
  WHERE account = :account AND created_at > :observed_at AND decision_id IS NOT NULL) d
JOIN LATERAL (SELECT notional FROM risk_verdicts v
  WHERE v.decision_id = d.decision_id ORDER BY v.verdict_id DESC LIMIT 1) v ON true
""")

_POSITIONS = text("""
SELECT symbol, sum(qty) AS qty FROM (
  SELECT symbol, qty FROM positions WHERE account = :account
  UNION ALL
  SELECT symbol, CASE side WHEN 'buy' THEN cum_qty - ledger_qty ELSE ledger_qty - cum_qty END
  FROM executions WHERE account = :account AND cum_qty > ledger_qty) p
GROUP BY symbol
""")

_RATES = text("""
SELECT count(*) FILTER (WHERE intended_at > :minute_ago) AS minute, count(*) AS today
FROM submission_attempts a JOIN trade_decisions d USING (decision_id)
WHERE d.account = :account AND a.operation = 'submit' AND a.intended_at > :since
""")


def exposure(
    tx: Connection,
    account: str,
    *,
    observed_at: datetime | None,
    day_start: datetime,
    now: datetime,
) -> Exposure:
    """Everything that may be live: filled + open + submitting + in doubt.

    `observed_at` is when the account snapshot was asked for, `day_start` where "today" begins.
    """
    zero = Decimal(0)
    ledger = {row.symbol: row.qty for row in tx.execute(_POSITIONS, {"account": account})}
    buys: dict[str, Decimal] = {}
    sells: dict[str, Decimal] = {}
    open_orders = 0
    for row in tx.execute(_LIVE, {"account": account}):
        side = buys if row.side == "buy" else sells
        side[row.symbol] = side.get(row.symbol, zero) + row.open_qty
        open_orders += row.orders
    notional = tx.execute(
        _UNSEEN_NOTIONAL,
        {"account": account, "observed_at": observed_at or datetime.min.replace(tzinfo=now.tzinfo)},
    ).scalar_one()
    minute_ago = now - timedelta(minutes=1)
    rates = tx.execute(
        _RATES,
        {"account": account, "minute_ago": minute_ago, "since": min(day_start, minute_ago)},
    ).one()
    return Exposure(
        by_symbol={
            symbol: SymbolExposure(
                ledger.get(symbol, zero), buys.get(symbol, zero), sells.get(symbol, zero)
            )
            for symbol in {*ledger, *buys, *sells}
        },
        notional=notional,
        open_orders=open_orders,
        orders_last_minute=rates.minute,
        orders_today=rates.today,
    )
