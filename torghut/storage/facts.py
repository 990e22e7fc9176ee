"""broker_accounts: the newest answer of the broker about an account and its positions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation

from sqlalchemy import Connection, text

from torghut.ports import BrokerAccount, BrokerPosition
from torghut.storage.rows import AccountSnapshot


def store_account(
    tx: Connection,
    account: str,
    answer: BrokerAccount,
    positions: Sequence[BrokerPosition],
    *,
    observed_at: datetime,
) -> None:
    """Keep the newest snapshot; `observed_at` is when the question was asked.

    The peak of the equity is kept beside it, until `forget_peak`.
    """
    tx.execute(
        text("""
        INSERT INTO broker_accounts AS b (account, account_number, status, currency, cash, equity,
          peak_equity, buying_power, blocked, positions, marks, entry_pxs, raw, observed_at)
        VALUES (:account, :number, :status, :currency, :cash, :equity, :equity, :buying_power,
          :blocked, CAST(:positions AS jsonb), CAST(:marks AS jsonb), CAST(:entry_pxs AS jsonb),
          CAST(:raw AS jsonb), :observed_at)
        ON CONFLICT (account) DO UPDATE SET account_number = excluded.account_number,
          status = excluded.status, currency = excluded.currency, cash = excluded.cash,
          equity = excluded.equity, buying_power = excluded.buying_power,
          blocked = excluded.blocked, positions = excluded.positions, marks = excluded.marks,
          entry_pxs = excluded.entry_pxs, raw = excluded.raw,
          peak_equity = greatest(b.peak_equity, excluded.equity),
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
            "positions": json.dumps({p.symbol: str(p.qty) for p in positions}),
            "marks": json.dumps(
                {p.symbol: str(p.current_price) for p in positions if p.current_price is not None}
            ),
            "entry_pxs": json.dumps(
                {p.symbol: str(p.avg_px) for p in positions if p.avg_px is not None}
            ),
            "raw": json.dumps(dict(answer.raw), default=str),
            "observed_at": observed_at,
        },
    )


def account_snapshot(tx: Connection, account: str) -> AccountSnapshot | None:
    """The newest snapshot, None if the broker has never answered."""
    row = tx.execute(
        text("""
        SELECT account_number, equity, peak_equity, cash, buying_power, blocked, positions, marks,
          entry_pxs, raw, observed_at FROM broker_accounts WHERE account = :account"""),
        {"account": account},
    ).one_or_none()
    if row is None:
        return None
    return AccountSnapshot(
        account_number=row.account_number,
        equity=row.equity,
        peak_equity=row.peak_equity,
        last_equity=_decimal(row.raw.get("last_equity")),
        cash=row.cash,
        buying_power=row.buying_power,
        blocked=row.blocked,
        shorting_enabled=_flag(row.raw.get("shorting_enabled")),
        positions={symbol: Decimal(qty) for symbol, qty in row.positions.items()},
        marks={symbol: Decimal(px) for symbol, px in row.marks.items()},
        entry_pxs={symbol: Decimal(px) for symbol, px in row.entry_pxs.items()},
        observed_at=row.observed_at,
    )


def forget_peak(tx: Connection, account: str | None) -> None:
    """Let the peak of the equity begin again from where it is: a person has looked at the loss.

    None means every account.
    """
    tx.execute(
        text("""UPDATE broker_accounts SET peak_equity = equity
        WHERE CAST(:account AS text) IS NULL OR account = :account"""),
        {"account": account},
    )


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _decimal(value: object) -> Decimal | None:
    """A finite number out of a raw body; None for anything that cannot be calculated with."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
