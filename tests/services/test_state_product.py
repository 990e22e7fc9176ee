"""Every (decision status × broker order state × execution row × fills known) at once: two passes of
reconciliation make the books right, and a third writes nothing (P12; stories 11, 23-25, 28, 29)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from tests.services.product import (
    NO_ROW,
    NOTHING_FILLED,
    OPEN,
    Case,
    Remembered,
    cases,
    expected,
    seed,
)
from tests.services.rig import Rig
from tests.services.test_reconciler import written
from torghut.domain.lifecycle import DecisionStatus

MakeRig = Callable[..., Rig]
ALL = cases()
POSSIBLE = [case for case in ALL if case.refused is None]
ENDED_WITHOUT_ORDER = {"denied", "rejected", "expired", "canceled"}


@pytest.fixture
def product(make_rig: MakeRig) -> Callable[[Sequence[Case]], Rig]:
    """A rig whose two books are those of the combinations."""

    def make(some: Sequence[Case]) -> Rig:
        rig = make_rig(broker=Remembered)
        assert isinstance(rig.broker, Remembered)
        rig.broker.remember(some)
        with rig.database.transaction() as tx:
            seed(tx, some)
        return rig

    return make


def test_every_combination_converges_in_two_passes(
    product: Callable[[Sequence[Case]], Rig],
) -> None:
    rig = product(POSSIBLE)
    for _ in range(2):
        counts = rig.reconcile()
        assert not counts.get("failed") and not counts.get("poison"), counts
    wrong = faults(rig, POSSIBLE)
    assert not wrong, f"{len(wrong)} of {len(POSSIBLE)}, as {wrong[:5]}"
    before = written(rig)
    counts = rig.reconcile()
    assert not any(counts.values()), counts
    assert written(rig) == before


def test_control_without_corrections_it_does_not(
    product: Callable[[Sequence[Case]], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same check on a part of the combinations, with a diff that finds nothing."""
    monkeypatch.setattr("torghut.services.order_ledger.diff", lambda *_: [])
    some = POSSIBLE[::29]
    rig = product(some)
    rig.reconcile()
    rig.reconcile()
    assert len(faults(rig, some)) > len(some) // 4


def test_what_is_left_out_is_what_the_database_refuses(
    product: Callable[[Sequence[Case]], Rig],
) -> None:
    assert len(ALL) == 11 * 19 * 5 * 3 == 3135
    refused = Counter(case.refused for case in ALL if case.refused)
    assert refused == {NO_ROW: 11 * 19 * 2, NOTHING_FILLED: 11 * (10 * 4 + 1) * 2}
    assert len(POSSIBLE) == len(ALL) - sum(refused.values())
    row = next(case for case in POSSIBLE if case.row == "equal" and case.booked)
    rig = product([row])
    copy = """INSERT INTO fills (activity_id, execution_id, account, strategy, symbol, side,
          last_qty, last_px, cum_qty, leaves_qty, transact_time, recorded_at, raw)
        SELECT 'another', {execution}, account, strategy, symbol, side, {qty}, last_px, cum_qty,
          leaves_qty, transact_time, recorded_at, raw FROM fills LIMIT 1"""
    for execution, qty, rule in (("NULL", "1", "null value"), ("execution_id", "0", "last_qty")):
        with pytest.raises(IntegrityError, match=rule):
            rig.sql(copy.format(execution=execution, qty=qty))
    rig.sql(
        copy.format(execution="execution_id", qty="1")
    )  # control: nothing else stood in the way


# ---------------------------------------------------------------------- the check


def faults(rig: Rig, some: Sequence[Case]) -> list[tuple[Case, str, Any, Any]]:
    """What is not as it must be: case, what, is, must be."""
    books = _books(rig)
    found: list[tuple[Case, str, Any, Any]] = []
    for case in some:
        for what, must in _wanted(case).items():
            found += [(case, what, is_, must)] if (is_ := books[what].get(case.n)) != must else []
    late = {case.hash for case in some if _late(case)}
    extra = set(rig.discrepancies()) ^ {("order_after_end", hash_) for hash_ in late}
    return found + [(some[0], "discrepancies", one, None) for one in sorted(extra)]


def _wanted(case: Case) -> dict[str, Any]:
    order = expected(case)
    shares = case.filled if case.at_broker else sum(case.booked)
    successor = case.successor
    return {
        "execution": order and (order.status, order.cum_qty, order.leaves_qty, shares),
        "mine": order and case.decision is not None and not _unseen(case),
        "successor": successor and (case.decision is not None, "canceled"),
        "decision": case.decision and _ends(case),
        "fills": shares or None,
        "position": shares or None,
        "recovered": 1 if case.decision in OPEN and order else None,
    }


def _ends(case: Case) -> str:
    """Where the decision stands in the end."""
    assert case.decision is not None
    order = expected(case)
    if (case.decision in OPEN and order is None) or case.decision not in {*OPEN, "submitted"}:
        return case.decision.value
    if order is None or not order.terminal or (_unseen(case) and case.decision not in OPEN):
        return DecisionStatus.SUBMITTED.value
    return DecisionStatus.CLOSED.value


def _unseen(case: Case) -> bool:
    """An adopted order that the broker shows no more, of a decision that waits for nothing: nobody
    says that it is the decision's (R5)."""
    return case.row == "external" and case.at_broker is None and case.decision not in OPEN


def _late(case: Case) -> bool:
    """R4: the order came to light after the end of its decision."""
    return (
        case.decision is not None
        and case.decision.value in ENDED_WITHOUT_ORDER
        and case.at_broker is not None
        and (case.row in ("none", "external") or case.successor is not None)
    )


def _books(rig: Rig) -> dict[str, dict[int, Any]]:
    """Our books by the number of the case."""

    def by_case(query: str) -> dict[int, Any]:
        rows = rig.sql(query)
        return {row[0]: row[1] if len(row) == 2 else tuple(row[1:]) for row in rows}

    number = "substr(symbol, 2)::int"
    first = "broker_order_id NOT LIKE '%-next'"
    return {
        "execution": by_case(
            f"""SELECT {number}, status, cum_qty, leaves_qty, ledger_qty FROM executions
            WHERE {first}"""
        ),
        "mine": by_case(f"SELECT {number}, decision_id IS NOT NULL FROM executions WHERE {first}"),
        "successor": by_case(
            f"SELECT {number}, decision_id IS NOT NULL, status FROM executions WHERE NOT {first}"
        ),
        "decision": by_case(f"SELECT {number}, status FROM trade_decisions"),
        "fills": by_case(f"SELECT {number}, sum(last_qty) FROM fills GROUP BY 1"),
        "position": by_case(f"SELECT {number}, qty FROM positions WHERE qty <> 0"),
        "recovered": by_case(
            f"""SELECT {number}, count(*) FROM events JOIN trade_decisions USING (decision_hash)
            WHERE kind = 'order.recovered' GROUP BY 1"""
        ),
    }
