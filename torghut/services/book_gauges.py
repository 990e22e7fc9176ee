"""What the books hold, as gauges: profit, exposure, differences. Read once per reconciler pass.

Profit is that of `torghut pnl`; exposure is the broker's positions at the broker's prices, in its
newest answer. A position without a price is missing in both. Rows of the account's own positions
and one snapshot: no query here grows with history.
"""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import Connection

from torghut import telemetry
from torghut.storage import discrepancies, facts, pnl
from torghut.storage.rows import AccountSnapshot

_ZERO = Decimal(0)


def show(tx: Connection, account: str) -> None:
    """Set the gauges from what is committed now."""
    for kind, count in discrepancies.open_by_kind(tx, account).items():
        telemetry.DISCREPANCIES.labels(account, kind.value).set(count)
    rows = pnl.totals(tx, account, by="symbol")
    for gauge, column in (
        (telemetry.REALIZED_PL, "realized_pl"),
        (telemetry.UNREALIZED_PL, "unrealized_pl"),
    ):
        gauge.labels(account).set(float(sum((Decimal(row[column]) for row in rows), _ZERO)))
    snapshot = facts.account_snapshot(tx, account)
    if snapshot is not None:
        _show_snapshot(account, snapshot)


def _show_snapshot(account: str, snapshot: AccountSnapshot) -> None:
    worth = [
        qty * snapshot.marks[symbol]
        for symbol, qty in snapshot.positions.items()
        if symbol in snapshot.marks
    ]
    telemetry.GROSS_EXPOSURE.labels(account).set(float(sum(map(abs, worth), _ZERO)))
    telemetry.NET_EXPOSURE.labels(account).set(float(sum(worth, _ZERO)))
    if snapshot.equity is None:
        return
    telemetry.EQUITY.labels(account).set(float(snapshot.equity))
    if snapshot.last_equity is not None:
        telemetry.DAY_PL.labels(account).set(float(snapshot.equity - snapshot.last_equity))
