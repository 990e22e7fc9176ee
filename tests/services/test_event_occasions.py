"""Each event once on its occasion, in the transaction of the change, whoever learns it (P9).

What happened to an order is learned by the executor (the answer to the POST), the settler (a
lookup), the order desk (an operator's request), the reconciler (the broker's lists) or the stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig
from tests.services.test_order_cancel import RESTING, resting
from torghut.ports import Outcome
from torghut.services import order_requests
from torghut.storage import executions, folds, order_ends
from torghut.storage.executions import Observation
from torghut.storage.leases import lock_books


def look(rig: Rig, passes: int = 4) -> None:
    """Passes of everybody, more than there is to learn."""
    for _ in range(passes):
        rig.execute(1)
        rig.settle()
        rig.reconcile()
        rig.time.pass_s(30)


def payloads(rig: Rig, kind: str) -> list[dict[str, Any]]:
    rows = rig.sql("SELECT payload FROM events WHERE kind = :k ORDER BY event_seq", k=kind)
    return [row[0] for row in rows]


def orders(rig: Rig, hash_: str) -> list[str]:
    """Kinds of the events about the decision's order, in order."""
    return [kind for kind in rig.events(hash_) if kind.startswith("order.")]


def test_a_cancel_that_the_reconciler_learns(rig: Rig) -> None:
    hash_ = resting(rig)
    rig.control("POST", f"/orders/{hash_}/cancel", {})
    look(rig)
    assert orders(rig, hash_) == ["order.submit_started", "order.submitted", "order.canceled"]
    (order_id,) = rig.sql("SELECT broker_order_id FROM executions")[0]
    assert payloads(rig, "order.canceled") == [
        {"broker_order_id": order_id, "symbol": "AAPL", "cum_qty": "0"}
    ]


def test_a_cancel_that_the_settler_learns(rig: Rig) -> None:
    """It comes after the event that says that there is an order, though it is booked before."""
    rig.fault("accept_then_reset")
    hash_ = rig.send(**RESTING)
    rig.execute()
    rig.control("POST", f"/orders/{hash_}/cancel", {})
    look(rig)
    assert orders(rig, hash_) == [
        "order.submit_started", "order.in_doubt", "order.recovered", "order.canceled",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [("canceled", "order.canceled"), ("rejected", "order.rejected"), ("expired", None)],
)
def test_an_end_that_the_executor_learns(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, status: str, kind: str | None
) -> None:
    """The answer to the POST shows it: it was taken, and has ended."""
    submit = rig.placer._broker.submit

    def ended(*given: Any) -> Any:
        answer = submit(*given)
        assert answer.outcome is Outcome.ACCEPTED and answer.order is not None
        return replace(answer, order=replace(answer.order, status=status))

    monkeypatch.setattr(rig.placer._broker, "submit", ended)
    hash_ = rig.send(**RESTING)
    rig.execute()
    rig.control("POST", f"/orders/{hash_}/cancel", {})
    look(rig)
    assert orders(rig, hash_) == [
        "order.submit_started",
        "order.submitted",
        *([kind] if kind else []),
    ]


def test_of_a_batch_that_one_order_spoils_each_end_is_reported_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their booking is given up and done again one by one; what cannot be stored is in doubt."""
    submit = rig.placer._broker.submit

    def ended(order: Any, client_order_id: str) -> Any:
        answer = submit(order, client_order_id)
        amount = Decimal(10) ** 30 if order.symbol == "MSFT" else None
        seen = replace(answer.order, status="canceled", limit_price=amount)
        return replace(answer, order=seen)

    monkeypatch.setattr(rig.placer._broker, "submit", ended)
    first, spoilt, last = (rig.send(**{**RESTING, "symbol": s}) for s in ("AAPL", "MSFT", "SPY"))
    rig.execute()
    for hash_ in (first, last):
        assert orders(rig, hash_)[1:] == ["order.submitted", "order.canceled"]
    assert orders(rig, spoilt)[1:] == ["order.in_doubt"]
    assert rig.count("executions") == rig.count("execution_events") == 2
    assert [kind for kind, _ in rig.discrepancies()] == ["cannot_be_booked"]


def test_control_reported_at_once_the_order_would_be_turned_around(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_ends, "before_commit", lambda tx, call, items: call(tx, list(items)))
    rig.fault("accept_then_reset")
    hash_ = rig.send(**RESTING)
    rig.execute()
    rig.control("POST", f"/orders/{hash_}/cancel", {})
    look(rig)
    assert orders(rig, hash_)[-2:] == ["order.canceled", "order.recovered"]


@pytest.mark.parametrize("what", ["cancel", "replace"])
def test_what_an_operator_asked_for(rig: Rig, what: str) -> None:
    hash_ = resting(rig)
    if what == "cancel":
        asked = order_requests.cancel(rig.database, hash_, rig.asker())
    else:
        asked = order_requests.replace(rig.database, hash_, {"limit_price": "0.99"}, rig.asker())
    rig.finish(asked)
    look(rig)
    assert orders(rig, hash_)[2:] == [f"order.{what}ed" if what == "cancel" else "order.replaced"]
    if what == "replace":
        successor = rig.sql("SELECT broker_order_id FROM executions ORDER BY execution_id")[1][0]
        assert [one["replaced_by"] for one in payloads(rig, "order.replaced")] == [successor]
        rig.control("POST", f"/orders/{hash_}-r1/cancel", {})
        look(rig)
        assert orders(rig, hash_)[3:] == ["order.canceled"], "the successor's own"


def test_a_rejection_after_the_order_was_taken(rig: Rig) -> None:
    hash_ = resting(rig)
    order = rig.placer._broker.lookup(hash_).order
    assert order is not None
    decision_id = rig.row(hash_).decision_id
    for _ in range(2):
        with rig.database.transaction() as tx:
            lock_books(tx, ACCOUNT)
            seen = Observation(replace(order, status="rejected"), decision_id, "reconciled", "rest")
            executions.record(tx, ACCOUNT, [seen], now=rig.time())
    assert orders(rig, hash_)[2:] == ["order.rejected"]
    (said,) = payloads(rig, "order.rejected")
    assert said["broker_order_id"] == order.broker_order_id


def test_orders_of_others_are_adopted_and_no_more(rig: Rig) -> None:
    placed = rig.place(type="limit", limit_price="1", client_order_id="theirs")
    look(rig)
    rig.control("POST", f"/orders/{placed['client_order_id']}/cancel", {})
    look(rig)
    kinds = Counter(row[0] for row in rig.sql("SELECT kind FROM events"))
    assert kinds["order.adopted"] == 1 and not kinds["order.canceled"]


def test_undone_is_not_reported(rig: Rig) -> None:
    """The event is in the transaction of the change: neither is there without the other."""
    hash_ = resting(rig)
    order = rig.placer._broker.lookup(hash_).order
    assert order is not None
    seen = Observation(
        replace(order, status="canceled"), rig.row(hash_).decision_id, "reconciled", "rest"
    )
    with pytest.raises(ZeroDivisionError), rig.database.transaction() as tx:
        executions.record(tx, ACCOUNT, [seen], now=rig.time())
        raise ZeroDivisionError
    with rig.database.transaction() as tx:
        nested = tx.begin_nested()
        executions.record(tx, ACCOUNT, [seen], now=rig.time())
        nested.rollback()
    assert "order.canceled" not in orders(rig, hash_)
    assert rig.sql("SELECT status FROM executions") != [("canceled",)]


def test_positions(make_rig: Callable[..., Rig]) -> None:
    """One for each symbol and commit, chained: each begins where the one before ended."""
    rig = make_rig()
    hashes = [rig.send(intent=str(n), symbol=s) for n, s in enumerate(["AAPL", "AAPL", "MSFT"])]
    rig.drive(hashes)
    look(rig)
    fills = payloads(rig, "fill.recorded")
    assert fills
    held: dict[str, Decimal] = {}
    for said in payloads(rig, "position.changed"):
        assert Decimal(said["qty_before"]) == held.get(said["symbol"], Decimal(0))
        held[said["symbol"]] = Decimal(said["qty"])
    booked = {row[0]: row[1] for row in rig.sql("SELECT symbol, qty FROM positions")}
    assert held == booked == {"AAPL": 20, "MSFT": 10}
    before = len(payloads(rig, "position.changed"))
    with rig.database.transaction() as tx:
        lock_books(tx, ACCOUNT)
        folds.refold(tx, ACCOUNT, now=rig.time())
    look(rig, 2)
    assert len(payloads(rig, "position.changed")) == before, "folded anew, it is the same"
    rig.sql("UPDATE positions SET qty = qty + 1, cost_basis = cost_basis WHERE symbol = 'MSFT'")
    with rig.database.transaction() as tx:
        lock_books(tx, ACCOUNT)
        folds.refold(tx, ACCOUNT, now=rig.time())
    (mended,) = payloads(rig, "position.changed")[before:]
    assert (mended["symbol"], mended["qty_before"], mended["qty"]) == ("MSFT", "11", "10")


def test_decisions_once_each(rig: Rig) -> None:
    """planned, approved, denied, expired, and what the order adds, each once for its decision."""
    sent = rig.send(intent="sent")
    denied = rig.send(intent="denied", qty="0.5", type="limit", limit_price="1")
    event_ts = rig.time().isoformat()
    late = rig.send(intent="late", event_ts=event_ts, expires_at=event_ts)
    rig.execute()
    look(rig)
    rows = rig.sql("SELECT kind, decision_hash FROM events WHERE decision_hash IS NOT NULL")
    counts = Counter((row[0], row[1]) for row in rows if row[0] != "fill.recorded")
    assert set(counts.values()) == {1}, counts
    assert counts.keys() >= {
        *((kind, sent) for kind in ("decision.planned", "decision.approved", "order.submitted")),
        ("decision.expired", late),
    }
    assert rig.status(denied)[0] in ("denied", "rejected", "submitted")
