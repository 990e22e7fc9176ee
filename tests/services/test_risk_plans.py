"""What a claim reads stays small at size: rows visited, as Postgres counts them.

The whole size is `TORGHUT_TEST_PLAN_ROWS=1000000`; the normal run has fewer.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.services.rig import ACCOUNT, Rig
from torghut.domain.exposure import TradingState
from torghut.storage import control, exposure

ROWS = int(os.environ.get("TORGHUT_TEST_PLAN_ROWS", "50000"))
VISITED_MAX = 2_000


def visited(plan: dict[str, Any]) -> int:
    """Rows that a plan looked at, all its nodes together."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    own += plan.get("Rows Removed by Join Filter", 0)
    below = sum(visited(part) for part in plan.get("Plans", []))
    return int(own * plan["Actual Loops"]) + below


def explained(rig: Rig, query: Any, **values: object) -> int:
    with rig.database.transaction() as tx:
        answer = tx.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {query.text}"), values).scalar()
    (plan,) = json.loads(answer) if isinstance(answer, str) else answer
    return visited(plan["Plan"])


@pytest.fixture
def long_used(rig: Rig) -> Rig:
    """An account with many attempts behind it, all of them refused, that a person resumed."""
    rig.send()
    rig.execute()
    rig.sql(
        """INSERT INTO submission_attempts (decision_id, operation, attempt_no, client_order_id,
             fencing_token, intended_at, outcome, answered_at)
        SELECT d.decision_id, 'submit', n + 1, d.decision_hash, 1, d.created_at + n * interval
          '1 ms', 'refused', now()
        FROM trade_decisions d, generate_series(1, :rows) AS n""",
        rows=ROWS,
    )
    rig.sql("ANALYZE submission_attempts")
    rig.sql("ANALYZE trade_decisions")
    return rig


def resume(rig: Rig, at: datetime) -> None:
    for state in (TradingState.HALTED, TradingState.ACTIVE):
        with rig.database.transaction() as tx:
            control.set_trading_state(tx, control.account_scope(ACCOUNT), state, actor="ann",
                                      reason="looked at", now=at)  # fmt: skip


@pytest.mark.timeout(300)
def test_refusals_in_a_row_are_found_from_the_newest_on(long_used: Rig) -> None:
    """Story 43. After a resume a million older attempts are not looked at, nor without one."""
    rig = long_used
    about = {"account": ACCOUNT, "limit": 101}
    newest = rig.sql("SELECT max(intended_at) FROM submission_attempts")[0][0]
    assert explained(rig, exposure._REJECTS, **about) < VISITED_MAX
    resume(rig, newest + timedelta(seconds=1))
    assert explained(rig, exposure._REJECTS, **about) < VISITED_MAX
    with rig.database.transaction() as tx:
        assert tx.execute(exposure._REJECTS, about).scalar_one() == 0
    resume(rig, newest - timedelta(milliseconds=7))
    with rig.database.transaction() as tx:
        assert tx.execute(exposure._REJECTS, about).scalar_one() == 7


@pytest.mark.timeout(300)
def test_control_in_the_order_of_their_ids_all_are_looked_at(long_used: Rig) -> None:
    rig = long_used
    newest = rig.sql("SELECT max(intended_at) FROM submission_attempts")[0][0]
    resume(rig, newest + timedelta(seconds=1))
    by_id = exposure._REJECTS.text.replace("a.intended_at DESC, a.attempt_id", "a.attempt_id")
    assert by_id != exposure._REJECTS.text
    assert explained(rig, text(by_id), account=ACCOUNT, limit=101) > VISITED_MAX


@pytest.mark.timeout(300)
def test_the_last_minute_is_found_from_its_beginning_on(long_used: Rig) -> None:
    rig = long_used
    newest = rig.sql("SELECT max(intended_at) FROM submission_attempts")[0][0]
    ago = {"second_ago": newest - timedelta(seconds=1), "minute_ago": newest - timedelta(seconds=1)}
    recent = {"account": ACCOUNT, "judged": [], **ago}
    assert explained(rig, exposure._RECENT, **recent) < 5 * 1_000
    twins = {"account": ACCOUNT, "judged": [], "symbols": ["AAPL"], "since": ago["second_ago"]}
    assert explained(rig, exposure._TWINS, **twins) < 5 * 1_000
