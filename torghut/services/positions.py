"""What there is to close: positions by our books and by the broker's, at the more careful of both.

`qty` is what both books agree on at least: the smaller of the two, 0 where they do not even agree
on the side. `free_qty` is what of it is not being closed by an order that may be live already.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection

from torghut.storage import exposure, facts

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Holding:
    """One position; quantities are signed, but for `free_qty`."""

    symbol: str
    ledger_qty: Decimal
    broker_qty: Decimal
    closing_qty: Decimal

    @property
    def qty(self) -> Decimal:
        """What both books hold at least."""
        if self.ledger_qty > 0 and self.broker_qty > 0:
            return min(self.ledger_qty, self.broker_qty)
        if self.ledger_qty < 0 and self.broker_qty < 0:
            return max(self.ledger_qty, self.broker_qty)
        return ZERO

    @property
    def free_qty(self) -> Decimal:
        """Shares, unsigned, that may still be closed."""
        return max(ZERO, abs(self.qty) - self.closing_qty)


def holdings(tx: Connection, account: str) -> dict[str, Holding]:
    """Symbol → holding, for every symbol that one of the books holds something of.

    The broker's side is its newest snapshot; without one it holds nothing.
    """
    snapshot = facts.account_snapshot(tx, account)
    broker = {} if snapshot is None else dict(snapshot.positions)
    seen = exposure.live(tx, account)
    found: dict[str, Holding] = {}
    names = {s.replace("/", ""): s for s in (*broker, *seen.by_symbol)}
    for symbol in names.values():
        live = seen.by_symbol.get(symbol)
        ledger = live.ledger_qty if live else ZERO
        there = broker.get(symbol, broker.get(symbol.replace("/", ""), ZERO))
        if not ledger and not there:
            continue
        closing = ZERO if live is None else (live.sell_qty if ledger > 0 else live.buy_qty)
        found[symbol] = Holding(symbol, ledger, there, closing)
    return found
