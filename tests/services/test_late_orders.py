"""An order that appears after its decision had ended without one is canceled, once, and shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.services.rig import Rig, eventually
from tests.services.test_order_cancel import RESTING, cancels, status_at_broker
from torghut.services import order_ledger

MakeRig = Callable[..., Rig]
TTL_S = 30


def expired(rig: Rig, **over: object) -> str:
    """A decision whose time was over before it was sent."""
    expires = datetime.fromtimestamp(rig.time().timestamp() + TTL_S, UTC).isoformat()
    hash_ = rig.send(expires_at=expires, **{**RESTING, **over})
    rig.time.pass_s(TTL_S + 1)
    rig.execute()
    assert rig.row(hash_).status == "expired"
    return hash_


def late(rig: Rig, **over: object) -> str:
    """An order that stands at the broker after the end of its decision, and was seen there."""
    hash_ = expired(rig, **over)
    rig.place(client_order_id=hash_, **{**RESTING, "time_in_force": "day", **over})
    assert rig.reconcile()["late"] == 1
    return hash_


def discrepancies(rig: Rig) -> list[tuple[Any, ...]]:
    return [tuple(r) for r in rig.sql("SELECT kind, subject, resolution FROM discrepancies")]


def requests(rig: Rig) -> list[tuple[Any, ...]]:
    return [tuple(r) for r in rig.sql("SELECT operation, requested_by, status FROM order_actions")]


def work_off(rig: Rig) -> None:
    """The order desk at work until no request is open."""

    def step() -> bool:
        rig.act()
        rig.time.pass_s(2)
        return not rig.sql("SELECT 1 FROM order_actions WHERE status NOT IN ('done', 'moot')")

    eventually(step, 30)


def test_a_request_that_took_its_time_is_canceled(rig: Rig) -> None:
    """The POST is lost, the decision ends as absent and out of time, and then the broker takes the
    order: its cancel is recorded with its booking, sent once, and the discrepancy ends with it."""
    rig.fault("late_accept", delay_s=5, hang=False)
    expires = datetime.fromtimestamp(rig.time().timestamp() + TTL_S, UTC).isoformat()
    hash_ = rig.send(expires_at=expires, **RESTING)
    rig.drive([hash_], step_s=20)
    assert rig.status(hash_) == ("expired", "out_of_time")
    eventually(lambda: rig.broker_orders(hash_))
    before = cancels(rig)
    assert rig.reconcile()["late"] == 1
    assert requests(rig) == [("cancel", "reconciler", "requested")]
    rig.reconcile()
    assert discrepancies(rig) == [("order_after_end", hash_, None)]
    work_off(rig)
    rig.reconcile()
    assert requests(rig) == [("cancel", "reconciler", "done")]
    assert (cancels(rig) - before, status_at_broker(rig, hash_)) == (1, "canceled")
    assert discrepancies(rig) == [("order_after_end", hash_, "the order has ended without a fill")]
    assert rig.status(hash_) == ("expired", "out_of_time")
    events = [k for k in rig.events(hash_) if k.startswith("order_action")]
    assert events[0] == "order_action.requested"
    assert rig.sql("SELECT count(*) FROM events WHERE kind = 'discrepancy.closed'") == [(1,)]


def test_control_kept_if_so_configured(make_rig: MakeRig) -> None:
    """`keep`: nothing is asked for, the order stands, and so does the discrepancy, for as long."""
    rig = make_rig(late_orders="keep")
    hash_ = late(rig)
    for _ in range(2):
        rig.act()
        rig.reconcile()
    assert requests(rig) == []
    assert status_at_broker(rig, hash_) == "new"
    assert discrepancies(rig) == [("order_after_end", hash_, None)]
    rig.control("POST", f"/orders/{hash_}/expire")
    rig.reconcile()
    assert discrepancies(rig) == [("order_after_end", hash_, "the order has ended without a fill")]


def test_a_fill_keeps_it_open(rig: Rig) -> None:
    """Money moved: whatever is canceled of the rest, a person has to see it."""
    rig.control("POST", "/switches", {"hold_fills": True})
    hash_ = expired(rig, limit_price="1000")
    rig.place(client_order_id=hash_, **{**RESTING, "limit_price": "1000"})
    rig.control("POST", f"/orders/{hash_}/fill", {"qty": "4"})
    rig.reconcile()
    work_off(rig)
    for _ in range(2):
        rig.reconcile()
    assert status_at_broker(rig, hash_) == "canceled"
    assert rig.sql("SELECT qty FROM positions") == [(4,)]
    assert discrepancies(rig) == [("order_after_end", hash_, None)]


def test_one_whose_successor_is_not_known_has_not_ended(rig: Rig) -> None:
    hash_ = late(rig)
    rig.sql("""UPDATE executions SET status = 'replaced', terminal = true, leaves_qty = 0,
        replaced_by = 'nobody-knows'""")
    rig.reconcile()
    assert discrepancies(rig) == [("order_after_end", hash_, None)]


def test_power_fails_before_the_booking(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Booking and request are one transaction: both are gone, and both come with the next pass."""

    class PowerFailure(BaseException):
        pass

    def fails(_point: object) -> None:
        raise PowerFailure

    hash_ = expired(rig)
    rig.place(client_order_id=hash_, **RESTING, time_in_force="day")
    with monkeypatch.context() as patched:
        patched.setattr(order_ledger, "reached", fails)
        with pytest.raises(PowerFailure):
            rig.reconcile()
    assert (rig.count("executions"), requests(rig), discrepancies(rig)) == (0, [], [])
    rig.reconcile()
    assert (rig.count("executions"), len(requests(rig))) == (1, 1)
    assert discrepancies(rig) == [("order_after_end", hash_, None)]


def come_back(rig: Rig, hash_: str, ended: str) -> None:
    """A process that holds the answer of its POST unwritten loses the account; the next owner does
    not see the order, and goes as far as `ended`; then the first one is the owner again."""
    first = rig.executor
    rig.execute(1)
    rig.lease, rig.executor = rig.take_lease("the next"), rig.new_executor()

    def step() -> bool:
        rig.execute(1)
        rig.settle()
        rig.time.pass_s(2)
        return bool(rig.row(hash_).status == ended)

    eventually(step, 30)
    rig.lease, rig.executor = rig.take_lease("the first again"), first
    rig.execute(1)


@pytest.fixture
def hidden(rig: Rig) -> str:
    """A decision whose order will be at the broker, and not be seen there by lookups."""
    rig.fault("late_visibility", visible_after_s=3600)
    expires = datetime.fromtimestamp(rig.time().timestamp() + TTL_S, UTC).isoformat()
    return rig.send(expires_at=expires, **RESTING)


def test_one_whose_answer_was_written_late_is_watched_too(rig: Rig, hidden: str) -> None:
    """The answer books the order before any list shows it: it must not pass for known (P2, R4).
    The protocol model found this."""
    come_back(rig, hidden, "expired")
    assert rig.count("executions", "decision_id IS NOT NULL") == 1
    assert discrepancies(rig) == [("order_after_end", hidden, None)]
    assert requests(rig) == [("cancel", "reconciler", "requested")]
    assert rig.status(hidden) == ("expired", "out_of_time")


def test_an_answer_written_late_ends_the_doubt(rig: Rig, hidden: str) -> None:
    """The next owner had only come to doubt: what is booked is `submitted`, at once."""
    come_back(rig, hidden, "in_doubt")
    assert rig.status(hidden) == ("submitted", "recovered")
    assert rig.posts(hidden) == 1
    assert discrepancies(rig) == []
