"""account_leases: one owner per account at a time, by Postgres's clock.

A new owner gets a larger fencing token. `fence` is the first statement of every writing
transaction of the owner: it locks the lease row so that a take-over waits for it and a renewal does
not (writers one after the other would starve it), and a writer that lost the lease finds no row
and writes nothing.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from torghut.domain.errors import TorghutError
from torghut.storage.rows import Lease


class LeaseLost(TorghutError):
    """Another process owns the account now (or the lease ran out): stop writing for it."""


_NEW = text("""
INSERT INTO account_leases (account, owner, fencing_token, acquired_at, renewed_at, expires_at)
VALUES (:account, :owner, 1, clock_timestamp(), clock_timestamp(),
  clock_timestamp() + make_interval(secs => :ttl))
ON CONFLICT (account) DO NOTHING
RETURNING account, owner, fencing_token, expires_at""")

_NEXT = text("""
UPDATE account_leases SET owner = :owner, fencing_token = fencing_token + 1,
  acquired_at = clock_timestamp(), renewed_at = clock_timestamp(),
  expires_at = clock_timestamp() + make_interval(secs => :ttl)
WHERE account = :account
RETURNING account, owner, fencing_token, expires_at""")


def acquire(tx: Connection, account: str, owner: str, *, ttl_s: float) -> Lease | None:
    """Take the lease if it is free, released or run out; None if another owner has it."""
    values = {"account": account, "owner": owner, "ttl": ttl_s}
    # what was fenced under the old token ends first; an update alone would not wait for it
    free = tx.execute(
        text("""SELECT 1 FROM account_leases WHERE account = :account
        AND (owner IS NULL OR expires_at <= clock_timestamp()) FOR UPDATE"""),
        {"account": account},
    ).one_or_none()
    # one that becomes free only now was not waited for: it is taken by the next try
    row = tx.execute(_NEW if free is None else _NEXT, values).one_or_none()
    return None if row is None else Lease(row.account, row.owner, row.fencing_token, row.expires_at)


def renew(tx: Connection, lease: Lease, *, ttl_s: float) -> Lease | None:
    """Prolong the lease; None if it is no longer ours or has run out."""
    row = tx.execute(
        text("""
        UPDATE account_leases SET renewed_at = clock_timestamp(),
          expires_at = clock_timestamp() + make_interval(secs => :ttl)
        WHERE account = :account AND owner = :owner AND fencing_token = :token
          AND expires_at > clock_timestamp()
        RETURNING account, owner, fencing_token, expires_at"""),
        {
            "account": lease.account,
            "owner": lease.owner,
            "token": lease.fencing_token,
            "ttl": ttl_s,
        },
    ).one_or_none()
    return None if row is None else Lease(row.account, row.owner, row.fencing_token, row.expires_at)


def borrow(tx: Connection, account: str, owner: str, *, ttl_s: float) -> Lease:
    """The lease in force, whoever holds it, or a new one of ours: for a pass beside the daemon.

    What is written under it must be facts or compare-and-set by evidence, never a submission.
    """
    lease = acquire(tx, account, owner, ttl_s=ttl_s)
    if lease is not None:
        return lease
    row = tx.execute(
        text("""SELECT account, owner, fencing_token, expires_at FROM account_leases
        WHERE account = :account"""),
        {"account": account},
    ).one()
    return Lease(row.account, row.owner, row.fencing_token, row.expires_at)


def release(tx: Connection, lease: Lease) -> None:
    """Give the lease up at once, so that a standby need not wait for it to run out."""
    tx.execute(
        text("""
        UPDATE account_leases SET owner = NULL, expires_at = clock_timestamp()
        WHERE account = :account AND owner = :owner AND fencing_token = :token"""),
        {"account": lease.account, "owner": lease.owner, "token": lease.fencing_token},
    )


def fence(tx: Connection, lease: Lease, *, margin_s: float = 0) -> None:
    """Hold the lease for this transaction; raises LeaseLost if less than `margin_s` of it is left.

    The lock is what makes a verdict and its limits a single writer's.
    """
    held = tx.execute(
        text("""
        SELECT 1 FROM account_leases
        WHERE account = :account AND owner = :owner AND fencing_token = :token
          AND expires_at > clock_timestamp() + make_interval(secs => :margin)
        FOR KEY SHARE"""),
        {
            "account": lease.account,
            "owner": lease.owner,
            "token": lease.fencing_token,
            "margin": margin_s,
        },
    ).one_or_none()
    if held is None:
        raise LeaseLost(f"account {lease.account}: the lease is not ours any more")


def lock_books(tx: Connection, account: str) -> None:
    """Serialise the writers of an account's executions and fills: executor, settler, reconciler.

    Taken first in the transaction, before any row: they lock the same rows in different orders.
    """
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('torghut.books.' || :account, 0))"),
        {"account": account},
    )


def lock_risk(tx: Connection, account: str) -> None:
    """Serialise the judges of an account: what one approves, the next one counts (P7).

    The executor's claim and the order desk's replacements; taken after `lock_books`, if both are.
    """
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('torghut.risk.' || :account, 0))"),
        {"account": account},
    )


def current(tx: Connection, account: str) -> tuple[str | None, int, bool] | None:
    """(owner, fencing token, still valid) of an account's lease, None if it never had one."""
    row = tx.execute(
        text("""
        SELECT owner, fencing_token, expires_at > clock_timestamp() AS valid
        FROM account_leases WHERE account = :account"""),
        {"account": account},
    ).one_or_none()
    return None if row is None else (row.owner, row.fencing_token, bool(row.valid))
