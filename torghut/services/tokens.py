"""Tokens are made and revoked by a person: one transaction each, with its event.

The token is returned once and kept nowhere. A daemon knows of either within a second
(torghut.web.keyring).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import datetime

from torghut.domain.access import PREFIX, Credential, Scope, checked_name, token_digest
from torghut.domain.errors import TorghutError
from torghut.domain.events import Event, EventKind
from torghut.domain.values import canonical_instant, parse_text
from torghut.storage import control, tokens
from torghut.storage.database import Database
from torghut.storage.tokens import TokenRow

REASON_LENGTH_MAX = 500
TOKEN_BYTES = 32


class NotUsable(TorghutError):
    """The name, the scopes, the expiry or the reason cannot be kept; the text says which."""


class NameTaken(TorghutError):
    """A token has, or had, this name."""


class UnknownToken(TorghutError):
    """There is no token of this name that could be revoked."""


def create(
    database: Database,
    name: str,
    scopes: Collection[Scope],
    *,
    expires_at: datetime | None,
    actor: str,
    now: datetime,
) -> str:
    """A new token, to be shown once. Raises NotUsable, NameTaken, DatabaseUnavailable."""
    try:
        checked_name(name)
    except ValueError as error:
        raise NotUsable(f"the name {error}") from None
    if not scopes:
        raise NotUsable("a token needs a scope: read, submit or operate")
    if expires_at is not None and expires_at <= now:
        raise NotUsable("the expiry has passed already")
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    credential = Credential(name, token_digest(token), frozenset(scopes), expires_at)
    payload = {
        "name": name,
        "scopes": sorted(credential.scopes),
        "expires_at": canonical_instant(expires_at) if expires_at else None,
    }
    with database.transaction() as tx:
        if not tokens.insert(tx, credential, made_by=actor, now=now):
            raise NameTaken(
                f"a token named {name} was made before; names are not used twice, so that each"
                " means one token in the books: choose another"
            )
        control.add_events(tx, [Event(EventKind.TOKEN_CREATED, actor, payload=payload)], now=now)
    return token


def revoke(database: Database, name: str, *, actor: str, reason: str, now: datetime) -> TokenRow:
    """End a token. Raises NotUsable, UnknownToken, DatabaseUnavailable."""
    try:
        why = parse_text(reason.strip(), length_max=REASON_LENGTH_MAX)
    except ValueError as error:
        raise NotUsable(f"--reason {error}; say why, it is kept") from None
    with database.transaction() as tx:
        row = tokens.revoke(tx, name, by=actor, now=now)
        if row is None:
            raise UnknownToken(
                f"no token named {name!a} that is not revoked; list them: torghut token list --all"
            )
        payload = {"name": name, "scopes": list(row.scopes), "reason": why}
        control.add_events(tx, [Event(EventKind.TOKEN_REVOKED, actor, payload=payload)], now=now)
    return row
