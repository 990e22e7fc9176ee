"""POST of cancels, replacements, closings and flattenings: recorded, replayed, refused."""

from __future__ import annotations

from sqlalchemy import text

from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from tests.web.test_decisions_api import faults

WHY = {"reason": "news"}


def planned(served: Served, **over: object) -> str:
    body = decision_json(type="limit", limit_price="10", **over)
    return str(served.client.post("/v1/decisions", json=body).json()["decision_hash"])


def test_cancel_and_replace_are_recorded(served: Served) -> None:
    hash_ = planned(served)
    answer = served.client.post(f"/v1/decisions/{hash_}:cancel", json=WHY)
    assert answer.status_code == 202
    assert [a["status"] for a in answer.json()["actions"]] == ["requested"]
    body = {**WHY, "qty": "3", "limit_price": 9.5}
    answer = served.client.post(f"/v1/decisions/{hash_[:12]}:replace", json=body)
    assert answer.status_code == 202
    assert answer.json()["actions"][0]["changes"] == {"qty": "3", "limit_price": "9.5"}
    listed = served.client.get("/v1/actions").json()["items"]
    assert [row["operation"] for row in listed] == ["replace", "cancel"]


def test_the_key_makes_it_idempotent(served: Served) -> None:
    hash_ = planned(served)
    headers = {"Idempotency-Key": "abc"}
    path = f"/v1/decisions/{hash_}:cancel"
    first = served.client.post(path, json=WHY, headers=headers)
    again = served.client.post(path, json=WHY, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.json()["actions"][0]["action_id"] == again.json()["actions"][0]["action_id"]
    other = planned(served, intent="other")
    conflict = served.client.post(f"/v1/decisions/{other}:cancel", json=WHY, headers=headers)
    assert conflict.status_code == 409
    with served.database.transaction() as tx:
        assert tx.execute(text("SELECT count(*) FROM order_actions")).scalar_one() == 1


def test_filter(served: Served) -> None:
    planned(served, symbol="MSFT")
    wanted = planned(served, symbol="AAPL")
    answer = served.client.post("/v1/orders:cancel", json={**WHY, "symbol": "AAPL"})
    assert [a["decision_hash"] for a in answer.json()["actions"]] == [wanted]
    assert len(served.client.post("/v1/orders:cancel", json=WHY).json()["actions"]) == 2


def test_close_and_flatten(served: Served) -> None:
    assert faults(served.client.post("/v1/positions/AAPL:close", json=WHY)) == ["symbol"]
    assert faults(served.client.post("/v1/positions/BTC/USD:close", json=WHY)) == ["symbol"]
    first = served.client.post("/v1/flatten", json=WHY)
    assert (first.status_code, first.json()["status"]) == (202, "requested")
    again = served.client.post("/v1/flatten", json=WHY)
    assert (again.status_code, again.json()["flatten_id"]) == (200, first.json()["flatten_id"])
    stands = served.client.get("/v1/status").json()["trading_state"]["state"]
    assert stands == "reducing"
    served.client.post("/v1/halt", json=WHY)
    assert faults(served.client.post("/v1/flatten", json=WHY)) == ["account"]


def test_refusals(served: Served) -> None:
    hash_ = planned(served)
    assert faults(served.client.post(f"/v1/decisions/{hash_}:cancel", json={})) == ["reason"]
    body = {**WHY, "color": "red"}
    assert faults(served.client.post(f"/v1/decisions/{hash_}:replace", json=body)) == ["color"]
    assert faults(served.client.post(f"/v1/decisions/{hash_}:replace", json=WHY)) == [""]
    assert served.client.post(f"/v1/decisions/{'0' * 64}:cancel", json=WHY).status_code == 404
    assert faults(served.client.post("/v1/decisions/zz:cancel", json=WHY)) == ["decision_hash"]
    body = {**WHY, "symbol": 3}
    assert faults(served.client.post("/v1/orders:cancel", json=body)) == ["symbol"]


def test_without_a_token_nothing_is_done(serve: Serve) -> None:
    served = serve(api_tokens="secret-token")
    for path in ("/v1/flatten", "/v1/orders:cancel", f"/v1/decisions/{'0' * 64}:cancel"):
        assert served.client.post(path, json=WHY).status_code == 401
