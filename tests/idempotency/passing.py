"""Time that passes for a key, without waiting: its instants are moved into the past."""

from __future__ import annotations

from sqlalchemy import text

from torghut.idempotency import Store


def lapse(store: Store, key: str, scope: str = "") -> None:
    """The lease of whoever works under the key is over."""
    _set(store, key, scope, "leased_until = clock_timestamp() - interval '1 second'")


def expire(store: Store, key: str, scope: str = "") -> None:
    """The key has expired."""
    _set(store, key, scope, "expires_at = clock_timestamp() - interval '1 second'")


def _set(store: Store, key: str, scope: str, what: str) -> None:
    with store.transaction() as tx:
        statement = f"UPDATE idempotency_keys SET {what} WHERE scope = :scope AND key = :key"
        assert tx.execute(text(statement), {"scope": scope, "key": key}).rowcount == 1
