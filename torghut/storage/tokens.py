"""api_tokens and console_keys: who may use the HTTP interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from torghut.domain.access import Credential, Scope


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as it is listed; the token itself is nowhere."""

    name: str
    scopes: tuple[str, ...]
    made_by: str
    made_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None


_COLUMNS = "name, scopes, made_by, made_at, expires_at, last_used_at, revoked_at, revoked_by"


def insert(tx: Connection, credential: Credential, *, made_by: str, now: datetime) -> bool:
    """Keep a new token; False if its name was used before, by a revoked one too."""
    return (
        tx.execute(
            text("""
            INSERT INTO api_tokens (name, digest, scopes, made_by, made_at, expires_at)
            VALUES (:name, :digest, CAST(:scopes AS text[]), :made_by, :now, :expires_at)
            ON CONFLICT (name) DO NOTHING RETURNING token_id"""),
            {
                "name": credential.name,
                "digest": credential.digest,
                "scopes": sorted(credential.scopes),
                "made_by": made_by,
                "now": now,
                "expires_at": credential.expires_at,
            },
        ).one_or_none()
        is not None
    )


def revoke(tx: Connection, name: str, *, by: str, now: datetime) -> TokenRow | None:
    """Revoke a token; None if there is none of the name, or it is revoked already."""
    row = tx.execute(
        text(f"""UPDATE api_tokens SET revoked_at = :now, revoked_by = :by
        WHERE name = :name AND revoked_at IS NULL RETURNING {_COLUMNS}"""),
        {"name": name, "by": by, "now": now},
    ).one_or_none()
    return None if row is None else _token(row)


def listed(tx: Connection, *, all_: bool, now: datetime) -> list[TokenRow]:
    """Tokens by name; without `all_` those that can be used at `now`."""
    usable = "" if all_ else "WHERE revoked_at IS NULL AND coalesce(expires_at > :now, true)"
    rows = tx.execute(
        text(f"SELECT {_COLUMNS} FROM api_tokens {usable} ORDER BY name"),
        {} if all_ else {"now": now},
    )
    return [_token(row) for row in rows]


def credentials(tx: Connection) -> tuple[bool, list[Credential]]:
    """Whether a token was ever made, and those that are not revoked."""
    rows = tx.execute(
        text("SELECT name, digest, scopes, expires_at FROM api_tokens WHERE revoked_at IS NULL")
    ).all()
    found = [
        Credential(row.name, bytes(row.digest), frozenset(map(Scope, row.scopes)), row.expires_at)
        for row in rows
    ]
    made = bool(found) or tx.execute(text("SELECT EXISTS (SELECT FROM api_tokens)")).scalar_one()
    return bool(made), found


def used(tx: Connection, names: Mapping[str, datetime]) -> None:
    """Note when tokens were last used."""
    tx.execute(
        text("""
        UPDATE api_tokens AS t SET last_used_at = n.at
        FROM unnest(CAST(:names AS text[]), CAST(:at AS timestamptz[])) AS n (name, at)
        WHERE t.name = n.name AND coalesce(t.last_used_at < n.at, true)"""),
        {"names": list(names), "at": list(names.values())},
    )


def console_key(tx: Connection, fresh: bytes, *, now: datetime) -> bytes:
    """The key that every daemon's console signs with; `fresh`, 32 bytes, if there is none yet."""
    kept = text("SELECT key FROM console_keys")
    found = tx.execute(kept).scalar_one_or_none()
    if found is None:
        tx.execute(
            text("""INSERT INTO console_keys (key, made_at) VALUES (:key, :now)
            ON CONFLICT DO NOTHING"""),
            {"key": fresh, "now": now},
        )
        found = tx.execute(kept).scalar_one()
    return bytes(found)


def _token(row: Row[Any]) -> TokenRow:
    return TokenRow(
        row.name,
        tuple(row.scopes),
        row.made_by,
        row.made_at,
        row.expires_at,
        row.last_used_at,
        row.revoked_at,
        row.revoked_by,
    )
