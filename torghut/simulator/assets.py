"""The assets that can be traded: a fixed list, plus every symbol found in a bars file.

A few symbols exist to be refused (inactive, not tradable, not fractionable, not shortable).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

US_EQUITY = "us_equity"
CRYPTO = "crypto"
_NAMESPACE = uuid.UUID("6f0c1d3e-52f5-5d0a-9a55-1f3c3f0b7a10")


@dataclass(frozen=True, slots=True)
class Asset:
    """A tradable instrument. `base_price` anchors its synthetic price, in USD."""

    symbol: str
    name: str
    exchange: str
    base_price: Decimal
    asset_class: str = US_EQUITY
    active: bool = True
    tradable: bool = True
    fractionable: bool = True
    shortable: bool = True

    @property
    def id(self) -> str:
        """A UUID which depends on the symbol alone."""
        return str(uuid.uuid5(_NAMESPACE, self.symbol))

    @property
    def is_crypto(self) -> bool:
        """True for a coin pair such as BTC/USD."""
        return self.asset_class == CRYPTO

    @property
    def position_symbol(self) -> str:
        """Positions name a coin pair without its slash."""
        return self.symbol.replace("/", "")


_LISTED = """\
AAPL NASDAQ 272.40 Apple Inc. Common Stock
MSFT NASDAQ 476.10 Microsoft Corporation Common Stock
GOOG NASDAQ 299.70 Alphabet Inc. Class C Capital Stock
GOOGL NASDAQ 299.20 Alphabet Inc. Class A Common Stock
IBM NYSE 297.40 International Business Machines Corporation
FB NASDAQ 594.20 Facebook, Inc. Class A Common Stock
META NASDAQ 594.20 Meta Platforms, Inc. Class A Common Stock
AMZN NASDAQ 220.70 Amazon.com, Inc. Common Stock
TSLA NASDAQ 391.10 Tesla, Inc. Common Stock
NVDA NASDAQ 178.90 NVIDIA Corporation Common Stock
AMD NASDAQ 203.80 Advanced Micro Devices, Inc. Common Stock
NFLX NASDAQ 104.30 Netflix, Inc. Common Stock
INTC NASDAQ 34.50 Intel Corporation Common Stock
JPM NYSE 298.00 JPMorgan Chase & Co.
DIS NYSE 104.30 The Walt Disney Company
KO NYSE 72.90 The Coca-Cola Company
PFE NYSE 25.10 Pfizer, Inc.
F NYSE 12.90 Ford Motor Company
GE NYSE 288.40 GE Aerospace
BAC NYSE 51.60 Bank of America Corporation
WMT NYSE 105.30 Walmart Inc.
XOM NYSE 117.10 Exxon Mobil Corporation
SPY ARCA 659.00 State Street SPDR S&P 500 ETF Trust
QQQ NASDAQ 590.10 Invesco QQQ Trust, Series 1
"""

_SPECIAL = (
    Asset("OCGN", "Ocugen, Inc. Common Stock", "NASDAQ", Decimal("1.30"), fractionable=False),
    Asset("RGC", "Regencell Bioscience Holdings Limited", "NASDAQ", Decimal("15.10"),
          tradable=False),
    Asset("TWTR", "Twitter, Inc. Common Stock", "NYSE", Decimal("53.70"), active=False,
          tradable=False),
    Asset("HTOO", "Fusion Fuel Green PLC", "NASDAQ", Decimal("4.40"), shortable=False),
    Asset("PENY", "Penny Stock Example Corp.", "NYSE", Decimal("0.4200")),
    Asset("BTC/USD", "Bitcoin / US Dollar", "CRYPTO", Decimal("84000"), CRYPTO, shortable=False),
    Asset("ETH/USD", "Ethereum / US Dollar", "CRYPTO", Decimal("2750"), CRYPTO, shortable=False),
)  # fmt: skip


class AssetList:
    """Lookup of assets by symbol or id."""

    def __init__(self, extra_symbols: dict[str, Decimal] | None = None) -> None:
        self._by_symbol: dict[str, Asset] = {}
        for line in _LISTED.splitlines():
            symbol, exchange, base_price, name = line.split(" ", 3)
            self._by_symbol[symbol] = Asset(symbol, name, exchange, Decimal(base_price))
        self._by_symbol.update({asset.symbol: asset for asset in _SPECIAL})
        for symbol, price in (extra_symbols or {}).items():
            self._by_symbol.setdefault(symbol, Asset(symbol, symbol, "NYSE", price))
        self._by_key = {asset.id: asset for asset in self}
        self._by_key.update({asset.position_symbol: asset for asset in self})
        self._by_key.update(self._by_symbol)

    def __iter__(self) -> Iterator[Asset]:
        return iter(self._by_symbol.values())

    def find(self, key: str) -> Asset | None:
        """By symbol (with or without the slash of a pair) or by id."""
        return self._by_key.get(key)


def asset_json(asset: Asset) -> dict[str, Any]:
    """The Asset object of `/v2/assets`."""
    body: dict[str, Any] = {
        "id": asset.id,
        "class": asset.asset_class,
        "exchange": asset.exchange,
        "symbol": asset.symbol,
        "name": asset.name,
        "status": "active" if asset.active else "inactive",
        "tradable": asset.tradable,
        "marginable": not asset.is_crypto,
        "maintenance_margin_requirement": 100 if asset.is_crypto else 30,
        "margin_requirement_long": "100" if asset.is_crypto else "30",
        "margin_requirement_short": "100" if asset.is_crypto else "30",
        "shortable": asset.shortable,
        "easy_to_borrow": asset.shortable,
        "borrow_status": "easy_to_borrow" if asset.shortable else "not_shortable",
        "fractionable": asset.fractionable,
        "attributes": ["fractional_eh_enabled"] if asset.fractionable else [],
    }
    if asset.is_crypto:
        body |= {
            "min_order_size": "0.000000001",
            "min_trade_increment": "0.000000001",
            "price_increment": "0.01",
        }
    return body
