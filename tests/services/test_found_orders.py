"""A decision whose order is known before it is sent: settled, not judged, expired or sent (P1)."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.factories import decision
from tests.services.rig import ACCOUNT, Rig
from torghut.services import order_requests
from torghut.services.replay import replay


def known_before(rig: Rig, count: int = 1, **over: object) -> list[str]:
    """Decisions that come in when their orders have been adopted: as after a restored backup."""
    rig.control("POST", "/switches", {"hold_fills": True})
    intents = [f"n{n}" for n in range(count)]
    for intent in intents:
        rig.place(client_order_id=decision(intent=intent).decision_hash, **over)
    rig.reconcile()
    assert rig.sql("SELECT DISTINCT origin FROM executions") == [("external",)]
    return intents


def overdue(rig: Rig) -> datetime:
    """An expiry that is over once `pass_s(31)` is called."""
    return rig.time() + timedelta(seconds=30)


def test_it_is_settled_and_not_sent_again(rig: Rig) -> None:
    """By the executor, in the place of the verdict; the order becomes the decision's own."""
    (intent,) = known_before(rig)
    hash_ = rig.send(intent=intent)
    rig.execute()
    assert rig.status(hash_) == ("submitted", "recovered")
    assert rig.sql("SELECT origin, decision_id IS NOT NULL FROM executions") == [
        ("reconciled", True)
    ]
    assert rig.events(hash_).count("order.recovered") == 1
    assert rig.posts(hash_) == 1  # the stranger's
    assert rig.count("risk_verdicts") == 0


def test_it_is_settled_while_nothing_is_claimed(rig: Rig) -> None:
    """By the reconciler, as when the account is halted."""
    (intent,) = known_before(rig)
    hash_ = rig.send(intent=intent)
    assert rig.reconcile()["backfill"] == 1
    assert rig.status(hash_) == ("submitted", "recovered")
    rig.reconcile()
    assert rig.events(hash_).count("order.recovered") == 1


def test_replay_misses_no_verdict_where_none_was_given(rig: Rig) -> None:
    """Control: the verdict of one that was judged and sent is missed when it is gone."""
    (intent,) = known_before(rig)
    rig.send(intent=intent)
    rig.execute()
    assert replay(rig.database, ACCOUNT, since=None, policy=None).changed == []
    judged = rig.send(intent="control")
    rig.execute()
    rig.sql("ALTER TABLE risk_verdicts DISABLE TRIGGER USER")
    rig.sql("DELETE FROM risk_verdicts")
    changed = replay(rig.database, ACCOUNT, since=None, policy=None).changed
    assert [item.decision_hash for item in changed] == [judged]


def test_it_does_not_expire(rig: Rig) -> None:
    """Its time is over and its order lives: settled, by claim or by reconciliation."""
    expires = overdue(rig).isoformat()
    first, second = (rig.send(intent=i, expires_at=expires) for i in known_before(rig, 2))
    other = rig.send(intent="control", expires_at=expires)
    rig.time.pass_s(31)
    later = "UPDATE trade_decisions SET due_at = due_at + interval '1 h' WHERE decision_hash = :h"
    rig.sql(later, h=first)
    rig.execute()
    assert [rig.row(hash_).status for hash_ in (first, second, other)] == [
        "planned", "submitted", "expired",
    ]  # fmt: skip
    rig.reconcile()
    assert rig.row(first).status == "submitted"
    assert rig.discrepancies() == []


def test_one_unlike_its_decision_is_a_discrepancy(rig: Rig) -> None:
    (intent,) = known_before(rig, qty="7")
    hash_ = rig.send(intent=intent)
    rig.execute()
    assert rig.row(hash_).status == "submitted"
    assert rig.discrepancies() == [("order_differs", hash_)]


def test_a_cancel_reaches_it_at_the_broker(rig: Rig) -> None:
    """It is not called off as if it had not been sent: that would leave its order alive."""
    (intent,) = known_before(rig)
    hash_ = rig.send(intent=intent)
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    rig.act()
    assert rig.row(hash_).status == "planned"
    rig.reconcile()
    rig.time.pass_s(60)
    assert rig.finish(asked) == [("done", "order_canceled")]
    assert [order["status"] for order in rig.broker_orders(hash_)] == ["canceled"]
