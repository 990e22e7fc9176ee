"""Who sits at the console: a signed cookie, and proof that a form is one of ours.

```
no tokens   ─▶ whoever reaches the loopback address is `local`
tokens      ─▶ /console/sign-in takes one of them, once ─▶ a cookie for SESSION_S
each form   ─▶ the session's own token in it, and Origin and Sec-Fetch-Site of this very host
```

1. The cookie is HttpOnly and SameSite=Strict, and Secure wherever the browser came by https. It
   holds a name and a nonce, signed; no token and nothing that a token could be found from faster
   than by asking for it: the key is derived from the tokens by scrypt.
2. All replicas with the same tokens know each other's sessions. A token that is taken out of the
   settings ends its sessions at the next start, as the key changes.
3. Everything that is compared in secret is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from torghut.web.problems import Problem

COOKIE = "torghut_session"
SAID = "torghut_said"
SESSION_S = 12 * 3600
SAID_S = 60
LOCAL = "local"
CSRF_FIELD = "csrf"

_NAME_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Session:
    """Who it is, and what proves that a form was made for them."""

    who: str
    nonce: str
    csrf: str

    @property
    def actor(self) -> str:
        """As it stands in the books."""
        return f"console:{self.who}"


class Sessions:
    """Opens, reads and ends sessions."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._names = {_digest(token): token_name(token) for token in sorted(tokens)}
        key = _derived(self._names) if self._names else os.urandom(32)
        self._key = key
        self._sessions = URLSafeTimedSerializer(key, salt="session")
        self._said = URLSafeTimedSerializer(key, salt="said")

    @property
    def asks(self) -> bool:
        """True if a token has to be given first."""
        return bool(self._names)

    def of(self, request: Request) -> Session | None:
        """The session of a request's cookie, None without a valid one."""
        try:
            who, nonce = self._sessions.loads(request.cookies.get(COOKIE, ""), max_age=SESSION_S)
        except (BadSignature, TypeError, ValueError):
            return None
        if who not in self._names.values() and not (who == LOCAL and not self.asks):
            return None
        return self._session(str(who), str(nonce))

    def local(self) -> Session:
        """A new session for who sits at this machine; only where no token is asked for."""
        assert not self.asks
        return self._session(LOCAL, os.urandom(16).hex())

    def sign_in(self, token: str) -> Session | None:
        """A new session for one of the tokens; takes as long for a right as for a wrong one."""
        given = _digest(token.strip())
        found = None
        for digest, name in self._names.items():
            if hmac.compare_digest(digest, given):
                found = name
        return None if found is None else self._session(found, os.urandom(16).hex())

    def keep(self, response: Response, request: Request, session: Session) -> None:
        """Give the browser the session's cookie."""
        _set(
            response,
            request,
            COOKIE,
            self._sessions.dumps([session.who, session.nonce]),
            SESSION_S,
        )

    def end(self, response: Response) -> None:
        """Take the cookie back."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    # ------------------------------------------------------------------ what was said

    def say(self, response: Response, request: Request, text: str) -> None:
        """Have the next page say once what became of an action."""
        _set(response, request, SAID, self._said.dumps(text), SAID_S)

    def said(self, request: Request) -> str | None:
        """What the page before had to say."""
        if SAID not in request.cookies:
            return None
        try:
            return str(self._said.loads(request.cookies[SAID], max_age=SAID_S))
        except BadSignature:
            return None

    def heard(self, response: Response) -> None:
        """It was said; do not say it again."""
        response.delete_cookie(SAID, path="/", httponly=True, samesite="strict")

    def choose(self, response: Response, request: Request, cookie: str, account: str) -> None:
        """Remember which account is looked at."""
        _set(response, request, cookie, account, SESSION_S)

    def _session(self, who: str, nonce: str) -> Session:
        proof = hmac.new(self._key, f"csrf:{who}:{nonce}".encode(), hashlib.sha256)
        return Session(who, nonce, proof.hexdigest())


def check_origin(request: Request) -> None:
    """Refuse a form that another site's page sent. Raises Problem 403."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site not in (None, "same-origin"):
        raise _foreign()
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise _foreign()


def check_csrf(session: Session, form: Mapping[str, str]) -> None:
    """Refuse a form that was not made for this session. Raises Problem 403."""
    if not hmac.compare_digest(session.csrf.encode(), form.get(CSRF_FIELD, "").encode()):
        raise stale_form()


def stale_form() -> Problem:
    """Of a form that is not this session's."""
    return Problem(
        403,
        "stale-form",
        "the form is from before a restart or another sign-in: load its page again",
    )


def token_name(token: str) -> str:
    """What a token is called where its use is recorded: the beginning of its SHA-256."""
    return f"token-{_digest(token).hex()[:_NAME_SHOWN]}"


def _foreign() -> Problem:
    return Problem(403, "foreign-form", "forms are taken from this console's own pages only")


def _set(response: Response, request: Request, name: str, value: str, seconds: int) -> None:
    secure = request.url.scheme == "https" or (
        # a proxy that ends TLS; believing it can only make the cookie stricter
        request.headers.get("x-forwarded-proto", "").lower() == "https"
    )
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="strict"
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _derived(names: Mapping[bytes, str]) -> bytes:
    return hashlib.scrypt(b"".join(sorted(names)), salt=b"torghut console", n=2**14, r=8, p=1)
