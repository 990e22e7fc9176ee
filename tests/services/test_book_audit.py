"""Rows that somebody deleted from our books come back from the broker (P6, P12; stories 9, 11).

`ORDERS_TOTAL` sets how many orders the books hold; the default run has a few hundred.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.services.rig import Rig, eventually
from tests.services.test_reconciler import faults_of, written
from torghut.services import book_audit

ORDERS = int(os.environ.get("ORDERS_TOTAL", "240"))
STRATEGIES = ("momentum", "reversion", "carry")
SYMBOLS = ("AAPL", "MSFT", "NVDA")
BOOKS = ("fills", "execution_events", "executions")  # children first: they are referred to

MakeRig = Callable[..., Rig]


def trade(rig: Rig, count: int) -> None:
    """Orders of ours, filled, and some of a stranger's; returns when everything is booked."""
    rig.control("POST", "/entries", {"cash": "100000000"})
    for number in range(count * 9 // 10):
        rig.send(
            strategy=STRATEGIES[number % 3],
            symbol=SYMBOLS[number % len(SYMBOLS)],
            side=("buy", "buy", "sell")[number % 3],
            qty=str(1 + number % 7),
            intent=f"n{number}",
        )
    while rig.count("trade_decisions", "status IN ('planned', 'approved', 'submitting')"):
        rig.fill_budget()
        rig.execute(1)
    for number in range(count - count * 9 // 10):
        rig.place(symbol=SYMBOLS[number % len(SYMBOLS)], qty="1")
    assert rig.count("trade_decisions", "status = 'denied'") == 0
    eventually(lambda: settled(rig))


def settled(rig: Rig) -> bool:
    rig.fill_budget()
    rig.reconcile()
    return (
        not faults_of(rig)
        and not rig.count("executions", "NOT terminal OR cum_qty > ledger_qty")
        and not rig.count("trade_decisions", "status = 'submitted'")
        and bool(rig.count("account_entries"))  # the opening
    )


def content(rig: Rig) -> dict[str, list[tuple[Any, ...]]]:
    """What the books say, whatever their rows' ids."""
    return {
        "executions": rig.sql(
            """SELECT e.client_order_id, e.broker_order_id, d.decision_hash, e.symbol, e.side,
              e.status, e.terminal, e.cum_qty, e.leaves_qty, e.avg_px, e.ledger_qty
            FROM executions e LEFT JOIN trade_decisions d USING (decision_id) ORDER BY 1"""
        ),
        "fills": rig.sql(
            """SELECT f.activity_id, e.broker_order_id, d.decision_hash, f.strategy, f.symbol,
              f.side, f.last_qty, f.last_px FROM fills f JOIN executions e USING (execution_id)
            LEFT JOIN trade_decisions d ON d.decision_id = f.decision_id ORDER BY 1"""
        ),
        "observed": rig.sql(
            """SELECT e.broker_order_id FROM executions e
            WHERE EXISTS (SELECT 1 FROM execution_events v
              WHERE v.execution_id = e.execution_id) ORDER BY 1"""
        ),
        "positions": rig.sql(
            "SELECT symbol, qty, cost_basis, realized_pl FROM positions ORDER BY 1"
        ),
        "strategy_positions": rig.sql(
            """SELECT strategy, symbol, qty, cost_basis, realized_pl
            FROM strategy_positions ORDER BY 1, 2"""
        ),
        "decisions": rig.sql("SELECT decision_hash, status FROM trade_decisions ORDER BY 1"),
    }


def delete(rig: Rig, conditions: dict[str, str]) -> int:
    """Delete rows past triggers and foreign keys, as a careless person or a bad restore would."""
    with rig.database.transaction() as tx:
        tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
        return sum(
            tx.exec_driver_sql(f"DELETE FROM {table} WHERE {condition}").rowcount
            for table, condition in conditions.items()
        )


def some(share: int, salt: int) -> str:
    """A condition that is true for `share` of ten rows, by their place in the file."""
    return f"mod(abs(hashtext(ctid::text || '{salt}')), 10) < {share}"


CASES: dict[str, dict[str, str]] = {
    "every execution, with all that hangs on it": dict.fromkeys(BOOKS, "true"),
    "some of each": {table: some(4, number) for number, table in enumerate(BOOKS)},
    "executions alone": {"executions": some(5, 7)},
    "fills alone": {"fills": some(5, 8)},
    "all fills": {"fills": "true"},
    "observations alone": {"execution_events": "true"},
    "strangers' orders, entirely": {
        "fills": "decision_id IS NULL",
        "execution_events": "execution_id IN (SELECT execution_id FROM executions"
        " WHERE decision_id IS NULL)",
        "executions": "decision_id IS NULL",
    },
}


def reconcile_anew(rig: Rig) -> None:
    """As `torghut reconcile`, or a daemon that starts: a reconciler that remembers nothing."""
    rig.reconciler = rig.new_reconciler()
    rig.fill_budget()
    rig.reconcile()


@pytest.mark.timeout(3600)
def test_deleted_rows_come_back(make_rig: MakeRig) -> None:
    """Each case in turn: one reconciliation restores the books; another one writes nothing."""
    risk = dict.fromkeys(("max_position_notional", "max_gross_exposure", "max_net_exposure"), 10**9)
    rig = make_rig(rate_per_min=100_000, risk=risk)
    trade(rig, ORDERS)
    before = content(rig)
    for name, conditions in CASES.items():
        assert delete(rig, conditions) > 0, name
        reconcile_anew(rig)
        after = content(rig)
        assert {what: after[what] == before[what] for what in before} == dict.fromkeys(
            before, True
        ), name
        assert faults_of(rig) == [], name
        kinds = rig.sql("SELECT DISTINCT kind, resolved_at IS NULL FROM discrepancies")
        assert kinds == [("rows_missing", False)], name
        rows = written(rig)
        reconcile_anew(rig)
        assert written(rig) == rows, name


def test_two_at_once_restore_the_books_once(make_rig: MakeRig) -> None:
    """`torghut reconcile` beside a daemon: who comes second finds the restoration ended."""
    rig = make_rig(rate_per_min=100_000)
    trade(rig, 20)
    before = content(rig)
    delete(rig, {"fills": "true"})
    other = rig.new_reconciler()
    assert other._audit.begin(rig.lease)["missing"] > 0
    reconcile_anew(rig)
    assert other._audit.restoring
    rows = written(rig)
    assert other._audit.finish(rig.lease) == {}
    assert not other._audit.restoring
    assert written(rig) == rows
    assert content(rig) == before


def test_new_exposure_waits_while_rows_are_missing(make_rig: MakeRig) -> None:
    """P7, P12: what is missing may be live, so nothing is added until it is back."""
    rig = make_rig(rate_per_min=100_000)
    trade(rig, 20)
    delete(rig, {"fills": "true"})
    rig.fault("refuse_5xx", route="list_orders", count=1_000, status=503)
    rig.reconciler = rig.new_reconciler()
    rig.reconcile()
    hash_ = rig.send(symbol="AAPL", intent="meanwhile")
    rig.execute()
    row = rig.row(hash_)
    assert (row.status, row.status_reason) == ("denied", "discrepancy_open")
    rig.clear_faults()
    reconcile_anew(rig)
    assert rig.count("discrepancies", "resolved_at IS NULL") == 0
    again = rig.send(symbol="AAPL", intent="afterwards")
    rig.execute()
    assert rig.row(again).status in ("submitted", "closed")


def test_control_without_the_audit_the_books_stay_wrong(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else finds rows that are gone from behind the cursors."""
    monkeypatch.setattr(book_audit.book_audit, "count", lambda *_: ({}, {}))
    rig = make_rig(rate_per_min=100_000)
    trade(rig, 20)
    before = content(rig)
    rig.sql("UPDATE broker_cursors SET position = '2099-01-01T00:00:00.000000Z'")
    delete(rig, {"fills": "true"})
    reconcile_anew(rig)
    assert content(rig) != before


def test_what_the_broker_does_not_show_stays_missing(make_rig: MakeRig) -> None:
    """The discrepancy stays open for a person, and no pass reads everything again for it."""
    rig = make_rig(rate_per_min=100_000)
    trade(rig, 20)
    rig.sql("UPDATE book_tallies SET executions = executions + 1")
    reconcile_anew(rig)
    found = rig.sql("SELECT evidence FROM discrepancies WHERE resolved_at IS NULL")
    assert [row.evidence["unrestored"] for row in found] == [{"executions": 1}]
    rows = written(rig)
    reconcile_anew(rig)
    assert written(rig) == rows


def test_another_process_may_move_the_cursors_meanwhile(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass under way elsewhere writes its cursors after they were taken back: all is read all
    the same."""
    rig = make_rig(rate_per_min=100_000)
    trade(rig, 20)
    before = content(rig)
    delete(rig, {"executions": "true", "fills": "true", "execution_events": "true"})
    rewind = book_audit.cursors.rewind

    def overtaken(*arguments: Any, **named: Any) -> None:
        rewind(*arguments, **named)
        arguments[0].exec_driver_sql(
            """INSERT INTO broker_cursors (account, name, position, updated_at)
            SELECT 'paper', name, '2099-01-01T00:00:00.000000Z', now()
            FROM unnest(ARRAY['orders', 'fills']) name"""
        )

    monkeypatch.setattr(book_audit.cursors, "rewind", overtaken)
    reconcile_anew(rig)
    assert content(rig) == before
    assert rig.count("discrepancies", "resolved_at IS NULL") == 0
