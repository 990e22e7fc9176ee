"""The reconciler: every broker order is accounted for, and a second pass writes nothing (P12)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig, eventually
from torghut import proof
from torghut.domain.orders import Order
from torghut.ports import Broker, FillActivity, Page
from torghut.services import reconciler
from torghut.storage import cursors

MakeRig = Callable[..., Rig]
TABLES = (
    "trade_decisions", "risk_verdicts", "submission_attempts", "executions", "execution_events",
    "fills", "positions", "strategy_positions", "events", "discrepancies", "broker_cursors",
)  # fmt: skip


def written(rig: Rig) -> list[tuple[Any, ...]]:
    """Every row with the transaction that wrote it; the account snapshot alone is always new."""
    return [(t, *r) for t in TABLES for r in rig.sql(f"SELECT xmin::text, ctid::text FROM {t}")]


def faults_of(rig: Rig) -> list[str]:
    """What is not equal in the two books."""
    with rig.database.transaction() as tx:
        orders = proof.ledger_orders(rig.control("GET", "/ledger"))
        return list(proof.compare(tx, ACCOUNT, orders).differences)


def agree(rig: Rig) -> bool:
    rig.reconcile()
    return not faults_of(rig)


def unsent(rig: Rig, **over: object) -> str:
    """A decision `submitting` whose call was never made, as after SIGKILL before the call."""
    hash_ = rig.send(**over)
    rig.executor._pool.submit = lambda *_: None  # type: ignore[method-assign,assignment]
    rig.execute(1)
    del rig.executor._pool.submit
    assert rig.row(hash_).status == "submitting"
    return hash_


class Scripted:
    """The real broker with some of its answers changed."""

    def __init__(self, real: Broker) -> None:
        self._real = real
        self.spoil: Callable[[Order], Order] = lambda order: order
        self.spoil_fill: Callable[[FillActivity], FillActivity] = lambda fill: fill

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def orders(self, **where: Any) -> Page[Order]:
        page = self._real.orders(**where)
        return Page([self.spoil(order) for order in page], full=page.full, last_at=page.last_at)

    def open_orders(self) -> Sequence[Order]:
        return [self.spoil(order) for order in self._real.open_orders()]

    def get_order(self, broker_order_id: str) -> Order | None:
        order = self._real.get_order(broker_order_id)
        return None if order is None else self.spoil(order)

    def fills(self, **where: Any) -> Page[FillActivity]:
        page = self._real.fills(**where)
        spoiled = [self.spoil_fill(fill) for fill in page]
        return Page(spoiled, full=page.full, last_id=page.last_id)


# ---------------------------------------------------------------------- broker → local


def test_a_lost_outcome_is_backfilled(rig: Rig) -> None:
    """Our order stands at the broker, our books know nothing of it: execution and decision."""
    hash_ = unsent(rig)
    rig.place(client_order_id=hash_)
    counts = rig.reconcile()
    assert counts["backfill"] == 1
    assert rig.sql("SELECT client_order_id, origin FROM executions") == [(hash_, "reconciled")]
    assert rig.row(hash_).status in ("submitted", "closed")
    assert rig.events(hash_).count("order.recovered") == 1
    eventually(lambda: agree(rig))
    rig.executor = rig.new_executor()
    rig.execute(3)
    assert rig.posts(hash_) == 1


@pytest.mark.parametrize("kind", ["accept_then_reset", "accept_then_5xx", "garbage_body"])
def test_doubt_is_settled_by_the_list_too(rig: Rig, kind: str) -> None:
    rig.fault(kind)
    hash_ = rig.send()
    rig.execute()
    assert rig.row(hash_).status == "in_doubt"
    rig.reconcile()
    assert rig.row(hash_).status in ("submitted", "closed")
    assert rig.row(hash_).in_doubt_since is None


def test_a_strangers_order_is_adopted(rig: Rig) -> None:
    """Execution `external`, its fills in the account's position and in no strategy's."""
    order = rig.place(qty="3")
    eventually(lambda: agree(rig) and rig.count("fills"))
    (row,) = rig.sql("SELECT * FROM executions")
    assert (row.origin, row.decision_id, row.broker_order_id) == ("external", None, order["id"])
    assert rig.sql("SELECT strategy, qty FROM strategy_positions") == [("", 3)]
    adopted = rig.sql("SELECT payload FROM events WHERE kind = 'order.adopted'")
    assert [row.payload["broker_order_id"] for row in adopted] == [order["id"]]


def test_an_order_after_the_end_of_its_decision(rig: Rig) -> None:
    """R4: the execution is booked, the end stays, and an operator sees it."""
    expires = datetime.fromtimestamp(rig.time().timestamp() + 30, UTC).isoformat()
    hash_ = rig.send(expires_at=expires)
    rig.time.pass_s(31)
    rig.execute()
    assert rig.row(hash_).status == "expired"
    rig.place(client_order_id=hash_)
    assert rig.reconcile()["late"] == 1
    assert rig.row(hash_).status == "expired"
    assert rig.discrepancies() == [("order_after_end", hash_)]
    eventually(lambda: agree(rig))
    assert rig.sql("SELECT qty FROM positions") == [(10,)]
    assert rig.discrepancies() == [("order_after_end", hash_)]


def test_an_approved_decision_whose_order_exists_is_not_sent_again(rig: Rig) -> None:
    """R3: it waits to be sent, and its order stands at the broker: that settles it."""
    rig.fault("rate_limit", rate_limit_headers=False)
    hash_ = rig.send()
    rig.execute()
    assert rig.row(hash_).status == "approved"
    rig.place(client_order_id=hash_)
    rig.fill_budget()
    rig.reconcile()
    assert rig.row(hash_).status in ("submitted", "closed")
    rig.time.pass_s(100)
    rig.execute()
    assert rig.events(hash_).count("order.recovered") == 1
    assert (rig.posts(hash_), len(rig.broker_orders(hash_))) == (2, 1)  # ours and the stranger's


@pytest.mark.parametrize("orders", [0, 7])
def test_a_second_pass_writes_nothing(rig: Rig, orders: int) -> None:
    hashes = rig.send_many(orders, qty="1")
    for _ in range(orders):
        rig.place(qty="1")
    rig.executor._settings = rig.settings.model_copy(update={"submit_threads": 64})
    rig.execute()
    eventually(lambda: agree(rig) and not rig.open(hashes))
    rig.reconcile()
    before = written(rig)
    for _ in range(2):
        counts = rig.reconcile()
        assert not any(counts.values()), counts
    assert written(rig) == before
    rig.place(qty="1")  # control: what is new is written
    rig.reconcile()
    assert written(rig) != before


def test_a_fill_of_an_order_that_was_never_listed(rig: Rig) -> None:
    """The list fails, the activities do not: the order is asked for first, then booked."""
    order = rig.place(qty="2")
    eventually(lambda: rig.totals()["fills"] == 1)
    rig.fault("refuse_5xx", "list_orders", count=None, probability=1.0)
    counts = rig.reconcile()
    assert (counts["failed"], counts["fills"]) == (1, 1)
    assert rig.sql("SELECT broker_order_id, ledger_qty FROM executions") == [(order["id"], 2)]


def test_story_11_fills_after_canceled(rig: Rig) -> None:
    rig.control("POST", "/switches", {"hold_fills": True})
    hash_ = rig.send()
    rig.execute()
    rig.control("POST", f"/orders/{hash_}/fill", {"qty": "4"})
    rig.reconcile()
    (row,) = rig.sql("SELECT * FROM executions")
    assert (row.status, row.cum_qty, row.leaves_qty, row.ledger_qty) == (
        "partially_filled",
        4,
        6,
        4,
    )
    rig.control("POST", f"/orders/{hash_}/cancel")
    rig.reconcile()
    assert rig.status(hash_) == ("closed", "order_terminal")
    rig.control("POST", f"/orders/{hash_}/fill", {"qty": "3", "late": True})
    rig.reconcile()
    (row,) = rig.sql("SELECT * FROM executions")
    assert (row.status, row.cum_qty, row.leaves_qty, row.ledger_qty) == ("canceled", 7, 0, 7)
    assert rig.sql("SELECT qty FROM positions") == [(7,)]
    assert faults_of(rig) == []


@pytest.mark.parametrize("end", ["cancel", "expire", "reject"])
def test_an_order_that_ends_at_the_broker_closes_its_decision(rig: Rig, end: str) -> None:
    rig.control("POST", "/switches", {"hold_fills": True})
    hash_ = rig.send()
    rig.execute()
    rig.reconcile()
    assert rig.row(hash_).status == "submitted"
    rig.control("POST", f"/orders/{hash_}/{end}")
    rig.reconcile()
    assert rig.status(hash_) == ("closed", "order_terminal")


# ---------------------------------------------------------------------- what cannot be booked


@pytest.fixture
def scripted(make_rig: MakeRig) -> Iterator[tuple[Rig, Scripted]]:
    rig = make_rig(broker=Scripted)  # type: ignore[arg-type]
    assert isinstance(rig.broker, Scripted)
    yield rig, rig.broker


def test_story_28_a_poison_order_is_quarantined(scripted: tuple[Rig, Scripted]) -> None:
    """A value that the books refuse: a discrepancy, and the rest goes on, pass after pass."""
    rig, broker = scripted
    ids = [rig.place(qty="1")["id"] for _ in range(5)]
    broker.spoil = lambda o: replace(o, cum_qty=Decimal(-1)) if o.broker_order_id == ids[2] else o
    counts = rig.reconcile()
    assert (counts["adopt"], counts["poison"]) == (4, 1)
    assert rig.discrepancies() == [("cannot_be_booked", ids[2])]
    assert rig.count("executions") == 4
    events = rig.count("events")
    rig.reconcile()
    assert rig.discrepancies() == [("cannot_be_booked", ids[2])]
    broker.spoil = lambda order: order
    eventually(lambda: agree(rig))
    assert rig.count("executions") == 5
    assert rig.count("events") > events


@pytest.mark.parametrize(
    "change",
    [
        {"cum_qty": Decimal("1e30")},
        {"limit_price": Decimal("1e25")},
        {"avg_px": Decimal("-1e40")},
        {"client_order_id": ""},
        {"symbol": "A\0B"},
        {"raw": {"x": "\ud800"}},
        {"status": ""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_absurd_value_leaves_the_others_alone(
    scripted: tuple[Rig, Scripted], change: dict[str, Any]
) -> None:
    rig, broker = scripted
    ids = [rig.place(qty="1")["id"] for _ in range(3)]
    broker.spoil = lambda o: replace(o, **change) if o.broker_order_id == ids[1] else o
    rig.reconcile()
    booked = {row[0] for row in rig.sql("SELECT broker_order_id FROM executions")}
    assert {ids[0], ids[2]} <= booked


@pytest.mark.parametrize("trusted", [False, True], ids=["", "control"])
def test_an_instant_in_the_future_does_not_hide_what_comes_until_then(
    scripted: tuple[Rig, Scripted], monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """P12: one absurd row of a list must not let its cursor run ahead of all later rows."""
    rig, broker = scripted
    if trusted:
        monkeypatch.setattr(cursors, "AHEAD_MAX", timedelta(days=100_000))
    absurd = datetime(2126, 1, 1, tzinfo=UTC)
    broker.spoil = lambda order: replace(order, submitted_at=absurd)
    broker.spoil_fill = lambda fill: replace(fill, transact_time=absurd)
    rig.place(qty="1")
    rig.reconcile()
    broker.spoil, broker.spoil_fill = lambda order: order, lambda fill: fill
    later = rig.place(qty="2", type="limit", limit_price="1")["id"]
    rig.reconcile()
    booked = {row[0] for row in rig.sql("SELECT broker_order_id FROM executions")}
    assert (later in booked) is not trusted


@pytest.mark.parametrize("change", [{"last_qty": Decimal(0)}, {"last_px": Decimal(-1)},
                                    {"side": "gift"}, {"last_qty": Decimal("1e30")}])  # fmt: skip
def test_a_poison_fill_is_quarantined(
    scripted: tuple[Rig, Scripted], change: dict[str, Any]
) -> None:
    rig, broker = scripted
    ids = [rig.place(qty="1")["id"] for _ in range(3)]
    eventually(lambda: rig.totals()["fills"] == 3)
    broker.spoil_fill = lambda f: replace(f, **change) if f.broker_order_id == ids[1] else f
    counts = rig.reconcile()
    assert (counts["fills"], counts["poison"]) == (2, 1)
    assert [kind for kind, _ in rig.discrepancies()] == ["cannot_be_booked"]
    assert rig.sql("SELECT qty FROM positions") == [(2,)]
    broker.spoil_fill = lambda fill: fill
    eventually(lambda: agree(rig))


def test_our_order_that_cannot_be_booked_stays_in_doubt(scripted: tuple[Rig, Scripted]) -> None:
    """Never rejected, never sent again; visible (P2)."""
    rig, broker = scripted
    hash_ = unsent(rig)
    order = rig.place(client_order_id=hash_)
    broker.spoil = lambda o: replace(o, cum_qty=Decimal(-1))
    rig.reconcile()
    assert rig.row(hash_).status == "submitting"
    assert rig.discrepancies() == [("cannot_be_booked", order["id"])]
    broker.spoil = lambda o: o
    rig.reconcile()
    assert rig.row(hash_).status in ("submitted", "closed")


def test_two_orders_with_one_client_id_are_seen(rig: Rig) -> None:
    """The assumption that P1 rests on is broken on purpose: a discrepancy names the second."""
    rig.control("POST", "/switches", {"uniqueness": "off"})
    hash_ = rig.send()
    rig.execute()
    second = rig.place(client_order_id=hash_)
    rig.reconcile()
    assert ("duplicate_order", second["id"]) in rig.discrepancies()
    assert rig.count("executions") == 1


# ---------------------------------------------------------------------- much, and faulty


def place_many(rig: Rig, count: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: rig.place(qty="1"), range(count)))


def test_more_orders_than_a_page(make_rig: MakeRig) -> None:
    """620 orders and as many fills: a full page is never the end, and no fill is skipped."""
    rig = make_rig(timeout_s=5)
    place_many(rig, 620)
    eventually(lambda: rig.totals()["fills"] == 620)
    rig.reconcile()
    rig.reconcile()
    assert faults_of(rig) == []
    assert (rig.count("executions"), rig.count("fills")) == (620, 620)
    before = written(rig)
    rig.reconcile()
    assert written(rig) == before


def test_what_is_asked_for_is_read_whoever_moves_the_cursors(rig: Rig) -> None:
    """`reconcile --since` beside a daemon: a pass under way there moves the cursors on again."""
    began = rig.time()
    rig.place()
    eventually(lambda: agree(rig))
    read: list[tuple[str, int]] = []
    rig.reconciler = rig.new_reconciler(on_page=lambda what, rows: read.append((what, rows)))
    rig.reconciler.read_again(rig.lease, began - timedelta(minutes=5))
    rig.sql("UPDATE broker_cursors SET position = '2099-01-01T00:00:00.000000Z'")
    rig.reconcile()
    assert ("orders", 1) in read
    assert any(what == "fills" and rows for what, rows in read)


def test_orders_come_before_their_fills(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there are more orders to read, no order of a fill is asked for by itself."""
    monkeypatch.setattr(reconciler, "PAGES_MAX", 1)
    rig = make_rig(timeout_s=5)
    place_many(rig, 510)
    eventually(lambda: rig.totals()["fills"] == 510)
    assert rig.reconcile().get("more") == 1
    assert rig.count("fills") == 0
    rig.reconcile()
    assert rig.count("fills") == 510
    assert rig.control("GET", "/requests")["routes"].get("get_order", 0) == 0


def test_it_converges_with_every_list_faulty(make_rig: MakeRig) -> None:
    """Every question fails in one of all ways one time in five; pass after pass it gets there."""
    rig = make_rig(timeout_s=0.3)
    hashes = rig.send_many(20, qty="1")
    rig.executor._settings = rig.settings.model_copy(update={"submit_threads": 64})
    rig.execute()
    place_many(rig, 20)
    for route in ("list_orders", "get_order", "activities", "account", "positions"):
        rig.fault("any", route, count=None, probability=0.2, hold_s=0.4, delay_s=0.05)

    def settled() -> bool:
        rig.fill_budget()
        return agree(rig) and not rig.sql("SELECT 1 FROM trade_decisions WHERE status <> 'closed'")

    eventually(settled, 60)
    rig.clear_faults()
    assert rig.count("executions") == 40
    assert {rig.row(h).status for h in hashes} == {"closed"}
    assert json.dumps(rig.discrepancies()) == "[]"
