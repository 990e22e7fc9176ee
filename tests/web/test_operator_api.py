"""POST /v1/halt, /v1/reduce and /v1/resume, and the logic that the CLI shares."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.factories import decision
from tests.web.conftest import Served
from tests.web.test_decisions_api import faults
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.exposure import TradingState
from torghut.services import operator
from torghut.storage import control, discrepancies, intake, leases


def state(served: Served) -> str:
    with served.database.transaction() as tx:
        return control.trading_state(tx, "paper")[0].value


def test_halt_and_resume_globally(served: Served) -> None:
    halted = served.client.post("/v1/halt", json={"reason": "news"})
    assert halted.status_code == 200
    assert halted.json() == {
        "scope": "global",
        "before": "active",
        "state": "halted",
        "changed": True,
    }
    assert state(served) == "halted"
    stands = served.client.get("/v1/status").json()["trading_state"]
    assert stands == {"state": "halted", "reason": "global by http: news"}
    again = served.client.post("/v1/halt", json={"reason": "news"})
    assert again.json()["changed"] is False
    assert served.client.post("/v1/resume", json={"reason": "over"}).json()["state"] == "active"
    assert state(served) == "active"
    with served.database.transaction() as tx:
        rows = tx.execute(text("SELECT kind, actor, payload FROM events ORDER BY event_seq")).all()
    assert [(row.kind, row.actor, row.payload["after"]) for row in rows] == [
        ("trading_state.changed", "http", "halted"),
        ("trading_state.changed", "http", "active"),
    ]


def test_an_account_stays_halted_when_the_rest_resumes(served: Served) -> None:
    served.client.post("/v1/halt", json={"reason": "news"}).raise_for_status()
    own = served.client.post("/v1/halt", json={"reason": "keys", "account": "paper"})
    assert own.json()["scope"] == "account:paper"
    served.client.post("/v1/resume", json={"reason": "over"}).raise_for_status()
    assert state(served) == "halted"
    served.client.post("/v1/resume", json={"reason": "mended", "account": "paper"})
    assert state(served) == "active"


def test_a_mistyped_account_is_refused(served: Served) -> None:
    answer = served.client.post("/v1/halt", json={"reason": "news", "account": "papre"})
    assert faults(answer) == ["account"]
    with served.database.transaction() as tx:
        leases.acquire(tx, "papre", "somebody", ttl_s=60)
    again = served.client.post("/v1/halt", json={"reason": "news", "account": "papre"})
    assert again.status_code == 200


def test_a_strategy_is_reduced_and_resumed(served: Served) -> None:
    """By its own scope, on every account; a name that nobody knows is refused, and so are two."""
    with served.database.transaction() as tx:
        intake.insert(tx, [decision(strategy="trend")], source="test", now=utc_now())
    body = {"reason": "odd orders", "strategy": "trend"}
    reduced = served.client.post("/v1/reduce", json=body)
    assert reduced.json() == {
        "scope": "strategy:trend",
        "before": "active",
        "state": "reducing",
        "changed": True,
    }
    assert state(served) == "active"
    (item,) = served.client.get("/v1/trading-states").json()["items"]
    assert (item["scope"], item["state"], item["actor"], item["reason"]) == (
        *("strategy:trend", "reducing", "http", "odd orders"),
    )
    assert faults(served.client.post("/v1/halt", json={**body, "strategy": "trned"})) == [
        "strategy"
    ]
    assert faults(served.client.post("/v1/halt", json={**body, "account": "paper"})) == ["strategy"]
    assert served.client.post("/v1/resume", json=body).json()["state"] == "active"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{}", ["reason"]),
        (b'{"reason": ""}', ["reason"]),
        (b'{"reason": "  "}', ["reason"]),
        (b'{"reason": 7}', ["reason"]),
        (b'{"reason": "a\\nb"}', ["reason"]),
        (b'{"reason": "x", "scope": "all", "account": ""}', ["scope", "account"]),
        (b'{"reason": "x", "reason": "y"}', [""]),
        (b"[]", [""]),
        (b"", [""]),
        (b"\xff", [""]),
    ],
)
def test_unusable_requests_change_nothing(served: Served, body: bytes, fields: list[str]) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("/v1/halt", "/v1/reduce", "/v1/resume"):
        assert faults(served.client.post(path, content=body, headers=headers)) == fields
    assert state(served) == "active"


def test_a_form_of_some_web_page_changes_nothing(served: Served) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = served.client.post(
            "/v1/halt",
            content=b'{"reason": "x"}',
            headers={"Content-Type": media_type, "Origin": "http://evil.example"},
        )
        assert answer.status_code == 415
    assert state(served) == "active"


def test_the_shared_logic(served: Served) -> None:
    scope = operator.scope_of("paper")
    arguments = {"actor": "cli:me", "now": utc_now(), "settings": Settings()}
    change = operator.halt(served.database, scope, reason=" news ", **arguments)  # type: ignore[arg-type]
    assert (change.before, change.state) == (TradingState.ACTIVE, TradingState.HALTED)
    with served.database.transaction() as tx:
        assert control.trading_state(tx, "paper")[1] == "account:paper by cli:me: news"
    for wrong in ("", "x" * 501, "\0"):
        with pytest.raises(operator.NotChanged, match="reason"):
            operator.resume(served.database, scope, reason=wrong, **arguments)  # type: ignore[arg-type]


def opened(served: Served, kind: DiscrepancyKind, subject: str) -> int:
    with served.database.transaction() as tx:
        discrepancies.open_(
            tx, "paper", kind, subject, {"why": "a test"}, actor="test", now=utc_now()
        )
        standing = discrepancies.standing(tx, "paper", [kind])
    return standing[kind, subject].discrepancy_id


def test_discrepancies_are_listed_and_resolved(served: Served) -> None:
    """Pages, newest first; closed with who and why, once, with its event."""
    ids = [opened(served, DiscrepancyKind.ORDER_DIFFERS, f"hash-{n}") for n in range(3)]
    first = served.client.get("/v1/discrepancies", params={"status": "open", "limit": 2}).json()
    assert [item["id"] for item in first["items"]] == ids[:0:-1]
    rest = served.client.get("/v1/discrepancies", params={"cursor": first["next_cursor"]}).json()
    assert ([item["id"] for item in rest["items"]], rest["next_cursor"]) == (ids[:1], None)
    path = f"/v1/discrepancies/{ids[0]}:resolve"
    done = served.client.post(path, json={"reason": "looked into"})
    assert (done.status_code, done.json()["resolution"]) == (200, "resolved by http: looked into")
    again = served.client.post(path, json={"reason": "looked into"})
    assert again.status_code == 409
    assert "closed already: resolved by http" in again.json()["detail"]
    for status, found in (("open", ids[:0:-1]), ("resolved", ids[:1])):
        page = served.client.get("/v1/discrepancies", params={"status": status}).json()
        assert [item["id"] for item in page["items"]] == found
    with served.database.transaction() as tx:
        rows = tx.execute(text("SELECT actor FROM events WHERE kind = 'discrepancy.closed'"))
        assert [row.actor for row in rows] == ["http"]


def test_a_resolution_that_cannot_be(served: Served) -> None:
    id_ = opened(served, DiscrepancyKind.CASH_DIFFERS, "cash")
    back = served.client.post(f"/v1/discrepancies/{id_}:resolve", json={"reason": "never mind"})
    assert back.status_code == 409
    assert "torghut accept cash" in back.json()["detail"]
    unknown = served.client.post("/v1/discrepancies/99:resolve", json={"reason": "why"})
    assert unknown.status_code == 404
    for body in ({}, {"reason": "  "}, {"reason": "x", "account": "paper"}):
        refused = served.client.post(f"/v1/discrepancies/{id_}:resolve", json=body)
        assert refused.status_code == 422, body
    assert served.client.get("/v1/discrepancies", params={"symbol": "AAPL"}).status_code == 422
    for wrong in ("x", "0", "9" * 30):
        refused = served.client.post(f"/v1/discrepancies/{wrong}:resolve", json={"reason": "why"})
        assert refused.status_code == 422
