"""Who is let in: tokens, hosts, rates; and what no answer may hold."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from torghut.clock import utc_now
from torghut.domain.access import find, setting_credential
from torghut.web.gate import CLIENTS_MAX, RateLimit, bearer

CANARY = "canary-token-0123456789"
OTHER = "second-token"
TOKENS = f"{CANARY}, {OTHER}"


def token(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


ROUTES = [
    ("POST", "/v1/decisions"),
    ("POST", "/v1/decisions:batch"),
    ("GET", "/v1/decisions"),
    ("GET", "/v1/executions"),
    ("GET", "/v1/fills"),
    ("GET", "/v1/positions"),
    ("GET", "/v1/status"),
    ("GET", "/v1/decisions/" + "a" * 64),
    ("GET", "/v1/decisions/" + "a" * 64 + "/story"),
    ("POST", "/v1/halt"),
    ("POST", "/v1/resume"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/nothing"),
]


def test_every_route_but_the_probes_needs_a_token(serve: Serve) -> None:
    client = serve(api_tokens=TOKENS).client
    for method, path in ROUTES:
        answer = client.request(method, path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        wrong = client.request(method, path, headers=token("wrong"))
        assert wrong.status_code == 401, path
        assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
        allowed = client.request(method, path, headers=token(CANARY)).status_code
        assert allowed not in (401, 403), path
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503  # nobody has the lease; but asked it was


@pytest.mark.parametrize(
    ("header", "given"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        (f"Basic {CANARY}", None),
        (CANARY, None),
        (f"Bearer {CANARY}", CANARY),
        (f"bearer   {OTHER}", OTHER),
        (f"Bearer {TOKENS}", "none of them"),
        (f"Bearer {CANARY[:-1]}", "none of them"),
        (f"Bearer {CANARY}x", "none of them"),
        ("Bearer \xe9", "none of them"),
    ],
)
def test_authorization_headers(header: str | None, given: str | None) -> None:
    known = [setting_credential(one)[1] for one in (CANARY, OTHER)]
    sent = bearer(header)
    assert (sent is None) is (given is None)
    found = sent and find(known, sent, utc_now())
    assert bool(found) is (given in (CANARY, OTHER))


def test_all_tokens_are_compared_whatever_the_first_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[int] = []
    real = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    known = [setting_credential(one)[1] for one in ("a", "b" * 100, "c")]
    for value in ("a", "c", "wrong"):
        compared.clear()
        find(known, value, utc_now())
        assert compared == [32, 32, 32]


def test_without_tokens_only_loopback_names_are_served(served: Served) -> None:
    for host in ("127.0.0.1:1", "localhost", "[::1]:80", "127.3.2.1"):
        assert served.client.get("/v1/status", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "10.0.0.1", "[::1", ""):
        answer = served.client.get("/v1/status", headers={"Host": host})
        assert answer.status_code == 403, host
    assert served.client.get("/healthz", headers={"Host": "10.0.0.1:8080"}).status_code == 200


def test_with_tokens_any_name_is_served(serve: Serve) -> None:
    client = serve(api_tokens=TOKENS).client
    headers = {**token(OTHER), "Host": "torghut.example"}
    assert client.get("/v1/status", headers=headers).status_code == 200


def test_a_client_that_sends_too_much_is_told_to_wait(serve: Serve) -> None:
    client = serve(rate_per_s=0.5).client
    assert client.get("/v1/status").status_code == 200  # bursts are twice the rate: one
    answer = client.post("/v1/decisions", json=decision_json())
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/healthz").status_code == 200


def test_rate_limit_counts_per_client_and_forgets_old_ones() -> None:
    now = 0.0
    limit = RateLimit(2, clock=lambda: now)
    assert [limit.take("a") for _ in range(5)] == [True] * 4 + [False]
    assert limit.take("b")
    now = 1.0
    assert [limit.take("a") for _ in range(3)] == [True, True, False]
    for number in range(CLIENTS_MAX):
        limit.take(str(number))
    assert [limit.take("a") for _ in range(5)] == [True] * 4 + [False]


def test_default_rate_is_beyond_honest_use(serve: Serve) -> None:
    from torghut.web.parts import RATE_PER_S

    now = 0.0
    limit = RateLimit(RATE_PER_S, clock=lambda: now)
    for tick in range(3_000):
        now = tick / 1_000
        assert limit.take("bench")


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2_X", True), ("", False), ("a b", False), ("x" * 65, False)]
)
def test_request_ids(served: Served, sent: str, kept: bool) -> None:
    answer = served.client.get("/v1/status", headers={"X-Request-ID": sent})
    assert (answer.headers["x-request-id"] == sent) is kept
    assert answer.headers["x-request-id"]


def test_unknown_routes_and_methods_are_problems_too(served: Served) -> None:
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("GET", "/v1/decisions/", 404),
        ("GET", "/v1/../etc/passwd", 404),
        ("GET", "/docs", 404),
        ("DELETE", "/v1/decisions", 405),
        ("PUT", "/v1/halt", 405),
        ("PATCH", "/healthz", 405),
    ]:
        answer = served.client.request(method, path)
        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert status != 405 or answer.headers["allow"]


def test_no_answer_and_no_log_holds_a_secret(
    serve: Serve, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    password = "canary-password-42"
    served = serve(
        url=f"postgresql://someone:{password}@127.0.0.1:1/nowhere",
        api_tokens=TOKENS,
        apca_api_key_id="canary-key",
        apca_api_secret_key="canary-secret",
    )
    seen = []
    for headers in ({}, token("guess"), token(CANARY)):
        for method, path in ROUTES:
            for body in (b"", b"{", json.dumps(decision_json()).encode(), b'{"reason": "x"}'):
                answer = served.client.request(
                    method, path, content=body, headers={**headers, "Content-Type": JSON}
                )
                seen.append(answer)
    assert {answer.status_code for answer in seen} >= {401, 503, 422, 404}
    for answer in seen:
        whole = answer.text + str(answer.headers)
        for secret in (CANARY, OTHER, password, "canary", "guess", "Traceback", "psycopg"):
            assert secret not in whole, (answer.request.url, secret)
    printed = capfd.readouterr()
    assert "request not served" in printed.out + printed.err + caplog.text
    assert "canary" not in printed.out + printed.err + caplog.text


JSON = "application/json"


def test_an_unexpected_error_says_nothing_but_its_id(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torghut.storage import queries

    def broken(*_: object) -> object:
        raise RuntimeError("inner detail")

    monkeypatch.setattr(queries, "summary", broken)
    answer: httpx.Response = served.client.get("/v1/status")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "inner detail" not in answer.text and "RuntimeError" not in answer.text
