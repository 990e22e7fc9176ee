"""Handlers of assets, clock, calendar, and of the market data API (stocks and coin pairs).

Amounts of the market data API are JSON numbers; everything else shows money as strings.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from torghut.simulator import errors, sessions
from torghut.simulator.assets import Asset, asset_json
from torghut.simulator.bars import Bar, bar_json, day_start
from torghut.simulator.clock import NEW_YORK, rfc3339
from torghut.simulator.errors import ApiError
from torghut.simulator.http import Reply, Request, Route, reply_json
from torghut.simulator.market import Market

BARS_DEFAULT, BARS_MAX = 1000, 10000
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2029, 12, 31)
TIMEFRAME = re.compile(r"(\d{1,2})(Min|T|Hour|H|Day|D)")
MINUTES = {"Min": 1, "T": 1, "Hour": 60, "H": 60}


class MarketApi:
    """Handlers over one market."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def routes(self) -> list[Route]:
        """The routes, named as fault rules name them."""
        coins = "/v1beta3/crypto/us"
        return [
            Route("assets", "GET", "/v2/assets", self.assets),
            Route("assets", "GET", "/v2/assets/{}", self.asset),
            Route("assets", "GET", "/v2/assets/{}/{}", self.asset),
            Route("clock", "GET", "/v2/clock", self.clock),
            Route("calendar", "GET", "/v2/calendar", self.calendar),
            Route("quotes", "GET", "/v2/stocks/quotes/latest", self.quotes),
            Route("quotes", "GET", f"{coins}/latest/quotes", self.quotes),
            Route("trades", "GET", "/v2/stocks/trades/latest", self.trades),
            Route("trades", "GET", f"{coins}/latest/trades", self.trades),
            Route("bars", "GET", "/v2/stocks/bars/latest", self.latest_bars),
            Route("bars", "GET", "/v2/stocks/bars", self.bars),
            Route("bars", "GET", f"{coins}/bars", self.bars),
            Route("snapshots", "GET", "/v2/stocks/snapshots", self.snapshots),
        ]

    # --- trading API

    def assets(self, request: Request) -> Reply:
        """GET /v2/assets"""
        status = request.query.get("status") or "all"
        asset_class = request.query.get("asset_class") or "us_equity"
        exchange = request.query.get("exchange")
        return reply_json(
            [
                asset_json(asset)
                for asset in self._market.assets
                if status in ("all", "active" if asset.active else "inactive")
                and asset.asset_class == asset_class
                and exchange in (None, "", asset.exchange)
            ]
        )

    def asset(self, request: Request) -> Reply:
        """GET /v2/assets/{symbol or id}"""
        key = "/".join(request.params)
        asset = self._market.assets.find(key)
        if asset is None:
            raise ApiError(404, errors.NOT_FOUND, f"asset not found for {key}")
        return reply_json(asset_json(asset))

    def clock(self, request: Request) -> Reply:
        """GET /v2/clock, in New York time"""
        now = self._market.now()
        instants = {
            "timestamp": now,
            "next_open": self._market.next_open(now),
            "next_close": self._market.next_close(now),
        }
        shown = {name: at.astimezone(NEW_YORK).isoformat() for name, at in instants.items()}
        return reply_json({**shown, "is_open": self._market.session(now) == "regular"})

    def calendar(self, request: Request) -> Reply:
        """GET /v2/calendar?start&end"""
        start = max(_day(request, "start") or FIRST_DAY, FIRST_DAY)
        end = min(_day(request, "end") or LAST_DAY, LAST_DAY)
        rows = []
        for session in sessions.sessions_between(start, end) if start <= end else []:
            closes = session.closes.astimezone(NEW_YORK)
            early = closes.hour < 16
            rows.append(
                {
                    "date": session.day.isoformat(),
                    "open": "09:30",
                    "close": f"{closes:%H:%M}",
                    "session_open": "0400",
                    "session_close": "1700" if early else "2000",
                    "settlement_date": _settlement(session.day).isoformat(),
                }
            )
        return reply_json(rows)

    # --- market data

    def quotes(self, request: Request) -> Reply:
        """Latest quotes"""
        now = self._market.now()
        return reply_json({"quotes": {a.symbol: self._quote(a, now) for a in self._named(request)}})

    def trades(self, request: Request) -> Reply:
        """Latest trades"""
        now = self._market.now()
        return reply_json({"trades": {a.symbol: self._trade(a, now) for a in self._named(request)}})

    def latest_bars(self, request: Request) -> Reply:
        """Latest daily bar of each symbol; Alpaca gives a minute bar here"""
        found = {asset.symbol: self._latest(asset) for asset in self._named(request)}
        return reply_json({"bars": {name: bar_json(bar) for name, bar in found.items() if bar}})

    def snapshots(self, request: Request) -> Reply:
        """Latest trade, quote and bars of each symbol"""
        now = self._market.now()
        shown = {}
        for asset in self._named(request):
            today = now.astimezone(NEW_YORK).date()
            recent = self._market.daily_bars(asset, today - timedelta(days=14), today)
            daily = [bar_json(bar) for bar in recent[-2:]]
            shown[asset.symbol] = {
                "latestTrade": self._trade(asset, now),
                "latestQuote": self._quote(asset, now),
                "minuteBar": daily[-1] if daily else None,
                "dailyBar": daily[-1] if daily else None,
                "prevDailyBar": daily[0] if len(daily) > 1 else None,
            }
        return reply_json(shown)

    def bars(self, request: Request) -> Reply:
        """Bars of several symbols, one after the other, cut into pages"""
        limit = request.number("limit", BARS_DEFAULT, 1, BARS_MAX)
        descending = request.query.get("sort") == "desc"
        token = _read_token(request.query.get("page_token"))
        shown: dict[str, list[Any]] = {}
        taken = 0
        for asset in sorted(self._named(request), key=lambda found: found.symbol):
            if token and asset.symbol < token[0]:
                continue
            found = list(self._found(asset, request))
            for bar in reversed(found) if descending else found:
                if token and asset.symbol == token[0]:
                    passed = bar.starts_at >= token[1] if descending else bar.starts_at <= token[1]
                    if passed:
                        continue
                if taken == limit:
                    return reply_json({"bars": shown, "next_page_token": _token(shown)})
                shown.setdefault(asset.symbol, []).append(bar_json(bar))
                taken += 1
        return reply_json({"bars": shown, "next_page_token": None})

    def _found(self, asset: Asset, request: Request) -> Iterator[Bar]:
        match = TIMEFRAME.fullmatch(request.query.get("timeframe", ""))
        if match is None:
            raise errors.invalid("invalid timeframe")
        now = self._market.now()
        end = min(request.instant("end") or now, now)
        start = request.instant("start") or day_start(now.astimezone(NEW_YORK).date())
        if match[2] not in MINUTES:
            if match[1] != "1":
                raise errors.invalid("the simulator has no day bars other than 1Day")
            first, last = start.astimezone(NEW_YORK).date(), end.astimezone(NEW_YORK).date()
            for bar in self._market.daily_bars(asset, first, last):
                if start <= bar.starts_at <= end:
                    yield bar
            return
        if self._market.mode == "replay":
            raise errors.invalid("a replay has 1Day bars only")
        width = timedelta(minutes=int(match[1]) * MINUTES[match[2]])
        if width <= timedelta(0):
            raise errors.invalid("invalid timeframe")
        opens = datetime.fromtimestamp(-(-start.timestamp() // 60) * 60, UTC)
        while opens + width <= end:
            yield self._market.interval_bar(asset, opens, opens, opens + width)
            opens += width

    def _named(self, request: Request) -> list[Asset]:
        names = [name.upper() for name in request.names("symbols")]
        if not names:
            raise ApiError(400, None, "symbols is required")
        found = (self._market.assets.find(name) for name in names)
        return [asset for asset in found if asset is not None]

    def _latest(self, asset: Asset) -> Bar | None:
        today = self._market.today()
        bars = self._market.daily_bars(asset, today - timedelta(days=14), today)
        return bars[-1] if bars else None

    def _quote(self, asset: Asset, now: datetime) -> dict[str, Any]:
        quote = self._market.quote(asset, now)
        bid, ask = float(quote.bid), float(quote.ask)
        at = rfc3339(quote.at)
        if asset.is_crypto:
            return {"t": at, "bp": bid, "bs": 1.0, "ap": ask, "as": 1.0}
        return {
            "t": at,
            "ax": "V",
            "ap": ask,
            "as": 100,
            "bx": "V",
            "bp": bid,
            "bs": 100,
            "c": ["R"],
            "z": "C",
        }

    def _trade(self, asset: Asset, now: datetime) -> dict[str, Any]:
        quote = self._market.quote(asset, now)
        trade = {"t": rfc3339(quote.at), "p": float(quote.last), "s": 100, "i": 1}
        return trade if asset.is_crypto else {**trade, "x": "V", "c": ["@"], "z": "C"}


def _day(request: Request, name: str) -> date | None:
    at = request.instant(name)
    return at.date() if at else None


def _settlement(day: date) -> date:
    following = day + timedelta(days=1)
    while sessions.session_on(following) is None:
        following += timedelta(days=1)
    return following


def _token(shown: dict[str, list[Any]]) -> str:
    symbol = list(shown)[-1]
    return base64.urlsafe_b64encode(f"{symbol}|{shown[symbol][-1]['t']}".encode()).decode()


def _read_token(token: str | None) -> tuple[str, datetime] | None:
    if not token:
        return None
    try:
        symbol, _, at = base64.urlsafe_b64decode(token).decode().partition("|")
        return symbol, datetime.fromisoformat(at)
    except (ValueError, binascii.Error) as error:
        raise errors.invalid("invalid page_token") from error
