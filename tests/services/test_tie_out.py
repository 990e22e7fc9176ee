"""Positions and cash against the broker's, in each pass (P12): what is seen, what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.live import Live, running
from tests.services.rig import ACCOUNT, OPEN, Rig, eventually
from torghut.domain import tie_out as domain_tie_out
from torghut.ports import Broker, FillActivity, Page
from torghut.services import operator, outside_facts, tie_out
from torghut.services.entry_ledger import record_entry
from torghut.services.tie_out import NothingToAccept, accept
from torghut.storage import account_entries
from torghut.storage.account_entries import Entry
from torghut.storage.rows import Lease
from torghut.storage.tie_out import books


def a_while(rig: Rig, passes: int = 1, *, step_s: float = 10.0) -> dict[str, int]:
    """Passes, each on a newer answer of the broker; the last one's counts."""
    counts: dict[str, int] = {}
    for _ in range(passes):
        rig.time.pass_s(step_s)
        counts = rig.reconcile()
    return counts


def opened(rig: Rig) -> Rig:
    """A rig whose books began: 1 AAPL was bought and booked since."""
    a_while(rig)
    buy(rig, "1", "first")
    a_while(rig, 2)
    assert rig.discrepancies() == []
    return rig


def buy(rig: Rig, qty: str, intent: str, **over: object) -> str:
    hash_ = rig.send(qty=qty, intent=intent, **over)
    rig.drive([hash_])
    return hash_


def enter(rig: Rig, **body: Any) -> None:
    """Change cash or a position at the broker without an order."""
    rig.control("POST", "/entries", body)


def open_drifts(rig: Rig) -> dict[str, Any]:
    rows = rig.sql(
        """SELECT subject, evidence FROM discrepancies WHERE resolved_at IS NULL
        AND kind IN ('position_differs', 'cash_differs')"""
    )
    return {row.subject: row.evidence for row in rows}


def cash_of(rig: Rig) -> Decimal:
    with rig.database.transaction() as tx:
        return account_entries.cash(tx, ACCOUNT)


def test_the_books_begin_with_what_stood_at_the_broker(rig: Rig) -> None:
    """What was held before is no drift: it is an opening, at the broker's entry price."""
    enter(rig, symbol="MSFT", qty="12", price="400.25", cash="-4803")
    a_while(rig, 3)
    (position,) = rig.sql("SELECT symbol, qty, avg_px, realized_pl FROM positions")
    assert tuple(position) == ("MSFT", 12, Decimal("400.25"), 0)
    assert cash_of(rig) == Decimal(100_000 - 4803)
    assert rig.discrepancies() == []
    rows = rig.sql("SELECT payload FROM events WHERE kind = 'entry.recorded' ORDER BY event_seq")
    assert [row.payload["kind"] for row in rows] == ["OPENING", "OPENING"]


class Lagging:
    """A broker whose positions and cash know a fill before its orders and activities do."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.lags = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def orders(self, **_: object) -> Page[Any]:
        return Page() if self.lags else self._broker.orders(**_)  # type: ignore[arg-type]

    def open_orders(self) -> Any:
        return [] if self.lags else self._broker.open_orders()

    def get_order(self, broker_order_id: str) -> Any:
        return None if self.lags else self._broker.get_order(broker_order_id)

    def fills(self, **_: object) -> Page[FillActivity]:
        return Page() if self.lags else self._broker.fills(**_)  # type: ignore[arg-type]


def bought_before_the_opening(make_rig: Callable[..., Rig]) -> Rig:
    """An order was filled, and the first comparison meets lists that do not say so yet."""
    rig = make_rig(broker=Lagging)
    rig.control("POST", "/switches", {"hold_fills": True})
    buy(rig, "3", "first")
    rig.control("POST", "/switches", {"hold_fills": False})
    (order,) = rig.sql("SELECT broker_order_id FROM executions")
    eventually(lambda: rig.broker.get_order(order.broker_order_id).status == "filled")  # type: ignore[union-attr]
    rig.broker.lags = True  # type: ignore[attr-defined]
    a_while(rig)
    rig.broker.lags = False  # type: ignore[attr-defined]
    a_while(rig, 4)
    return rig


def test_p12_a_fill_that_is_listed_late_is_no_part_of_the_opening(
    make_rig: Callable[..., Rig],
) -> None:
    """It would be booked twice, and the account held back by a difference that is none (25)."""
    rig = bought_before_the_opening(make_rig)
    assert rig.sql("SELECT qty FROM positions")[0].qty == 3
    assert [row.kind for row in rig.sql("SELECT kind FROM account_entries")] == ["OPENING"]
    assert (open_drifts(rig), rig.state()[0]) == ({}, "active")


def test_control_an_opening_at_the_first_look_counts_it_twice(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tie_out.TieOut, "_lasts", lambda *_: True)
    rig = bought_before_the_opening(make_rig)
    assert set(open_drifts(rig)) == {"AAPL", "cash"}
    assert rig.state()[0] == "reducing"


class Orderless(Lagging):
    """… and its activities, but nothing that is asked about orders."""

    def fills(self, **_: object) -> Page[FillActivity]:
        return self._broker.fills(**_)  # type: ignore[arg-type]


@pytest.mark.parametrize("waits", [True, False])
def test_p12_a_fill_without_its_order_is_no_part_of_the_opening(
    waits: bool, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books begin when it is booked. Control: begun before, it counts twice."""
    if not waits:
        monkeypatch.setattr(tie_out.discrepancies, "unbooked_fills", lambda *_: 0)
    rig = make_rig(broker=Orderless)
    rig.broker.lags = True  # type: ignore[attr-defined]
    order = rig.place(qty="3")
    eventually(lambda: rig.broker._broker.get_order(order["id"]).status == "filled")  # type: ignore[attr-defined]
    a_while(rig, 4)
    assert [kind for kind, _ in rig.discrepancies()] == ["cannot_be_booked"]
    assert bool(rig.sql("SELECT 1 FROM account_entries")) is not waits
    rig.broker.lags = False  # type: ignore[attr-defined]
    a_while(rig, 4)
    assert rig.sql("SELECT qty FROM positions")[0].qty == (3 if waits else 6)
    assert (open_drifts(rig) == {}) is waits


def test_p12_when_nothing_differs_nothing_is_written(rig: Rig) -> None:
    opened(rig)
    before = rig.sql("SELECT count(*), max(event_seq) FROM events")
    assert a_while(rig, 3).get("entries") == 0
    assert rig.sql("SELECT count(*), max(event_seq) FROM events") == before
    assert rig.count("tie_out_looks") == 0


def test_a_fill_that_the_ledger_lost_is_seen(rig: Rig) -> None:
    """The control of every other test here: a books' fold without one fill is not equal."""
    opened(rig)
    rig.sql("UPDATE positions SET qty = 0, cost_basis = 0, avg_px = 0")
    a_while(rig, 2)
    drifts = open_drifts(rig)
    assert drifts["AAPL"]["difference"] == "1"
    assert drifts["AAPL"]["ours"] == "0"
    assert Decimal(drifts["cash"]["difference"]) < -1
    assert rig.state()[0] == "reducing"


def test_p12_money_that_left_is_seen_at_the_second_look_and_holds_the_account_back(
    rig: Rig,
) -> None:
    opened(rig)
    enter(rig, cash="-250.75")
    a_while(rig)
    assert open_drifts(rig) == {}, "one answer alone proves nothing"
    a_while(rig)
    (evidence,) = open_drifts(rig).values()
    assert (evidence["difference"], evidence["beyond_tolerance"]) == ("-250.75", True)
    state, reason = rig.state()
    assert state == "reducing"
    assert "cash_differs cash" in reason
    kinds = [row.kind for row in rig.sql("SELECT kind FROM events ORDER BY event_seq")]
    assert {"discrepancy.opened", "trading_state.changed"} <= set(kinds)


def test_a_cash_difference_within_the_tolerance_is_visible_and_blocks_nothing(
    make_rig: Callable[..., Rig],
) -> None:
    rig = opened(make_rig(cash_tolerance=300))
    enter(rig, cash="-250.75")
    a_while(rig, 2)
    assert open_drifts(rig)["cash"]["beyond_tolerance"] is False
    assert rig.state()[0] == "active"
    assert rig.row(buy(rig, "1", "second")).status == "submitted"
    # grown beyond it, the same discrepancy blocks
    enter(rig, cash="-100")
    a_while(rig, 3)
    assert open_drifts(rig)["cash"]["difference"] == "-350.75"
    assert rig.state()[0] == "reducing"
    assert len(rig.discrepancies()) == 1


def test_p12_beyond_the_tolerance_new_exposure_is_denied_even_after_a_resume(rig: Rig) -> None:
    """A person is not overruled, but what differs still denies; closing stays possible (P11)."""
    opened(rig)
    enter(rig, symbol="AAPL", qty="3", price="100")
    a_while(rig, 2)
    assert rig.state()[0] == "reducing"
    operator.resume(
        rig.database, f"account:{ACCOUNT}",
        actor="test", reason="looked at it", now=rig.time(), settings=rig.settings,
    )  # fmt: skip
    a_while(rig, 2)
    assert rig.state()[0] == "active"
    denied = rig.row(buy(rig, "1", "more", symbol="MSFT"))
    assert (denied.status, denied.status_reason) == ("denied", "discrepancy_open")
    assert rig.row(buy(rig, "1", "less", side="sell")).status == "submitted"


def test_a_difference_that_goes_away_ends_by_itself(rig: Rig) -> None:
    opened(rig)
    enter(rig, cash="-250.75")
    a_while(rig, 2)
    enter(rig, cash="250.75")
    a_while(rig)
    assert open_drifts(rig) == {}
    (row,) = rig.sql("SELECT resolution FROM discrepancies")
    assert row.resolution == "the amounts are equal again"
    assert rig.state()[0] == "reducing", "only a person resumes"
    assert rig.count("tie_out_looks") == 0


def test_what_the_broker_lists_of_itself_is_booked_and_no_difference(rig: Rig) -> None:
    """Dividends, transfers, splits: an activity explains the money before anybody is told."""
    opened(rig)
    enter(rig, cash="12.50", type="DIV")
    enter(rig, cash="5000", type="CSD")
    enter(rig, symbol="AAPL", qty="1", type="SPLIT")
    assert a_while(rig)["entries"] == 3
    a_while(rig)
    assert rig.discrepancies() == []
    ledger = rig.control("GET", "/ledger")
    assert cash_of(rig) == Decimal(ledger["cash"])
    (position,) = rig.sql("SELECT qty, realized_pl FROM positions")
    assert tuple(position) == (2, 0)


def test_story_20_fees_on_coins_are_booked(rig: Rig) -> None:
    """Position ≠ fills by the fee that the broker takes out of what is received."""
    a_while(rig)
    rig.control("POST", "/switches", {"crypto_fee_bps": 25})
    pair = {"symbol": "BTC/USD", "time_in_force": "gtc"}
    buy(rig, "0.123456789", "coins", **pair)
    a_while(rig, 2)
    buy(rig, "0.05", "some", side="sell", **pair)
    a_while(rig, 3)
    rig.control("POST", "/switches", {"crypto_fee_bps": 0})
    ledger = rig.control("GET", "/ledger")
    assert cash_of(rig) == Decimal(ledger["cash"])
    (position,) = rig.sql("SELECT symbol, qty FROM positions")
    assert (position.symbol, position.qty) == ("BTC/USD", Decimal(ledger["positions"]["BTC/USD"]))
    kinds = rig.sql("SELECT kind FROM account_entries WHERE kind = 'CFEE'")
    assert len(kinds) == 2
    assert rig.discrepancies() == []


def test_story_20_the_fee_of_an_older_trade_is_not_that_of_a_newer_one(rig: Rig) -> None:
    """Who trades coins each day has one day's fees listed while the next ones are taken."""
    a_while(rig)
    pair = {"symbol": "BTC/USD", "time_in_force": "gtc"}
    buy(rig, "0.1", "monday", **pair)
    a_while(rig)
    list_fee(rig, "monday's", hours_ago=-24)
    rig.time.pass_s(49 * 3600)
    buy(rig, "0.1", "wednesday", **pair)
    a_while(rig)
    assert fee_awaited(rig) >= Decimal("0.00025"), "25 bps of wednesday's were taken already"
    list_fee(rig, "wednesday's", hours_ago=0)  # the control: its own fee is not awaited any more
    assert fee_awaited(rig) == Decimal("0.00005")


def list_fee(rig: Rig, key: str, *, hours_ago: int) -> None:
    entry = Entry(
        key=key, kind="CFEE", occurred_at=rig.time() - timedelta(hours=hours_ago), actor="test",
        reason="a test", symbol="BTC/USD", qty=Decimal("-0.00025"),
    )  # fmt: skip
    with rig.database.transaction() as tx:
        record_entry(tx, ACCOUNT, entry, now=entry.occurred_at)


def fee_awaited(rig: Rig) -> Decimal:
    now = rig.time()
    with rig.database.transaction() as tx:
        return books(tx, ACCOUNT, since=now, now=now)["BTC/USD"].fee_awaited


class Slashless:
    """A broker whose FILL activities name pairs as its positions do."""

    def __init__(self, real: Broker) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def fills(self, **where: Any) -> Page[FillActivity]:
        page = self._real.fills(**where)
        page[:] = [replace(fill, symbol=fill.symbol.replace("/", "")) for fill in page]
        return page


def test_story_20_a_pair_is_one_position_whatever_it_is_called(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(broker=Slashless)
    a_while(rig)
    buy(rig, "0.5", "coins", symbol="BTC/USD", time_in_force="gtc")
    a_while(rig, 3)
    assert [row.symbol for row in rig.sql("SELECT symbol FROM positions")] == ["BTC/USD"]
    assert rig.discrepancies() == []


def test_a_person_can_accept_the_brokers_amount(rig: Rig) -> None:
    opened(rig)
    enter(rig, symbol="BTC/USD", qty="0.5", price="80000")
    a_while(rig, 2)
    done = accept(rig.database, ACCOUNT, "btcusd", actor="cli:me", reason="a gift", now=rig.time())
    assert (done["subject"], done["difference"]) == ("BTC/USD", "0.5")
    a_while(rig, 2)
    assert open_drifts(rig) == {}
    (row,) = rig.sql("SELECT resolution FROM discrepancies")
    assert row.resolution == "accepted by cli:me: a gift"
    (position,) = rig.sql("SELECT qty, avg_px FROM positions WHERE symbol = 'BTC/USD'")
    assert tuple(position) == (Decimal("0.5"), 80_000)
    ledger = rig.control("GET", "/ledger")
    assert cash_of(rig) == Decimal(ledger["cash"]), "the coins moved no cash"
    with pytest.raises(NothingToAccept, match="torghut discrepancies"):
        accept(rig.database, ACCOUNT, "BTC/USD", actor="me", reason="again", now=rig.time())


def test_story_24_a_second_start_opens_nothing_anew(make_rig: Callable[..., Rig]) -> None:
    """Openings and looks are rows: another process goes on where the first one was."""
    rig = opened(make_rig())
    enter(rig, cash="-250.75")
    a_while(rig)
    other = make_rig()
    other.time.pass_s(1_000)
    a_while(other)
    assert open_drifts(other)["cash"]["difference"] == "-250.75"
    assert rig.sql("SELECT count(*) FROM account_entries")[0][0] == 1


def test_a_pass_that_could_not_read_everything_concludes_nothing(rig: Rig) -> None:
    """Story 25: what is missing in the books because it was not asked for is no difference."""
    opened(rig)
    rig.place(qty="7")
    rig.fault("refuse_5xx", "activities", count=0)
    a_while(rig, 3)
    assert open_drifts(rig) == {}
    rig.clear_faults()
    a_while(rig, 2)
    assert open_drifts(rig) == {}


def test_activities_that_come_late_are_waited_for(rig: Rig) -> None:
    """The order says filled, the position has it, no activity tells of it yet."""
    opened(rig)
    rig.control("POST", "/switches", {"activity_delay_ms": 3_600_000})
    rig.place(qty="7")
    a_while(rig, 3, step_s=6)
    assert open_drifts(rig) == {}
    rig.control("POST", "/switches", {"activity_delay_ms": 0})


class Busy:
    """Orders, ours and a stranger's, on a daemon of which the passes are counted."""

    def __init__(self, live: Live) -> None:
        self.rig = live.rig
        self._live = live
        self._turn = 0
        self._passes = 0
        self._run = live.daemon.units["paper"].reconciler.run_once
        live.daemon.units["paper"].reconciler.run_once = self._counted  # type: ignore[method-assign]

    def _counted(self, lease: Lease, now: datetime) -> dict[str, int]:
        counts = self._run(lease, now)
        self._passes += 1
        return counts

    def trade(self, passes: int, *, until: Callable[[], object] = lambda: None) -> None:
        """Trade while that many passes are made, or until it is so."""
        end = self._passes + passes
        while self._passes < end and not until():
            self._live.place(1, symbol="F", qty="2")
            (hash_,) = self._live.decide(1, first=self._turn, symbol="F", qty="2")
            self._turn += 1
            eventually(lambda: self.rig.status(hash_)[0] not in OPEN)  # noqa: B023


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> Iterator[Busy]:
    """A daemon that trades all the time, and asks and compares as often as it can."""
    monkeypatch.setattr(outside_facts, "ACCOUNT_TTL_S", 0.0)
    rig.control("POST", "/switches", {"partial_fill_probability": 0.5})
    with running(rig, reconcile_interval_s=0.1, broker_rate_per_min=100_000) as live:
        eventually(lambda: rig.count("account_entries"))
        yield Busy(live)
    rig.control("POST", "/switches", {"partial_fill_probability": 0})


def test_trading_all_the_time_is_no_difference(busy: Busy) -> None:
    """Story 25: every order is of 2 shares, so that fills that are missed look alike."""
    busy.trade(12)
    rows = busy.rig.sql("SELECT kind, evidence FROM discrepancies")
    assert [tuple(row) for row in rows] == []
    assert busy.rig.state()[0] == "active"
    assert busy.rig.count("fills") > 20


def test_without_the_moves_between_books_and_answer_it_would_be(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the folds as they are, compared at once, cry wolf."""
    monkeypatch.setattr(tie_out, "LAG_S", -3_600)
    monkeypatch.setattr(domain_tie_out, "LOOKS_TO_DIFFER", 1)
    busy.trade(200, until=lambda: busy.rig.count("discrepancies"))
    assert busy.rig.count("discrepancies")


def test_a_difference_is_found_while_trading_goes_on(busy: Busy) -> None:
    """That there is a difference is seen first; how much it is, when one amount alone is left that
    every answer allows."""

    def found() -> dict[str, str]:
        return {subject: one["difference"] for subject, one in open_drifts(busy.rig).items()}

    busy.trade(3)
    enter(busy.rig, cash="-250.75")
    busy.trade(200, until=lambda: found() == {"cash": "-250.75"})
    assert found() == {"cash": "-250.75"}
    assert busy.rig.state()[0] == "reducing"
