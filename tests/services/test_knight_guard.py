"""The Knight guard against the real simulator: the first order too many halts the account.

Orders that nobody approved are put at the broker with alpaca-py, under ids of our form; the
executor knows nothing of them. Each control is the same story without the guard: trading goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import MarketOrderRequest

from tests.factories import decision
from tests.services.rig import ACCOUNT, Rig, eventually
from torghut.bootstrap import Daemon
from torghut.domain.orders import OrderRequest
from torghut.places import Reach
from torghut.ports import Answer, Broker, Page
from torghut.services.knight_guard import BUSY_S, IDLE_S
from torghut.storage import control, leases

MakeRig = Callable[..., Rig]
STRANGE = "ab" * 32


def inject(rig: Rig, client_order_id: str, qty: float = 10, symbol: str = "AAPL") -> str:
    """An order straight to the broker, as a program gone wrong would send it; its broker id."""
    client = TradingClient("key", "secret", url_override=rig.sim.url)
    order: Any = client.submit_order(
        MarketOrderRequest(
            symbol=symbol,
            qty=qty,
            side=OrderSide.BUY,
            time_in_force=TimeInForce.DAY,
            client_order_id=client_order_id,
        )
    )
    return str(order.id)


def compare(rig: Rig) -> dict[str, int]:
    """One pass of the guard, a while after the last."""
    rig.time.pass_s(IDLE_S)
    return dict(rig.guard.run_once(rig.lease, rig.time()))


def trips(rig: Rig) -> list[tuple[str, str]]:
    """(subject, problem) of the orders that were too many."""
    rows = rig.sql("""SELECT subject, evidence ->> 'problem' AS problem FROM discrepancies
        WHERE kind = 'order_excess' ORDER BY discrepancy_id""")
    return [tuple(row) for row in rows]


@pytest.fixture
def guarded(rig: Rig) -> Rig:
    """A rig whose guard has begun, on a broker without orders."""
    assert rig.guard.run_once(rig.lease, rig.time()) == {}
    return rig


# ---------------------------------------------------------------------- trips


def unknown_hash(rig: Rig) -> tuple[str, str]:
    return inject(rig, STRANGE), "no decision of this account"


def denied(rig: Rig) -> tuple[str, str]:
    hash_ = rig.send(intent="denied", qty="1000000")
    rig.execute()
    assert rig.status(hash_)[0] == "denied"
    return inject(rig, hash_), "never approved"


def second_order(rig: Rig) -> tuple[str, str]:
    rig.control("POST", "/switches", {"uniqueness": "off"})
    hash_ = rig.send(intent="twice")
    rig.execute()
    compare(rig)
    return inject(rig, hash_), "a second order of one decision"


def settled_unjudged(rig: Rig) -> tuple[str, str]:
    """Found and settled before anybody judged it: our books look well, and nobody approved it."""
    hash_ = rig.send(intent="unjudged")
    order_id = inject(rig, hash_)
    rig.reconcile()
    assert "order.recovered" in rig.events(hash_) and not rig.count("risk_verdicts")
    return order_id, "never approved"


def larger(rig: Rig) -> tuple[str, str]:
    """An approved decision whose order left as ten times itself."""
    rig.fault("rate_limit", rate_limit_headers=False)
    hash_ = rig.send(intent="larger")
    rig.execute()
    assert rig.status(hash_) == ("approved", "rate_limited")
    return inject(rig, hash_, qty=100), "100 shares, where 10 were approved"


def other_symbol(rig: Rig) -> tuple[str, str]:
    rig.fault("rate_limit", rate_limit_headers=False)
    hash_ = rig.send(intent="other")
    rig.execute()
    return inject(rig, hash_, symbol="MSFT"), "for MSFT, where AAPL was approved"


def replacement(rig: Rig) -> tuple[str, str]:
    hash_ = rig.send(intent="replaced")
    rig.execute()
    return inject(rig, f"{hash_}-r1"), "a replacement that nobody recorded"


@pytest.mark.parametrize(
    "gone_wrong",
    [unknown_hash, denied, settled_unjudged, second_order, larger, other_symbol, replacement],
)
@pytest.mark.parametrize("guarding", [True, False], ids=["", "control_off"])
def test_the_first_order_too_many_halts_the_account(
    guarded: Rig, gone_wrong: Callable[[Rig], tuple[str, str]], guarding: bool
) -> None:
    """Within one pass; nothing more is sent. Control: without the guard trading goes on."""
    rig = guarded
    subject, problem = gone_wrong(rig)
    if guarding:
        assert compare(rig)["excess"] == 1
        ((found, why),) = trips(rig)
        assert found == subject and problem in why
        state, reason = rig.state()
        assert state == "halted"
        assert reason.startswith(f"account:{ACCOUNT} by knight-guard: order {subject}")
        kinds = rig.sql("SELECT kind, actor FROM events WHERE actor = 'knight-guard'")
        assert [tuple(row) for row in kinds] == [
            ("discrepancy.opened", "knight-guard"),
            ("trading_state.changed", "knight-guard"),
        ]
    rig.fill_budget()
    rig.time.pass_s(100)
    after = rig.send(intent="after")
    rig.execute(3)
    assert rig.posts(after) == (0 if guarding else 1)


class Doubling:
    """A sender gone wrong: each order is posted twice."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def submit(self, order: OrderRequest, client_order_id: str) -> Answer:
        self._broker.submit(order, client_order_id)
        return self._broker.submit(order, client_order_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


@pytest.mark.parametrize("guarding", [True, False], ids=["", "control_off"])
def test_a_sabotaged_executor_is_stopped_at_the_first_pass(
    make_rig: MakeRig, guarding: bool
) -> None:
    """Every claim leaves twice, and the broker takes both; our own books look well."""
    rig = make_rig(broker=Doubling, submit_threads=2)
    rig.control("POST", "/switches", {"uniqueness": "off"})
    rig.guard.run_once(rig.lease, rig.time())
    rig.send_many(10)
    for _ in range(8):
        rig.execute(1)
        rig.fill_budget()
        if guarding:
            compare(rig)
    assert rig.posts() == (4 if guarding else 20)
    assert (rig.state()[0] == "halted") == guarding
    assert len(trips(rig)) == (2 if guarding else 0)


def test_a_trip_is_not_repeated_after_somebody_resumed(guarded: Rig) -> None:
    """Nor by a process that has just started and reads the overlap again; a new order trips."""
    rig = guarded
    inject(rig, STRANGE)
    compare(rig)
    scope = control.account_scope(ACCOUNT)
    with rig.database.transaction() as tx:
        control.set_trading_state(
            tx, scope, control.TradingState.ACTIVE, actor="me", reason="seen", now=rig.time()
        )
    rig.guard = rig.new_guard()
    assert compare(rig) == {"judged": 1, "excess": 0}
    assert rig.state()[0] == "active"
    inject(rig, "cd" * 32)
    assert compare(rig)["excess"] == 1
    assert rig.state()[0] == "halted"


def test_what_was_looked_into_and_resolved_does_not_trip_the_next_owner(guarded: Rig) -> None:
    """The order stays in the overlap for as long as it is the newest; one beside it does trip."""
    rig = guarded
    inject(rig, STRANGE)
    compare(rig)
    scope = control.account_scope(ACCOUNT)
    rig.sql("UPDATE discrepancies SET resolved_at = opened_at, resolution = 'seen'")
    with rig.database.transaction() as tx:
        control.set_trading_state(
            tx, scope, control.TradingState.ACTIVE, actor="me", reason="seen", now=rig.time()
        )
    rig.guard = rig.new_guard()
    assert compare(rig) == {"judged": 1, "excess": 0}
    assert rig.state()[0] == "active" and len(trips(rig)) == 1
    inject(rig, STRANGE[:-1] + "c")
    assert compare(rig)["excess"] == 1
    assert rig.state()[0] == "halted"


# ---------------------------------------------------------------------- no false alarm


def test_ordinary_trading_is_no_excess(guarded: Rig) -> None:
    """Accepted, lost answers, refusals, recoveries, notional and external orders: all covered."""
    rig = guarded
    rig.place(client_order_id="my-own-order")
    rig.place(client_order_id="904837e3-3b76-47ec-b432-046db621571b")
    rig.fault("accept_then_reset")
    rig.fault("reset_before")
    hashes = rig.send_many(6)
    hashes.append(rig.send(intent="money", qty=None, notional="500"))
    rig.drive(hashes)
    rig.reconcile()
    assert compare(rig) == {"judged": 7, "excess": 0}
    assert rig.state()[0] == "active"
    assert compare(rig) == {"judged": 0, "excess": 0}


def test_orders_of_an_earlier_life_prove_nothing(rig: Rig) -> None:
    """A new database on an old account: what was there at the first start is not judged."""
    inject(rig, STRANGE)
    assert rig.guard.run_once(rig.lease, rig.time()) == {}
    compare(rig)
    assert (trips(rig), rig.state()[0]) == ([], "active")


def test_orders_that_a_restored_backup_does_not_know_are_excess(guarded: Rig) -> None:
    """They left after the cursor began, and no decision here covers them: a person has to look."""
    rig = guarded
    hash_ = rig.send()
    rig.execute()
    rig.sql("ALTER TABLE trade_decisions DISABLE TRIGGER USER")
    rig.sql("UPDATE trade_decisions SET decision_hash = :h", h="0" * 64)
    assert compare(rig)["excess"] == 1
    assert rig.broker_orders(hash_)[0]["order_id"] == trips(rig)[0][0]


# ---------------------------------------------------------------------- pages and pace


class ShortPages:
    """Gives pages of three, so that a story needs several."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def orders(self, *, after: datetime | None, limit: int) -> Page[Any]:
        return self._broker.orders(after=after, limit=min(3, limit))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def test_a_full_page_is_not_the_end(make_rig: MakeRig) -> None:
    """What stands on the third page trips, too."""
    rig = make_rig(broker=ShortPages)
    rig.guard.run_once(rig.lease, rig.time())
    rig.send_many(7)
    rig.execute(4)
    inject(rig, STRANGE)
    found = [compare(rig) for _ in range(2)]
    assert sum(counts["excess"] for counts in found) == 1
    assert sum(counts["judged"] for counts in found) == 8


def test_it_asks_often_only_while_something_is_judged(guarded: Rig) -> None:
    """One list request each: every 5 s after a verdict, else every 30 s."""
    rig = guarded

    def requests() -> int:
        return int(rig.control("GET", "/requests")["routes"].get("list_orders", 0))

    def pass_after(seconds: float) -> int:
        before = requests()
        rig.time.pass_s(seconds)
        rig.guard.run_once(rig.lease, rig.time())
        return requests() - before

    assert [pass_after(BUSY_S), pass_after(BUSY_S), pass_after(IDLE_S)] == [0, 0, 1]
    rig.send()
    rig.execute()
    assert [pass_after(BUSY_S), pass_after(1), pass_after(BUSY_S)] == [1, 0, 1]
    assert [pass_after(60), pass_after(BUSY_S)] == [1, 0]


def test_the_busiest_pace_leaves_the_background_to_others(rig: Rig) -> None:
    """At 20 requests a minute the guard takes no more than 7.5 % of them."""
    guard = type(rig.guard)(ACCOUNT, rig.database, rig.questions, rate_per_min=20)
    assert guard._busy == timedelta(seconds=40)
    assert Decimal(60) / Decimal(guard._busy.seconds) / 20 <= Decimal("0.075")


def test_it_runs_in_the_daemon(rig: Rig) -> None:
    """Wired: a daemon that trades halts by itself when a strange order turns up."""
    with rig.database.transaction() as tx:
        leases.release(tx, rig.lease)
    daemon = Daemon(
        rig.settings, rig.database, {"paper": Reach(rig.sim.url, rig.sim.url, "k", "s")}
    )
    try:
        daemon.start()
        assert daemon.wait_owner(10)
        eventually(lambda: rig.sql("SELECT 1 FROM broker_cursors WHERE name = 'guard'"))
        inject(rig, STRANGE)
        daemon.desk.accept([decision()], source="test")
        eventually(lambda: rig.state()[0] == "halted")
    finally:
        daemon.stop()
    assert [problem for _, problem in trips(rig)] == ["no decision of this account has this hash"]
