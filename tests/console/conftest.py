"""One daemon with a simulated broker, one Chromium, for all browser tests; and a book with life.

What stands in the book at the start: a filled order, an open one, a denied decision, one that the
broker refused in words that are markup, an open order of somebody else, two discrepancies. Names
and texts of the kind that a page must not take for markup are HOSTILE.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.end_to_end.user import User, eventually
from tests.factories import decision, decision_json

HOSTILE = "<script>window.hit=1</script>"
BROKEN = '"><img src=x onerror=window.hit=2>'
MISSING = "no chromium: apt-get install chromium (tests/programs.txt); browser tests need it"


@dataclass
class Console:
    """The console of a live daemon, and what goes on behind it."""

    user: User
    url: str
    hashes: dict[str, str] = field(default_factory=dict)

    def submit(self, name: str, **over: object) -> str:
        """Post a decision; its hash is kept under `name`."""
        body = decision_json(**{"intent": name, **over})
        answer = requests.post(f"{self.url}/v1/decisions", json=body, timeout=30)
        assert answer.status_code == 201, answer.text
        found = str(answer.json()["decision_hash"])
        self.hashes[name] = found
        return found

    def decision(self, name: str) -> dict[str, Any]:
        """A decision's row as the API has it."""
        answer = requests.get(f"{self.url}/v1/decisions/{self.hashes[name]}", timeout=30)
        found: dict[str, Any] = answer.json()
        return found

    def reaches(self, name: str, *statuses: str) -> None:
        """Wait until a decision is in one of `statuses`."""
        eventually(lambda: self.decision(name)["status"] in statuses)

    def doubt(self, name: str, **over: object) -> None:
        """A decision that is in doubt until `healed`."""
        body = {"intent": name, **over}
        hash_ = decision(**body).decision_hash
        rules = [
            {"route": route, "kind": "refuse_5xx", "client_order_id": hash_}
            for route in ("submit", "by_client_order_id")
        ]
        self.user.control("POST", "/faults", rules)
        assert self.submit(name, **over) == hash_
        self.reaches(name, "in_doubt")

    def healed(self) -> None:
        """The broker answers again."""
        self.user.control("DELETE", "/faults")

    def differ(self, kind: str, subject: str, evidence: str) -> int:
        """A discrepancy that only a person ends; its number."""
        rows = self.user.sql(
            """INSERT INTO discrepancies (account, kind, subject, evidence, opened_at, seen_at)
            VALUES ('paper', %s, %s, jsonb_build_object('found', %s::text), now(), now())
            RETURNING discrepancy_id""",
            kind, subject, evidence,
        )  # fmt: skip
        return int(rows[0][0])


@pytest.fixture(scope="session")
def console(
    tmp_path_factory: pytest.TempPathFactory, session_database_url: str
) -> Iterator[Console]:
    """A daemon that trades, with something of everything in its book."""
    user = User(tmp_path_factory.mktemp("console"), session_database_url)
    try:
        user.sim()
        url = user.run().find(r"API at (\S+)")
        console = Console(user, url)
        _bring_to_life(console)
        yield console
    finally:
        user.close()


def _bring_to_life(console: Console) -> None:
    user = console.user
    rule = {"route": "submit", "kind": "reject", "symbol": "MSFT", "status": 422}
    user.control("POST", "/faults", [{**rule, "code": 42210000, "message": HOSTILE}])
    console.submit("filled", strategy=HOSTILE, correlation_id=BROKEN)
    console.submit("open", type="limit", limit_price="1.00", time_in_force="gtc")
    console.submit("also open", symbol="IBM", type="limit", limit_price="1", time_in_force="gtc")
    console.submit("denied", qty="100000000")
    console.submit("refused", symbol="MSFT")
    _plan(console)
    keys = {"APCA-API-KEY-ID": "any-key", "APCA-API-SECRET-KEY": "any-secret"}
    order = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "limit", "limit_price": "1"}
    elsewhere = requests.post(
        f"{user.broker_url}/v2/orders",
        json=order | {"time_in_force": "gtc", "client_order_id": "somebody-elses"},
        headers=keys,
        timeout=30,
    )
    assert elsewhere.ok, elsewhere.text
    console.differ("order_differs", HOSTILE, BROKEN)
    console.differ("order_differs", "to-be-resolved", "an order of another size")
    for name, status in (("filled", "closed"), ("denied", "denied"), ("refused", "rejected")):
        console.reaches(name, status)
    for name in ("open", "also open"):
        console.reaches(name, "submitted")
    for seen in (
        "SELECT 1 FROM executions WHERE origin = 'external'",
        "SELECT 1 FROM fills",
        "SELECT 1 FROM broker_accounts WHERE (positions ->> 'AAPL')::numeric = 10",
    ):
        eventually(partial(user.sql, seen))
    console.healed()


def _plan(console: Console) -> None:
    """A plan that was carried out; its name is of the kind that a page must not take for markup."""
    item = {"symbol": "SPY", "action": "buy", "trade_amount": "1000"}
    body = {"correlation_id": f"the books {BROKEN}", "strategy": HOSTILE, "items": [item]}
    answer = requests.post(f"{console.url}/v1/plans", json=body, timeout=30)
    assert answer.status_code == 201, answer.text
    at = f"{console.url}/v1/plans/{answer.json()['plan_id']}"
    eventually(lambda: requests.get(at, timeout=30).json()["status"] == "completed")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; without it the tests fail, and say what to install."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail(MISSING, pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@dataclass
class Window:
    """A page, what its console said, and where it went."""

    page: Page
    base: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def see(self, path: str) -> Page:
        """Open a page of the console; its answer must be a success."""
        answer = self.page.goto(self.base + path)
        assert answer is not None and answer.ok, path
        return self.page

    @property
    def text(self) -> str:
        return self.page.inner_text("main")


def watched(context: BrowserContext, base: str) -> Window:
    """A new page whose errors and requests are kept."""
    window = Window(context.new_page(), base)

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            window.errors.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith(f"{base}/"):
            window.foreign.append(request.url)

    window.page.on("console", said)
    window.page.on("pageerror", lambda error: window.errors.append(str(error)))
    window.page.on("request", asked)
    return window


@pytest.fixture
def window(chromium: Browser, console: Console) -> Iterator[Window]:
    """A window on the console; at the end nothing may have gone wrong in it, or gone elsewhere."""
    context = chromium.new_context()
    context.set_default_timeout(30_000)
    window = watched(context, console.url)
    yield window
    context.close()
    assert window.errors == []
    assert window.foreign == []


@pytest.fixture
def plain_window(chromium: Browser, console: Console) -> Iterator[Window]:
    """The same in a browser without JavaScript."""
    context = chromium.new_context(java_script_enabled=False)
    context.set_default_timeout(30_000)
    yield watched(context, console.url)
    context.close()
