"""Who sits at the console: a signed cookie, and proof that a form is one of ours.

```
no tokens   ─▶ whoever reaches the loopback address is `local`
tokens      ─▶ /console/sign-in takes one of them, once ─▶ a cookie for SESSION_S
each form   ─▶ the session's own token in it, and Origin and Sec-Fetch-Site of this very host
```

1. The cookie is HttpOnly and SameSite=Strict, and Secure wherever the browser came by https. It
   holds a name and a nonce, signed; no token, and nothing that a token could be found from.
2. Pages need a token with the scope `read`, actions one with `operate`.
3. All replicas on one database know each other's sessions, if their settings have the same tokens.
   A session ends with its token: revoked, over, or taken out of the settings.
4. Everything that is compared in secret is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from torghut.domain.access import ALL_SCOPES, LOCAL, Scope
from torghut.web.keyring import Keyring
from torghut.web.problems import Problem

COOKIE = "torghut_session"
SAID = "torghut_said"
SESSION_S = 12 * 3600
SAID_S = 60
CSRF_FIELD = "csrf"


@dataclass(frozen=True, slots=True)
class Session:
    """Who it is, and what proves that a form was made for them."""

    who: str
    nonce: str
    csrf: str
    scopes: frozenset[Scope]

    @property
    def actor(self) -> str:
        """As it stands in the books."""
        return f"console:{self.who}"


class Sessions:
    """Opens, reads and ends sessions."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    @property
    def asks(self) -> bool:
        """True if a token has to be given first."""
        return self._keyring.asks

    def of(self, request: Request) -> Session | None:
        """The session of a request's cookie, None without a valid one."""
        try:
            loaded = self._signer("session").loads(
                request.cookies.get(COOKIE, ""), max_age=SESSION_S
            )
            who, nonce = map(str, loaded)
        except (BadSignature, TypeError, ValueError):
            return None
        if who == LOCAL:
            return None if self.asks else self._session(LOCAL, nonce, ALL_SCOPES)
        credential = self._keyring.named(who)
        return None if credential is None else self._session(who, nonce, credential.scopes)

    def local(self) -> Session:
        """A new session for who sits at this machine; only where no token is asked for."""
        assert not self.asks
        return self._session(LOCAL, os.urandom(16).hex(), ALL_SCOPES)

    def sign_in(self, token: str) -> Session | None:
        """A new session for a token that may read; takes as long for a right as for a wrong one."""
        found = self._keyring.credential_of(token.strip())
        if found is None or Scope.READ not in found.scopes:
            return None
        return self._session(found.name, os.urandom(16).hex(), found.scopes)

    def keep(self, response: Response, request: Request, session: Session) -> None:
        """Give the browser the session's cookie."""
        _set(
            response,
            request,
            COOKIE,
            self._signer("session").dumps([session.who, session.nonce]),
            SESSION_S,
        )

    def end(self, response: Response) -> None:
        """Take the cookie back."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    # ------------------------------------------------------------------ what was said

    def say(self, response: Response, request: Request, text: str) -> None:
        """Have the next page say once what became of an action."""
        _set(response, request, SAID, self._signer("said").dumps(text), SAID_S)

    def said(self, request: Request) -> str | None:
        """What the page before had to say."""
        if SAID not in request.cookies:
            return None
        try:
            return str(self._signer("said").loads(request.cookies[SAID], max_age=SAID_S))
        except BadSignature:
            return None

    def heard(self, response: Response) -> None:
        """It was said; do not say it again."""
        response.delete_cookie(SAID, path="/", httponly=True, samesite="strict")

    def choose(self, response: Response, request: Request, cookie: str, account: str) -> None:
        """Remember which account is looked at."""
        _set(response, request, cookie, account, SESSION_S)

    def _session(self, who: str, nonce: str, scopes: frozenset[Scope]) -> Session:
        key = self._keyring.session_key
        proof = hmac.new(key, f"csrf:{who}:{nonce}".encode(), hashlib.sha256)
        return Session(who, nonce, proof.hexdigest(), scopes)

    def _signer(self, salt: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._keyring.session_key, salt=salt)


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


def check_scope(session: Session) -> None:
    """Refuse an action of who may only look. Raises Problem 403."""
    if Scope.OPERATE not in session.scopes:
        raise Problem(
            403, "insufficient-scope", "this needs a token with the scope operate; yours has it not"
        )


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
