"""Pages over HTTP: paging, charts, exports, streams that end with their server."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest

from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from tests.web.test_away import away
from torghut.web.console.charts import drawdown, line_chart

HASH = re.compile(r'href="/console/decisions/([0-9a-f]{64})"')
NOW = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)


def submit(served: Served, count: int) -> set[str]:
    """Store decisions; their hashes."""
    return {
        served.client.post("/v1/decisions", json=decision_json(intent=str(n))).json()[
            "decision_hash"
        ]
        for n in range(count)
    }


def test_older_pages_have_every_decision_once(served: Served) -> None:
    """Keyset paging: what is new meanwhile moves nothing between pages."""
    stored = submit(served, 25)
    seen: list[str] = []
    path = "/console/decisions?limit=10&strategy=sample&status="
    while path:
        page = served.client.get(path)
        assert page.status_code == 200
        seen += HASH.findall(page.text)
        submit(served, 26)  # one more that is new, and 25 that are known
        following = re.search(r'rel="next" href="([^"]+)"', page.text)
        path = following.group(1).replace("&amp;", "&") if following else ""
    assert len(seen) == 25 and set(seen) == stored


def test_empty_pages_say_what_to_do(served: Served) -> None:
    for path, hint in (
        ("/", "torghut demo"),
        ("/console/decisions", "torghut submit FILE"),
        ("/console/orders", "torghut submit FILE"),
        ("/console/positions", "/console/fills"),
        ("/console/fills", "/console/orders"),
        ("/console/pnl", "/console/fills"),
        ("/console/risk", "torghut submit FILE"),
        ("/console/attention", "Nothing waits for you"),
        ("/console/strategies", "[strategies.NAME]"),
        ("/console/audit", "Nobody has done anything"),
    ):
        page = served.client.get(path)
        assert page.status_code == 200 and hint in page.text, path


def test_limits_in_force_are_shown_with_their_origin(serve: Serve) -> None:
    page = serve(risk={"max_order_notional": "1234"}).client.get("/console/risk").text
    row = re.search(r"<tr[^>]*><th scope=\"row\">max_order_notional.*?</tr>", page, re.S)
    assert row and "1234" in row.group() and "risk" in row.group()


def test_profit_is_exported_as_csv(served: Served) -> None:
    answer = served.client.get("/console/pnl.csv?by=symbol")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "torghut-pnl-by-symbol.csv" in answer.headers["content-disposition"]
    (header,) = csv.reader(io.StringIO(answer.text))
    assert header[:3] == ["symbol", "positions", "realized_pl"]


def test_a_database_that_is_away_is_said_on_a_page(
    served: Served, database_url: str, postgres_url: str
) -> None:
    """503 in words, also for an action, which is not done; then all is as before."""
    csrf = re.search(r'name="csrf" value="(\w+)"', served.client.get("/").text)
    assert csrf
    form = {"csrf": csrf.group(1), "state": "halted", "reason": "why"}
    with away(database_url, postgres_url):
        page = served.client.get("/console/orders")
        assert page.status_code == 503 and "load the page again" in page.text
        assert served.client.post("/console/trading-state", data=form).status_code == 503
    page = served.client.get("/")
    assert page.status_code == 200 and "Trading is active" in page.text


def test_an_order_that_nobody_knows_is_not_canceled(served: Served) -> None:
    csrf = re.search(r'name="csrf" value="(\w+)"', served.client.get("/").text)
    assert csrf
    form = {"csrf": csrf.group(1), "broker_order_id": "x", "key": "k", "reason": "why"}
    answer = served.client.post("/console/cancel", data=form)
    assert answer.status_code == 422 and "no open order of somebody else" in answer.text


def test_charts_are_pictures_and_nothing_else() -> None:
    """pygal's own style and script are taken out; the picture says in words what it shows."""
    points = [(NOW + timedelta(days=n), Decimal(100 + n)) for n in range(30)]
    chart = line_chart(points, said="from <b>100</b>")
    assert chart.startswith("<svg") and 'role="img"' in chart and "&lt;b&gt;" in chart
    assert not re.search(r"<(style|script|defs|desc|foreignObject)|style=|http://pygal", chart)
    flat = line_chart([(NOW, Decimal(5)), (NOW, Decimal(5))], said="flat")
    assert flat.startswith("<svg")


def test_drawdown_is_measured_from_the_highest_before() -> None:
    points = [(NOW, Decimal(value)) for value in (100, 120, 90, 120, 130)]
    assert [depth for _, depth in drawdown(points)] == [0, 0, -25, 0, 0]
    assert drawdown([(NOW, Decimal(0))])[0][1] == 0


def read_to_the_end(served: Served) -> None:
    """Listen to the stream, have the server end, and read what is left of it."""
    with served.client.stream("GET", "/console/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        chunks = stream.iter_bytes()
        assert next(chunks).startswith(b"retry:")
        served.server.stop()
        for _ in chunks:
            pass


def test_a_stream_ends_with_its_server(serve: Serve) -> None:
    """The end of a daemon does not wait for open pages. Control: a stream that is not ended."""
    read_to_the_end(serve())
    with pytest.raises(httpx.RemoteProtocolError):
        read_to_the_end(serve(end_streams=False))
