"""The tokens that are known: those of the settings, and those of `torghut token` in the database.

```
a request's token ─▶ one of the settings'? ─▶ one of the database's, as of FRESH_S ago at most
```

1. What was revoked ends in every daemon after FRESH_S; what was made holds at once, as a token that
   is not known has the database asked again after UNKNOWN_S. However many ask, it is asked once in
   that time, by one thread of its own.
2. Whether a token is asked for at all: with one in the settings, with TORGHUT_REQUIRE_TOKEN, or as
   soon as one was ever made; revoking the last one does not open the door.
3. Database away: what was last known holds on, as whatever has an effect needs the database too.
   Before anything was ever known nobody but a token of the settings is let in (503).
4. When a token was last used is written once a minute, beside the requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from torghut.clock import Clock
from torghut.domain.access import Caller, Credential, find
from torghut.domain.errors import TorghutError
from torghut.storage import tokens
from torghut.storage.database import Database
from torghut.web.problems import unavailable
from torghut.web.workers import Workers

FRESH_S = 1.0
UNKNOWN_S = 0.05
ANSWER_S = 2.0
NOTED_EVERY = timedelta(minutes=1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What the database said; `session_key` is what the console signs with."""

    made: bool
    credentials: tuple[Credential, ...]
    session_key: bytes


class Keyring:
    """Who a token belongs to. Runs on the event loop, but for the questions themselves."""

    def __init__(
        self,
        settings: Iterable[Credential],
        database: Database,
        *,
        required: bool,
        clock: Clock,
    ) -> None:
        self._settings = tuple(sorted(settings, key=lambda one: one.digest))
        self._database = database
        self._required = required
        self._clock = clock
        self._workers = Workers("tokens", 1, deadline_s=ANSWER_S)
        self._known: Known | None = None
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._used: dict[str, datetime] = {}
        self._noted: dict[str, datetime] = {}
        self._failing = False
        self._own_key = os.urandom(32)
        self._derived: tuple[bytes, bytes] | None = None

    # ------------------------------------------------------------------ who it is

    async def caller(self, token: str | None) -> Caller | None:
        """Who sends this token; None if a token is asked for and this is none of them.

        Raises Problem 503 while nothing is known of the database's tokens.
        """
        if token is None and self.asks_always:
            return None
        found = find(self._settings, token, self._clock()) if token else None
        if found is None:
            await self.look()
            if not self.asks:
                return Caller(None)
            found = self.credential_of(token) if token else None
            if found is None and token:
                await self._look_anew()  # it may have been made just now
                found = self.credential_of(token)
            if found is None and self._known is None:
                raise unavailable("the database does not answer, which knows the tokens")
        if found is None:
            return None
        return Caller(found.name, found.scopes)

    async def look(self) -> None:
        """See to it that what is known is fresh, as far as the database answers."""
        if self._known is not None and time.monotonic() - self._looked_at < FRESH_S:
            return
        await self._join()

    async def _look_anew(self) -> None:
        """A look that began after this call, shared by all who wait in the same UNKNOWN_S."""
        called = time.monotonic()
        await asyncio.sleep(UNKNOWN_S)
        for _ in range(2):  # one that is under way may have begun before
            if self._looked_at < called:
                await self._join()

    async def _join(self) -> None:
        """The look that is under way, or a new one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    @property
    def asks(self) -> bool:
        """True if a token has to be given; also while nobody knows."""
        return self.asks_always or self._known is None or self._known.made

    @property
    def asks_always(self) -> bool:
        """True if a token has to be given whatever the database says."""
        return bool(self._settings) or self._required

    def credential_of(self, token: str) -> Credential | None:
        """The token's credential, as far as is known now; notes that it was used."""
        found = find(self._all(), token, self._clock())
        if found is not None:
            self._used[found.name] = self._clock()
        return found

    def named(self, name: str) -> Credential | None:
        """The credential of this name, if it may be used now: a session ends with its token."""
        for one in self._all():
            if one.name == name:
                return None if one.expires_at and one.expires_at <= self._clock() else one
        return None

    @property
    def session_key(self) -> bytes:
        """What the console's cookies are signed with: of the database, which all replicas share,
        and of the settings' tokens, so that neither is enough without the other."""
        shared = self._known.session_key if self._known else self._own_key
        if self._derived is None or self._derived[0] != shared:
            digests = b"".join(one.digest for one in self._settings)
            self._derived = shared, hashlib.scrypt(digests, salt=shared, n=2**14, r=8, p=1)
        return self._derived[1]

    def close(self) -> None:
        """Ask no more."""
        self._workers.close()

    # ------------------------------------------------------------------ what is known

    def _all(self) -> tuple[Credential, ...]:
        return (*self._settings, *(self._known.credentials if self._known else ()))

    async def _look(self) -> None:
        self._looked_at = time.monotonic()
        try:
            self._known = await self._workers.call(self._ask)
            self._failing = False
        except (TorghutError, SQLAlchemyError) as error:
            if not self._failing:  # once, however many ask meanwhile
                log.warning("tokens not read; those last known hold on", error=type(error).__name__)
            self._failing = True

    def _ask(self) -> Known:
        with self._database.transaction() as tx:
            made, found = tokens.credentials(tx)
            key = tokens.console_key(tx, os.urandom(32), now=self._clock())
        self._note_used()
        return Known(made, tuple(found), key)

    def _note_used(self) -> None:
        """Write down what was used; a database that does not take it is no reason to refuse."""
        due = {
            name: at
            for name, at in list(self._used.items())
            if name not in self._noted or at - self._noted[name] >= NOTED_EVERY
        }
        if not due:
            return
        try:
            with self._database.transaction() as tx:
                tokens.used(tx, due)
        except (TorghutError, SQLAlchemyError) as error:
            log.warning("last use of tokens not written", error=type(error).__name__)
        self._noted.update(due)
