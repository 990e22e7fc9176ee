"""replicas: the processes that live, and whose accounts are whose. Hints for spreading only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, text

from torghut.domain.seating import Replica

FORGOTTEN_AFTER_S = 3600


def announce(tx: Connection, owner: str, accounts: Collection[str], *, ttl_s: float) -> None:
    """This process lives for another `ttl_s`, and could own these accounts."""
    tx.execute(
        text("""
        WITH gone AS (DELETE FROM replicas
          WHERE expires_at < clock_timestamp() - make_interval(secs => :forgotten))
        INSERT INTO replicas (owner, accounts, expires_at)
        VALUES (:owner, :accounts, clock_timestamp() + make_interval(secs => :ttl))
        ON CONFLICT (owner) DO UPDATE SET accounts = excluded.accounts,
          expires_at = excluded.expires_at"""),
        {
            "owner": owner,
            "accounts": sorted(accounts),
            "ttl": ttl_s,
            "forgotten": FORGOTTEN_AFTER_S,
        },
    )


def withdraw(tx: Connection, owner: str) -> None:
    """This process is about to end."""
    tx.execute(text("DELETE FROM replicas WHERE owner = :owner"), {"owner": owner})


def living(tx: Connection, *, settled_after_s: float) -> list[Replica]:
    """The processes whose time has not run out; settled are those that have lived for a while."""
    rows = tx.execute(
        text("""
        SELECT owner, accounts,
          started_at < clock_timestamp() - make_interval(secs => :after) AS settled
        FROM replicas WHERE expires_at > clock_timestamp() ORDER BY owner"""),
        {"after": settled_after_s},
    )
    return [Replica(row.owner, frozenset(row.accounts), row.settled) for row in rows]


def owners(tx: Connection) -> Mapping[str, str]:
    """Account → its owner, of every lease that is in force."""
    rows = tx.execute(
        text("""SELECT account, owner FROM account_leases
        WHERE owner IS NOT NULL AND expires_at > clock_timestamp()""")
    )
    return {row.account: row.owner for row in rows}
