"""Positions and cash equal the broker's to the last decimal after random orders (P6, P8, P12).

`ORDERS_TOTAL=10000` makes that many broker orders (the default is a sample), `ORDERS_SEED` takes
another seed, which is printed. Decisions go through intake, risk, executor, adapter and HTTP to the
simulator; cancels and replacements through the order desk; what comes back through the reconciler.
Orders fill in parts, at prices that move, coins with the fee that is taken out of them, and
replacements and cancels race with fills.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig, eventually
from torghut.services import order_requests
from torghut.services.order_requests import RequestRefused
from torghut.storage import account_entries, leases, pnl

TOTAL = int(os.environ.get("ORDERS_TOTAL", "300"))
SEED = int(os.environ.get("ORDERS_SEED", "20261121"))
BATCH = 25
PRICES = {"AAPL": 270, "F": 13, "PENY": Decimal("0.42"), "BTC/USD": 84_000}
HELD_MAX = {"AAPL": 40, "F": 300, "PENY": 5_000, "BTC/USD": Decimal("0.2")}
UNITS = {"AAPL": 4, "F": 40, "PENY": 400, "BTC/USD": Decimal("0.02")}
STRATEGIES = ("trend", "mean")
OFF = dict.fromkeys(("max_orders_per_minute", "max_consecutive_rejects", "max_rate_denials"), "off")


class Trader:
    """Random orders of one seed on one rig."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.random = random.Random(seed)
        self.round = 0
        self.open: list[str] = []
        self.keys = 0

    def trade(self) -> None:
        """One round: new orders, prices that move, cancels and replacements, a pass."""
        self.round += 1
        with self.rig.database.transaction() as tx:
            assert leases.renew(tx, self.rig.lease, ttl_s=600)
        sides = self._move_prices()
        hashes = [self._decide(number, sides) for number in range(BATCH)]
        self.rig.drive(hashes)
        self.open += hashes
        asked = [self._act(hash_) for hash_ in self.random.sample(self.open, 8)]
        self._move_prices()
        self._settle([key for key in asked if key])
        if self.round % 3 == 0:  # the other side would meet what still stands
            self.keys += 1
            asker = self.rig.asker(f"all{self.keys}")
            try:
                order_requests.cancel_all(self.rig.database, ACCOUNT, asker)
                self._settle([f"all{self.keys}"])
            except RequestRefused:
                pass
            self.open.clear()
        self.rig.time.pass_s(6)
        self.rig.reconcile()

    def _move_prices(self) -> dict[str, str]:
        """New prices; and the side that each symbol is traded on until all is canceled."""
        for symbol, price in PRICES.items():
            moved = Decimal(price) * self.random.randrange(970, 1030) / 1000
            step = Decimal("0.0001") if price < 1 else Decimal("0.01")
            body = {"symbol": symbol, "price": str(moved.quantize(step))}
            self.rig.control("POST", "/market/price", body)
        if self.round % 3 == 1 or self.round == 0:
            self.sides = {symbol: self._side(symbol) for symbol in PRICES}
        return self.sides

    def _side(self, symbol: str) -> str:
        held = self.rig.sql("SELECT qty FROM positions WHERE symbol = :s", s=symbol)
        qty = held[0].qty if held else Decimal(0)
        if abs(qty) > HELD_MAX[symbol]:
            return "sell" if qty > 0 else "buy"
        if symbol == "BTC/USD" and qty < Decimal("0.05"):
            return "buy"
        return self.random.choice(("buy", "sell"))

    def _decide(self, number: int, sides: dict[str, str]) -> str:
        symbol = self.random.choice(list(PRICES))
        part = Decimal(self.random.randrange(1, 1000)) / 1000
        qty = Decimal(UNITS[symbol]) * part
        whole = symbol != "BTC/USD" and (sides[symbol] == "sell" or self.random.random() < 0.6)
        qty = qty.to_integral_value() + 1 if whole else qty + Decimal("0.000000001")
        order: dict[str, object] = {"type": "market"}
        if self.random.random() < 0.6:
            limit = Decimal(PRICES[symbol]) * self.random.randrange(960, 1040) / 1000
            step = Decimal("0.0001") if limit < 1 else Decimal("0.01")
            order = {"type": "limit", "limit_price": str(limit.quantize(step))}
        return self.rig.send(
            symbol=symbol,
            side=sides[symbol],
            qty=str(qty),
            strategy=self.random.choice(STRATEGIES),
            intent=f"{self.round}-{number}",
            time_in_force="gtc" if symbol == "BTC/USD" else "day",
            **order,
        )

    def _act(self, hash_: str) -> str | None:
        """Ask for a cancel or a replacement; None if there is nothing to do it to."""
        self.keys += 1
        asker = self.rig.asker(f"k{self.keys}")
        row = self.rig.row(hash_)
        try:
            if self.random.random() < 0.4 or row.limit_price is None:
                order_requests.cancel(self.rig.database, hash_, asker)
            else:
                limit = row.limit_price * self.random.randrange(990, 1010) / 1000
                step = Decimal("0.0001") if limit < 1 else Decimal("0.01")
                changes = {"limit_price": str(limit.quantize(step))}
                order_requests.replace(self.rig.database, hash_, changes, asker)
        except RequestRefused:
            return None
        return asker.key

    def _settle(self, keys: list[str]) -> None:
        """The order desk and the reconciler at work until every request has an outcome."""

        def settled() -> bool:
            self.rig.act()
            self.rig.settle()
            self.rig.time.pass_s(2)
            return all(order_requests.look(self.rig.database, ACCOUNT, key).settled for key in keys)

        eventually(settled)


@pytest.fixture
def trader(make_rig: Callable[..., Rig]) -> Iterator[Trader]:
    rig = make_rig(
        timeout_s=10, cash_tolerance=0,
        risk={**OFF, "check_self_match": False, "max_order_notional": 10**6},
    )  # fmt: skip
    rig.control("POST", "/switches", {"partial_fill_probability": 0.5, "crypto_fee_bps": 25})
    rig.time.pass_s(10)
    rig.reconcile()
    yield Trader(rig, SEED)
    rig.control("POST", "/switches", {"partial_fill_probability": 0, "crypto_fee_bps": 0})


@pytest.mark.timeout(7200)
def test_books_equal_the_brokers_to_the_last_decimal(trader: Trader) -> None:
    """Stories 9, 11, 20, 25: nothing lost, nothing twice, fees in coins included."""
    print(f"seed {SEED}, {TOTAL} orders")
    rig = trader.rig
    while rig.totals()["orders"] < TOTAL:
        trader.trade()
        if trader.round % 20 == 0:
            print(f"round {trader.round}: {rig.totals()['orders']} orders")
    for _ in range(3):
        rig.time.pass_s(10)
        rig.reconcile()
    ledger = rig.control("GET", "/ledger")
    check_books(rig, ledger)
    check_profit(rig)
    assert rig.discrepancies() == []
    assert rig.state()[0] == "active"
    kinds = set(ledger["totals"]["by_status"])
    assert {"filled", "canceled", "replaced"} <= kinds
    assert ledger["totals"]["fills"] > ledger["totals"]["by_status"]["filled"]
    # the control: one fill less in the fold is seen
    rig.sql(
        """UPDATE positions SET qty = qty - f.last_qty FROM (SELECT symbol, last_qty FROM fills
        ORDER BY fill_id LIMIT 1) f WHERE positions.symbol = f.symbol"""
    )
    for _ in range(2):
        rig.time.pass_s(10)
        rig.reconcile()
    assert [kind for kind, _ in rig.discrepancies()] == ["position_differs"]


def check_books(rig: Rig, ledger: Any) -> None:
    """Each position and the cash, exactly."""
    with rig.database.transaction() as tx:
        assert account_entries.cash(tx, ACCOUNT) == Decimal(ledger["cash"])
    rows = rig.sql("SELECT symbol, qty FROM positions WHERE qty <> 0")
    theirs = {symbol: Decimal(qty) for symbol, qty in ledger["positions"].items()}
    assert {row.symbol: row.qty for row in rows} == theirs
    assert rig.count("fills") == ledger["totals"]["fills"]


def check_profit(rig: Rig) -> None:
    """Strategies and what is in nobody's name add up to the account, and that to the equity."""
    rows = rig.sql(
        """SELECT p.symbol, p.qty, p.realized_pl - p.cost_basis AS cash, s.qty AS s_qty,
          s.cash AS s_cash FROM positions p JOIN (SELECT symbol, sum(qty) AS qty,
            sum(realized_pl - cost_basis) AS cash FROM strategy_positions GROUP BY symbol) s
          USING (symbol)"""
    )
    assert [r.symbol for r in rows if (r.qty, r.cash) != (r.s_qty, r.s_cash)] == []
    with rig.database.transaction() as tx:
        (account,) = pnl.totals(tx, ACCOUNT, by="account")
    (broker,) = rig.sql("SELECT equity FROM broker_accounts")
    profit = Decimal(account["realized_pl"]) + Decimal(account["unrealized_pl"])
    assert profit + Decimal(account["fees_and_income"]) == broker.equity - 100_000
