"""Positions beside the broker's, and profit: realised, unrealised at the broker's prices, fees.

Unrealised profit is `qty x mark - cost_basis`, null where the broker has given no price. The mark
is the current price of the newest answer (broker_accounts.marks).
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, text

from torghut.storage.queries import Filters, page, plain

By = Literal["strategy", "symbol", "account"]

# the broker's answer by symbol; pairs are named as orders name them
_BROKER = """
broker AS (
  SELECT b.account, p.key AS symbol, p.value::numeric AS qty,
    (b.marks ->> p.key)::numeric AS mark
  FROM broker_accounts b, jsonb_each_text(b.positions) p)"""

_SAME = "ON b.account = p.account AND replace(b.symbol, '/', '') = replace(p.symbol, '/', '')"

_ALL = f"""
WITH {_BROKER},
held AS (
  SELECT coalesce(p.account, b.account) AS account, coalesce(p.symbol, b.symbol) AS symbol,
    coalesce(p.qty, 0) AS qty, coalesce(p.avg_px, 0) AS avg_px,
    coalesce(p.cost_basis, 0) AS cost_basis, coalesce(p.realized_pl, 0) AS realized_pl,
    p.updated_at, b.mark, NULL::text AS strategy,
    CASE WHEN a.account IS NOT NULL THEN coalesce(b.qty, 0) END AS broker_qty
  FROM positions p FULL JOIN broker b {_SAME}
  LEFT JOIN broker_accounts a ON a.account = coalesce(p.account, b.account))"""

_BY_STRATEGY = f"""
WITH {_BROKER},
held AS (
  SELECT p.account, p.symbol, p.qty, p.avg_px, p.cost_basis, p.realized_pl, p.updated_at, b.mark,
    p.strategy, NULL::numeric AS broker_qty
  FROM strategy_positions p LEFT JOIN broker b {_SAME})"""

_UNREALIZED = "CASE WHEN qty = 0 THEN 0 ELSE qty * mark - cost_basis END"


def positions(tx: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Positions per account and symbol, in that order; with a strategy in the filters, its own.

    `status` may be `open` (qty is not 0, here or at the broker) or `flat`. `id` is the row's rank
    from the end, for paging only. The account's have `broker_qty` and `difference`, the broker's
    less ours, by its newest answer.
    """
    where = {
        "status": "(CASE WHEN p.qty = 0 AND coalesce(p.broker_qty, 0) = 0 THEN 'flat'"
        " ELSE 'open' END) = :status",
        "symbol": "p.symbol = :symbol",
        "strategy": "p.strategy = :strategy",
        "account": "p.account = :account",
        "since": "p.updated_at >= :since",
        "before": "p.id < :before",
    }
    source = f"""{_ALL if filters.strategy is None else _BY_STRATEGY}
    SELECT p.id, p.account, p.strategy, p.symbol, p.qty, p.avg_px, p.mark, p.cost_basis,
      p.realized_pl, p.unrealized_pl, p.broker_qty, p.broker_qty - p.qty AS difference, p.updated_at
    FROM (SELECT row_number() OVER (ORDER BY account DESC, symbol DESC, strategy) AS id, account,
      strategy, symbol, qty, avg_px, mark, cost_basis, realized_pl, broker_qty, updated_at,
      {_UNREALIZED} AS unrealized_pl FROM held) p"""
    return page(tx, source, where, "p.id", filters)


def totals(tx: Connection, account: str, *, by: By) -> list[dict[str, Any]]:
    """Profit of an account, per strategy (empty: nobody's), per symbol, or of all of it.

    `unpriced` positions are open and without a price: they are missing in `unrealized_pl`. The
    account's row has `fees_and_income` too: fees, dividends, interest that moved cash.
    """
    column = {"strategy": "strategy", "symbol": "symbol", "account": "account"}[by]
    source = _BY_STRATEGY if by == "strategy" else _ALL
    fees = f", ({_FEES_AND_INCOME}) AS fees_and_income" if by == "account" else ""
    rows = tx.execute(
        text(f"""{source}
        SELECT {column}, count(*) FILTER (WHERE qty <> 0) AS positions,
          sum(realized_pl) AS realized_pl, coalesce(sum({_UNREALIZED}), 0) AS unrealized_pl,
          count(*) FILTER (WHERE qty <> 0 AND mark IS NULL) AS unpriced{fees}
        FROM held WHERE account = :account GROUP BY {column} ORDER BY {column} LIMIT 10000"""),
        {"account": account},
    )
    return [plain(row) for row in rows]


_FEES_AND_INCOME = """SELECT coalesce(sum(cash), 0) FROM account_entries e
WHERE e.account = :account AND (kind IN ('CFEE', 'FEE', 'PTC') OR kind LIKE 'DIV%'
  OR kind LIKE 'INT%')"""
