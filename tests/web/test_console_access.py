"""Who reaches the console: sign-in, forms of other sites, hosts, headers; and what it exports."""

from __future__ import annotations

import asyncio
import re
from http.cookies import SimpleCookie

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.web.conftest import Serve, Served
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.domain.access import setting_credential, setting_name
from torghut.services.intake import IntakeDesk
from torghut.storage.database import Database
from torghut.web.console.profit import as_csv
from torghut.web.console.routes import router
from torghut.web.console.sessions import COOKIE, SESSION_S
from torghut.web.keyring import Keyring
from torghut.web.parts import Staff, WebParts

TOKEN = "canary-token-0123456789"
PATHS = [
    "/",
    *(f"/console/{name}" for name in ("decisions", "orders", "positions", "fills", "pnl", "risk")),
    *(f"/console/{name}" for name in ("attention", "strategies", "audit", "pnl.csv", "plans")),
    *("/console/plans/1", "/console/sagas/1"),
    "/console/decisions/" + "a" * 64,
    "/console/account",
]
ACTIONS = ("trading-state", "cancel", "resolve", "accept", "dismiss")


def csrf_of(page: httpx.Response) -> str:
    """The token in a page's forms."""
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
    assert found, page.text
    return found.group(1)


def halt(served: Served, csrf: str, **headers: str) -> httpx.Response:
    """The overview's halt."""
    form = {"csrf": csrf, "state": "halted", "reason": "a test", "back": "/"}
    return served.client.post("/console/trading-state", data=form, headers=headers)


def states(served: Served) -> list[str]:
    """The scopes that are halted."""
    items = served.client.get("/v1/trading-states").json()["items"]
    return [item["scope"] for item in items if item["state"] == "halted"]


def sign_in(served: Served, token: str = TOKEN, **more: str) -> httpx.Response:
    return served.client.post("/console/sign-in", data={"token": token, **more})


def test_every_page_asks_to_sign_in_where_there_are_tokens(serve: Serve) -> None:
    served = serve(api_tokens=TOKEN)
    for path in PATHS:
        answer = served.client.get(path)
        assert (answer.status_code, answer.headers["location"][:16]) == (303, "/console/sign-in"), (
            path
        )
    for action in ACTIONS:
        answer = served.client.post(f"/console/{action}", data={"reason": "x"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    assert served.client.get("/console/live").status_code == 401
    assert served.client.get("/v1/status").status_code == 401  # the API's own gate is as it was


def test_no_route_of_the_console_was_left_out(served: Served) -> None:
    """Control of the list above: every GET of the console is in it, or needs no session."""
    desk = IntakeDesk(served.database, utc_now, lambda _: None)
    parts = WebParts(settings=Settings(), database=served.database, desk=desk, health=dict)
    staff = Staff(desk)
    keyring = Keyring((), served.database, required=False, clock=utc_now)
    routes = router(parts, staff, keyring)[0].routes
    staff.close()
    keyring.close()
    open_ = {"/console/sign-in", "/console/static/{name}", "/console/live"}
    found = {
        route.path for route in routes if isinstance(route, APIRoute) and "GET" in route.methods
    }
    known = {re.sub("/a{64}$", "/{decision_hash}", path) for path in PATHS}
    known = {re.sub(r"/(plan|saga)s/1$", r"/\1s/{\1_id}", path) for path in known}
    assert found - open_ == known


def test_a_token_opens_a_session_that_is_kept_well(serve: Serve) -> None:
    served = serve(api_tokens=f"{TOKEN},another")
    assert sign_in(served, "wrong").status_code == 403
    answer = sign_in(served, next="/console/risk")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/risk")
    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (
        True,
        "strict",
        str(SESSION_S),
    )
    assert not cookie["secure"] and TOKEN not in answer.headers["set-cookie"]
    page = served.client.get("/")
    assert page.status_code == 200 and setting_name(TOKEN) in page.text and TOKEN not in page.text
    done = halt(served, csrf_of(page))
    assert done.status_code == 303
    said = served.client.get("/").text
    assert "global: active → halted" in said
    audit = served.client.get("/console/audit").text
    assert f"console:{setting_name(TOKEN)}" in audit
    served.client.post("/console/sign-out", data={"csrf": csrf_of(page)})
    assert served.client.get("/").status_code == 303


def test_the_cookie_is_secure_behind_https(serve: Serve) -> None:
    served = serve(api_tokens=TOKEN)
    headers = {"X-Forwarded-Proto": "https"}
    answer = served.client.post("/console/sign-in", data={"token": TOKEN}, headers=headers)
    assert SimpleCookie(answer.headers["set-cookie"])[COOKIE]["secure"]


@pytest.mark.parametrize(
    "to", ["//evil.example/", "https://evil.example", "/\\evil.example", "/v1"]
)
def test_a_sign_in_leads_nowhere_else(serve: Serve, to: str) -> None:
    answer = sign_in(serve(api_tokens=TOKEN), next=to)
    assert answer.headers["location"] == "/"


def test_replicas_know_each_others_sessions_and_others_do_not(database_url: str) -> None:
    """The key is of the settings' tokens and of the database: neither is enough alone."""
    database = Database(database_url)

    async def key(*tokens: str, look: bool = True) -> bytes:
        known = [setting_credential(token)[1] for token in tokens]
        ring = Keyring(known, database, required=False, clock=utc_now)
        if look:
            await ring.look()
        ring.close()
        return ring.session_key

    try:
        ours = asyncio.run(key(TOKEN))
        assert ours == asyncio.run(key(TOKEN))
        assert ours != asyncio.run(key(TOKEN, "another"))
        assert ours != asyncio.run(key(TOKEN, look=False))
        assert asyncio.run(key(look=False)) != asyncio.run(key(look=False))
    finally:
        database.close()


def test_guesses_are_slowed_down(serve: Serve) -> None:
    served = serve(api_tokens=TOKEN)
    answers = (sign_in(served, f"guess {n}").status_code for n in range(500))
    assert next(answers) == 403
    assert 429 in answers


def test_forms_of_other_sites_are_refused(served: Served) -> None:
    """CSRF, with the cookie of a real session. Control: the same form from here is taken."""
    csrf = csrf_of(served.client.get("/"))
    own = f"http://127.0.0.1:{served.port}"
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert halt(served, csrf, **headers).status_code == 403, headers
    assert halt(served, "0" * 64, Origin=own).status_code == 403
    assert halt(served, "", Origin=own).status_code == 403
    body = '{"state": "halted", "reason": "x"}'
    headers = {"Content-Type": "text/plain", "Origin": own}
    path = "/console/trading-state"
    assert served.client.post(path, content=body, headers=headers).status_code == 415
    with httpx.Client(base_url=own, trust_env=False) as stranger:
        form = {"csrf": csrf, "state": "halted", "reason": "x"}
        assert stranger.post(path, data=form).status_code == 403
    assert states(served) == []
    assert halt(served, csrf, Origin=own, **{"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert states(served) == ["global"]


def test_a_reason_is_asked_for_by_the_server_too(served: Served) -> None:
    csrf = csrf_of(served.client.get("/"))
    for action in ACTIONS:
        form = {"csrf": csrf, "state": "halted", "id": "1", "subject": "cash", "reason": " "}
        form |= {"decision_hash": "a" * 64, "key": "k"}
        answer = served.client.post(f"/console/{action}", data=form)
        assert answer.status_code == 422 and "reason" in answer.text, action
    assert states(served) == []


def test_other_host_names_are_refused_on_loopback(served: Served) -> None:
    """A page of another name that resolves to this machine reads nothing (DNS rebinding)."""
    for path in ("/", "/console/orders", "/console/static/console.js", "/console/live"):
        answer = served.client.get(path, headers={"Host": "evil.example"})
        assert answer.status_code == 403, path


def test_pages_load_nothing_inline_or_foreign(served: Served) -> None:
    for path in PATHS:
        answer = served.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert not re.search(
                r"<style|\sstyle=|\son\w+=|<script(?! src=\"/console/)", answer.text
            )
            assert not re.search(r"(?:src|href)=\"(?!/|#|\?|\")", answer.text), path


def test_static_files_are_three_and_kept_by_the_browser(served: Served) -> None:
    first = served.client.get("/console/static/console.css")
    again = served.client.get(
        "/console/static/console.css", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (first.status_code, again.status_code) == (200, 304)
    for name in ("../frame.py", "..%2fframe.py", "console.map", ""):
        assert served.client.get(f"/console/static/{name}").status_code == 404


def test_problems_are_pages(served: Served) -> None:
    for path, status in (
        ("/console/decisions/" + "a" * 64, 404),
        ("/console/decisions/nothing", 404),
        ("/console/decisions?status=wrong", 422),
        ("/console/decisions?since=whenever", 422),
        ("/console/fills?unknown=1", 422),
        ("/console/audit?cursor=-1", 422),
        ("/console/pnl.csv?by=everything", 422),
    ):
        answer = served.client.get(path)
        assert answer.status_code == status, path
        assert answer.headers["content-type"].startswith("text/html")


def test_a_spreadsheet_calculates_nothing() -> None:
    """A strategy may be named like a formula; amounts stay numbers."""
    row = {
        "positions": 1,
        "realized_pl": "-5",
        "unrealized_pl": "0",
        "total_pl": "-5",
        "unpriced": 0,
    }
    lines = as_csv("strategy", [{"strategy": "=cmd()", **row}, {"strategy": "plain", **row}])
    assert lines.splitlines()[1:] == ["'=cmd(),1,-5,0,-5,0", "plain,1,-5,0,-5,0"]
