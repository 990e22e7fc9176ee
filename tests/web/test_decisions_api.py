"""POST /v1/decisions over real HTTP on a real database: every answer, hostile input, races."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import text

from tests.factories import decision, decision_json
from tests.web.conftest import Served
from torghut.services.batch import LINE_BYTES_MAX
from torghut.storage.database import Database

JSON = {"Content-Type": "application/json"}


def stored(database: Database) -> int:
    with database.transaction() as tx:
        return int(tx.execute(text("SELECT count(*) FROM trade_decisions")).scalar_one())


def faults(answer: httpx.Response) -> list[str]:
    """Fields named by a 422."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == 422 and body["type"].startswith("urn:torghut:problem:")
    assert body["request_id"] == answer.headers["x-request-id"]
    return [fault["field"] for fault in body["errors"]]


def post(served: Served, body: bytes, **headers: str) -> httpx.Response:
    return served.client.post("/v1/decisions", content=body, headers={**JSON, **headers})


def test_created_then_replayed_then_conflict(served: Served) -> None:
    first = served.client.post("/v1/decisions", json=decision_json())
    hash_ = decision().decision_hash
    assert first.status_code == 201
    assert first.json() == {"decision_hash": hash_, "status": "planned", "result": "created"}
    assert first.headers["location"] == f"/v1/decisions/{hash_}"
    assert "idempotent-replayed" not in first.headers
    assert served.wakes == [1]

    again = served.client.post("/v1/decisions", json=decision_json(qty="10.00", symbol="aapl"))
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == {"decision_hash": hash_, "status": "planned", "result": "replayed"}

    other = served.client.post("/v1/decisions", json=decision_json(qty="11", time_in_force="gtc"))
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["differing_fields"] == ["qty", "time_in_force"]
    assert other.json()["decision_hash"] == hash_
    assert stored(served.database) == 1
    assert served.wakes == [1]


def test_amounts_stay_exact_as_numbers(served: Served) -> None:
    body = json.dumps(decision_json(qty=None)).replace("}", ', "qty": 0.123456789}')
    assert post(served, body.encode()).status_code == 201
    hash_ = served.client.get("/v1/decisions").json()["items"][0]["decision_hash"]
    assert served.client.get(f"/v1/decisions/{hash_}").json()["qty"] == "0.123456789"


def test_every_fault_is_named(served: Served) -> None:
    body = decision_json(qty="-1", side="hold", event_ts="2026-01-05T14:30:00", colour="red")
    answer = served.client.post("/v1/decisions", json=body)
    assert sorted(faults(answer)) == ["colour", "event_ts", "qty", "side"]
    assert stored(served.database) == 0


def test_idempotency_key_is_the_intent(served: Served) -> None:
    hash_ = decision(intent="alert 7").decision_hash
    body = json.dumps(decision_json()).encode()
    first = post(served, body, **{"Idempotency-Key": "alert 7"})
    assert (first.status_code, first.json()["decision_hash"]) == (201, hash_)
    assert post(served, body, **{"Idempotency-Key": "alert 7"}).status_code == 200
    assert post(served, body, **{"Idempotency-Key": "alert 8"}).status_code == 201
    assert post(served, body).status_code == 201
    assert served.client.get(f"/v1/decisions/{hash_}").json()["intent"] == "alert 7"


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"caf\xe9", b"tab\tkey"])
def test_unusable_idempotency_keys(served: Served, key: bytes) -> None:
    answer = served.client.post(
        "/v1/decisions",
        json=decision_json(),
        headers=[(b"Idempotency-Key", key)],
    )
    assert faults(answer) == ["Idempotency-Key"]


def test_contradicting_intent(served: Served) -> None:
    body = json.dumps(decision_json(intent="a")).encode()
    assert faults(post(served, body, **{"Idempotency-Key": "b"})) == ["intent"]


def test_another_account_is_refused(served: Served) -> None:
    assert faults(served.client.post("/v1/decisions", json=decision_json(account="other"))) == [
        "account"
    ]
    own = served.client.post("/v1/decisions", json=decision_json(account="paper"))
    assert own.status_code == 201


HOSTILE: dict[str, bytes] = {
    "no JSON": b"{",
    "empty": b"",
    "a list": b"[]",
    "a string": b'"decision"',
    "null": b"null",
    "NaN": json.dumps(decision_json(qty=float("nan"))).encode(),
    "infinity": json.dumps(decision_json()).replace('"10"', "-Infinity").encode(),
    "overflowing number": json.dumps(decision_json()).replace('"10"', "1e400").encode(),
    "huge integer": json.dumps(decision_json()).replace('"10"', "9" * 200_000).encode(),
    "repeated key": json.dumps(decision_json())[:-1].encode() + b', "qty": "1"}',
    "10,000-character symbol": json.dumps(decision_json(symbol="A" * 10_000)).encode(),
    "bad UTF-8": json.dumps(decision_json(strategy="@")).encode().replace(b"@", b"\xff\xfe"),
    "UTF-16": json.dumps(decision_json()).encode("utf-16"),
    "NUL": json.dumps(decision_json(strategy="a\0b")).encode(),
    "raw NUL": json.dumps(decision_json(strategy="@")).encode().replace(b"@", b"\0"),
    "lone surrogate": json.dumps(decision_json(strategy="\ud800")).encode(),
    "line break in text": json.dumps(decision_json(strategy="a\r\nX-Injected: 1")).encode(),
    "deep nesting": b'{"params":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep params": json.dumps(decision_json()).encode()[:-1]
    + b', "params": {"a":'
    + b"[" * 17
    + b"]" * 17
    + b"}}",
    "boolean amount": json.dumps(decision_json(qty=True)).encode(),
    "object amount": json.dumps(decision_json(qty={"$gt": 0})).encode(),
    "event at the end of time": json.dumps(decision_json(event_ts="9999-12-31T23:59:59Z")).encode(),
    "20,000 unknown fields": json.dumps({f"f{i}": i for i in range(15_000)}).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_with_a_reason(served: Served, name: str) -> None:
    answer = post(served, HOSTILE[name])
    faults(answer)
    assert len(answer.content) < 20_000
    assert "Traceback" not in answer.text
    assert stored(served.database) == 0
    assert post(served, json.dumps(decision_json()).encode()).status_code == 201


def test_malformed_json_names_line_and_column(served: Served) -> None:
    answer = post(served, b'{\n  "qty": 1,\n  oops\n}')
    faults(answer)
    assert "line 3 column 3" in answer.json()["errors"][0]["problem"]


@pytest.mark.parametrize("media_type", ["", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("browser", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Mode": "cors"}])
def test_a_page_in_a_browser_cannot_post_unasked(
    served: Served, media_type: str, browser: dict[str, str]
) -> None:
    body = json.dumps(decision_json()).encode()
    answer = post(served, body, **{"Content-Type": media_type, **browser})
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("media_type", ["", "application/x-www-form-urlencoded"])
def test_a_client_that_names_no_type_is_taken_at_its_bodys_word(
    served: Served, media_type: str
) -> None:
    """What curl sends by itself."""
    body = json.dumps(decision_json()).encode()
    assert post(served, body, **{"Content-Type": media_type}).status_code == 201


def test_other_media_types(served: Served) -> None:
    body = json.dumps(decision_json()).encode()
    assert post(served, body, **{"Content-Type": "text/plain"}).status_code == 415


def test_body_just_within_and_just_beyond_the_limit(served: Served) -> None:
    body = json.dumps(decision_json()).encode()
    assert post(served, body.ljust(LINE_BYTES_MAX)).status_code == 201
    assert post(served, body.ljust(LINE_BYTES_MAX + 1)).status_code == 413


def raw_request(port: int, head: str, chunks: list[bytes]) -> tuple[str, int]:
    """Send head and chunks until the server closes; (what it answered, bytes of body sent)."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode())
        try:
            for chunk in chunks:
                connection.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while part := connection.recv(65_536):
                answer += part
        except ConnectionResetError:
            pass
    return answer.decode("latin-1"), sent


def test_an_announced_100_mb_body_is_refused_unread(served: Served) -> None:
    head = (
        "POST /v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {100 * 1024 * 1024}\r\n\r\n"
    )
    answer, _ = raw_request(served.port, head, [])  # not a byte of it was sent
    assert answer.startswith("HTTP/1.1 413")
    assert "connection: close" in answer.lower()


def test_an_unannounced_100_mb_body_is_cut_off(served: Served) -> None:
    head = (
        "POST /v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    _, sent = raw_request(served.port, head, [chunk] * 1_600)
    assert sent < 100 * 1024 * 1024 / 2
    assert served.client.get("/healthz").status_code == 200


def test_a_sender_that_goes_away_changes_nothing(served: Served) -> None:
    head = (
        "POST /v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 500\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(head.encode() + b'{"strategy": ')
    assert post(served, json.dumps(decision_json()).encode()).status_code == 201
    assert stored(served.database) == 1


def test_32_threads_with_one_decision_create_it_once(served: Served) -> None:
    together = threading.Barrier(32)

    def send(_: int) -> int:
        url = f"http://127.0.0.1:{served.port}/v1/decisions"
        with httpx.Client(trust_env=False, timeout=30) as client:
            together.wait(20)
            return client.post(url, json=decision_json()).status_code

    with ThreadPoolExecutor(32) as pool:
        answers = Counter(pool.map(send, range(32)))
    assert answers == {201: 1, 200: 31}
    assert stored(served.database) == 1


def test_one_decision_on_two_replicas_is_created_once(served: Served, serve: object) -> None:
    other: Served = serve()  # type: ignore[operator]
    ports = [served.port, other.port]

    def send(number: int) -> int:
        url = f"http://127.0.0.1:{ports[number % 2]}/v1/decisions"
        body = decision_json(intent=str(number // 8))
        return httpx.post(url, json=body, trust_env=False, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(send, range(80)))
    assert answers == {201: 10, 200: 70}
    assert stored(served.database) == 10


def test_decisions_that_arrive_together_get_each_their_own_answer(served: Served) -> None:
    served.client.post("/v1/decisions", json=decision_json(intent="5")).raise_for_status()

    def send(number: int) -> tuple[int, str, str]:
        body = decision_json(intent=str(number), qty="3" if number == 5 else "10")
        answer = served.client.post("/v1/decisions", json=body)
        return answer.status_code, answer.json()["decision_hash"], str(number)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(48)))
    for status, hash_, intent in answers:
        assert hash_ == decision(intent=intent).decision_hash
        assert status == (409 if intent == "5" else 201)
    assert stored(served.database) == 48
