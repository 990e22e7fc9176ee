"""tie_out_looks, and what of the books a tie-out compares.

`books` reads both at once: the folds as they are, and what was booked about the time of the
broker's answer or later, so that the folds as they were follow by subtraction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, text

from torghut.domain.tie_out import CASH, Booked, Look, one_name, symbol_key
from torghut.storage import account_entries

RECENT_MAX = 2_000
FEE_SHARE = Decimal("0.003")  # a little above the highest fee on coins, 25 bps
FEE_DAYS = 2  # fees are listed after the end of their day
FEE_LISTED_H = 30  # … so what is listed so long after an instant is of trades after it
WAITING_S_MAX = 60.0

_ZERO = Decimal(0)

_RECENT_FILLS = text("""
SELECT symbol, CASE side WHEN 'buy' THEN last_qty ELSE -last_qty END AS qty, last_px AS px
FROM fills WHERE account = :account AND recorded_at > :since
ORDER BY transact_time, activity_id LIMIT :limit
""")

_RECENT_ENTRIES = text("""
SELECT symbol, qty, cash FROM account_entries
WHERE account = :account AND recorded_at > :since AND kind NOT IN ('OPENING', 'ADJUSTMENT')
ORDER BY entry_id LIMIT :limit
""")

# what an order is known to have filled and no activity told of, for a while
_WAITING = text("""
SELECT DISTINCT symbol FROM executions
WHERE account = :account AND cum_qty > ledger_qty AND updated_at > :waiting_since
""")

# coins that were traded lately, less the fees that are listed by now: in coins for what was
# bought, in money for what was sold
_TRADED_COINS = text("""
SELECT p.symbol, sum(f.last_qty) FILTER (WHERE f.side = 'buy') AS bought,
  sum(f.last_qty * f.last_px) FILTER (WHERE f.side <> 'buy') AS proceeds
FROM positions p JOIN fills f USING (account, symbol)
WHERE p.account = :account AND p.symbol LIKE '%/%' AND f.recorded_at > :fees_since
GROUP BY p.symbol
""")
# only of those trades: the fee of an older one, subtracted from what these cost, would make a fee
# that was taken and is not listed yet look like a loss
_FEES_LISTED = text("""
SELECT symbol, -sum(qty) AS qty, -sum(cash) AS cash FROM account_entries
WHERE account = :account AND occurred_at > :listed_since AND kind = 'CFEE' GROUP BY symbol
""")


@dataclass(slots=True)
class _Recent:
    moves: list[Decimal] = field(default_factory=list)
    entries: list[Decimal] = field(default_factory=list)


# an order of ours stands at the broker, may do so, or may come to light late
_TRADING = text("""
SELECT EXISTS (SELECT 1 FROM executions WHERE account = :account AND NOT terminal)
  OR EXISTS (SELECT 1 FROM trade_decisions WHERE account = :account
     AND status IN ('submitting', 'in_doubt', 'submitted'))
  OR EXISTS (SELECT 1 FROM trade_decisions WHERE account = :account
     AND status IN ('rejected', 'expired') AND attempts > 0 AND updated_at > :since)
""")


def trading(tx: Connection, account: str, *, since: datetime) -> bool:
    """True if the broker may fill an order of ours: one that lives, or one of a decision that ended
    without it after `since`."""
    found: bool = tx.execute(_TRADING, {"account": account, "since": since}).scalar_one()
    return found


def books(tx: Connection, account: str, *, since: datetime, now: datetime) -> dict[str, Booked]:
    """Booked amounts by subject: a position's symbol, or CASH; positions that are flat and were
    not traded since `since` are left out."""
    key = {"account": account, "since": since, "limit": RECENT_MAX + 1}
    recent: dict[str, _Recent] = {}
    fills = tx.execute(_RECENT_FILLS, key).all()
    for row in fills:
        recent.setdefault(row.symbol, _Recent()).moves.append(row.qty)
        recent.setdefault(CASH, _Recent()).moves.append(-row.qty * row.px)
    for row in tx.execute(_RECENT_ENTRIES, key):
        if row.qty:
            recent.setdefault(row.symbol, _Recent()).entries.append(row.qty)
        if row.cash:
            recent.setdefault(CASH, _Recent()).entries.append(row.cash)
    since_waiting = now - timedelta(seconds=WAITING_S_MAX)
    waiting = set(
        tx.execute(_WAITING, {"account": account, "waiting_since": since_waiting}).scalars()
    )
    fees = _fees_awaited(tx, account, now - timedelta(days=FEE_DAYS))
    held = {
        row.symbol: row.qty
        for row in tx.execute(
            text("SELECT symbol, qty FROM positions WHERE account = :account"), key
        )
    }
    amounts: dict[str, Decimal] = {
        symbol: held.get(symbol, _ZERO)
        for symbol in {*held, *recent, *waiting}
        if held.get(symbol) or symbol in recent or symbol in waiting
    }
    amounts[CASH] = account_entries.cash(tx, account)
    too_many = len(fills) > RECENT_MAX
    found: dict[str, Booked] = {}
    for subject, amount in amounts.items():
        late = recent.get(subject, _Recent())
        found[subject] = Booked(
            amount=amount - sum(late.moves, _ZERO) - sum(late.entries, _ZERO),
            moves=tuple(late.moves),
            entries=tuple(late.entries),
            waiting=too_many or (bool(waiting) if subject == CASH else subject in waiting),
            fee_awaited=fees.get(subject, _ZERO),
        )
    return found


def _fees_awaited(tx: Connection, account: str, since: datetime) -> dict[str, Decimal]:
    listed_since = since + timedelta(hours=FEE_LISTED_H)
    key = {"account": account, "fees_since": since, "listed_since": listed_since}
    awaited: dict[str, Decimal] = {}
    proceeds = _ZERO
    for row in tx.execute(_TRADED_COINS, key):
        awaited[row.symbol] = (row.bought or _ZERO) * FEE_SHARE
        proceeds += row.proceeds or _ZERO
    if not awaited:
        return {}
    awaited[CASH] = proceeds * FEE_SHARE
    names = one_name(awaited)
    for row in tx.execute(_FEES_LISTED, key):
        if row.symbol and symbol_key(row.symbol) in names:
            awaited[names[symbol_key(row.symbol)]] -= row.qty
        awaited[CASH] -= row.cash
    return {subject: max(amount, _ZERO) for subject, amount in awaited.items()}


def looks(tx: Connection, account: str) -> dict[tuple[str, str], tuple[Look, datetime]]:
    """(kind, subject) → the looks so far, and the answer that was looked at last."""
    rows = tx.execute(
        text("""SELECT kind, subject, differences, looks, observed_at FROM tie_out_looks
        WHERE account = :account"""),
        {"account": account},
    )
    return {
        (row.kind, row.subject): (
            Look(frozenset(map(Decimal, row.differences)), row.looks),
            row.observed_at,
        )
        for row in rows
    }


def store_look(
    tx: Connection, account: str, kind: str, subject: str, look: Look, *, observed_at: datetime
) -> None:
    """Remember what a look left open."""
    tx.execute(
        text("""
        INSERT INTO tie_out_looks (account, kind, subject, differences, looks, observed_at)
        VALUES (:account, :kind, :subject, CAST(:differences AS jsonb), :looks, :observed_at)
        ON CONFLICT (account, kind, subject) DO UPDATE SET differences = excluded.differences,
          looks = excluded.looks, observed_at = excluded.observed_at"""),
        {
            "account": account,
            "kind": kind,
            "subject": subject,
            "differences": json.dumps(sorted(str(d) for d in look.differences)),
            "looks": look.looks,
            "observed_at": observed_at,
        },
    )


def forget_look(tx: Connection, account: str, kind: str, subject: str) -> None:
    """Nothing is open about this amount any more."""
    tx.execute(
        text("""DELETE FROM tie_out_looks
        WHERE account = :account AND kind = :kind AND subject = :subject"""),
        {"account": account, "kind": kind, "subject": subject},
    )
