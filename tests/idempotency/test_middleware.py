"""The Idempotency-Key header over real HTTP, row by row of the table in docs/idempotency.md."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from tests.idempotency.passing import expire, lapse
from tests.idempotency.served import KEY, LIMIT, Shop, serving
from torghut.idempotency import State, Store
from torghut.idempotency.asgi import (
    IdempotencyMiddleware,
    Policy,
    _Asked,
    _Claiming,
    idempotent,
)
from torghut.idempotency.http_messages import request_digest

Open = Callable[..., tuple[Shop, httpx.Client]]
SMALL = Policy(request_bytes_max=LIMIT, response_bytes_max=LIMIT)


@pytest.fixture
def opened(store: Store) -> Iterator[Open]:
    """`opened(default=Policy(…))`: an application and a client to it."""
    with ExitStack() as stack:

        def start(**how: Any) -> tuple[Shop, httpx.Client]:
            shop = Shop(store, how)
            return shop, stack.enter_context(serving(shop))

        yield start


def kind(answer: httpx.Response) -> str:
    """The problem's kind; the answer must be problem details and not marked as replayed."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert "idempotent-replayed" not in answer.headers
    body = answer.json()
    assert body["status"] == answer.status_code and body["title"] and body["detail"]
    return str(body["type"]).removeprefix("urn:torghut:problem:idempotency-")


# ---------------------------------------------------------------------- replay


def test_the_first_answer_is_replayed_with_status_and_headers(opened: Open) -> None:
    """All of it but what belongs to the connection, the instant or the one client."""
    shop, client = opened()
    first = client.post("/v1/orders", content=b"\xff1", headers={KEY: '"a"'})
    client.cookies.clear()
    again = client.post("/v1/orders", content=b"\xff1", headers={KEY: '"a"'})
    assert shop.runs == ["order"]
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert again.content == b"<\xff1>"
    for name in ("x-run", "content-type", "content-length"):
        assert first.headers[name] == again.headers[name]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert "set-cookie" in first.headers and "x-hop" in first.headers
    for name in ("set-cookie", "x-hop"):
        assert name not in again.headers
    assert len(again.headers.get_list("date")) == 1
    assert shop.seen == ["created", "replayed"]


def test_a_key_in_quotes_and_bare_is_one(opened: Open) -> None:
    shop, client = opened()
    for quoted, bare in (('"a b"', "a b"), (r'"q\"\\"', r'q"\\'.replace("\\\\", "\\"))):
        for key in (quoted, bare):
            client.post("/v1/orders", headers={KEY: key})
    assert len(shop.runs) == 2


@pytest.mark.parametrize(
    "key",
    ["", '""', '"', '"open', 'x\\"é'.encode().decode("latin-1"), "a\tb", "x" * 256, '"a";p=1'],
)
def test_a_header_that_holds_no_key_is_refused(opened: Open, key: str) -> None:
    shop, client = opened()
    answer = client.post("/v1/orders", headers=[(KEY.encode(), key.encode("latin-1"))])
    assert (answer.status_code, kind(answer)) == (400, "key-malformed")
    twice = client.post("/v1/orders", headers=[(KEY, "a"), (KEY, "a")])
    assert (twice.status_code, kind(twice)) == (400, "key-malformed")
    assert shop.runs == []


def test_without_a_key_it_runs_each_time_unless_one_is_needed(opened: Open) -> None:
    shop, client = opened()
    for _ in range(2):
        assert client.post("/v1/orders").status_code == 201
    missing = client.post("/v1/needed")
    assert (missing.status_code, kind(missing)) == (400, "key-missing")
    mounted = client.post("/mounted/1")
    assert (mounted.status_code, kind(mounted)) == (400, "key-missing")
    assert shop.runs == ["order"] * 2


def test_routes_have_their_own_policy(opened: Open, store: Store) -> None:
    """Through included routers and mounted applications; `exempt` leaves the key alone."""
    shop, client = opened()
    for path, runs in (("/v1/free", 2), ("/v1/needed", 1), ("/mounted/1", 1)):
        shop.runs.clear()
        for _ in range(2):
            assert client.post(path, headers={KEY: path}).status_code == 200
        assert len(shop.runs) == runs, path
    with store.transaction() as tx:
        rows = tx.exec_driver_sql(
            "SELECT key, round(extract(epoch FROM expires_at - updated_at)) FROM idempotency_keys"
        )
        assert {row[0]: int(row[1]) for row in rows} == {"/v1/needed": 60, "/mounted/1": 86400}
    with pytest.raises(TypeError):
        idempotent(tll_s=3)


def test_other_methods_are_left_alone(opened: Open) -> None:
    shop, client = opened()
    for _ in range(2):
        client.get("/v1/orders", headers={KEY: "a"})
        client.patch("/v1/orders", headers={KEY: "b"})
    assert len(shop.runs) == 3


def test_another_payload_is_refused(opened: Open) -> None:
    """Of body, path, query, method or media type; the first answer stays."""
    shop, client = opened()
    first = client.post("/v1/orders", content=b"1", headers={KEY: "a"})
    for answer in (
        client.post("/v1/orders", content=b"2", headers={KEY: "a"}),
        client.post("/v1/orders?x=1", content=b"1", headers={KEY: "a"}),
        client.post("/v1/needed", content=b"1", headers={KEY: "a"}),
        client.patch("/v1/orders", content=b"1", headers={KEY: "a"}),
        client.post("/v1/orders", content=b"1", headers={KEY: "a", "Content-Type": "text/plain"}),
    ):
        assert (answer.status_code, kind(answer)) == (422, "key-reused")
    again = client.post("/v1/orders", content=b"1", headers={KEY: "a"})
    assert again.content == first.content
    assert shop.runs == ["order"]


def test_two_callers_equal_keys_do_not_meet(opened: Open, store: Store) -> None:
    """By their Authorization header, of which nothing readable is stored."""
    shop, client = opened()
    for token in ("one", "two", "one"):
        client.post("/v1/orders", headers={KEY: "a", "Authorization": f"Bearer {token}-secret"})
    assert len(shop.runs) == 2
    with store.transaction() as tx:
        stored = tx.exec_driver_sql("SELECT string_agg(k::text, '') FROM idempotency_keys k")
        assert "secret" not in stored.scalar_one()
    other, client = opened(caller=lambda scope: scope["client"][0])
    for token in ("one", "two"):
        client.post("/v1/orders", headers={KEY: "a", "Authorization": token})
    assert len(other.runs) == 1


def test_after_its_life_a_key_is_a_new_one(opened: Open, store: Store) -> None:
    shop, client = opened()
    for _ in range(2):
        client.post("/v1/orders", content=b"1", headers={KEY: "a"})
    expire(store, "a")
    assert client.post("/v1/orders", content=b"2", headers={KEY: "a"}).content == b"<2>"
    assert len(shop.runs) == 2


# ---------------------------------------------------------------------- at the same time


def test_while_it_runs_409(opened: Open) -> None:
    shop, client = opened()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/slow", headers={KEY: "a"})
        assert shop.started.acquire(timeout=20)
        busy = client.post("/v1/slow", headers={KEY: "a"})
        assert (busy.status_code, kind(busy)) == (409, "in-progress")
        assert busy.headers["retry-after"] == "1"
        reused = client.post("/v1/slow", content=b"1", headers={KEY: "a"})
        assert kind(reused) == "key-reused"
        shop.gate.set()
        assert first.result().json() == {"run": 1}
    assert client.post("/v1/slow", headers={KEY: "a"}).json() == {"run": 1}


def test_by_setting_it_waits(opened: Open) -> None:
    shop, client = opened(default=Policy(wait_s=20))
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.post, "/v1/slow", headers={KEY: "a"}) for _ in range(3)]
        assert shop.started.acquire(timeout=20)
        shop.gate.set()
        assert [answer.result().json() for answer in answers] == [{"run": 1}] * 3
    short, client = opened(default=Policy(wait_s=0.05))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/slow", headers={KEY: "b"})
        assert short.started.acquire(timeout=20)
        assert kind(client.post("/v1/slow", headers={KEY: "b"})) == "in-progress"
        short.gate.set()
        assert first.result().status_code == 200


def test_who_waits_for_one_that_fails_runs_itself(opened: Open) -> None:
    shop, client = opened(default=Policy(wait_s=20))
    shop.gate.set()
    shop.status = 503
    assert client.post("/v1/orders", headers={KEY: "a"}).status_code == 503
    shop.status = 200
    assert client.post("/v1/orders", headers={KEY: "a"}).headers["x-run"] == "2"


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("status", "runs"), [(200, 1), (404, 1), (422, 1), (408, 2), (425, 2), (429, 2), (500, 2)]
)
def test_which_answers_are_kept(opened: Open, status: int, runs: int) -> None:
    shop, client = opened()
    shop.status = status
    for _ in range(2):
        assert client.post("/v1/orders", headers={KEY: "a"}).status_code == status
    assert len(shop.runs) == runs


@pytest.mark.parametrize(
    ("errors", "answers", "kinds"),
    [
        ("release", [500, 500], ["created", "created"]),
        ("in_doubt", [500, 409], ["created", "idempotency-outcome-unknown"]),
    ],
)
def test_an_exception_is_what_the_policy_says(
    opened: Open, errors: str, answers: list[int], kinds: list[str]
) -> None:
    policy = Policy(server_errors=errors)  # type: ignore[arg-type]
    for path in ("/v1/broken", "/v1/orders"):
        shop, client = opened(default=policy)
        shop.status = 500
        headers = {KEY: path, "Connection": "close"}
        got = [client.post(path, headers=headers).status_code for _ in range(2)]
        assert (got, shop.seen) == (answers, kinds)


def test_server_errors_can_be_answers(opened: Open) -> None:
    shop, client = opened(default=Policy(server_errors="store"))
    shop.status = 503
    for _ in range(2):
        assert client.post("/v1/orders", headers={KEY: "a"}).status_code == 503
    assert len(shop.runs) == 1
    headers = {KEY: "b", "Connection": "close"}  # uvicorn closes it after an exception
    codes = [client.post("/v1/broken", headers=headers).status_code for _ in range(2)]
    assert codes == [500, 409]  # an exception is no answer that could be stored


def died(store: Store, path: str) -> None:
    """A request whose process was killed in the middle."""
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    assert store.claim("a", request_digest(scope, b"")).claim is not None
    lapse(store, "a")


def test_p4_an_unknown_outcome_is_said_to_be_unknown(opened: Open, store: Store) -> None:
    """Not run again, and not called a failure; by the route's policy it runs again."""
    shop, client = opened()
    died(store, "/v1/orders")
    for _ in range(2):
        answer = client.post("/v1/orders", headers={KEY: "a"})
        assert (answer.status_code, kind(answer)) == (409, "outcome-unknown")
        assert "retry-after" not in answer.headers
    assert shop.runs == []
    expire(store, "a")
    died(store, "/v1/again")
    assert client.post("/v1/again", headers={KEY: "a"}).json() == 1


def test_a_late_answer_gives_way_to_the_one_that_stands(opened: Open, store: Store) -> None:
    """Frozen for longer than its lease: both clients get the answer that was stored."""
    shop, client = opened(default=Policy(on_takeover="run_again"))
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(client.post, "/v1/slow", headers={KEY: "a"})
        assert shop.started.acquire(timeout=20)
        lapse(store, "a")
        claim = store.claim("a", _digest_of_slow(), resolving=True).claim
        assert claim is not None
        head = {"kind": "http", "status": 200, "headers": [["x-who", "the second"]], "kept": True}
        store.finish(claim, head, b"2")
        shop.gate.set()
        assert (late.result().text, late.result().headers["x-who"]) == ("2", "the second")


def _digest_of_slow() -> str:
    scope = {"type": "http", "method": "POST", "path": "/v1/slow", "headers": []}
    return request_digest({**scope, "query_string": b""}, b"")


def test_the_database_away(opened: Open, store: Store) -> None:
    """Before the app: 503, nothing has run. After it: the answer is true, and is sent."""
    shop, client = opened()
    with store.transaction() as tx:
        tx.exec_driver_sql("ALTER TABLE idempotency_keys RENAME TO away")
    store.unavailable = (Exception,)
    answer = client.post("/v1/orders", headers={KEY: "a"})
    assert (answer.status_code, kind(answer)) == (503, "unavailable")
    assert shop.runs == []
    with store.transaction() as tx:
        tx.exec_driver_sql("ALTER TABLE away RENAME TO idempotency_keys")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/slow", headers={KEY: "a"})
        assert shop.started.acquire(timeout=20)
        with store.transaction() as tx:
            tx.exec_driver_sql("ALTER TABLE idempotency_keys RENAME TO away")
        shop.gate.set()
        assert first.result().json() == {"run": 1}
        with store.transaction() as tx:
            tx.exec_driver_sql("ALTER TABLE away RENAME TO idempotency_keys")
    lapse(store, "a")
    assert kind(client.post("/v1/slow", headers={KEY: "a"})) == "outcome-unknown"


def test_a_client_that_goes_does_not_stop_its_request(opened: Open, store: Store) -> None:
    """It ends, and its answer waits for the next one."""
    shop, client = opened(default=Policy(wait_s=20))
    head = f"POST /v1/slow HTTP/1.1\r\nHost: localhost\r\n{KEY}: a\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as gone:
        gone.sendall(head.encode())
        assert shop.started.acquire(timeout=20)
    shop.gate.set()
    assert client.post("/v1/slow", headers={KEY: "a"}).json() == {"run": 1}
    assert shop.runs == ["slow"]


def test_a_server_that_cancels_does_not_stop_a_request(store: Store) -> None:
    """Some servers cancel the task of a client that has gone: the body ends, and is stored."""
    runs: list[str] = []

    async def scenario() -> list[Any]:
        started, go, sent = asyncio.Event(), asyncio.Event(), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            runs.append("run")
            started.set()
            await go.wait()
            await Response(b"done")(scope, receive, send)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        middleware = IdempotencyMiddleware(app, store, default=Policy(wait_s=20))
        headers = [(b"idempotency-key", b"a")]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        first = asyncio.ensure_future(middleware(dict(scope), receive, send))
        await started.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        sent.clear()
        await middleware(dict(scope), receive, send)
        return sent

    sent = asyncio.run(scenario())
    assert runs == ["run"]
    assert sent[-1]["body"] == b"done"


def test_a_claim_that_nobody_waits_for_is_given_back(store: Store) -> None:
    """The database was slow and the client has its 503: nothing ran, and nothing is in doubt."""
    claiming = _Claiming(store, _Asked("", "a", "a" * 64, b"", Policy()), resolving=False)
    claiming.give_up()
    assert claiming().claim is not None
    stands = store.look("a")
    assert stands is not None and (stands.state, stands.in_doubt) == (State.PENDING, False)


def test_a_client_that_goes_within_its_body_has_asked_for_nothing(opened: Open) -> None:
    shop, client = opened()
    head = f"POST /v1/orders HTTP/1.1\r\nHost: x\r\n{KEY}: a\r\nContent-Length: 9\r\n\r\nhalf"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as gone:
        gone.sendall(head.encode())
    assert client.post("/v1/orders", content=b"whole", headers={KEY: "a"}).content == b"<whole>"
    assert shop.runs == ["order"]


# ---------------------------------------------------------------------- bounds and streams


def test_a_body_over_the_bound_is_refused(opened: Open) -> None:
    shop, client = opened(default=SMALL)
    answer = client.post("/v1/orders", content=b"x" * (LIMIT + 1), headers={KEY: "a"})
    assert (answer.status_code, kind(answer)) == (413, "body-too-large")
    assert client.post("/v1/orders", content=b"x" * (LIMIT + 1)).status_code == 201
    assert shop.runs == ["order"]


@pytest.mark.parametrize(
    "path", [f"/v1/stream/{LIMIT // 100 + 1}", "/v1/stream/2?kind=text/event-stream"]
)
def test_a_stream_over_the_bound_is_sent_and_never_run_again(opened: Open, path: str) -> None:
    shop, client = opened(default=SMALL)
    first = client.post(path, headers={KEY: "a"})
    assert first.status_code == 200 and len(first.content) in (200, LIMIT + 100)
    again = client.post(path, headers={KEY: "a"})
    assert (again.status_code, kind(again)) == (409, "answer-not-kept")
    assert "answered with 200" in again.json()["detail"]
    assert shop.runs == ["stream"]


def test_a_stream_within_the_bound_is_kept(opened: Open) -> None:
    shop, client = opened(default=SMALL)
    got = [client.post(f"/v1/stream/{LIMIT // 100}", headers={KEY: "a"}).content for _ in "12"]
    assert got == [b"x" * LIMIT] * 2
    assert shop.runs == ["stream"]


def test_the_answer_does_not_wait_for_background_work(opened: Open) -> None:
    shop, client = opened()
    for _ in range(2):
        assert client.post("/v1/after", headers={KEY: "a"}).json() == 1
    shop.gate.set()
    assert shop.ended.acquire(timeout=20)
    assert shop.runs == ["after"]


def test_only_http_is_touched(store: Store) -> None:
    """Websockets and the lifespan pass through as they are, whatever their headers say."""
    passed: list[tuple[object, ...]] = []

    async def app(*asgi: object) -> None:
        passed.append(asgi)

    async def receive() -> Any: ...
    async def send(message: Any) -> None: ...

    middleware = IdempotencyMiddleware(app, store)
    for type_ in ("websocket", "lifespan"):
        scope = {"type": type_, "headers": [(b"idempotency-key", b'"')]}
        asyncio.run(middleware(scope, receive, send))
        (got,) = passed
        assert got[0] is scope and got[1:] == (receive, send)
        passed.clear()
