"""The audit of our own books: are rows of executions, execution_events or fills gone?

book_tallies counts what was ever inserted; fewer rows than that were deleted by somebody (the
tables are append-only). What they held is at the broker, and reconciliation reads it again
(torghut.services.book_audit). Each function wants the caller to hold `leases.lock_books`, except
`count`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

ROWS = ("executions", "observations", "fills")

Counts = Mapping[str, int]

_COUNTS = """
  (SELECT count(*) FROM executions WHERE account = :account) AS executions,
  (SELECT count(*) FROM execution_events v JOIN executions e USING (execution_id)
   WHERE e.account = :account) AS observations,
  (SELECT count(*) FROM fills WHERE account = :account) AS fills"""


def count(tx: Connection, account: str) -> tuple[Counts, Counts]:
    """How many rows there should be and how many there are, by what they are: executions,
    observations, fills. Too many: some were inserted past the triggers, as by a restore."""
    row = tx.execute(
        text(f"""
        SELECT coalesce(t.executions, 0) AS executions, coalesce(t.observations, 0) AS observations,
          coalesce(t.fills, 0) AS fills, n.*
        FROM (SELECT {_COUNTS}) n LEFT JOIN book_tallies t ON t.account = :account"""),
        {"account": account},
    ).one()
    return dict(zip(ROWS, row[:3], strict=True)), dict(zip(ROWS, row[3:], strict=True))


def rebase(tx: Connection, account: str) -> None:
    """From now on what is there is what there should be."""
    tx.execute(
        text(f"""
        INSERT INTO book_tallies (account, executions, observations, fills)
        SELECT CAST(:account AS text), {_COUNTS}
        ON CONFLICT (account) DO UPDATE SET executions = excluded.executions,
          observations = excluded.observations, fills = excluded.fills"""),
        {"account": account},
    )


def note_lost(tx: Connection, account: str) -> int:
    """Keep the ids of executions that are gone and still named by fills or observations."""
    return tx.execute(
        text("""
        INSERT INTO lost_executions (broker_order_id, execution_id)
        SELECT DISTINCT ON (named.broker_order_id) named.broker_order_id, named.execution_id
        FROM (SELECT f.raw ->> 'order_id' AS broker_order_id, f.execution_id FROM fills f
              WHERE f.account = :account
              UNION ALL
              SELECT v.raw ->> 'id', v.execution_id FROM execution_events v) named
        WHERE named.broker_order_id IS NOT NULL AND NOT EXISTS
          (SELECT 1 FROM executions e WHERE e.execution_id = named.execution_id)
        ORDER BY named.broker_order_id, named.execution_id
        ON CONFLICT DO NOTHING"""),
        {"account": account},
    ).rowcount


def forget_lost(tx: Connection) -> None:
    """The lost executions are back, or will not come back."""
    tx.execute(
        text("""
        DELETE FROM lost_executions l
        WHERE EXISTS (SELECT 1 FROM executions e WHERE e.broker_order_id = l.broker_order_id)""")
    )


def recount(tx: Connection, account: str) -> int:
    """Make ledger_qty the sum of the fills that are there."""
    return tx.execute(
        text("""
        UPDATE executions e SET ledger_qty = s.qty
        FROM (SELECT e.execution_id, coalesce(sum(f.last_qty), 0) AS qty
              FROM executions e LEFT JOIN fills f USING (execution_id)
              WHERE e.account = :account GROUP BY e.execution_id) s
        WHERE s.execution_id = e.execution_id AND e.ledger_qty <> s.qty"""),
        {"account": account},
    ).rowcount
