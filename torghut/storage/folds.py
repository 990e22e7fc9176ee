"""positions and strategy_positions: folds of fills and entries, per symbol.

`fold_positions` takes steps, `refold` begins again from the first fill. Both want the caller to
hold `leases.lock_books`: a fold must see the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial

from sqlalchemy import Connection, text

from torghut.domain.events import Event, EventKind
from torghut.domain.positions import FLAT, Position, apply_entry, apply_fill
from torghut.domain.values import canonical_amount
from torghut.storage import control

SPLITS = frozenset({"SPLIT", "SPIN", "REORG"})
"""Types of the broker's under which units change and their cost stays."""
STREAMED_MAX = 2_000
ACTOR = "ledger"

Step = Callable[[Position], Position]
Key = tuple[str, str]  # strategy and symbol


def fold_positions(
    tx: Connection, account: str, steps: Iterable[tuple[str, str, Step]], *, now: datetime
) -> None:
    """Take (strategy, symbol, step) in this order, in the folds of the account and of the strategy;
    both end in the same sum."""
    taken = list(steps)
    wanted = {(strategy, symbol) for strategy, symbol, _ in taken}
    before = _positions(tx, account, sorted({symbol for _, symbol in wanted}))
    account_folds = dict(before)
    strategy_folds = _strategy_positions(tx, account, sorted(wanted))
    for strategy, symbol, step in taken:
        account_folds[symbol] = step(account_folds.get(symbol, FLAT))
        key = (strategy, symbol)
        strategy_folds[key] = step(strategy_folds.get(key, FLAT))
    _store(tx, account, account_folds, strategy_folds, now=now)
    _report(tx, account, before, account_folds, now=now)


def refold(tx: Connection, account: str, *, now: datetime) -> None:
    """Fold all fills and entries of the account anew, in the order in which they happened."""
    account_folds: dict[str, Position] = {}
    strategy_folds: dict[Key, Position] = {}
    rows = tx.execute(
        text("""
        SELECT transact_time AS at, activity_id AS id, strategy, symbol, side, last_qty AS qty,
          last_px AS px, false AS keeps_cost
        FROM fills WHERE account = :account
        UNION ALL
        SELECT occurred_at, entry_key, '', symbol, NULL, qty, px,
          kind = ANY (CAST(:splits AS text[]))
        FROM account_entries WHERE account = :account AND qty <> 0
        ORDER BY 1, 2"""),
        {"account": account, "splits": sorted(SPLITS)},
        execution_options={"yield_per": STREAMED_MAX},
    )
    for row in rows:
        step = (
            partial(apply_fill, side=row.side, last_qty=row.qty, last_px=row.px)
            if row.side
            else entry_step(row.qty, row.px, keeps_cost=row.keeps_cost)
        )
        account_folds[row.symbol] = step(account_folds.get(row.symbol, FLAT))
        key = (row.strategy, row.symbol)
        strategy_folds[key] = step(strategy_folds.get(key, FLAT))
    before = _positions(tx, account, None)
    for table in ("positions", "strategy_positions"):
        tx.execute(text(f"DELETE FROM {table} WHERE account = :account"), {"account": account})
    _store(tx, account, account_folds, strategy_folds, now=now)
    _report(tx, account, before, account_folds, now=now)


def _report(
    tx: Connection,
    account: str,
    before: Mapping[str, Position],
    after: Mapping[str, Position],
    *,
    now: datetime,
) -> None:
    """An event for each symbol whose position is another one now."""
    changed = [
        (symbol, before.get(symbol, FLAT), after.get(symbol, FLAT))
        for symbol in sorted(before.keys() | after.keys())
        if before.get(symbol, FLAT) != after.get(symbol, FLAT)
    ]
    events = [
        Event(
            EventKind.POSITION_CHANGED,
            ACTOR,
            account,
            payload={
                "symbol": symbol,
                "qty_before": canonical_amount(old.qty),
                "qty": canonical_amount(new.qty),
                "avg_px": canonical_amount(new.avg_px),
                "realized_pl": canonical_amount(new.realized_pl),
            },
        )
        for symbol, old, new in changed
    ]
    control.add_events(tx, events, now=now)


def entry_step(qty: Decimal, px: Decimal | None, *, keeps_cost: bool) -> Step:
    """What an entry does to the position of its symbol."""
    return partial(apply_entry, qty=qty, px=None if keeps_cost else px, keeps_cost=keeps_cost)


def _positions(tx: Connection, account: str, symbols: list[str] | None) -> dict[str, Position]:
    """Of these symbols, or of all."""
    chosen = "" if symbols is None else "AND symbol = ANY(CAST(:symbols AS text[]))"
    rows = tx.execute(
        text(f"""SELECT symbol, qty, cost_basis, realized_pl FROM positions
        WHERE account = :account {chosen} FOR UPDATE"""),
        {"account": account} | ({} if symbols is None else {"symbols": symbols}),
    )
    return {row.symbol: Position(row.qty, row.cost_basis, row.realized_pl) for row in rows}


def _strategy_positions(tx: Connection, account: str, keys: list[Key]) -> dict[Key, Position]:
    rows = tx.execute(
        text("""
        SELECT p.strategy, p.symbol, p.qty, p.cost_basis, p.realized_pl FROM strategy_positions p
        JOIN unnest(CAST(:strategies AS text[]), CAST(:symbols AS text[])) AS n (strategy, symbol)
          USING (strategy, symbol)
        WHERE p.account = :account FOR UPDATE OF p"""),
        {
            "account": account,
            "strategies": [strategy for strategy, _ in keys],
            "symbols": [symbol for _, symbol in keys],
        },
    )
    return {
        (row.strategy, row.symbol): Position(row.qty, row.cost_basis, row.realized_pl)
        for row in rows
    }


def _store(
    tx: Connection,
    account: str,
    account_folds: Mapping[str, Position],
    strategy_folds: Mapping[Key, Position],
    *,
    now: datetime,
) -> None:
    tx.execute(
        text("""
        INSERT INTO positions (account, symbol, qty, cost_basis, avg_px, realized_pl, updated_at)
        SELECT :account, n.*, :now FROM unnest(CAST(:symbol AS text[]), CAST(:qty AS numeric[]),
          CAST(:cost_basis AS numeric[]), CAST(:avg_px AS numeric[]),
          CAST(:realized_pl AS numeric[])) AS n
        ON CONFLICT (account, symbol) DO UPDATE SET qty = excluded.qty,
          cost_basis = excluded.cost_basis, avg_px = excluded.avg_px,
          realized_pl = excluded.realized_pl, updated_at = excluded.updated_at"""),
        {"account": account, "now": now, "symbol": list(account_folds), **_columns(account_folds)},
    )
    tx.execute(
        text("""
        INSERT INTO strategy_positions (account, strategy, symbol, qty, cost_basis, avg_px,
          realized_pl, updated_at)
        SELECT :account, n.*, :now FROM unnest(CAST(:strategy AS text[]), CAST(:symbol AS text[]),
          CAST(:qty AS numeric[]), CAST(:cost_basis AS numeric[]), CAST(:avg_px AS numeric[]),
          CAST(:realized_pl AS numeric[])) AS n
        ON CONFLICT (account, strategy, symbol) DO UPDATE SET qty = excluded.qty,
          cost_basis = excluded.cost_basis, avg_px = excluded.avg_px,
          realized_pl = excluded.realized_pl, updated_at = excluded.updated_at"""),
        {
            "account": account,
            "now": now,
            "strategy": [strategy for strategy, _ in strategy_folds],
            "symbol": [symbol for _, symbol in strategy_folds],
            **_columns(strategy_folds),
        },
    )


def _columns(folds: Mapping[str, Position] | Mapping[Key, Position]) -> dict[str, list[Decimal]]:
    return {
        "qty": [position.qty for position in folds.values()],
        "cost_basis": [position.cost_basis for position in folds.values()],
        "avg_px": [position.avg_px for position in folds.values()],
        "realized_pl": [position.realized_pl for position in folds.values()],
    }


def strategy_positions(tx: Connection, account: str, strategy: str) -> dict[str, Decimal]:
    """Signed position per symbol of one strategy."""
    rows = tx.execute(
        text("""SELECT symbol, qty FROM strategy_positions
        WHERE account = :account AND strategy = :strategy"""),
        {"account": account, "strategy": strategy},
    )
    return {row.symbol: row.qty for row in rows}
