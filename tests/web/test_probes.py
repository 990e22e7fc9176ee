"""/healthz, /readyz, /metrics, and the OpenAPI document."""

from __future__ import annotations

import pytest

from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from torghut.domain.decisions import load_json, parse_decision
from torghut.domain.errors import InvalidDecision
from torghut.storage import leases, migrate
from torghut.web.documents import DECISION


def test_health_is_what_the_loops_say(served: Served) -> None:
    answer = served.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"alive": True})
    served.health.update(alive=False, stalled_s={"executor": 99.5})
    answer = served.client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["stalled_s"] == {"executor": 99.5}


def test_ready_needs_a_lease_that_is_known(served: Served) -> None:
    before = served.client.get("/readyz")
    assert before.status_code == 503
    assert "lease" in before.json()["reasons"][0]
    with served.database.transaction() as tx:
        lease = leases.acquire(tx, "paper", "somebody", ttl_s=60)
    answer = served.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["lease"] == {"owner": "somebody", "valid": True}
    assert answer.json()["schema"] == migrate.check(
        served.database.url.render_as_string(hide_password=False)
    )
    assert lease is not None
    with served.database.transaction() as tx:
        leases.release(tx, lease)
    assert served.client.get("/readyz").status_code == 200  # a stand-by takes decisions too


def test_ready_hears_the_rest_of_the_process(served: Served) -> None:
    with served.database.transaction() as tx:
        leases.acquire(tx, "paper", "somebody", ttl_s=60)
    served.ready.update(ready=False, reasons=["the account is the wrong one"], since="noon")
    answer = served.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the account is the wrong one"]
    assert answer.json()["since"] == "noon"


def test_a_database_that_is_not_migrated_is_not_ready(
    serve: Serve, empty_database_url: str
) -> None:
    answer = serve(url=empty_database_url).client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the database is not migrated"]


def test_metrics_count_decisions(served: Served) -> None:
    def count(result: str) -> float:
        name = f'torghut_decisions_total{{result="{result}"}} '
        lines = served.client.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = {result: count(result) for result in ("created", "replayed", "conflict", "invalid")}
    served.client.post("/v1/decisions", json=decision_json())
    served.client.post("/v1/decisions", json=decision_json())
    served.client.post("/v1/decisions", json=decision_json(qty="1"))
    served.client.post("/v1/decisions", json=decision_json(qty="-1"))
    assert {result: count(result) - value for result, value in before.items()} == dict.fromkeys(
        before, 1.0
    )
    assert served.client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_openapi_is_3_1_and_whole(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/v1/decisions",
        "/v1/decisions:batch",
        "/v1/decisions/{decision_hash}",
        "/v1/decisions/{decision_hash}/story",
        *(f"/v1/decisions/{{decision_hash}}:{verb}" for verb in ("cancel", "replace")),
        *("/v1/orders:cancel", "/v1/positions/{symbol}:close", "/v1/flatten", "/v1/actions"),
        *(f"/v1/{name}" for name in ("executions", "fills", "positions", "status")),
        *(f"/v1/{name}" for name in ("halt", "reduce", "resume", "trading-states")),
        *("/v1/discrepancies", "/v1/discrepancies/{discrepancy_id}:resolve"),
        *("/v1/plans", "/v1/plans/{plan_id}"),
        *("/healthz", "/readyz", "/metrics", "/v1/events"),
        *("/webhooks/tradingview", "/webhooks/tradingview/{secret}"),
    }
    post = document["paths"]["/v1/decisions"]["post"]
    assert set(post["responses"]) >= {"201", "200", "409", "413", "415", "422", "429", "503"}
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert schema["$ref"].rsplit("/", 1)[1] in document["components"]["schemas"]
    example = document["components"]["schemas"]["Decision"]["examples"][0]
    assert served.client.post("/v1/decisions", json=example).status_code == 201
    listed = document["paths"]["/v1/decisions"]["get"]["parameters"]
    assert {parameter["name"] for parameter in listed} == {
        *("status", "symbol", "strategy", "account", "since", "limit", "cursor")
    }
    # everything but the probes needs a token with a scope where tokens are asked for
    for path, item in document["paths"].items():
        for operation in item.values():
            assert bool(operation["security"]) is path.startswith(("/v1", "/metrics")), path
    assert post["security"] == [{"token": ["submit"]}]


@pytest.mark.parametrize("name", ["colour", *DECISION["properties"]])
def test_the_schema_names_the_fields_that_the_domain_knows(name: str) -> None:
    from datetime import timedelta

    with pytest.raises(InvalidDecision) as refused:
        data = load_json(f'{{"{name}": []}}')
        parse_decision(data, account="paper", ttl=timedelta(1))
    unknown = {fault.field for fault in refused.value.faults if "not a known" in fault.problem}
    assert unknown == ({name} if name == "colour" else set())


def test_the_schema_misses_no_field() -> None:
    from torghut.domain import decisions

    assert set(DECISION["properties"]) == decisions._FIELDS
