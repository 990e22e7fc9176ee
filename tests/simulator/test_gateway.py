"""Authentication, headers, rate limit, paging of activities, market data, control API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from alpaca.data.requests import StockBarsRequest, StockLatestQuoteRequest, StockLatestTradeRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.client import TradingClient

from tests.simulator.bench import KEYS, Bench, SimConfig, Simulator, refusal
from torghut.simulator.server import banner

ACCOUNT_KEYS = {
    "account_blocked", "trading_blocked", "transfers_blocked", "trade_suspended_by_user",
    "shorting_enabled", "crypto_tier", "options_approved_level", "options_trading_level",
    "admin_configurations", "user_configurations", "id", "account_number", "status",
    "crypto_status", "currency", "created_at", "balance_asof", "multiplier", "cash", "equity",
    "last_equity", "portfolio_value", "buying_power", "effective_buying_power",
    "regt_buying_power", "non_marginable_buying_power", "options_buying_power",
    "initial_margin", "maintenance_margin", "last_maintenance_margin", "long_market_value",
    "short_market_value", "position_market_value", "sma", "accrued_fees",
    "pending_reg_taf_fees", "intraday_adjustments",
}  # fmt: skip


def test_account(bench: Bench) -> None:
    account = bench.client.get("/account")
    assert set(account) == ACCOUNT_KEYS
    assert (account["cash"], account["buying_power"], account["multiplier"]) == (
        "100000", "400000", "4"
    )  # fmt: skip
    assert bench.client.get_account().cash == "100000"
    assert bench.client.get_account_configurations().no_shorting is False


def test_configuration_round_trip_of_the_sdk(bench: Bench) -> None:
    configuration = bench.client.get_account_configurations()
    configuration.suspend_trade = True
    assert bench.client.set_account_configurations(configuration).suspend_trade is True


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        (KEYS, True),
        ({"Authorization": "Bearer secret"}, True),
        ({"Authorization": "Basic a2V5OnNlY3JldA=="}, True),
        ({}, False),
        ({"APCA-API-KEY-ID": "key"}, False),
        ({"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "wrong"}, False),
        ({"Authorization": "Bearer wrong"}, False),
        ({"Authorization": "Basic !"}, False),
        ({"Authorization": "Basic a2V5Ondyb25n"}, False),
    ],
)
def test_credentials(start: Callable[..., Bench], headers: dict[str, str], accepted: bool) -> None:
    bench = start(key="key", secret="secret")
    answer = requests.get(bench.sim.url + "/v2/clock", headers=headers, timeout=10)
    assert answer.status_code == (200 if accepted else 401)


def test_any_pair_is_accepted_without_keys(bench: Bench) -> None:
    other = TradingClient("anyone", "anything", url_override=bench.sim.url)
    assert other.get_clock().is_open
    bearer = TradingClient(oauth_token="anything", url_override=bench.sim.url)
    assert bearer.get_clock().is_open


def test_headers_of_every_answer(bench: Bench) -> None:
    seen = set()
    for path in ("/v2/account", "/v2/orders/x", "/nowhere"):
        answer = requests.get(bench.sim.url + path, headers=KEYS, timeout=10)
        assert int(answer.headers["X-RateLimit-Remaining"]) > 1000
        assert int(answer.headers["X-RateLimit-Reset"]) > 0
        assert int(answer.headers["X-RateLimit-Limit"]) > 1000
        seen.add(answer.headers["X-Request-ID"])
    assert len(seen) == 3


def test_rate_limit(start: Callable[..., Bench]) -> None:
    bench = start(rate_limit=3)
    bench.sim.gateway._rate_limit._wall = lambda: datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(3):
        bench.client.get_clock()
    status, body = refusal(bench.client.get_clock)
    assert (status, body) == (429, {"code": 42910000, "message": "rate limit exceeded"})
    status, body = refusal(lambda: bench.client.get("/stocks/quotes/latest", {"symbols": "F"}))
    assert (status, body) == (429, {"message": "too many requests."})


# --- activities


def test_activities_by_page_token(bench: Bench) -> None:
    for _ in range(7):
        bench.filled()
    everything = bench.client.get("/account/activities", {"direction": "asc"})
    assert [row["activity_type"] for row in everything] == ["FILL"] * 7
    for direction, rows in (("asc", everything), ("desc", everything[::-1])):
        paged: list[dict[str, str]] = []
        while True:
            query = {"direction": direction, "page_size": 3}
            if paged:
                query["page_token"] = paged[-1]["id"]
            page = bench.client.get("/account/activities/FILL", query)
            if not page:
                break
            paged += page
        assert paged == rows
    first = everything[0]
    after = bench.client.get("/account/activities", {"after": first["transaction_time"]})
    assert after == everything[:0:-1]
    by_order = bench.client.get("/account/activities", {"order_id": first["order_id"]})
    assert by_order == [first]
    day = f"{first['id'][:4]}-{first['id'][4:6]}-{first['id'][6:8]}"
    assert len(bench.client.get("/account/activities", {"date": day})) == 7
    assert bench.client.get("/account/activities", {"category": "non_trade_activity"}) == []
    assert bench.client.get("/account/activities/DIV") == []


def test_portfolio_history(bench: Bench) -> None:
    bench.filled()
    history = bench.client.get_portfolio_history()
    assert history.base_value == 100000
    assert len(history.equity) == len(history.timestamp) == 2


# --- market data


def test_latest_quote_and_trade(bench: Bench) -> None:
    bench.price("AAPL", "150", bid="149.5", ask="150.5")
    quote = bench.data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="AAPL"))
    assert (quote["AAPL"].bid_price, quote["AAPL"].ask_price) == (149.5, 150.5)
    trade = bench.data.get_stock_latest_trade(
        StockLatestTradeRequest(symbol_or_symbols=["AAPL", "MSFT", "ZZZZ"])
    )
    assert trade["AAPL"].price == 150
    assert set(trade) == {"AAPL", "MSFT"}


@pytest.mark.parametrize("limit", [None, 7])
def test_daily_bars_in_pages(bench: Bench, limit: int | None) -> None:
    bars = requests.get(
        bench.sim.url + "/v2/stocks/bars",
        {"symbols": "MSFT,AAPL", "timeframe": "1Day", "start": "2026-10-01T00:00:00Z",
         "end": "2026-10-31T00:00:00Z", "limit": limit or 10000},
        headers=KEYS, timeout=10,
    ).json()  # fmt: skip
    assert bool(bars["next_page_token"]) == bool(limit)
    whole = bench.data.get_stock_bars(
        StockBarsRequest(
            symbol_or_symbols=["MSFT", "AAPL"],
            timeframe=TimeFrame.Day,
            start=datetime(2026, 10, 1, tzinfo=UTC),
            end=datetime(2026, 10, 31, tzinfo=UTC),
        )
    )
    assert len(whole["AAPL"]) == len(whole["MSFT"]) == 22
    pages: list[str] = []
    token = None
    while True:
        page = requests.get(
            bench.sim.url + "/v2/stocks/bars",
            {"symbols": "MSFT,AAPL", "timeframe": "1Day", "start": "2026-10-01T00:00:00Z",
             "end": "2026-10-31T00:00:00Z", "limit": 7, "page_token": token},
            headers=KEYS, timeout=10,
        ).json()  # fmt: skip
        pages += [f"{symbol} {bar['t']}" for symbol, found in page["bars"].items() for bar in found]
        token = page["next_page_token"]
        if not token:
            break
    assert len(pages) == len(set(pages)) == 44


def test_intraday_bars(bench: Bench) -> None:
    bars = bench.data.get_stock_bars(
        StockBarsRequest(
            symbol_or_symbols="AAPL",
            timeframe=TimeFrame(5, TimeFrameUnit.Minute),
            start=datetime(2026, 10, 1, 14, tzinfo=UTC),
            end=datetime(2026, 10, 1, 15, tzinfo=UTC),
        )
    )
    assert len(bars["AAPL"]) == 12
    assert all(bar.low <= bar.open <= bar.high for bar in bars["AAPL"])


def test_assets_and_calendar(bench: Bench) -> None:
    apple = bench.client.get_asset("AAPL")
    assert bench.client.get_asset(str(apple.id)).symbol == "AAPL"
    assert bench.client.get_asset("BTC/USD").asset_class == "crypto"
    assert {"AAPL", "SPY", "FB"} <= {asset.symbol for asset in bench.client.get_all_assets()}
    days = bench.client.get("/calendar", {"start": "2026-11-25", "end": "2026-11-30"})
    assert [(day["date"], day["close"]) for day in days] == [
        ("2026-11-25", "16:00"), ("2026-11-27", "13:00"), ("2026-11-30", "16:00")
    ]  # fmt: skip


# --- starting


def test_two_simulators_cannot_share_a_port(bench: Bench) -> None:
    port = int(bench.sim.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        Simulator(SimConfig(port=port, control_port=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"market": "moon"}, "market must be one of"),
        ({"market": "replay"}, "needs a bars file"),
        ({"partial_fill_probability": 2.0}, "must be between 0 and 1"),
        ({"faults": ("submit:flood:1",)}, "kind must be one of"),
        ({"faults": ("nowhere:slow:1",)}, "route must be one of"),
        ({"switches": {"colour": "red"}}, "unknown switch"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulator(SimConfig(port=0, **settings))  # type: ignore[arg-type]


def test_wrong_bars_file(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("date,symbol,open,high,low,close,volume\n2010-03-01,AAPL,1,2,x,2,5\n")
    with pytest.raises(ValueError, match=r"bars.csv:2"):
        Simulator(SimConfig(port=0, market="replay", bars=path))


def test_banner_names_what_a_user_needs() -> None:
    text = banner("http://h:1", "http://h:2", "k", "s")
    for wanted in ("APCA_API_BASE_URL=http://h:1", "APCA_API_KEY_ID=k", "http://h:2/docs", "curl"):
        assert wanted in text


def test_control_documentation(bench: Bench) -> None:
    paths = bench.control("GET", "/openapi.json")["paths"]
    for path in ("ledger", "faults", "switches", "market/advance", "market/price", "reset",
                 "state/save", "health", "requests", "orders/{reference}/fill"):  # fmt: skip
        assert f"/{path}" in paths
    assert bench.control("GET", "/health")["status"] == "ok"
