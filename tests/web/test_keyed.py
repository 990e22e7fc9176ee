"""An operator's requests under an Idempotency-Key: P11, what was said last stays in force."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from tests.web.conftest import Serve, Served
from tests.web.test_operator_api import opened, state
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.idempotency import Store
from torghut.idempotency.http_messages import request_digest
from torghut.web.documents import TRADING_STATE
from torghut.web.keyed import key_store

BODY = b'{"reason": "news"}'
HEADERS = {"Content-Type": "application/json", "Idempotency-Key": '"8e03978e"'}


def post(served: Served, path: str, body: bytes = BODY, **headers: str) -> Any:
    return served.client.post(f"/v1/{path}", content=body, headers={**HEADERS, **headers})


def changes(served: Served) -> int:
    with served.database.transaction() as tx:
        query = "SELECT count(*) FROM events WHERE kind = 'trading_state.changed'"
        return int(tx.execute(text(query)).scalar_one())


def test_p11_a_late_repetition_of_a_resume_does_not_undo_a_halt(served: Served) -> None:
    """Its sender got no answer and asks again, after somebody else has halted; without a key it
    resumes, which is the control."""
    served.client.post("/v1/halt", json={"reason": "first"})
    first = post(served, "resume")
    served.client.post("/v1/halt", json={"reason": "second"})
    again = post(served, "resume")
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert (state(served), changes(served)) == ("halted", 3)
    served.client.post("/v1/resume", content=BODY, headers={"Content-Type": "application/json"})
    assert state(served) == "active"


@pytest.mark.parametrize("path", ["halt", "reduce", "resume"])
def test_the_same_key_for_something_else_changes_nothing(served: Served, path: str) -> None:
    assert post(served, path).status_code == 200
    before = state(served)
    for other, body in (
        (path, b'{"reason": "other"}'),
        ("reduce" if path != "reduce" else "halt", BODY),
    ):
        answer = post(served, other, body)
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:torghut:problem:idempotency-key-reused"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert state(served) == before


def test_a_refusal_is_an_answer_too(served: Served) -> None:
    for _ in range(2):
        assert post(served, "halt", b"{}").status_code == 422
    assert post(served, "halt", BODY, **{"Idempotency-Key": ""}).status_code == 400
    assert state(served) == "active"


def test_a_discrepancy_is_resolved_once(served: Served) -> None:
    """The second 200 is the first one's; without the key it is told that it is closed."""
    id_ = opened(served, DiscrepancyKind.ORDER_DIFFERS, "hash")
    path = f"discrepancies/{id_}:resolve"
    assert [post(served, path).status_code for _ in range(2)] == [200, 200]
    assert served.client.post(f"/v1/{path}", json={"reason": "news"}).status_code == 409


def died(served: Served, path: str) -> Store:
    """A request under the key whose process was killed in the middle."""
    store = key_store(served.database)
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/v1/{path}",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    assert store.claim("8e03978e", request_digest(scope, BODY)).claim is not None
    with served.database.transaction() as tx:
        tx.execute(text("UPDATE idempotency_keys SET leased_until = now() - interval '1 second'"))
    return store


def test_p11_a_halt_whose_process_died_is_carried_out_by_who_repeats_it(served: Served) -> None:
    died(served, "halt")
    assert post(served, "halt").status_code == 200
    assert state(served) == "halted"


@pytest.mark.parametrize("path", ["resume", "reduce"])
def test_p4_what_could_loosen_is_not_carried_out_twice(served: Served, path: str) -> None:
    """Somebody may have halted since; under another key, or none, it is a request of its own."""
    served.client.post("/v1/halt", json={"reason": "first"})
    died(served, path)
    answer = post(served, path)
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:torghut:problem:idempotency-outcome-unknown"
    assert state(served) == "halted"
    assert post(served, path, **{"Idempotency-Key": "other"}).status_code == 200


def test_callers_have_keys_of_their_own(serve: Serve) -> None:
    served = serve(api_tokens="one-token,two-token")
    for token in ("one-token", "two-token"):
        answer = post(served, "halt", Authorization=f"Bearer {token}")
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers
    assert post(served, "halt", Authorization="Bearer wrong").status_code == 401


def test_decisions_and_orders_keep_their_own_keys(served: Served) -> None:
    """There the key is part of what is stored; nothing is kept beside it."""
    post(served, "flatten")
    again = post(served, "flatten")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    with served.database.transaction() as tx:
        assert tx.execute(text("SELECT count(*) FROM idempotency_keys")).scalar_one() == 0


def test_it_is_counted_and_documented(served: Served) -> None:
    """Every answer in /metrics; the header in the OpenAPI document of each route that takes it."""

    def count(answer: str) -> float:
        line = f'torghut_keyed_requests_total{{answer="{answer}"}}'
        found = [text for text in served.client.get("/metrics").text.splitlines() if line in text]
        return float(found[0].split()[-1]) if found else 0.0

    before = count("created"), count("replayed")
    for _ in range(3):
        post(served, "halt")
    assert (count("created") - before[0], count("replayed") - before[1]) == (1, 2)
    paths = served.client.get("/openapi.json").json()["paths"]
    for path in ("halt", "reduce", "resume", "flatten", "discrepancies/{discrepancy_id}:resolve"):
        post_ = paths[f"/v1/{path}"]["post"]
        assert "Idempotency-Key" in [p["name"] for p in post_["parameters"]], path
    assert TRADING_STATE["responses"].keys() >= {"400", "409", "422", 200}
