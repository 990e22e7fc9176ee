"""Replace: one live order under every fault, and a client_order_id recorded before the call.

Stories 4, 12, 26: a replacement answered by an error, yet made; ids that recovery does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig
from tests.services.test_order_cancel import resting, status_at_broker
from torghut.services import order_requests
from torghut.services.order_requests import RequestRefused
from torghut.storage import exposure

MakeRig = Callable[..., Rig]


def live(rig: Rig) -> list[Any]:
    """Open orders at the broker, by its own second books."""
    orders = rig.control("GET", "/ledger")["orders"]
    ended = ("filled", "canceled", "expired", "replaced", "rejected")
    return [o for lines in orders.values() for o in lines if o["status"] not in ended]


def patches(rig: Rig) -> int:
    return int(rig.control("GET", "/requests")["routes"].get("replace", 0))


def test_a_new_order_of_the_same_decision(rig: Rig) -> None:
    """The successor is the decision's; the decision closes with it, not with the old order."""
    hash_ = resting(rig)
    asked = order_requests.replace(
        rig.database, hash_, {"qty": "4", "limit_price": "0.99"}, rig.asker()
    )
    assert rig.finish(asked) == [("done", "order_replaced")]
    rows = rig.sql(
        """SELECT client_order_id, status, replaced_by IS NOT NULL AS gone, qty, origin
        FROM executions ORDER BY execution_id"""
    )
    assert [(r.client_order_id, r.status, r.gone) for r in rows] == [
        (hash_, "replaced", True),
        (f"{hash_}-r1", rows[1].status, False),
    ]
    assert rows[1].qty == 4
    rig.reconcile()
    assert rig.status(hash_)[0] == "submitted"
    assert rig.discrepancies() == []
    rig.control("POST", f"/orders/{hash_}-r1/cancel", {})
    rig.reconcile()
    assert rig.status(hash_)[0] == "closed"
    assert rig.row(hash_).status_detail == "canceled"


def test_a_cancel_follows_the_successor(rig: Rig) -> None:
    """Asked for by the decision, it reaches whatever order the decision has now."""
    hash_ = resting(rig)
    rig.finish(order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker("r")))
    rig.finish(order_requests.replace(rig.database, hash_, {"qty": "3"}, rig.asker("r2")))
    asked = order_requests.cancel(rig.database, hash_, rig.asker("c"))
    assert rig.finish(asked) == [("done", "order_canceled")]
    assert live(rig) == []
    assert status_at_broker(rig, f"{hash_}-r2") == "canceled"


FAULTS = [
    *("accept_then_hang", "accept_then_reset", "accept_then_5xx", "accept_then_refuse"),
    *("truncated_body", "garbage_body", "empty_body", "other_id", "slow"),
    *("refuse_5xx", "reset_before", "hang_before", "rate_limit", "late_visibility"),
]


@pytest.mark.parametrize("kind", FAULTS)
def test_never_two_live_orders(kind: str, make_rig: MakeRig) -> None:
    """Story 26: under every answer one order lives, with the new values, under -r1."""
    rig = make_rig(absence_grace_s=3)
    hash_ = resting(rig)
    rig.fault(kind, "replace", hold_s=0.6, delay_s=0.1)
    asked = order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    rig.act()
    rig.fill_budget()
    assert rig.finish(asked) == [("done", "order_replaced")]
    assert [(o["qty"], o["replaces"] is not None) for o in live(rig)] == [("4", True)]
    rig.reconcile()
    ids = rig.sql("SELECT client_order_id FROM executions ORDER BY execution_id")
    assert [row[0] for row in ids] == [hash_, f"{hash_}-r1"]
    assert rig.sql("SELECT count(*) FROM executions WHERE origin = 'external'") == [(0,)]


@pytest.mark.parametrize("kind", ["accept_then_reset", "accept_then_refuse", "accept_then_5xx"])
def test_lookups_that_fail_prove_nothing(kind: str, make_rig: MakeRig) -> None:
    """Questions without an answer keep it in doubt; no second PATCH."""
    rig = make_rig(absence_grace_s=1)
    hash_ = resting(rig)
    before = patches(rig)
    rig.fault(kind, "replace")
    for route in ("by_client_order_id", "get_order"):
        rig.fault("refuse_5xx", route, status=503, count=6)
    asked = order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    assert rig.finish(asked, step_s=5) == [("done", "order_replaced")]
    assert patches(rig) - before == 1
    assert len(live(rig)) == 1


def test_control_a_failed_lookup_taken_for_absence(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the same faults, the lookups believed; a second PATCH goes out."""
    from torghut.services.order_calls import OrderCaller

    def believe(self: Any, question: Any) -> Any:
        order, _ = ask(self, question)
        return order, ""

    ask = OrderCaller._ask
    monkeypatch.setattr(OrderCaller, "_ask", believe)
    monkeypatch.setattr("torghut.services.order_calls.seen", lambda *_, **__: _open())
    rig = make_rig(absence_grace_s=0)
    hash_ = resting(rig)
    before = patches(rig)
    rig.fault("accept_then_reset", "replace")
    for route in ("by_client_order_id", "get_order"):
        rig.fault("refuse_5xx", route, status=503, count=20)
    order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    rig.act(8, step_s=5)
    assert patches(rig) - before > 1


def _open() -> Any:
    from torghut.domain.order_actions import Seen

    return Seen.OPEN


def test_proven_absent_is_sent_again_with_the_same_id(make_rig: MakeRig) -> None:
    """After grace and three misses; a PATCH of ours that arrives late is refused by the broker."""
    rig = make_rig(absence_grace_s=10)
    hash_ = resting(rig)
    before = patches(rig)
    rig.fault("reset_before", "replace")
    asked = order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    rig.act(4, step_s=1)
    assert patches(rig) - before == 1
    assert rig.sql("SELECT status FROM order_actions") == [("in_doubt",)]
    assert rig.finish(asked, step_s=3) == [("done", "order_replaced")]
    row = rig.sql("SELECT attempts, client_order_id FROM order_actions")[0]
    assert (row.attempts, row.client_order_id) == (2, f"{hash_}-r1")
    assert patches(rig) - before == 2
    assert len(live(rig)) == 1


def test_refused(rig: Rig) -> None:
    """The broker's words; the old order stands as it was."""
    hash_ = resting(rig)
    message = "cannot replace order in accepted status"
    rig.fault("reject", "replace", status=422, code=42210000, message=message)
    asked = order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    assert rig.finish(asked) == [("refused", "refused_by_broker")]
    assert message in rig.sql("SELECT status_detail FROM order_actions")[0][0]
    assert [o["qty"] for o in live(rig)] == ["10"]


def test_filled_first(rig: Rig) -> None:
    """The old order may fill before the replacement: nothing is left to replace."""
    hash_ = resting(rig)
    rig.control("POST", f"/orders/{hash_}/fill", {})
    asked = order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    assert rig.finish(asked) == [("moot", "order_ended")]
    rig.reconcile()
    assert rig.status(hash_)[0] == "closed"


def test_filled_in_part(rig: Rig) -> None:
    """Without a quantity the new order has the rest open: the broker would take the original."""
    hash_ = resting(rig)
    rig.control("POST", f"/orders/{hash_}/fill", {"qty": "4", "price": "1"})
    rig.reconcile()
    asked = order_requests.replace(rig.database, hash_, {"limit_price": "0.5"}, rig.asker())
    assert rig.finish(asked) == [("done", "order_replaced")]
    assert [o["qty"] for o in live(rig)] == ["6"]


def test_risk_judges_what_enlarges(make_rig: MakeRig) -> None:
    """With the replaced order's shares taken out; shrinking passes whatever the limits."""
    rig = make_rig(risk={"max_order_qty": "20"})
    hash_ = resting(rig)
    asked = order_requests.replace(rig.database, hash_, {"qty": "21"}, rig.asker("a"))
    assert rig.finish(asked) == [("refused", "denied_by_risk")]
    assert "order_qty" in rig.sql("SELECT status_detail FROM order_actions")[0][0]
    asked = order_requests.replace(rig.database, hash_, {"qty": "20"}, rig.asker("b"))
    assert rig.finish(asked) == [("done", "order_replaced")]
    judged = rig.sql("SELECT outcome FROM risk_verdicts WHERE action_id IS NOT NULL ORDER BY 1")
    assert [row.outcome for row in judged] == ["approved", "denied"]
    asked = order_requests.replace(rig.database, hash_, {"qty": "2"}, rig.asker("c"))
    assert rig.finish(asked) == [("done", "order_replaced")]
    assert len(rig.sql("SELECT 1 FROM risk_verdicts WHERE action_id IS NOT NULL")) == 2


@pytest.mark.parametrize(
    ("state", "changes", "end"),
    [
        ("halted", {"qty": "4"}, ("refused", "denied_by_risk")),
        ("reducing", {"qty": "4"}, ("done", "order_replaced")),
        ("reducing", {"qty": "11"}, ("refused", "denied_by_risk")),
    ],
)
def test_trading_states(state: str, changes: Any, end: Any, rig: Rig) -> None:
    """Halted refuses, reducing lets through what shrinks (P11)."""
    hash_ = resting(rig)
    rig.sql("UPDATE trading_states SET state = :s WHERE scope = 'global'", s=state)
    asked = order_requests.replace(rig.database, hash_, changes, rig.asker())
    assert rig.finish(asked) == [end]


@pytest.mark.parametrize(("halted", "sent"), [(True, 0), (False, 1)])
def test_none_leaves_after_a_halt_is_acknowledged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, halted: bool, sent: int
) -> None:
    """Trading is halted while the call waits for the rate budget; the control: it is not."""
    hash_ = resting(rig)
    wait_for_one = rig.budget.wait_for_one

    def wait(timeout_s: float, *, background: bool = False) -> bool:
        if halted and rig.sql("SELECT 1 FROM order_actions WHERE status = 'sending'"):
            rig.sql("UPDATE trading_states SET state = 'halted' WHERE scope = 'global'")
        return wait_for_one(timeout_s, background=background)

    monkeypatch.setattr(rig.budget, "wait_for_one", wait)
    asked = order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    end = ("refused", "denied_by_risk") if halted else ("done", "order_replaced")
    assert rig.finish(asked) == [end]
    assert patches(rig) == sent
    cancel = order_requests.cancel(rig.database, hash_, rig.asker("c"))
    assert rig.finish(cancel) == [("done", "order_canceled")]  # always possible (P11)


def test_risk_counts_a_replacement_in_doubt(make_rig: MakeRig) -> None:
    """P7: while it is not known whether the larger order stands, it counts."""
    rig = make_rig(absence_grace_s=600)
    hash_ = resting(rig)

    def buy_qty() -> int:
        with rig.database.transaction() as tx:
            seen = exposure.live(tx, ACCOUNT)
        return int(seen.by_symbol["AAPL"].buy_qty)

    assert buy_qty() == 10
    rig.fault("accept_then_reset", "replace")
    for route in ("by_client_order_id", "get_order"):
        rig.fault("refuse_5xx", route, status=503, count=3)
    asked = order_requests.replace(rig.database, hash_, {"qty": "25"}, rig.asker())
    rig.act()
    assert rig.sql("SELECT status FROM order_actions") == [("in_doubt",)]
    assert buy_qty() == 25
    rig.finish(asked)
    assert buy_qty() == 25
    rig.reconcile()
    assert buy_qty() == 25


def test_the_reconciler_knows_our_ids(rig: Rig) -> None:
    """Story 4: an order under a recorded -rN is the decision's, found in the broker's list."""
    hash_ = resting(rig)
    rig.fault("accept_then_reset", "replace")
    rig.fault("refuse_5xx", "get_order", status=503)
    rig.fault("refuse_5xx", "by_client_order_id", status=503)
    order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    rig.act()
    rig.reconcile()
    rows = rig.sql("SELECT client_order_id, origin, decision_id FROM executions ORDER BY 1")
    assert [(r.client_order_id, r.origin) for r in rows] == [
        (hash_, "submitted"),
        (f"{hash_}-r1", "reconciled"),
    ]
    assert rows[0].decision_id == rows[1].decision_id
    assert rig.status(hash_)[0] == "submitted"


def test_replaced_by_somebody_else(rig: Rig) -> None:
    """The successor of a decision's order is the decision's, whoever made it."""
    import requests

    hash_ = resting(rig)
    order_id = rig.broker_orders(hash_)[0]["order_id"]
    keys = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
    url = f"{rig.sim.url}/v2/orders/{order_id}"
    requests.patch(url, json={"qty": "7"}, headers=keys, timeout=10).raise_for_status()
    rig.reconcile()
    assert rig.sql("SELECT count(*) FROM executions WHERE decision_id IS NULL") == [(0,)]
    assert rig.status(hash_)[0] == "submitted"
    asked = order_requests.cancel(rig.database, hash_, rig.asker())
    assert rig.finish(asked) == [("done", "order_canceled")]
    assert live(rig) == []


@pytest.mark.parametrize(
    ("over", "changes", "problem"),
    [
        ({}, {}, "changes nothing"),
        ({}, {"qty": "0"}, "greater than 0"),
        ({}, {"stop_price": "3"}, "does not belong"),
        ({}, {"time_in_force": "never"}, "must be one of"),
        ({}, {"color": "red"}, "not a known field"),
        ({"type": "market", "limit_price": None}, {"limit_price": "3"}, "does not belong"),
        (
            {"type": "market", "limit_price": None, "qty": None, "notional": "9"},
            {"qty": "3"},
            "cannot be replaced",
        ),
        ({"order_class": "oto", "stop_loss": {"stop_price": "0.5"}}, {"limit_price": "2"}, "oto"),
        (
            {
                "order_class": "bracket",
                "stop_loss": {"stop_price": "0.5"},
                "take_profit": {"limit_price": "2"},
            },
            {"qty": "3"},
            "only prices",
        ),
    ],
)
def test_unusable_requests(over: Any, changes: Any, problem: str, rig: Rig) -> None:
    """Named before anything is recorded."""
    hash_ = rig.send(**{"type": "limit", "limit_price": "1", **over})
    with pytest.raises(RequestRefused, match=problem):
        order_requests.replace(rig.database, hash_, changes, rig.asker())
    assert rig.count("order_actions") == 0


@pytest.mark.parametrize(
    ("over", "changes", "reason", "words"),
    [
        ({}, {"limit_price": "0.99999"}, "denied_by_risk", "price_increment"),
        ({"time_in_force": "gtc"}, {"qty": "9.5"}, "denied_by_risk", "fractional_time_in_force"),
        ({"qty": "9.5"}, {"time_in_force": "gtc"}, "denied_by_risk", "fractional_time_in_force"),
        ({}, {"limit_price": "1.00"}, "not_replaceable", "already"),
        ({}, {"qty": "10", "time_in_force": "day"}, "not_replaceable", "already"),
    ],
)
def test_a_doomed_replacement_is_not_sent(
    over: Any, changes: Any, reason: str, words: str, rig: Rig
) -> None:
    """What the broker would refuse whatever the account holds takes nothing of the rate."""
    hash_ = resting(rig, **over)
    before = patches(rig)
    asked = order_requests.replace(rig.database, hash_, changes, rig.asker())
    assert rig.finish(asked) == [("refused", reason)]
    assert words in rig.sql("SELECT status_detail FROM order_actions")[0][0]
    assert patches(rig) == before
    assert len(live(rig)) == 1


def test_control_without_the_rules_it_is_sent(make_rig: MakeRig) -> None:
    rig = make_rig(risk={"check_order_rules": False})
    hash_ = resting(rig)
    before = patches(rig)
    asked = order_requests.replace(rig.database, hash_, {"limit_price": "0.99999"}, rig.asker())
    assert rig.finish(asked) == [("refused", "refused_by_broker")]
    assert patches(rig) > before


def test_what_a_replacement_changed_can_be_changed_back(rig: Rig) -> None:
    hash_ = resting(rig)
    for n, tif in enumerate(("gtc", "day")):
        asked = order_requests.replace(
            rig.database, hash_, {"time_in_force": tif}, rig.asker(str(n))
        )
        assert rig.finish(asked) == [("done", "order_replaced")]


def test_two_replacements_one_after_the_other(rig: Rig) -> None:
    """The second waits for the first, and gets the next number."""
    hash_ = resting(rig)
    first = order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker("1"))
    second = order_requests.replace(rig.database, hash_, {"qty": "3"}, rig.asker("2"))
    assert rig.finish(second) == [("done", "order_replaced")]
    assert rig.finish(first) == [("done", "order_replaced")]
    ids = rig.sql("SELECT client_order_id FROM order_actions ORDER BY action_id")
    assert [row[0] for row in ids] == [f"{hash_}-r1", f"{hash_}-r2"]
    assert [o["qty"] for o in live(rig)] == ["3"]


def test_control_a_fresh_id_on_each_try(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a new -rN for each PATCH, aimed at whatever stands now: replaced twice."""
    from dataclasses import replace

    from torghut.services import order_intents
    from torghut.services.order_intents import IntentWriter
    from torghut.storage import order_actions

    take_up = IntentWriter.take_up

    def forget(self: Any, tx: Any, row: Any, *rest: Any) -> Any:
        return take_up(self, tx, replace(row, client_order_id=None), *rest)

    numbers = iter(range(1, 99))
    monkeypatch.setattr(IntentWriter, "take_up", forget)
    monkeypatch.setattr(order_actions, "replaces_recorded", lambda *_: next(numbers))
    # else the second would be refused: the order has these values by then
    monkeypatch.setattr(order_intents, "_as_it_stands", lambda asked, _order: asked)
    rig = make_rig(absence_grace_s=0)
    rig.sql("ALTER TABLE order_actions DISABLE TRIGGER action_guard")
    hash_ = resting(rig)
    before = patches(rig)
    rig.fault("accept_then_reset", "replace")
    order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    monkeypatch.setattr("torghut.services.order_calls.OrderCaller._ask", lambda *_: (None, ""))
    monkeypatch.setattr("torghut.services.order_calls.seen", lambda *_, **__: _open())
    rig.act(1, step_s=5)
    rig.reconcile()
    rig.act(6, step_s=5)
    assert patches(rig) - before > 1
