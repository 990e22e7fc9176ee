"""Who may do what over HTTP: tokens, their names, and scopes.

    read     whatever is asked with GET: lists, stories, /metrics
    submit   send decisions in
    operate  halt, cancel, replace, flatten, resolve

A token is 256 random bits and is known here by its SHA-256 alone, which nobody can guess from. No
scope holds another: a token has those that it was given.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

PREFIX = "tgh_"
LOCAL = "local"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SETTING_NAME = "token-"
_NAME_SHOWN = 6


class Scope(StrEnum):
    """What a token may be used for."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Credential:
    """One token as it is known here; `expires_at` None: never."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: a token's name, None where no token is asked for."""

    name: str | None
    scopes: frozenset[Scope] = ALL_SCOPES

    @property
    def actor(self) -> str:
        """As it stands in the books."""
        return "http" if self.name is None else f"http:{self.name}"


def token_digest(token: str) -> bytes:
    """What is kept of a token: 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def find(known: Iterable[Credential], token: str, now: datetime) -> Credential | None:
    """The credential of a token that has not expired. Compares with all of them in constant time,
    so that it takes as long for a right token as for a wrong one."""
    given = token_digest(token)
    found = None
    for credential in known:
        if hmac.compare_digest(credential.digest, given):
            found = credential
    if found is None or (found.expires_at is not None and found.expires_at <= now):
        return None
    return found


def checked_name(name: str) -> str:
    """A token's name as it will stand in the books. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "must be 1 to 63 of A-Z, a-z, 0-9, dot, dash and underscore, beginning with one of the"
            " first three kinds"
        )
    if name == LOCAL or name.startswith(_SETTING_NAME):
        raise ValueError(f"must not be {LOCAL!r}, nor begin with {_SETTING_NAME!r}")
    return name


def setting_name(token: str) -> str:
    """What a token of the settings is called, as it has no name: the beginning of its SHA-256."""
    return _SETTING_NAME + token_digest(token).hex()[:_NAME_SHOWN]


def setting_credential(entry: str) -> tuple[str, Credential]:
    """One entry of TORGHUT_API_TOKENS: `token` may do all, `read:token` or `read+submit:token`
    what it says; the token itself, and what is known of it. Raises ValueError."""
    head, colon, rest = entry.partition(":")
    named = head.split("+")
    scopes, token = ALL_SCOPES, entry
    if colon and set(named) <= {scope.value for scope in Scope}:
        scopes, token = frozenset(Scope(name) for name in named), rest.strip()
    if not token:
        raise ValueError(f"has the scope {head} without a token behind it")
    return token, Credential(setting_name(token), token_digest(token), scopes)
