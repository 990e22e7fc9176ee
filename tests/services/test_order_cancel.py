"""Cancel: asked for, seen ended, never guessed (P4; stories 8, 27, 32)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.services.rig import ACCOUNT, Rig
from torghut.services import order_requests
from torghut.services.order_requests import RequestRefused

MakeRig = Callable[..., Rig]
RESTING = {"type": "limit", "limit_price": "1", "qty": "10"}


def resting(rig: Rig, **over: object) -> str:
    """A decision whose order stands at the broker."""
    hash_ = rig.send(**{**RESTING, **over})
    rig.execute()
    rig.reconcile()
    assert rig.status(hash_)[0] == "submitted"
    return hash_


def status_at_broker(rig: Rig, client_order_id: str) -> str:
    return str(rig.broker_orders(client_order_id)[0]["status"])


def cancels(rig: Rig) -> int:
    return int(rig.control("GET", "/requests")["routes"].get("cancel", 0))


def test_a_standing_order(rig: Rig) -> None:
    """204 is not the end: done is when the order is seen canceled, and the decision closes."""
    hash_ = resting(rig)
    before = cancels(rig)
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    rig.act()
    assert rig.sql("SELECT status, outcome FROM order_actions") == [("confirming", "accepted")]
    assert rig.finish(asked) == [("done", "order_canceled")]
    assert cancels(rig) - before == 1
    assert status_at_broker(rig, hash_) == "canceled"
    rig.reconcile()
    assert rig.status(hash_) == ("closed", "order_terminal")
    kinds = [k for k in rig.events(hash_) if k.startswith("order_action")]
    assert kinds == [
        *("order_action.requested", "order_action.started"),
        *("order_action.confirming", "order_action.done"),
    ]


def test_not_sent_yet_is_called_off(rig: Rig) -> None:
    """Nothing leaves: planned and approved decisions end as canceled, with the reason."""
    planned = rig.send(intent="planned")
    posts = rig.posts()
    asked = order_requests.cancel(rig.database, planned, rig.asker())
    assert rig.finish(asked) == [("done", "called_off")]
    assert rig.status(planned) == ("canceled", "canceled_by_operator")
    rig.execute()
    assert rig.posts() == posts
    assert rig.events(planned)[-2:] == ["decision.canceled", "order_action.done"]


def test_approved_is_called_off(make_rig: MakeRig) -> None:
    rig = make_rig(trading_enabled=False)
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_)[0] == "approved"
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    assert rig.finish(asked) == [("done", "called_off")]
    assert rig.status(hash_)[0] == "canceled"


def test_in_doubt_waits_until_it_is_settled(rig: Rig) -> None:
    """An order may stand that nobody knows: the cancel waits for the settler, then acts."""
    rig.fault("accept_then_reset")
    hash_ = rig.send(**RESTING)
    rig.execute()
    assert rig.status(hash_)[0] == "in_doubt"
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    rig.act(3, step_s=1)
    assert rig.sql("SELECT status, status_reason, attempts FROM order_actions") == [
        ("requested", "waits_for_decision", 0)
    ]
    rig.settle()
    assert rig.finish(asked) == [("done", "order_canceled")]


def test_filled_before_the_cancel(rig: Rig) -> None:
    """Story 8: 422 on a cancel says that the order ended, and the look says how."""
    hash_ = resting(rig)
    rig.control("POST", f"/orders/{hash_}/fill", {})
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    assert rig.finish(asked) == [("moot", "order_ended")]
    row = rig.sql("SELECT status_detail, http_status, outcome FROM order_actions")[0]
    assert row.http_status == 422
    assert row.outcome == "refused"


DOUBTFUL = [
    *("accept_then_hang", "accept_then_reset", "accept_then_5xx", "accept_then_refuse"),
    *("refuse_5xx", "reset_before", "hang_before", "rate_limit", "unauthorized", "forbidden"),
    *("slow", "garbage_body", "empty_body", "truncated_body"),
]


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_every_answer_ends_with_the_order_canceled(kind: str, rig: Rig) -> None:
    """Whatever came back to the DELETE, the order is looked at, and asked for again if need be."""
    hash_ = resting(rig)
    rig.fault(kind, "cancel", hold_s=0.6)
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    rig.fill_budget()
    rig.act()
    rig.fill_budget()
    assert rig.finish(asked)[0][0] == "done"
    assert status_at_broker(rig, hash_) == "canceled"


def test_still_open_after_204_is_asked_for_again(rig: Rig) -> None:
    """A cancel that the broker took and forgot: looks, then another DELETE."""
    hash_ = resting(rig)
    before = cancels(rig)
    rig.fault("garbage_body", "get_order", count=2)
    rig.control("POST", "/switches", {"cancel_delay_ms": 0})
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    lost = rig.sql("SELECT broker_order_id FROM executions")[0][0]
    assert lost
    rig.sql("UPDATE order_actions SET status = 'sending', attempts = 1, fencing_token = 1,"
            " broker_order_id = :id", id=lost)  # fmt: skip
    rig.sql("UPDATE order_actions SET status = 'confirming', status_reason = 'asked_for'")
    assert rig.finish(asked) == [("done", "order_canceled")]
    assert cancels(rig) - before == 1


def test_by_filter_and_all(rig: Rig) -> None:
    """What stands under the filter, orders of others included unless a strategy is named."""
    first = resting(rig, intent="a")
    second = resting(rig, intent="b", symbol="MSFT")
    other = rig.place(type="limit", limit_price="1", symbol="MSFT")
    rig.reconcile()
    asked = order_requests.cancel_all(
        rig.database, ACCOUNT, rig.asker("strategy"), symbol="msft", strategy="sample"
    )
    assert [one.decision_hash for one in asked.actions] == [second]
    assert rig.finish(asked) == [("done", "order_canceled")]
    asked = order_requests.cancel_all(rig.database, ACCOUNT, rig.asker("all"))
    assert {one.target for one in asked.actions} >= {first, other["id"]}
    assert {end for end, _ in rig.finish(asked)} <= {"done", "moot"}
    assert status_at_broker(rig, first) == "canceled"
    assert status_at_broker(rig, other["client_order_id"]) == "canceled"


def test_the_same_key_is_the_same_request(rig: Rig) -> None:
    """Replayed while nothing differs, a conflict otherwise; nothing is done twice."""
    hash_ = resting(rig)
    first = order_requests.cancel(rig.database, hash_, rig.asker("k"))
    again = order_requests.cancel(rig.database, hash_, rig.asker("k"))
    assert [a.action_id for a in first.actions] == [a.action_id for a in again.actions]
    assert (first.replayed, again.replayed) == (False, True)
    with pytest.raises(RequestRefused) as refused:
        order_requests.replace(rig.database, hash_, {"qty": "1"}, rig.asker("k"))
    assert refused.value.conflict
    assert rig.count("order_actions") == 1


def test_halted_still_cancels(rig: Rig) -> None:
    """P11: what reduces risk stays possible."""
    hash_ = resting(rig)
    rig.sql("UPDATE trading_states SET state = 'halted' WHERE scope = 'global'")
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    assert rig.finish(asked) == [("done", "order_canceled")]


def test_a_dead_writer_is_swept(rig: Rig) -> None:
    """`sending` without anybody at it: in doubt, looked at, asked for again."""
    hash_ = resting(rig)
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    order_id = rig.sql("SELECT broker_order_id FROM executions")[0][0]
    rig.sql("UPDATE order_actions SET status = 'sending', attempts = 1, fencing_token = 1,"
            " broker_order_id = :id", id=order_id)  # fmt: skip
    rig.take_lease("another")
    rig.lease = rig.take_lease("third")
    assert rig.act()["swept"] == 1
    assert rig.finish(asked) == [("done", "order_canceled")]
    assert "order_action.in_doubt" in rig.events(hash_)
