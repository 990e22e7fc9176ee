"""AlpacaMarketData: the `MarketData` port over alpaca-py's historical data clients.

```
"AAPL"    ─▶ StockHistoricalDataClient   /v2/stocks/{quotes/latest, bars}
"BTC/USD" ─▶ CryptoHistoricalDataClient  /v1beta3/crypto/us/{latest/quotes, bars}
```

The calls are carried as orders are (torghut.brokers.alpaca_transport): bounded, never repeated.

Symbols go 100 to a request. Alpaca refuses the whole request over one symbol it cannot parse, so
a refused batch is halved until the bad symbol is alone; that one is left out and logged. A quote
or bar that cannot be read is left out likewise: missing data denies (P7), downstream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta

import structlog
from alpaca.common.rest import RESTClient
from alpaca.data.historical.crypto import CryptoHistoricalDataClient
from alpaca.data.historical.stock import StockHistoricalDataClient

from torghut.brokers import alpaca_answers as answers
from torghut.brokers import alpaca_mapping as mapping
from torghut.brokers.alpaca_answers import Reply
from torghut.brokers.alpaca_mapping import MalformedBody
from torghut.brokers.alpaca_transport import CallFailed, Transport
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.ports import Bar, Quote

SYMBOLS_PER_REQUEST_MAX = 100
BARS_PAGE_MAX = 10_000
PAGES_MAX = 1_000
POOL_SIZE = 4

log = structlog.get_logger(__name__)


class AlpacaMarketData:
    """Quotes and daily bars from `data_url` (no trailing slash, no /v2); thread-safe.

    `timeout_s` bounds each request as in AlpacaBroker. `feed` is Alpaca's stock feed (`iex`,
    `sip`); None leaves the choice to Alpaca, by the account's subscription. Raises ConfigError.
    """

    def __init__(
        self,
        *,
        key_id: str,
        secret_key: str,
        data_url: str,
        timeout_s: float,
        feed: str | None = None,
    ) -> None:
        def stock_client() -> RESTClient:
            return StockHistoricalDataClient(key_id, secret_key, url_override=data_url)

        def crypto_client() -> RESTClient:
            return CryptoHistoricalDataClient(key_id, secret_key, url_override=data_url)

        self._feed = {"feed": feed} if feed else {}
        self._stocks, self._crypto = (
            Transport(
                make_client,
                base_url=data_url,
                setting="APCA_API_DATA_URL",
                secrets=(key_id, secret_key),
                timeout_s=timeout_s,
                pool_size=POOL_SIZE,
            )
            for make_client in (stock_client, crypto_client)
        )

    def quotes(self, symbols: Iterable[str]) -> Mapping[str, Quote]:
        """The latest quote of each symbol that has one; a side priced 0 is None.

        Raises BrokerUnavailable, BrokerRefused.
        """
        found: dict[str, Quote] = {}
        stocks, pairs = _split(symbols)
        for path, transport, wanted, params in (
            ("/stocks/quotes/latest", self._stocks, stocks, self._feed),
            ("/crypto/us/latest/quotes", self._crypto, pairs, {}),
        ):
            for batch in _batches(wanted):
                for data in _pages(transport, path, batch, params):
                    for symbol, row in _entries(data, "quotes"):
                        try:
                            found[symbol] = mapping.quote_of(symbol, row)
                        except MalformedBody as error:
                            _left_out("quote", symbol, error)
        return {symbol: quote for symbol, quote in found.items() if symbol in {*stocks, *pairs}}

    def daily_bars(
        self, symbols: Iterable[str], *, end: date, count: int
    ) -> Mapping[str, Sequence[Bar]]:
        """The newest `count` unadjusted daily bars up to and including session `end`, ascending.

        Symbols without any are left out. Raises BrokerUnavailable, BrokerRefused.
        """
        # 252 sessions in 365 days, and a margin for runs of holidays.
        start = end - timedelta(days=count * 365 // 252 + 14)
        params: dict[str, object] = {
            "timeframe": "1Day",
            "start": mapping.instant_param(datetime.combine(start, time(), UTC)),
            # A bar is stamped midnight New York: 04:00 or 05:00 UTC of its own day.
            "end": mapping.instant_param(datetime.combine(end + timedelta(days=1), time(), UTC)),
            "limit": BARS_PAGE_MAX,
            "sort": "asc",
        }
        found: dict[str, dict[date, Bar]] = {}
        stocks, pairs = _split(symbols)
        for path, transport, wanted, extra in (
            ("/stocks/bars", self._stocks, stocks, {"adjustment": "raw", **self._feed}),
            ("/crypto/us/bars", self._crypto, pairs, {}),
        ):
            for batch in _batches(wanted):
                for data in _pages(transport, path, batch, {**params, **extra}):
                    _collect_bars(data, end, found)
        return {
            symbol: [bars[session] for session in sorted(bars)[-count:]]
            for symbol, bars in found.items()
            if bars and count > 0
        }

    def close(self) -> None:
        """Close idle connections; later calls raise BrokerUnavailable."""
        self._stocks.close()
        self._crypto.close()


def _collect_bars(data: Mapping[str, object], end: date, found: dict[str, dict[date, Bar]]) -> None:
    for symbol, rows in _entries(data, "bars"):
        bars = found.setdefault(symbol, {})
        for row in rows if isinstance(rows, list) else []:
            try:
                bar = mapping.bar_of(symbol, row)
            except MalformedBody as error:
                _left_out("bar", symbol, error)
                continue
            if bar.session <= end:
                bars[bar.session] = bar


def _pages(
    transport: Transport, path: str, symbols: Sequence[str], params: Mapping[str, object]
) -> Iterator[Mapping[str, object]]:
    """The pages of one request; a batch refused over a symbol is asked for in halves."""
    page_token: object = None
    for _ in range(PAGES_MAX):
        query: dict[str, object] = {"symbols": ",".join(symbols), **params}
        if page_token:
            query["page_token"] = page_token
        reply = _get(transport, path, query)
        if reply.status in (400, 422) and page_token is None:
            if len(symbols) == 1:
                _left_out("symbol", symbols[0], answers.error_of(reply)[1])
                return
            middle = len(symbols) // 2
            for half in (symbols[:middle], symbols[middle:]):
                yield from _pages(transport, path, half, params)
            return
        data = _object(path, reply)
        yield data
        page_token = data.get("next_page_token")
        if not page_token:
            return
    raise BrokerUnavailable(f"market data {path}: more than {PAGES_MAX} pages")


def _get(transport: Transport, path: str, query: Mapping[str, object]) -> Reply:
    try:
        reply = transport.get(path, query)
    except CallFailed as failure:
        raise BrokerUnavailable(f"market data {path}: {failure}") from failure
    if reply.status in (401, 403):
        message = answers.error_of(reply)[1]
        raise BrokerRefused(f"market data {path}: HTTP {reply.status} {message}".rstrip())
    return reply


def _object(path: str, reply: Reply) -> Mapping[str, object]:
    if reply.status != 200:
        message = answers.error_of(reply)[1]
        raise BrokerUnavailable(f"market data {path}: HTTP {reply.status} {message}".rstrip())
    try:
        data = mapping.load_json(reply.body)
    except MalformedBody as error:
        raise BrokerUnavailable(f"market data {path}: {error}") from error
    if not isinstance(data, Mapping):
        raise BrokerUnavailable(f"market data {path}: the body is no JSON object")
    return data


def _entries(data: Mapping[str, object], key: str) -> Iterable[tuple[str, object]]:
    entries = data.get(key)
    return entries.items() if isinstance(entries, Mapping) else ()


def _split(symbols: Iterable[str]) -> tuple[list[str], list[str]]:
    """Stocks and crypto pairs, each symbol once, in the order given."""
    unique = [*dict.fromkeys(symbols)]
    return [s for s in unique if "/" not in s], [s for s in unique if "/" in s]


def _batches(symbols: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(symbols), SYMBOLS_PER_REQUEST_MAX):
        yield symbols[start : start + SYMBOLS_PER_REQUEST_MAX]


def _left_out(kind: str, symbol: str, problem: object) -> None:
    log.warning("market_data_left_out", kind=kind, symbol=symbol, problem=str(problem))
