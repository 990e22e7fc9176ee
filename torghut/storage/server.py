"""What kind of server we are connected to, and what it lets us do: for `torghut doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """`standbys_wanted` is synchronous_standby_names; `standbys` how many confirm at the moment,
    None where the role may not see it."""

    version: str
    clock: datetime
    read_only: bool
    standbys_wanted: str
    standbys: int | None


def server_facts(tx: Connection) -> ServerFacts:
    """The server's own account of itself."""
    row = tx.execute(
        text("""
        SELECT current_setting('server_version') AS version, clock_timestamp() AS clock,
          current_setting('transaction_read_only') = 'on' AS read_only,
          current_setting('synchronous_standby_names') AS wanted,
          (SELECT count(*) FROM pg_stat_replication
           WHERE sync_state IN ('sync', 'quorum')) AS standbys,
          pg_has_role(current_user, 'pg_monitor', 'MEMBER') AS sees""")
    ).one()
    standbys = int(row.standbys) if row.sees else None
    return ServerFacts(row.version, row.clock, row.read_only, row.wanted, standbys)


def processes(tx: Connection) -> list[int]:
    """The ids of the server's processes that serve somebody or work for all."""
    return list(tx.execute(text("SELECT pid FROM pg_stat_activity")).scalars())


def missing_privileges(tx: Connection) -> Sequence[str]:
    """Tables of our schema that the role may not read or write, as `TABLE: PRIVILEGE`."""
    rows = tx.execute(
        text("""
        SELECT c.relname || ': ' || p.privilege AS missing
        FROM pg_class c
        CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE')) AS p (privilege)
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
          AND (p.privilege <> 'UPDATE'
            OR c.relname IN ('account_leases', 'executions', 'idempotency_keys',
              'trade_decisions', 'trading_states'))
          AND (p.privilege = 'SELECT' OR c.relname <> 'alembic_version')
          AND NOT has_table_privilege(c.oid, p.privilege)
        ORDER BY 1 LIMIT 200""")
    )
    return list(rows.scalars())
