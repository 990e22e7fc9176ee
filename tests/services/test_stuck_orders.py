"""Stuck orders raise an alarm, and it ends when they move on (story 32)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.services.rig import ACCOUNT, Rig
from tests.services.test_order_cancel import resting
from torghut.services.stuck_orders import StuckOrders

LIMIT_S = 300.0
OPEN_AT = datetime(2026, 1, 6, 16, 0, tzinfo=UTC)
JUST_OPEN = datetime(2026, 1, 6, 14, 32, tzinfo=UTC)
CLOSED = datetime(2026, 1, 6, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "seen_s_ago", "now", "alarms"),
    [
        ("pending_cancel", 301, OPEN_AT, True),
        ("pending_cancel", 301, CLOSED, True),
        ("pending_cancel", 299, OPEN_AT, False),
        ("pending_new", 301, OPEN_AT, True),
        ("pending_replace", 301, OPEN_AT, True),
        ("accepted", 301, OPEN_AT, True),
        ("accepted", 80_000, CLOSED, False),
        ("accepted", 80_000, JUST_OPEN, False),
        ("new", 80_000, OPEN_AT, False),
    ],
)
def test_what_is_stuck(
    status: str, seen_s_ago: float, now: datetime, alarms: bool, rig: Rig
) -> None:
    """By when we saw it in that status; `accepted` only while the market is open."""
    resting(rig)
    order_id = rig.sql("SELECT broker_order_id FROM executions")[0][0]
    rig.sql("UPDATE executions SET status = :s", s=status)
    rig.sql(
        """INSERT INTO execution_events (execution_id, event_key, source, status, cum_qty,
          observed_at, raw) SELECT execution_id, 'k', 'rest', :s, 0, :at, '{}' FROM executions""",
        s=status,
        at=now - timedelta(seconds=seen_s_ago),
    )
    watch = StuckOrders(ACCOUNT, rig.database, stuck_after_s=LIMIT_S)
    watch.run_once(rig.lease, now)
    assert rig.discrepancies() == ([("order_stuck", order_id)] if alarms else [])
    assert watch.run_once(rig.lease, now)["stuck"] == 0
    rig.sql("UPDATE executions SET status = 'canceled', terminal = true, leaves_qty = 0")
    assert watch.run_once(rig.lease, now)["moved_on"] == int(alarms)
    kinds = [r[0] for r in rig.sql("SELECT kind FROM events WHERE kind LIKE 'discrepancy%'")]
    assert kinds == (["discrepancy.opened", "discrepancy.closed"] if alarms else [])


def test_fills_that_are_never_listed(rig: Rig) -> None:
    """P12: an order that says it is filled, without fills, is shown until they are booked."""
    resting(rig)
    order_id = rig.sql("SELECT broker_order_id FROM executions")[0][0]
    rig.sql("UPDATE executions SET cum_qty = 1, leaves_qty = qty - 1, updated_at = :at", at=OPEN_AT)
    watch = StuckOrders(ACCOUNT, rig.database, stuck_after_s=LIMIT_S)
    soon, late = (OPEN_AT + timedelta(seconds=LIMIT_S + s) for s in (-1, 1))
    assert watch.run_once(rig.lease, soon)["stuck"] == 0
    assert watch.run_once(rig.lease, late)["stuck"] == 1
    assert rig.discrepancies() == [("fills_missing", order_id)]
    rig.sql("UPDATE executions SET ledger_qty = 1")
    assert watch.run_once(rig.lease, late)["moved_on"] == 1
    assert rig.count("discrepancies", "resolved_at IS NULL") == 0
