"""What every answer to POST /orders is taken for, over a real socket: the table of the design."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.brokers import wire
from tests.brokers.conftest import make_broker
from tests.brokers.samples import COID, order_json, request
from tests.brokers.wire import Act, WireServer, answer, html
from torghut.brokers.alpaca import AlpacaBroker
from torghut.ports import Outcome

Serve = Callable[..., tuple[WireServer, AlpacaBroker]]

ACCEPTED, IN_DOUBT, EXISTS, REFUSED, ACCOUNT_REFUSED, RATE_LIMITED, NEVER_LEFT = Outcome


def error(status: int, code: int | None, message: str) -> Act:
    body = {"message": message} if code is None else {"code": code, "message": message}
    return answer(status, body)


ANSWERS: list[tuple[str, Act, Outcome]] = [
    # taken
    ("accepted", answer(200, order_json()), ACCEPTED),
    ("accepted, unknown status", answer(200, order_json(status="queued_on_mars")), ACCEPTED),
    ("accepted, unknown type", answer(200, order_json(type="pegged", new_field=[1])), ACCEPTED),
    ("accepted, rejected at once", answer(200, order_json(status="rejected")), ACCEPTED),
    ("accepted, nulls", answer(200, order_json(submitted_at=None, updated_at=None)), ACCEPTED),
    ("created", answer(201, order_json()), ACCEPTED),
    # 200, but not an order of ours that can be read
    ("other id", answer(200, order_json(client_order_id="somebody else's")), IN_DOUBT),
    ("no id", answer(200, order_json(id=None)), IN_DOUBT),
    ("no client id", answer(200, {"id": "x", "status": "new"}), IN_DOUBT),
    ("no status", answer(200, order_json(status="")), IN_DOUBT),
    ("bad time", answer(200, order_json(created_at="yesterday")), IN_DOUBT),
    ("bad quantity", answer(200, order_json(filled_qty="many")), IN_DOUBT),
    ("NaN quantity", answer(200, order_json(filled_qty="NaN")), IN_DOUBT),
    ("vast quantity", answer(200, order_json(filled_qty="1e999999")), IN_DOUBT),
    (
        "filled without quantity",
        answer(200, order_json(status="filled", filled_qty=None)),
        IN_DOUBT,
    ),
    ("NaN literal", answer(200, b'{"id": NaN}'), IN_DOUBT),
    ("empty", answer(200, b""), IN_DOUBT),
    ("null", answer(200, b"null"), IN_DOUBT),
    ("list", answer(200, [order_json()]), IN_DOUBT),
    ("text", answer(200, "OK"), IN_DOUBT),
    ("page", html(200), IN_DOUBT),
    ("not UTF-8", answer(200, b'{"id": "\xff\xfe"}'), IN_DOUBT),
    ("too deep", answer(200, b"[" * 200_000), IN_DOUBT),
    ("not gzip", answer(200, b"nonsense", {"Content-Encoding": "gzip"}), IN_DOUBT),
    ("half JSON", answer(200, json.dumps(order_json())[:-20]), IN_DOUBT),
    ("no content", answer(204, b""), IN_DOUBT),
    ("redirect", answer(302, b"", {"Location": "/v2/orders"}), IN_DOUBT),
    ("redirect, same method", answer(307, b"", {"Location": "/v2/orders"}), IN_DOUBT),
    # story 6: it exists, whatever the code and the status
    ("duplicate", error(422, 40010001, "client_order_id must be unique"), EXISTS),
    ("duplicate, other code", error(422, 42210000, "client_order_id must be unique"), EXISTS),
    ("duplicate, 409", error(409, 40910000, "client_order_id must be unique"), EXISTS),
    ("duplicate, no code", error(422, None, "Client_Order_ID must be unique."), EXISTS),
    ("duplicate, 400", error(400, 40010001, "client_order_id must be unique"), EXISTS),
    # about the keys or the account
    ("401", error(401, None, "unauthorized."), ACCOUNT_REFUSED),
    ("401 page", html(401), ACCOUNT_REFUSED),
    ("401 empty", answer(401, b""), ACCOUNT_REFUSED),
    ("403 forbidden", error(403, None, "forbidden."), ACCOUNT_REFUSED),
    ("403 unauthorised", error(403, 40110000, "request is not authorized"), ACCOUNT_REFUSED),
    (
        "403 key",
        error(403, 40110000, "access key verification failed : verification failure"),
        ACCOUNT_REFUSED,
    ),
    ("not authorised", error(403, 40310000, "account is not authorized to trade"), ACCOUNT_REFUSED),
    (
        "liquidation only",
        error(403, 40310000, "account is restricted to liquidation only"),
        ACCOUNT_REFUSED,
    ),
    (
        "suspended by user",
        error(403, 40310000, "new orders are rejected by user request"),
        ACCOUNT_REFUSED,
    ),
    ("blocked", error(403, 40310000, "account is blocked"), ACCOUNT_REFUSED),
    # story 7: refusals of this order are definite
    ("no short", error(403, 40310000, "account is not allowed to short"), REFUSED),
    ("buying power", error(403, 40310000, "insufficient buying power"), REFUSED),
    (
        "qty held",
        error(403, 40310000, "insufficient qty available for order (requested: 2, available: 1)"),
        REFUSED,
    ),
    (
        "wash",
        error(403, 40310000, "potential wash trade detected. use complex orders"),
        REFUSED,
    ),
    (
        "cost basis",
        error(403, 40310000, "cost basis must be >= minimal amount of order 1"),
        REFUSED,
    ),
    ("fraction", error(403, 40310000, 'asset "OCGN" is not fractionable'), REFUSED),
    (
        "opg window",
        error(403, 40310000, "opg orders must be submitted after 7:00pm and before 9:28am"),
        REFUSED,
    ),
    (
        "PDT",
        error(403, 40310100, "trade denied due to pattern day trading protection"),
        REFUSED,
    ),
    ("asset", error(422, 42210000, 'asset "ZZZZ" not found'), REFUSED),
    ("inactive asset", error(422, 40010001, "asset WBD is not active"), REFUSED),
    ("validation", error(422, 40010001, "qty must be > 0"), REFUSED),
    ("bad body", error(400, 40010000, "request body format is invalid"), REFUSED),
    ("404 of the broker", error(404, 40410000, "asset not found for ZZZZ"), REFUSED),
    # 4xx that are nobody's definite word about this order
    ("403 page", html(403), IN_DOUBT),
    ("403 without message", answer(403, {"error": "denied"}), IN_DOUBT),
    ("404 page", html(404), IN_DOUBT),
    ("404 of a gateway", error(404, None, "no Route matched with those values"), IN_DOUBT),
    ("400 page", html(400), IN_DOUBT),
    ("422 empty", answer(422, b""), IN_DOUBT),
    ("422 list", answer(422, [1]), IN_DOUBT),
    ("405", error(405, 40510000, "method not allowed"), IN_DOUBT),
    ("408", error(408, 40810000, "request timeout"), IN_DOUBT),
    ("409 other", error(409, 40910000, "conflict"), IN_DOUBT),
    ("413", html(413), IN_DOUBT),
    ("425", html(425), IN_DOUBT),
    # not taken
    ("429", error(429, 42910000, "rate limit exceeded"), RATE_LIMITED),
    ("429 page", html(429), RATE_LIMITED),
    ("429 empty", answer(429, b""), RATE_LIMITED),
    # may have been taken
    ("500", error(500, 50010000, "internal server error occurred"), IN_DOUBT),
    ("500 page", html(500), IN_DOUBT),
    ("502 page", html(502), IN_DOUBT),
    ("503", error(503, None, "service unavailable"), IN_DOUBT),
    ("504 page", html(504), IN_DOUBT),
    ("504 that looks definite", error(504, 42210000, "client_order_id must be unique"), IN_DOUBT),
    ("status 600", html(600), IN_DOUBT),
    ("closed without answer", wire.close, IN_DOUBT),
    ("reset after reading", wire.reset_after_reading, IN_DOUBT),
    ("truncated", wire.truncated, IN_DOUBT),
    ("truncated chunks", wire.truncated_chunks, IN_DOUBT),
    ("no HTTP", lambda exchange: exchange.peer.sendall(b"SSH-2.0-x\r\n\r\n"), IN_DOUBT),
]


@pytest.mark.parametrize(("act", "outcome"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS])
def test_every_answer_has_one_meaning_and_one_post(
    serve: Serve, act: Act, outcome: Outcome
) -> None:
    """Stories 5, 6, 7, 22, 33: classified by status and message, sent exactly once."""
    server, broker = serve(act)
    got = broker.submit(request(), COID)
    assert got.outcome is outcome, got
    assert (got.order is not None) == (outcome is Outcome.ACCEPTED)
    assert got.order is None or got.order.client_order_id == COID
    assert outcome is Outcome.ACCEPTED or got.message
    assert server.count("POST") == len(server.requests) == 1


def test_refusal_keeps_the_evidence(serve: Serve) -> None:
    body = {"code": 40310000, "message": "insufficient buying power", "buying_power": "1.5"}
    _, broker = serve(answer(403, body, {"X-Request-ID": "req-7"}))
    got = broker.submit(request(), COID)
    assert (got.http_status, got.broker_code, got.request_id) == (403, "40310000", "req-7")
    assert got.message == "insufficient buying power"
    assert got.body == json.dumps(body)


def test_long_bodies_are_cut_and_always_storable(serve: Serve) -> None:
    """Story 28: a NUL or a lone surrogate must not block the row that records the answer."""
    message = "x\0y\ud800" + "z" * 9000
    _, broker = serve(answer(422, {"code": 1, "message": message}))
    got = broker.submit(request(), COID)
    assert got.body is not None and len(got.body.encode()) <= 4096
    assert got.outcome is Outcome.REFUSED and got.message.startswith("x\ufffdy?zzz")
    _, broker = serve(answer(500, b"\0\xff" * 9000))
    got = broker.submit(request(), COID)
    assert got.body is not None and "\0" not in got.body and len(got.body.encode()) <= 4096


def test_rate_limit_says_when(serve: Serve) -> None:
    reset = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
    headers = {
        "X-RateLimit-Limit": "200",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(reset.timestamp())),
        "Retry-After": "7",
    }
    _, broker = serve(html(429, headers))
    assert broker.submit(request(), COID).retry_at == reset
    rate = broker.rate_state()
    assert (rate.limit, rate.remaining, rate.reset_at) == (200, 0, reset)


def test_rate_limit_by_retry_after(serve: Serve) -> None:
    before = datetime.fromtimestamp(time.time(), UTC)
    _, broker = serve(html(429, {"Retry-After": "600"}))
    retry_at = broker.submit(request(), COID).retry_at
    assert retry_at is not None and retry_at - before >= timedelta(seconds=600)


@pytest.mark.parametrize("reset", ["soon", "", "-5", "1e9", "9" * 15, "9" * 400])
def test_rate_limit_with_a_useless_reset(serve: Serve, reset: str) -> None:
    _, broker = serve(html(429, {"X-RateLimit-Reset": reset, "Retry-After": "Wed, 21 Oct"}))
    got = broker.submit(request(), COID)
    assert (got.outcome, got.retry_at) == (Outcome.RATE_LIMITED, None)


def test_rate_state_is_of_the_newest_answer(serve: Serve) -> None:
    answers = iter([{"X-RateLimit-Remaining": "9"}, {}])

    def act(exchange: wire.Exchange) -> bool | None:
        return answer(200, order_json(), next(answers))(exchange)

    _, broker = serve(act)
    assert broker.rate_state().remaining is None
    broker.submit(request(), COID)
    assert broker.rate_state().remaining == 9
    broker.submit(request(), COID)
    assert broker.rate_state().remaining is None


def test_amounts_are_exact_on_the_wire(serve: Serve) -> None:
    server, broker = serve(answer(200, order_json()))
    broker.submit(request(qty="0.123456789", limit_price="0.1"), COID)
    broker.submit(request(qty="1234567890123456789", limit_price=0.1), COID)
    broker.submit(request(type="market", qty=None, limit_price=None, notional="1e3"), COID)
    first, second, third = (r.json for r in server.requests)
    assert (first["qty"], first["limit_price"]) == ("0.123456789", "0.1")
    assert (second["qty"], second["limit_price"]) == ("1234567890123456789", "0.1")
    assert third["notional"] == "1000" and "qty" not in third
    assert all(r.path == "/v2/orders" for r in server.requests)
    assert first["client_order_id"] == COID


def test_legs_are_sent(serve: Serve) -> None:
    server, broker = serve(answer(200, order_json()))
    order = request(
        order_class="bracket",
        take_profit={"limit_price": "110.10"},
        stop_loss={"stop_price": "90.05", "limit_price": "89.95"},
        time_in_force="gtc",
    )
    broker.submit(order, COID)
    sent = server.requests[0].json
    assert sent["order_class"] == "bracket"
    assert sent["take_profit"] == {"limit_price": "110.1"}
    assert sent["stop_loss"] == {"stop_price": "90.05", "limit_price": "89.95"}


def test_amounts_are_exact_from_the_wire(serve: Serve) -> None:
    """JSON numbers too: nothing passes through a float."""
    body = json.dumps(order_json(filled_avg_price="AVG", qty="QTY", status="partially_filled"))
    body = body.replace('"AVG"', "0.1000000000000000055").replace('"QTY"', "9007199254740993")
    _, broker = serve(answer(200, body))
    order = broker.submit(request(), COID).order
    assert order is not None
    assert order.avg_px == Decimal("0.1000000000000000055")
    assert order.qty == Decimal("9007199254740993")
    assert order.created_at == datetime(2026, 10, 5, 14, 30, 0, 123456, tzinfo=UTC)
    assert json.loads(json.dumps(order.raw)) == order.raw


def test_compressed_answers_are_read(serve: Serve) -> None:
    body = gzip.compress(json.dumps(order_json()).encode())
    _, broker = serve(answer(200, body, {"Content-Encoding": "gzip"}))
    assert broker.submit(request(), COID).outcome is Outcome.ACCEPTED


def test_after_close_nothing_leaves(serve: Serve) -> None:
    server, broker = serve(answer(200, order_json()))
    broker.close()
    assert broker.submit(request(), COID).outcome is Outcome.NEVER_LEFT
    assert server.connections == 0


def test_a_reset_before_the_request_was_read_is_in_doubt() -> None:
    """The server knows that it read nothing; we cannot."""
    with WireServer(answer(200, order_json()), refuse_before_reading=True) as server:
        broker = make_broker(server.url)
        assert broker.submit(request(), COID).outcome is Outcome.IN_DOUBT
        assert server.connections == 1 and not server.requests
        broker.close()
