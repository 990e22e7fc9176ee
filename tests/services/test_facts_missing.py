"""What is not known denies (fail closed): it waits, then `facts_unavailable`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.services.rig import Rig

MakeRig = Callable[..., Rig]
WAIT_S = 5
# route that fails → the limit that needs its fact, None: always needed
ROUTES = [("account", None), ("positions", None), ("quotes", None), ("assets", None),
          ("bars", "max_adv_pct")]  # fmt: skip


def rig_for(make_rig: MakeRig, limit: str | None, **risk: object) -> Rig:
    wanted = {} if limit is None else {limit: "100"}
    return make_rig(facts_wait_s=WAIT_S, risk={**wanted, **risk})


@pytest.mark.parametrize(("route", "limit"), ROUTES)
def test_a_fact_that_the_broker_does_not_tell(
    make_rig: MakeRig, route: str, limit: str | None
) -> None:
    """A quote, asset or volume is waited for; the account itself as long as the decision lives."""
    rig = rig_for(make_rig, limit)
    rig.fault("refuse_5xx", route=route, count=None)
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_) == ("planned", "facts_awaited")
    rig.time.pass_s(WAIT_S + 1)
    rig.execute()
    whole = route in ("account", "positions")
    expected = ("planned", "facts_awaited") if whole else ("denied", "facts_unavailable")
    assert rig.status(hash_) == expected
    assert rig.posts() == 0
    rig.clear_faults()
    rig.time.pass_s(5)
    rig.fill_budget()
    rig.execute()
    # control: with the fact back it is sent, if it still waits, and so is the next
    assert rig.status(hash_)[0] == ("submitted" if whole else "denied")
    later = rig.send(intent="later")
    rig.execute()
    assert rig.status(later)[0] == "submitted"


def test_without_the_account_it_waits_until_it_expires(make_rig: MakeRig) -> None:
    rig = rig_for(make_rig, None)
    rig.fault("refuse_5xx", route="account", count=None)
    end = rig.time().isoformat()[:19]
    hash_ = rig.send(expires_at=f"{end}Z")
    rig.time.pass_s(5)
    rig.execute()
    assert (rig.status(hash_), rig.posts()) == (("expired", "out_of_time"), 0)


@pytest.mark.parametrize(
    ("message", "status"), [("endpoint not found.", "submitted"), ("asset not found", "denied")]
)
def test_an_asset_list_that_is_not_offered_is_not_an_asset_that_is_unknown(
    make_rig: MakeRig, message: str, status: str
) -> None:
    rig = rig_for(make_rig, None)
    rig.fault("reject", route="assets", count=None, status=404, code=40410000, message=message)
    hash_ = rig.send()
    rig.execute()
    found = rig.status(hash_)
    assert found[0] == status
    assert status == "submitted" or found[1] == "asset_not_tradable"
    (row,) = rig.sql("SELECT checks FROM risk_verdicts")
    (told,) = (c["measured"] for c in row.checks if c["name"] == "tradable")
    assert told == ("not offered by this broker" if status == "submitted" else "not tradable")


def test_an_account_that_grows_old_is_not_judged_on(make_rig: MakeRig) -> None:
    """90 s by default; the snapshot is asked for again at 60."""
    rig = rig_for(make_rig, None)
    rig.send(intent="first")
    rig.execute()
    rig.time.pass_s(100)
    rig.fault("refuse_5xx", route="account", count=None)
    hash_ = rig.send(intent="second")
    rig.execute()
    assert rig.status(hash_) == ("planned", "facts_awaited")
    assert rig.posts() == 1


@pytest.mark.parametrize("ended", [True, False])
def test_buying_power_of_before_the_decision_denies_nothing(make_rig: MakeRig, ended: bool) -> None:
    """The broker's last answer held it back for an order that was canceled since: the next answer
    judges, and where the order is still open, it denies."""
    rig = make_rig(risk={"max_order_notional": "off", "max_position_notional": "off"})
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "100"})
    rig.control("POST", "/switches", {"hold_fills": True})
    whole = rig._all_facts[0].refresh_account()
    assert whole is not None and whole.buying_power is not None
    most = {"type": "limit", "limit_price": "100", "qty": str(int(whole.buying_power * 6 // 1000))}
    first = rig.send(**most)
    rig.execute()
    assert rig.status(first)[0] == "submitted"
    rig.time.pass_s(1)
    assert rig._all_facts[0].refresh_account() is not None
    if ended:
        rig.control("POST", f"/orders/{first}/cancel")
        rig.reconcile()
    second = rig.send(intent="second", **most)
    rig.execute()
    assert rig.status(second) == ("planned", "facts_awaited")
    rig.time.pass_s(1)
    assert rig._all_facts[0].refresh_account() is not None
    rig.execute()
    assert rig.status(second)[0] == ("submitted" if ended else "denied")


@pytest.mark.parametrize(("qty", "end"), [("10", "submitted"), ("11", "denied")])
def test_what_was_bought_a_moment_ago_can_be_sold(
    make_rig: Callable[..., Rig], qty: str, end: str
) -> None:
    """The account's answer of before the decision knows nothing of it: a newer one judges."""
    rig = make_rig(risk={"shorts_allowed": False, "check_self_match": False})
    rig.send(qty="10", type="market")
    rig.execute()
    rig.reconcile()
    rig.sql(
        "UPDATE broker_accounts SET positions = '{}', observed_at = observed_at - interval '4 s'"
    )
    sell = rig.send(side="sell", qty=qty, type="market", intent="out")
    rig.execute()
    assert rig.status(sell) == ("planned", "facts_awaited")
    rig.time.pass_s(1)
    assert rig._all_facts[0].refresh_account() is not None
    rig.execute()
    assert rig.status(sell)[0] == end
