"""Tokens of the database: what each may do, from when to when, and what it leaves in the books."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.end_to_end.user import eventually
from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from tests.web.test_console_access import csrf_of, halt, sign_in
from tests.web.test_gate import token
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.domain.access import Scope, checked_name, setting_credential
from torghut.domain.errors import EXIT_CONFIG, ConfigError
from torghut.parts import check_tokens
from torghut.services import tokens as making
from torghut.storage import tokens
from torghut.storage.database import Database

HASH = "a" * 64
NEEDS = {
    ("POST", "/v1/decisions"): Scope.SUBMIT,
    ("POST", "/v1/decisions:batch"): Scope.SUBMIT,
    ("POST", "/v1/plans"): Scope.SUBMIT,
    ("GET", "/v1/plans"): Scope.READ,
    ("GET", "/v1/plans/{plan_id}"): Scope.READ,
    ("GET", "/v1/decisions"): Scope.READ,
    ("GET", "/v1/decisions/{decision_hash}"): Scope.READ,
    ("GET", "/v1/decisions/{decision_hash}/story"): Scope.READ,
    ("GET", "/v1/executions"): Scope.READ,
    ("GET", "/v1/fills"): Scope.READ,
    ("GET", "/v1/actions"): Scope.READ,
    ("GET", "/v1/positions"): Scope.READ,
    ("GET", "/v1/discrepancies"): Scope.READ,
    ("GET", "/v1/status"): Scope.READ,
    ("GET", "/v1/events"): Scope.READ,
    ("GET", "/v1/trading-states"): Scope.READ,
    ("GET", "/metrics"): Scope.READ,
    ("POST", "/v1/halt"): Scope.OPERATE,
    ("POST", "/v1/reduce"): Scope.OPERATE,
    ("POST", "/v1/resume"): Scope.OPERATE,
    ("POST", "/v1/discrepancies/{discrepancy_id}:resolve"): Scope.OPERATE,
    ("POST", "/v1/decisions/{decision_hash}:cancel"): Scope.OPERATE,
    ("POST", "/v1/decisions/{decision_hash}:replace"): Scope.OPERATE,
    ("POST", "/v1/orders:cancel"): Scope.OPERATE,
    ("POST", "/v1/positions/{symbol}:close"): Scope.OPERATE,
    ("POST", "/v1/flatten"): Scope.OPERATE,
}
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}


def made(database: Database, name: str, *scopes: Scope, seconds: float | None = None) -> str:
    """A new token in the database."""
    now = utc_now()
    ends = None if seconds is None else now + timedelta(seconds=seconds)
    return making.create(database, name, scopes, expires_at=ends, actor="cli:me", now=now)


def status(served: Served, value: str, path: str = "/v1/status") -> int:
    return served.client.get(path, headers=token(value)).status_code


def test_each_route_demands_its_scope(serve: Serve) -> None:
    served = serve(require_token=True)
    mine = {scope: made(served.database, f"may-{scope}", scope) for scope in Scope}
    for (method, path), needed in NEEDS.items():
        url = path.replace("{decision_hash}", HASH).replace("{symbol}", "AAPL")
        url = url.replace("{discrepancy_id}", "1")
        assert served.client.request(method, url).status_code == 401, path
        for scope, value in mine.items():
            answer = served.client.request(method, url, headers=token(value))
            assert (answer.status_code == 403) is (scope is not needed), (path, scope, answer.text)
            if scope is not needed:
                assert answer.json()["type"].endswith("insufficient-scope")
                assert f'scope="{needed}"' in answer.headers["www-authenticate"]


def test_control_no_route_was_left_out(served: Served) -> None:
    paths = served.client.get("/openapi.json").json()["paths"]
    found = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert {one for one in found if not one[1].startswith("/webhooks/")} == {*NEEDS, *OPEN}


def test_the_first_token_closes_the_door_and_the_last_leaves_it_closed(served: Served) -> None:
    assert served.client.get("/v1/status").status_code == 200
    value = made(served.database, "first", Scope.READ)
    eventually(lambda: served.client.get("/v1/status").status_code == 401)
    assert status(served, value) == 200
    assert status(served, value[:-1]) == status(served, "wrong") == 401
    making.revoke(served.database, "first", actor="cli:me", reason="over", now=utc_now())
    eventually(lambda: status(served, value) == 401)
    assert served.client.get("/v1/status").status_code == 401


def test_a_token_ends_when_it_was_to(serve: Serve) -> None:
    served = serve(require_token=True)
    value = made(served.database, "short", Scope.READ, seconds=4)
    assert status(served, value) == 200
    eventually(lambda: status(served, value) == 401)


def test_tokens_of_the_settings_have_the_scopes_before_them(serve: Serve) -> None:
    served = serve(api_tokens="read:scraper, submit+read:strategy, all:of:it")
    post = served.client.post
    assert status(served, "scraper", "/metrics") == 200
    assert post("/v1/halt", headers=token("scraper")).status_code == 403
    assert post("/v1/decisions", json=decision_json(), headers=token("scraper")).status_code == 403
    sent = post("/v1/decisions", json=decision_json(), headers=token("strategy"))
    assert sent.status_code == 201
    assert post("/v1/halt", headers=token("strategy")).status_code == 403
    stop = post("/v1/halt", json={"reason": "x"}, headers=token("all:of:it"))
    assert stop.status_code == 200
    assert status(served, "read:scraper") == 401  # the scope is no part of the token


@pytest.mark.parametrize("entry", ["read:", "read+submit: "])
def test_a_scope_without_a_token_is_no_token(entry: str) -> None:
    with pytest.raises(ValueError, match="without a token"):
        setting_credential(entry.strip())


def test_the_books_name_the_token(serve: Serve) -> None:
    served = serve(require_token=True)
    value = made(served.database, "night-shift", Scope.OPERATE, Scope.READ)
    answer = served.client.post("/v1/halt", json={"reason": "fire"}, headers=token(value))
    assert answer.status_code == 200
    items = served.client.get("/v1/trading-states", headers=token(value)).json()["items"]
    assert [item["actor"] for item in items if item["state"] == "halted"] == ["http:night-shift"]
    asked = {"reason": "x"}
    served.client.post("/v1/orders:cancel", json=asked, headers=token(value))
    with served.database.transaction() as tx:
        rows = tx.execute(text("SELECT kind, actor, payload FROM events ORDER BY event_seq")).all()
    whole = [(row.kind, row.actor) for row in rows]
    assert ("token.created", "cli:me") in whole
    assert ("trading_state.changed", "http:night-shift") in whole
    assert value not in str(rows)


def test_when_it_was_last_used_is_kept(serve: Serve) -> None:
    served = serve(require_token=True)
    value = made(served.database, "used", Scope.READ)
    made(served.database, "idle", Scope.READ)

    def used() -> set[str]:
        assert status(served, value) == 200
        with served.database.transaction() as tx:
            rows = tokens.listed(tx, all_=True, now=utc_now())
        return {row.name for row in rows if row.last_used_at is not None}

    assert eventually(used) == {"used"}


def test_a_console_session_has_the_scopes_of_its_token_and_ends_with_it(served: Served) -> None:
    looker = made(served.database, "looker", Scope.READ)
    sender = made(served.database, "sender", Scope.SUBMIT)
    eventually(lambda: served.client.get("/").status_code == 303)
    assert sign_in(served, sender).status_code == 403
    assert sign_in(served, looker).status_code == 303
    page = served.client.get("/")
    assert page.status_code == 200
    refused = halt(served, csrf_of(page))
    assert refused.status_code == 403 and "operate" in refused.text
    making.revoke(served.database, "looker", actor="cli:me", reason="left", now=utc_now())
    eventually(lambda: served.client.get("/").status_code == 303)


def test_a_token_is_rationed_whatever_address_it_comes_from(serve: Serve) -> None:
    served = serve(require_token=True, rate_per_s=0.5)  # bursts are twice that: one
    value = made(served.database, "busy", Scope.READ)
    other = made(served.database, "other", Scope.READ)
    answers = []
    for last in range(2, 14):
        address = f"127.0.0.{last}"
        way = httpx.HTTPTransport(local_address=address)
        with httpx.Client(base_url=served.client.base_url, transport=way) as client:
            answers.append(client.get("/v1/status", headers=token(value)))
    assert 429 in {answer.status_code for answer in answers}
    # control: it is the token, not the addresses
    with httpx.Client(
        base_url=served.client.base_url, transport=httpx.HTTPTransport(local_address="127.0.0.99")
    ) as client:
        assert client.get("/v1/status", headers=token(other)).status_code == 200


def test_without_the_database_only_the_settings_tokens_are_known(serve: Serve) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    served = serve(url=nowhere, api_tokens="read:scraper")
    assert status(served, "scraper", "/metrics") == 200
    assert status(served, "tgh_other", "/metrics") == 503
    assert serve(url=nowhere).client.get("/metrics").status_code == 503
    assert served.client.get("/healthz").status_code == 200


# ---------------------------------------------------------------------- kept


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def test_a_token_is_nowhere_in_the_database(database: Database) -> None:
    value = made(database, "one", Scope.READ)
    with database.transaction() as tx:
        row = tx.execute(text("SELECT t::text FROM api_tokens t")).scalar_one()
    assert value not in row and value.removeprefix("tgh_") not in row
    assert len(value) >= 40


def test_names_are_never_used_twice(database: Database) -> None:
    made(database, "one", Scope.READ)
    making.revoke(database, "one", actor="cli:me", reason="over", now=utc_now())
    with pytest.raises(making.NameTaken):
        made(database, "one", Scope.READ)
    with pytest.raises(making.UnknownToken):
        making.revoke(database, "one", actor="cli:me", reason="again", now=utc_now())


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "local", "token-abc", "x" * 64, "é"])
def test_names_that_would_mislead_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must"):
        checked_name(name)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_tokens SET scopes = ARRAY['operate']",
        "UPDATE api_tokens SET revoked_at = NULL, revoked_by = NULL",
        "UPDATE api_tokens SET expires_at = NULL",
        "DELETE FROM api_tokens",
    ],
)
def test_the_database_keeps_tokens_as_they_were_made(database: Database, statement: str) -> None:
    made(database, "one", Scope.READ, seconds=600)
    making.revoke(database, "one", actor="cli:me", reason="over", now=utc_now())
    with pytest.raises(IntegrityError) as refused, database.transaction() as tx:
        tx.execute(text(statement))
    assert isinstance(refused.value.orig, psycopg.errors.RestrictViolation)
    with database.transaction() as tx:  # control: without the guard it is done
        tx.execute(text("ALTER TABLE api_tokens DISABLE TRIGGER api_tokens_guard"))
        tx.execute(text(statement))


def test_another_address_is_refused_until_there_is_a_token(database: Database) -> None:
    open_to_all = Settings(http_host="0.0.0.0", require_token=True)
    with pytest.raises(ConfigError) as refused:
        check_tokens(open_to_all, database)
    assert refused.value.exit_code == EXIT_CONFIG
    made(database, "one", Scope.READ)
    check_tokens(open_to_all, database)
    making.revoke(database, "one", actor="cli:me", reason="over", now=utc_now())
    with pytest.raises(ConfigError):
        check_tokens(open_to_all, database)
    check_tokens(Settings(http_host="0.0.0.0", api_tokens="t"), database)  # type: ignore[arg-type]
    check_tokens(Settings(), database)
