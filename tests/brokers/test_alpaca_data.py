"""Quotes and daily bars over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import structlog

from tests.brokers import wire
from tests.brokers.samples import KEY, SECRET
from tests.brokers.wire import Act, Exchange, Request, WireServer, answer, html
from torghut.brokers.alpaca_data import AlpacaMarketData
from torghut.domain.errors import BrokerRefused, BrokerUnavailable

QUOTE = {"t": "2026-10-05T14:30:00.123456789Z", "bp": 100.1, "ap": 100.3, "bs": 1, "as": 2}


@contextmanager
def serving(act: Act, **options: object) -> Iterator[tuple[WireServer, AlpacaMarketData]]:
    with WireServer(act) as server:
        data = AlpacaMarketData(
            key_id=KEY, secret_key=SECRET, data_url=server.url, timeout_s=5, **options
        )
        yield server, data
        data.close()


def by_request(make: object) -> Act:
    def act(exchange: Exchange) -> bool | None:
        made = make(exchange.request)  # type: ignore[operator]
        return (made if callable(made) else answer(200, made))(exchange)

    return act


def quotes_for(request: Request) -> object:
    return {"quotes": dict.fromkeys(request.query["symbols"].split(","), QUOTE)}


def test_quotes_of_stocks_and_pairs() -> None:
    with serving(by_request(quotes_for)) as (server, data):
        got = data.quotes(["AAPL", "BTC/USD", "AAPL"])
        assert [r.path for r in server.requests] == [
            "/v2/stocks/quotes/latest",
            "/v1beta3/crypto/us/latest/quotes",
        ]
        assert server.requests[0].query == {"symbols": "AAPL"}
    assert set(got) == {"AAPL", "BTC/USD"}
    assert (got["AAPL"].bid_px, got["AAPL"].ask_px) == (Decimal("100.1"), Decimal("100.3"))
    assert got["AAPL"].quoted_at == datetime(2026, 10, 5, 14, 30, 0, 123456, tzinfo=UTC)


def test_a_side_without_a_price_is_none_and_bad_quotes_are_left_out() -> None:
    rows = {
        "A": {**QUOTE, "bp": 0, "ap": 0.0},
        "B": {**QUOTE, "t": None},
        "C": {**QUOTE, "bp": "?"},
        "D": None,
        "E": QUOTE,
        "UNASKED": QUOTE,
    }
    with (
        serving(answer(200, {"quotes": rows})) as (_, data),
        structlog.testing.capture_logs() as logs,
    ):
        got = data.quotes("ABCDE")
    assert set(got) == {"A", "E"} and len(logs) == 3
    assert (got["A"].bid_px, got["A"].ask_px) == (None, None)


def test_symbols_go_by_the_hundred() -> None:
    symbols = [f"S{n}" for n in range(250)]
    with serving(by_request(quotes_for)) as (server, data):
        assert [*data.quotes(symbols)] == symbols
        assert [r.query["symbols"].count(",") + 1 for r in server.requests] == [100, 100, 50]


def test_one_bad_symbol_costs_no_other_its_quote() -> None:
    def make(request: Request) -> object:
        if "BAD_" in request.query["symbols"].split(","):
            return answer(400, {"message": "invalid symbol: BAD_"})
        return quotes_for(request)

    symbols = ["A", "B", "BAD_", "C", "D"]
    with serving(by_request(make)) as (_, data), structlog.testing.capture_logs() as logs:
        assert [*data.quotes(symbols)] == ["A", "B", "C", "D"]
    assert [entry["symbol"] for entry in logs] == ["BAD_"]


def bar(day: str, close: object) -> dict[str, object]:
    return {"t": day, "o": 1, "h": "2", "l": 0.5, "c": close, "v": 1000, "n": 3, "vw": 1.1}


def test_daily_bars_are_paged_ascending_and_end_with_the_session() -> None:
    pages = {
        None: ({"A": [bar("2026-01-02T05:00:00Z", 1.1), bar("2026-01-05T05:00:00Z", 1.2)]}, "p2"),
        "p2": (
            {
                "A": [bar("2026-07-06T04:00:00Z", 1.3), bar("2026-07-07T04:00:00Z", 9.9)],
                "B": [bar("2026-07-07T04:00:00Z", 9.9)],
            },
            None,
        ),
    }

    def make(request: Request) -> object:
        bars, token = pages[request.query.get("page_token")]
        return {"bars": bars, "next_page_token": token}

    with serving(by_request(make), feed="iex") as (server, data):
        got = data.daily_bars(["A", "B"], end=date(2026, 7, 6), count=2)
        first = server.requests[0].query
    assert (first["timeframe"], first["adjustment"], first["feed"]) == ("1Day", "raw", "iex")
    assert first["end"] == "2026-07-07T00:00:00.000000Z"
    assert {s: [b.session for b in bars] for s, bars in got.items()} == {
        "A": [date(2026, 1, 5), date(2026, 7, 6)]
    }
    assert got["A"][1].close == Decimal("1.3")
    assert (got["A"][1].low, got["A"][1].volume) == (Decimal("0.5"), 1000)


@pytest.mark.parametrize("act", [html(500), html(404), wire.close, answer(200, "x"), html(429)])
def test_failed_questions(act: Act) -> None:
    with serving(act) as (server, data):
        with pytest.raises(BrokerUnavailable):
            data.quotes(["A"])
        with pytest.raises(BrokerUnavailable):
            data.daily_bars(["A"], end=date(2026, 7, 6), count=2)
        assert len(server.requests) == 2


def test_refused_keys() -> None:
    with serving(answer(403, {"message": "forbidden."})) as (_, data):
        with pytest.raises(BrokerRefused, match="forbidden"):
            data.quotes(["A"])
        with pytest.raises(BrokerRefused):
            data.quotes(["BTC/USD"])


def test_pages_without_end_are_given_up() -> None:
    with (
        serving(answer(200, {"bars": {}, "next_page_token": "again"})) as (_, data),
        pytest.raises(BrokerUnavailable, match="pages"),
    ):
        data.daily_bars(["A"], end=date(2026, 7, 6), count=1)
