"""schemathesis over the OpenAPI document: whatever is sent, the answer is one that is in it.

`make test` sends a sample to each operation; `SCHEMA_CASES=5000` sends that many in all.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from tests.web.test_tradingview import TABLE
from torghut.domain.access import Scope
from torghut.storage import leases

CASES = int(os.environ.get("SCHEMA_CASES", "300"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TOKEN = "read+submit+operate:whole"


@schemathesis.serializer("application/x-ndjson")
def lines(_context: Any, value: Any) -> bytes:
    """A body of JSON lines as it is, whatever it was made of."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def filled(serve: Serve) -> Served:
    """An interface that is ready, with something in its lists."""
    served = serve(api_tokens=TOKEN, rate_per_s=1_000_000, webhooks=TABLE)
    with served.database.transaction() as tx:
        leases.acquire(tx, "paper", "somebody", ttl_s=3600)
    served.client.headers["Authorization"] = "Bearer whole"
    for n in range(3):
        sent = served.client.post("/v1/decisions", json=decision_json(intent=str(n)))
        assert sent.status_code == 201
    return served


@pytest.mark.timeout(3600 if CASES > 1000 else 180)
def test_no_answer_is_undocumented_and_none_is_a_failure(serve: Serve) -> None:
    served = filled(serve)
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/openapi.json",
                                           headers={"Authorization": "Bearer whole"})  # fmt: skip
    operations = [found.ok() for found in schema.get_all_operations()]
    each = max(1, -(-CASES // (len(operations) - 3)))  # three take nothing, and are asked once
    seen: Counter[tuple[str, int]] = Counter()
    for operation in operations:
        play(operation, each, seen)
    answered = {status for _, status in seen}
    assert seen.total() >= min(CASES, each * len(operations)) * 0.8
    assert answered >= {200, 422, 404}, seen
    print(f"\n{seen.total()} cases, {len(operations)} operations, {dict(sorted(seen.items()))}")


def play(operation: Any, count: int, seen: Counter[tuple[str, int]]) -> None:
    """`count` cases of one operation."""

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        answer = case.call(headers={"Authorization": "Bearer whole"}, timeout=60)
        seen[(operation.label, answer.status_code)] += 1
        case.validate_response(answer, checks=CHECKS)

    one()


def test_control_an_answer_that_is_not_written_there_is_found(serve: Serve) -> None:
    """With one status taken out of the document the same cases fail."""
    served = filled(serve)
    document = served.client.get("/openapi.json").json()
    paths = {"/v1/decisions/{decision_hash}": document["paths"]["/v1/decisions/{decision_hash}"]}
    responses = paths["/v1/decisions/{decision_hash}"]["get"]["responses"]
    del responses["404"], responses["422"]
    schema = schemathesis.openapi.from_dict({**document, "paths": paths})
    schema.config.base_url = f"http://127.0.0.1:{served.port}"
    (operation,) = [found.ok() for found in schema.get_all_operations()]
    with pytest.raises(BaseException, match="Undocumented status code"):
        play(operation, 20, Counter())


def test_each_operation_says_what_it_needs_and_has_an_example(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if (body := operation.get("requestBody")) is not None:
                for content in body["content"].values():
                    assert "example" in content, (method, path)
            if path.startswith("/v1/"):
                ((scopes,),) = [list(one.values()) for one in operation["security"]]
                assert len(scopes) == 1 and Scope(scopes[0]), path
                assert {"401", "403", "429", "503"} <= operation["responses"].keys(), path
