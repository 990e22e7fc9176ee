"""How calls are carried: no retries, bounded in time, never left or in doubt, proxies, secrets.

No test measures time: a caller that is not released runs into pytest's own timeout.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import structlog
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from alpaca.trading.client import TradingClient

from tests.brokers import wire
from tests.brokers.conftest import make_broker
from tests.brokers.samples import COID, KEY, SECRET, order_json, request
from tests.brokers.wire import Act, WireServer, answer, html
from torghut.brokers import alpaca_transport
from torghut.brokers.alpaca import AlpacaBroker
from torghut.domain.errors import BrokerRefused, BrokerUnavailable, ConfigError
from torghut.ports import Answer, Outcome

Serve = Callable[..., tuple[WireServer, AlpacaBroker]]
SHORT_S = 0.3


@pytest.mark.parametrize("status", [429, 504])
def test_control_stock_alpaca_py_posts_again(status: int) -> None:
    """Stories 5, 33. The control: without our transport the same server sees four POSTs."""
    with WireServer(html(status)) as server:
        client = TradingClient(KEY, SECRET, raw_data=True, url_override=server.url)
        client._retry_wait = 0
        with pytest.raises(APIError):
            client.post("/orders", {"client_order_id": COID})
        assert server.count("POST") == 4


@pytest.mark.parametrize("status", [429, 504])
def test_one_post_on_429_and_504(serve: Serve, status: int) -> None:
    server, broker = serve(html(status))
    broker.submit(request(), COID)
    assert server.count("POST") == 1


@pytest.mark.parametrize("status", [429, 504])
def test_one_delete_and_one_patch_on_429_and_504(serve: Serve, status: int) -> None:
    """The SDK re-sends these too; a cancel or a replacement is sent once per attempt."""
    server, broker = serve(html(status))
    wanted = Outcome.RATE_LIMITED if status == 429 else Outcome.IN_DOUBT
    assert broker.cancel("an-id").outcome is wanted
    assert broker.replace("an-id", {"qty": "4"}, f"{COID}-r1").outcome is wanted
    assert (server.count("DELETE"), server.count("PATCH")) == (1, 1)


def test_what_a_replacement_sends_and_what_proves_it(serve: Serve) -> None:
    """Changes as exact text and our id; only an order with that id is an acceptance."""
    server, broker = serve(answer(200, order_json(client_order_id=f"{COID}-r1", replaces="an-id")))
    taken = broker.replace("an/id", {"qty": "0.1"}, f"{COID}-r1")
    assert taken.outcome is Outcome.ACCEPTED
    assert taken.order is not None
    assert taken.order.replaces == "an-id"
    assert server.requests[0].path.endswith("/orders/an%2Fid")
    assert server.requests[0].json == {"qty": "0.1", "client_order_id": f"{COID}-r1"}
    assert broker.replace("an-id", {"qty": "1"}, "other").outcome is Outcome.IN_DOUBT


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (answer(204, ""), Outcome.ACCEPTED),
        (answer(422, {"code": 42210000, "message": "order is already filled"}), Outcome.REFUSED),
        (answer(404, {"code": 40410000, "message": "order not found"}), Outcome.REFUSED),
        (answer(401, {"message": "unauthorized."}), Outcome.ACCOUNT_REFUSED),
        (html(504), Outcome.IN_DOUBT),
        (wire.reset_after_reading, Outcome.IN_DOUBT),
    ],
)
def test_what_the_answer_to_a_cancel_proves(serve: Serve, act: Act, outcome: Outcome) -> None:
    _, broker = serve(act)
    assert broker.cancel("an-id").outcome is outcome


def test_the_shared_retry_codes_stay_as_they_are(serve: Serve) -> None:
    serve(html(504))
    assert TradingClient(KEY, SECRET)._retry_codes == [429, 504]


@pytest.mark.parametrize("act", [wire.hang, wire.drip, wire.drip_chunks, wire.drip_head])
def test_slow_servers_release_the_caller_in_doubt(serve: Serve, act: Act) -> None:
    server, broker = serve(act, timeout_s=SHORT_S)
    got = broker.submit(request(), COID)
    assert (got.outcome, got.order) == (Outcome.IN_DOUBT, None)
    with pytest.raises(BrokerUnavailable):
        broker.lookup(COID)
    assert server.count("POST") == 1


def test_control_requests_timeout_does_not_bound_a_dripping_server() -> None:
    """The control: the read timeout of requests starts anew with every byte."""
    many_drips = 4 * round(SHORT_S / wire.DRIP_S)
    with WireServer(wire.drip) as server:
        response = requests.post(server.url, timeout=SHORT_S, stream=True)
        body = response.iter_content(1)
        assert len([next(body) for _ in range(many_drips)]) == many_drips
        response.close()


@contextmanager
def full_backlog() -> Iterator[str]:
    """A port that never completes a connection: its queue is full and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for filler in fillers:
            filler.close()


def submit_to(url: str) -> Answer:
    broker = make_broker(url, SHORT_S)
    try:
        with pytest.raises(BrokerUnavailable):
            broker.lookup(COID)
        return broker.submit(request(), COID)
    finally:
        broker.close()


def test_connection_refused_never_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert submit_to(f"http://127.0.0.1:{port}").outcome is Outcome.NEVER_LEFT


def test_unknown_host_never_left() -> None:
    got = submit_to("http://no-such-host.invalid")
    assert got.outcome is Outcome.NEVER_LEFT and "no-such-host" in got.message


def test_connect_timeout_never_left() -> None:
    with full_backlog() as url:
        assert submit_to(url).outcome is Outcome.NEVER_LEFT


@pytest.mark.parametrize("act", [html(400), wire.hang], ids=["no TLS", "silent"])
def test_failed_tls_handshake_never_left(act: Act) -> None:
    with WireServer(act) as server:
        url = server.url.replace("http:", "https:")
        assert submit_to(url).outcome is Outcome.NEVER_LEFT
        assert not server.count("POST")


def test_tls_carries_orders_within_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to the real broker: accepted on a kept connection, and a drip is cut off."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(wire.LOCALHOST_PEM))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    acts = iter([answer(200, order_json()), answer(200, order_json()), wire.drip])
    with WireServer(lambda exchange: next(acts)(exchange), tls=True) as server:
        broker = make_broker(server.url, SHORT_S)
        outcomes = [broker.submit(request(), COID).outcome for _ in range(3)]
        broker.close()
        assert outcomes == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.IN_DOUBT]
        assert (server.connections, server.count("POST")) == (1, 3)


def test_an_untrusted_certificate_never_left() -> None:
    with WireServer(answer(200, order_json()), tls=True) as server:
        got = submit_to(server.url)
        assert got.outcome is Outcome.NEVER_LEFT and "CERTIFICATE" in got.message
        assert not server.requests


def test_connecting_too_slowly_never_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that comes after the limit (a slow resolver) is closed unused."""
    server, broker = serve(answer(200, order_json()), timeout_s=SHORT_S)
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr(alpaca_transport.time, "monotonic", lambda: float(next(ticks)))
    assert broker.submit(request(), COID).outcome is Outcome.NEVER_LEFT
    assert not server.requests


def test_a_kept_connection_the_server_then_drops_is_in_doubt(serve: Serve) -> None:
    """The second request may have been read before the connection broke."""
    acts = iter([answer(200, order_json()), wire.close, answer(200, order_json())])
    server, broker = serve(lambda exchange: next(acts)(exchange))
    outcomes = [broker.submit(request(), COID).outcome for _ in range(3)]
    assert outcomes == [Outcome.ACCEPTED, Outcome.IN_DOUBT, Outcome.ACCEPTED]
    assert (server.connections, server.count("POST")) == (2, 3)


def test_connections_are_kept_between_threads(serve: Serve) -> None:
    """Eight threads, 200 orders, each answered with its own; no more connections than threads."""
    server, broker = serve(
        lambda e: answer(200, order_json(client_order_id=e.request.json["client_order_id"]))(e)
    )
    ids = [f"{n:064d}" for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        got = [*pool.map(lambda coid: broker.submit(request(), coid), ids)]
    assert [a.order.client_order_id for a in got if a.order is not None] == ids
    assert server.count("POST") == 200
    assert server.connections <= 8


def test_plain_http_never_goes_through_a_proxy(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY would read the keys."""
    with WireServer(answer(200, order_json())) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        server, broker = serve(answer(200, order_json()))
        assert broker.submit(request(), COID).outcome is Outcome.ACCEPTED
        assert (proxy.connections, server.count("POST")) == (0, 1)


def test_https_proxy_is_asked_for_a_tunnel_and_sees_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with WireServer(html(407)) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert submit_to("https://broker.invalid").outcome is Outcome.NEVER_LEFT
        assert proxy.count("CONNECT") >= 1
        for seen in proxy.requests:
            assert KEY not in str(seen) and SECRET not in str(seen)


def test_netrc_adds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """requests would take credentials for the host from there, over https only."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(wire.LOCALHOST_PEM))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with WireServer(answer(200, order_json()), tls=True) as server:
        broker = make_broker(server.url)
        assert broker.submit(request(), COID).outcome is Outcome.ACCEPTED
        broker.close()
    sent = server.requests[0].headers
    assert "authorization" not in sent
    assert (sent["apca-api-key-id"], sent["apca-api-secret-key"]) == (KEY, SECRET)


def echo(status: int) -> Act:
    """A server that says the keys back in body and headers."""
    page = {"code": 1, "message": f"bad keys {KEY} {SECRET}", "headers": {KEY: SECRET}}
    return answer(status, page, {"X-Request-ID": SECRET})


@pytest.mark.parametrize("status", [200, 401, 403, 422, 500])
def test_secrets_are_in_nothing_that_comes_out(serve: Serve, status: int) -> None:
    server, broker = serve(echo(status))
    got = broker.submit(request(), COID)
    seen = [repr(got)]
    for ask in (lambda: broker.lookup(COID), broker.account, broker.open_orders):
        with pytest.raises((BrokerUnavailable, BrokerRefused)) as raised:
            ask()
        error: BaseException | None = raised.value
        while error is not None:
            seen.append(repr(error))
            error = error.__cause__ or error.__context__
    assert SECRET in server.requests[0].headers["apca-api-secret-key"]
    for text in seen:
        assert KEY not in text and SECRET not in text


def test_secrets_are_not_logged(serve: Serve) -> None:
    _, broker = serve(answer(200, [{"id": SECRET}, order_json()]))
    with structlog.testing.capture_logs() as logs:
        assert len(broker.orders(after=None, limit=5)) == 1
    assert len(logs) == 1 and SECRET not in json.dumps(logs)


def test_an_alpaca_py_without_its_retry_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    init = RESTClient.__init__

    def without_switch(self: RESTClient, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        del self._retry

    monkeypatch.setattr(RESTClient, "__init__", without_switch)
    with pytest.raises(ConfigError, match=r"alpaca-py.*_retry"):
        make_broker("http://127.0.0.1:1")


@pytest.mark.parametrize(
    "url",
    ["paper-api.alpaca.markets", "ftp://x", "https://", "https://a:b@x", "https://x/", "http://["],
)
def test_unusable_urls_are_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="APCA_API_BASE_URL"):
        make_broker(url)


@pytest.mark.parametrize("key", ["", "with\nnewline", "ключ", " blank"])
def test_unusable_keys_are_refused_without_showing_them(key: str) -> None:
    with pytest.raises(ConfigError, match="APCA_API_KEY_ID") as raised:
        AlpacaBroker(key_id=key, secret_key=SECRET, base_url="http://localhost", timeout_s=1)
    assert SECRET not in str(raised.value) and (not key or key not in str(raised.value))
