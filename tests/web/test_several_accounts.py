"""Several accounts over HTTP and in the console: each request means one of them."""

from __future__ import annotations

import json
import re

import pytest

from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from tests.web.test_console_access import csrf_of
from torghut.clock import utc_now
from torghut.storage import control, leases

TWO = {
    label: {"apca_api_key_id": label, "apca_api_secret_key": label} for label in ("alpha", "beta")
}


@pytest.fixture
def two(serve: Serve) -> Served:
    """No account is the default."""
    return serve_two(serve)


def serve_two(serve: Serve, **settings: object) -> Served:
    over: dict[str, object] = {"broker": "alpaca", "accounts": TWO, **settings}
    if "account" not in settings:
        over["account"] = None  # left out
    served = serve(**over)
    with served.database.transaction() as tx:
        for label in TWO:
            control.ensure_scopes(tx, label, now=utc_now())
    return served


def test_a_decision_names_its_account(two: Served) -> None:
    for label in TWO:
        answer = two.client.post("/v1/decisions", json=decision_json(account=label))
        assert answer.status_code == 201, answer.text
        found = two.client.get(f"/v1/decisions/{answer.json()['decision_hash']}").json()
        assert found["account"] == label
    unknown = two.client.post("/v1/decisions", json=decision_json(account="gamma"))
    assert unknown.status_code == 422
    assert "none of the accounts traded here: alpha, beta" in unknown.text
    missing = two.client.post("/v1/decisions", json=decision_json(qty="-1"))
    faults = {fault["field"] for fault in missing.json()["errors"]}
    assert (missing.status_code, faults) == (422, {"account", "qty"})


def test_the_default_is_meant_where_none_is_named(serve: Serve) -> None:
    served = serve_two(serve, account="beta")
    answer = served.client.post("/v1/decisions", json=decision_json())
    found = served.client.get(f"/v1/decisions/{answer.json()['decision_hash']}").json()
    assert found["account"] == "beta"


def test_lines_of_a_batch_go_to_their_accounts(two: Served) -> None:
    lines = [decision_json(account=label) for label in ("alpha", "beta", "gamma")]
    body = "\n".join(map(json.dumps, lines))
    answer = two.client.post(
        "/v1/decisions:batch", content=body, headers={"Content-Type": "application/x-ndjson"}
    )
    results = [json.loads(line)["result"] for line in answer.text.splitlines()]
    assert results == ["created", "created", "invalid"]


@pytest.mark.parametrize("path", ["/v1/orders:cancel", "/v1/flatten", "/v1/positions/AAPL:close"])
def test_requests_about_an_account_have_to_name_it(two: Served, path: str) -> None:
    answer = two.client.post(path, json={"reason": "why"})
    assert answer.status_code == 422 and "alpha, beta" in answer.text
    assert two.client.post(path, json={"reason": "why", "account": ""}).status_code == 422
    named = two.client.post(path, json={"reason": "why", "account": "beta"})
    assert named.status_code in (202, 422) and "alpha, beta" not in named.text
    if path == "/v1/flatten":
        assert named.json()["account"] == "beta"


def test_status_is_of_one(two: Served) -> None:
    assert two.client.get("/v1/status").status_code == 422
    found = two.client.get("/v1/status", params={"account": "beta"}).json()
    assert (found["account"], found["trading_mode"]) == ("beta", "paper")


def test_ready_as_soon_as_one_of_them_is_known(two: Served) -> None:
    """One that its broker refuses has no lease anywhere: the others' decisions are taken."""
    assert two.client.get("/readyz").status_code == 503
    with two.database.transaction() as tx:
        leases.acquire(tx, "alpha", "me", ttl_s=60)
    answer = two.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["leases"] == {"alpha": {"owner": "me", "valid": True}}


# ---------------------------------------------------------------------- console


def shown(page: str) -> str:
    found = re.search(r"<option selected>(\w+)</option>", page)
    assert found
    return found.group(1)


def test_the_console_shows_one_and_has_the_others(two: Served) -> None:
    assert shown(two.client.get("/").text) == "alpha"
    chosen = two.client.get("/console/account", params={"name": "beta", "next": "/console/risk"})
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/console/risk")
    for path in ("/", "/console/risk", "/console/orders", "/console/attention", "/console/pnl"):
        assert shown(two.client.get(path).text) == "beta", path
    two.client.get("/console/account", params={"name": "nobody's"})
    assert shown(two.client.get("/").text) == "beta"


def test_a_form_is_about_the_account_of_its_page(two: Served) -> None:
    """Another tab has chosen beta since: the halt of alpha's page is alpha's."""
    page = two.client.get("/")
    form = {"csrf": csrf_of(page), "state": "halted", "scope": "account", "reason": "why"}
    assert 'name="account" value="alpha"' in page.text
    two.client.get("/console/account", params={"name": "beta"})
    assert two.client.post("/console/trading-state", data=form).status_code == 403
    done = two.client.post("/console/trading-state", data={**form, "account": "alpha"})
    assert done.status_code == 303
    with two.database.transaction() as tx:
        states = [control.trading_state(tx, label, strategy="s")[0] for label in TWO]
    assert states == ["halted", "active"]


def test_one_account_is_no_choice(serve: Serve) -> None:
    assert "/console/account" not in serve().client.get("/").text
