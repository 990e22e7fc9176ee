"""Live updates: the stream makes it quick, and nothing that happens to it makes it wrong (P8)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from tests.services.live import SHORT, Live, running
from tests.services.rig import ACCOUNT, Rig, eventually
from torghut.bootstrap import Daemon
from torghut.clock import utc_now
from torghut.ports import OrderUpdate
from torghut.services.live_connection import Pauses
from torghut.storage import executions
from torghut.storage.executions import Observation


@pytest.fixture
def live(rig: Rig) -> Iterator[Live]:
    with running(rig) as live:
        eventually(live.in_step)
        yield live


def test_fills_are_booked_without_a_pass(live: Live) -> None:
    """From intake to closed and booked while the next pass is an hour away."""
    began = live.daemon.units["paper"].live._pass_not_before
    hashes = live.decide(5, qty="1")
    eventually(lambda: all(live.rig.row(h).status == "closed" for h in hashes))
    live.agree()
    assert live.daemon.units["paper"].live._pass_not_before == began
    sources = {row[0] for row in live.rig.sql("SELECT source FROM execution_events")}
    assert "stream" in sources


def test_an_order_of_somebody_else_is_adopted_soon(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown orders are waited for a while, then a pass is asked for."""
    monkeypatch.setattr("torghut.services.live_updates.UNKNOWN_S", 0.1)
    live.place(3, qty="1")
    live.agree()
    assert {row[0] for row in live.rig.sql("SELECT origin FROM executions")} == {"external"}


def test_a_cancel_from_outside_closes_the_decision(live: Live) -> None:
    live.rig.control("POST", "/switches", {"hold_fills": True})
    (hash_,) = live.decide(1)
    eventually(lambda: live.rig.row(hash_).status == "submitted")
    live.rig.control("POST", f"/orders/{hash_}/cancel")
    eventually(lambda: live.rig.row(hash_).status == "closed")


def test_story_25_duplicates_and_reordering_teach_nothing(live: Live) -> None:
    live.rig.control("POST", "/switches", {"partial_fill_probability": 1})
    live.fault("duplicate", 0.5)
    live.fault("reorder", 1.0, delay_s=0.01)
    live.decide(10)
    eventually(lambda: live.rig.totals()["fills"] == 20)
    live.agree()
    assert live.rig.sql("SELECT qty FROM positions") == [(100,)]
    live.rig.control("POST", "/switches", {"partial_fill_probability": 0})


def test_malformed_messages_never_end_the_stream(live: Live) -> None:
    """Each asks for a pass instead of what it did not say."""
    live.fault("malformed", 1.0)
    hashes = live.decide(3, qty="1")
    eventually(lambda: all(live.rig.row(h).status == "closed" for h in hashes))
    live.agree()
    assert live.connections() == 1
    assert live.state == "connected"


def test_a_cut_is_followed_by_a_pass(live: Live) -> None:
    """What happened while nobody listened is found by REST after the next connection."""
    live.daemon.units["paper"].live.connection._stream._timeout_s = 0.2  # type: ignore[attr-defined]
    live.fault("never_authorize")
    live.rig.control("POST", "/stream/cut")
    eventually(lambda: live.state == "connecting")
    live.place(2, qty="1")
    eventually(lambda: live.rig.totals()["fills"] == 2)
    assert live.rig.count("executions") == 0
    live.rig.clear_faults()
    live.agree()


def test_too_many_at_once_become_a_pass(rig: Rig) -> None:
    """The queue is bounded: what has no room in it is dropped, and REST asked."""

    def small(daemon: Daemon) -> None:
        daemon.units["paper"].live._queue.maxsize = 1

    with running(rig, prepare=small) as live:
        eventually(live.in_step)
        live.decide(20, qty="1")
        eventually(lambda: live.rig.totals()["fills"] == 20)
        live.agree()


@pytest.mark.parametrize(("per_min", "passes_max"), [(20, 1), (100_000, 100)])
def test_what_the_stream_asks_for_keeps_to_the_rate_budget(
    rig: Rig, per_min: int, passes_max: int
) -> None:
    """Cuts ask for passes, and passes are spaced out; control: with a large budget they are not."""
    with running(rig, broker_rate_per_min=per_min) as live:

        def passes() -> int:
            return int(rig.control("GET", "/requests")["routes"].get("activities", 0))

        eventually(lambda: live.stream()["listening"] and passes())
        before = passes()
        for number in range(live.connections(), live.connections() + 5):
            rig.control("POST", "/stream/cut")
            eventually(lambda n=number: live.connections() > n and live.stream()["listening"])
            if per_min > 20:
                eventually(live.in_step)
        assert passes() - before <= passes_max
        if per_min > 20:
            assert passes() - before >= 5


# ---------------------------------------------------------------------- mute, dead, refused


def test_story_10_a_mute_stream_is_told_from_a_quiet_one(rig: Rig) -> None:
    """Idle through several passes: nothing. Mute while orders move: connected anew, and said."""
    with running(rig, late_s=0.3, reconcile_interval_s=0.1) as live, capture_logs() as logs:
        eventually(live.in_step)
        live.rig.control("POST", "/switches", {"hold_fills": True})
        (hash_,) = live.decide(1)
        eventually(lambda: live.rig.row(hash_).status == "submitted")
        passes = live.rig.control("GET", "/requests")["routes"]["activities"]
        eventually(
            lambda: live.rig.control("GET", "/requests")["routes"]["activities"] > passes + 8
        )
        assert live.connections() == 1  # an order is open, nothing moves: quiet
        live.fault("mute")
        live.rig.control("POST", f"/orders/{hash_}/fill")
        eventually(lambda: live.connections() == 2)
        live.agree()
        assert live.rig.row(hash_).status == "closed"
    assert [e for e in logs if "mute" in str(e["event"])]


def test_control_without_the_comparison_a_mute_stream_stays(rig: Rig) -> None:
    """Control: what finds it is the comparison with REST; pings are answered all the while."""

    def blind(daemon: Daemon) -> None:
        daemon.units["paper"].live._suspect = lambda *_: None  # type: ignore[method-assign]

    with running(rig, late_s=0.1, reconcile_interval_s=0.1, prepare=blind) as live:
        eventually(live.in_step)
        live.fault("mute")
        live.place(2, qty="1")
        live.agree()
        passes = live.rig.control("GET", "/requests")["routes"]["activities"]
        eventually(
            lambda: live.rig.control("GET", "/requests")["routes"]["activities"] > passes + 10
        )
        assert live.connections() == 1


def test_refused_keys_are_said_once_and_tried_slowly(rig: Rig) -> None:
    with capture_logs() as logs, running(rig, reconcile_interval_s=0.2) as live:
        eventually(lambda: live.state == "connected")
        live.fault("refuse_authorization")
        live.rig.control("POST", "/stream/cut")
        eventually(lambda: live.state == "refused")
        assert live.daemon.ready()["trade_updates"] == "refused"
        before = live.connections()
        eventually(lambda: live.connections() >= before + 3)
        hashes = live.decide(2, qty="1")  # trading goes on
        eventually(lambda: all(live.rig.row(h).status == "closed" for h in hashes))
        live.rig.clear_faults()
        eventually(lambda: live.state == "connected")
    said = [e for e in logs if "refuses the keys" in str(e["event"])]
    assert len(said) == 1
    assert "APCA_API_KEY_ID" in said[0]["mend"]


def test_story_31_no_storm_of_connections(rig: Rig) -> None:
    """Every connection is cut as soon as it stands: with the pauses of production, a few a second
    at the very most, and fewer each time."""
    with running(rig, pauses=Pauses()) as live:
        eventually(live.in_step)
        first = live.connections()
        began = time.monotonic()
        stop = threading.Event()
        while time.monotonic() - began < 3:
            live.rig.control("POST", "/stream/cut")
            stop.wait(0.02)
        assert live.connections() - first <= 6


def test_pauses_double_up_to_a_cap_with_full_jitter() -> None:
    class Highest:
        def uniform(self, low: float, high: float) -> float:
            return high

    pauses = Pauses()
    found = [pauses.after(n, Highest()) for n in range(1, 9)]  # type: ignore[arg-type]
    assert found == [1.5, 2.5, 4.5, 8.5, 16.5, 30.5, 30.5, 30.5]


@pytest.mark.parametrize("kind", ["freeze", None])
def test_it_stops_within_a_second(rig: Rig, kind: str | None) -> None:
    rig.control("POST", "/switches", {"stream_connections": "many"})
    with running(rig) as live:
        eventually(live.in_step)
        if kind:
            live.fault(kind, hold_s=2)
            live.place(1)
            eventually(lambda: live.rig.control("GET", "/faults")["rules"][0]["hits"])
        began = time.monotonic()
        assert live.daemon.units["paper"].live.stop()
        assert time.monotonic() - began < 1
    rig.clear_faults()
    rig.control("POST", "/switches", {"stream_connections": "one"})


def test_only_the_owner_listens(rig: Rig) -> None:
    """A standby has no connection, and one that lost the account gives its own up."""
    with running(rig, pauses=SHORT) as live:
        eventually(live.in_step)
        rig.take_lease("somebody else")
        eventually(lambda: live.state == "standby")
        eventually(lambda: live.stream()["connections"] == 0)


@pytest.mark.parametrize("asked", [True, pytest.param(False, id="control")])
def test_an_end_is_believed_of_rest_only(rig: Rig, asked: bool) -> None:
    """P8: a message that calls a live order canceled. Control: an end that is folded is final."""
    with running(rig) as live:
        eventually(live.in_step)
        (hash_,) = live.decide(1, type="limit", limit_price="1")
        eventually(lambda: rig.row(hash_).status == "submitted")
        order = rig.broker.lookup(hash_).order
        assert order is not None
        lie = replace(order, status="canceled", updated_at=utc_now())
        lists = rig.control("GET", "/requests")["routes"]["list_orders"]
        if asked:
            live.daemon.units["paper"].live._take(OrderUpdate(event="canceled", order=lie))
        else:
            with rig.database.transaction() as tx:
                seen = Observation(lie, rig.row(hash_).decision_id, "submitted", "stream")
                executions.record(tx, ACCOUNT, [seen], now=utc_now())
            live.daemon.units["paper"].live._want_pass()
        eventually(lambda: rig.control("GET", "/requests")["routes"]["list_orders"] > lists)
        (row,) = rig.sql("SELECT terminal FROM executions")
        assert row.terminal is not asked  # the pass that asked was shown that it lives
        if asked:
            rig.control("POST", f"/orders/{hash_}/cancel")
            eventually(lambda: rig.row(hash_).status == "closed")
