"""The Knight guard and replacements: what was recorded before its call is no excess, all else is.

The strange orders are put at the broker under ids of our form, as a program gone wrong would. Each
trip has its control in the same story without the guard: the account goes on trading.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.services.rig import ACCOUNT, Rig
from tests.services.test_knight_guard import compare, inject, trips
from tests.services.test_order_cancel import resting
from torghut.domain.excess import hash_of
from torghut.services import order_requests
from torghut.storage import approvals


@pytest.fixture
def guarded(rig: Rig) -> Rig:
    """A rig whose guard has begun, on a broker without orders."""
    assert rig.guard.run_once(rig.lease, rig.time()) == {}
    return rig


def replaced(rig: Rig, hash_: str, changes: dict[str, object], key: str = "key") -> None:
    """The decision's order, replaced as an operator asks for it."""
    asked = order_requests.replace(rig.database, hash_, changes, rig.asker(key))
    assert rig.finish(asked) == [("done", "order_replaced")]


def recorded(rig: Rig, hash_: str) -> dict[str, Decimal]:
    """Replacements with their shares, as the guard is told of them."""
    with rig.database.transaction() as tx:
        return dict(approvals.by_hash(tx, ACCOUNT, [hash_])[hash_].replacements)


@pytest.mark.parametrize("qty", ["4", "10", "25"])
def test_a_recorded_replacement_is_no_excess(guarded: Rig, qty: str) -> None:
    """Smaller, as large, larger than the decision: two orders of one decision, and both covered."""
    hash_ = resting(guarded)
    replaced(guarded, hash_, {"qty": qty, "limit_price": "0.99"})
    assert recorded(guarded, hash_) == {f"{hash_}-r1": Decimal(qty)}
    assert compare(guarded) == {"judged": 2, "excess": 0}
    assert guarded.state()[0] == "active"


def test_replacements_of_a_replacement_are_no_excess(guarded: Rig) -> None:
    hash_ = resting(guarded)
    for number, qty in enumerate(("4", "25", "3"), start=1):
        replaced(guarded, hash_, {"qty": qty}, key=f"k{number}")
    shares = {f"{hash_}-r1": Decimal(4), f"{hash_}-r2": Decimal(25), f"{hash_}-r3": Decimal(3)}
    assert recorded(guarded, hash_) == shares
    assert compare(guarded) == {"judged": 4, "excess": 0}


def test_a_replacement_of_the_price_alone_has_the_rest_open(guarded: Rig) -> None:
    hash_ = resting(guarded)
    guarded.control("POST", f"/orders/{hash_}/fill", {"qty": "4", "price": "1"})
    guarded.reconcile()
    replaced(guarded, hash_, {"limit_price": "0.5"})
    assert recorded(guarded, hash_) == {f"{hash_}-r1": Decimal(6)}
    assert compare(guarded) == {"judged": 2, "excess": 0}


def test_a_replacement_in_doubt_is_recorded_already(guarded: Rig) -> None:
    """The intent is committed before the call: the guard may see the order before we know of it."""
    hash_ = resting(guarded)
    guarded.fault("accept_then_reset", "replace")
    for route in ("by_client_order_id", "get_order"):
        guarded.fault("refuse_5xx", route, status=503, count=3)
    order_requests.replace(guarded.database, hash_, {"qty": "25"}, guarded.asker())
    guarded.act()
    assert guarded.sql("SELECT status FROM order_actions") == [("in_doubt",)]
    assert compare(guarded) == {"judged": 2, "excess": 0}


@pytest.mark.parametrize(
    ("number", "qty", "problem"),
    [
        (2, 4, "a replacement that nobody recorded"),
        (1, 5, "5 shares, where 4 were approved"),  # fewer than the decision's ten: still too many
        (1, 25, "25 shares, where 4 were approved"),
    ],
)
@pytest.mark.parametrize("guarding", [True, False], ids=["", "control_off"])
def test_any_other_replacement_halts_the_account(
    guarded: Rig, number: int, qty: int, problem: str, guarding: bool
) -> None:
    """Not recorded, or larger than recorded: the record is of -r1, for 4 shares."""
    rig = guarded
    hash_ = resting(rig)
    rig.fault("reset_before", "replace")
    order_requests.replace(rig.database, hash_, {"qty": "4"}, rig.asker())
    rig.act()
    assert recorded(rig, hash_) == {f"{hash_}-r1": Decimal(4)}
    strange = f"{hash_}-r{number}"
    assert hash_of(strange) == hash_
    subject = inject(rig, strange, qty=qty)
    if guarding:
        assert compare(rig)["excess"] == 1
        assert trips(rig) == [(subject, problem)]
        assert rig.state()[0] == "halted"
    rig.fill_budget()
    after = rig.send(intent="after")
    rig.execute(3)
    assert rig.posts(after) == (0 if guarding else 1)


def test_a_request_that_was_never_sent_excuses_nothing(guarded: Rig) -> None:
    """Its id is given with the intent of the call, so an order cannot come before it."""
    hash_ = resting(guarded)
    order_requests.replace(guarded.database, hash_, {"qty": "4"}, guarded.asker())
    assert recorded(guarded, hash_) == {}
    inject(guarded, f"{hash_}-r1", qty=4)
    assert compare(guarded)["excess"] == 1
    assert trips(guarded)[0][1] == "a replacement that nobody recorded"
