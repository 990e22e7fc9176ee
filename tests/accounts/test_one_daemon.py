"""Several accounts in one daemon: own keys, own orders, and nobody's fault is another's."""

from __future__ import annotations

import threading
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests.accounts.brokers import Brokers, batch
from tests.accounts.conftest import Start
from tests.chaos.proxy import FaultProxy
from tests.services.rig import eventually
from torghut import telemetry
from torghut.clock import utc_now
from torghut.domain.errors import ConfigError
from torghut.domain.exposure import TradingState
from torghut.services import operator

OTHERS = ("alpha", "gamma")


def test_each_account_gets_its_own_orders(three: Brokers, start: Start) -> None:
    daemon = start()
    sent = [one for label in three.labels for one in batch(label, 5)]
    daemon.desk.accept(sent, source="test")
    eventually(lambda: not any(map(three.open, three.labels)))
    assert three.faults(sent) == []
    assert set(three.owners().values()) == {daemon.owner}


def test_control_one_accounts_client_for_all_is_seen(three: Brokers, start: Start) -> None:
    """What the check above is worth: with alpha's broker for everybody it says so."""
    at = three.reach(three.settings())
    daemon = start(at=dict.fromkeys(three.labels, at["alpha"]))
    sent = [one for label in three.labels for one in batch(label, 2)]
    daemon.desk.accept(sent, source="test")
    eventually(lambda: len(three.posts("alpha")) == 6)
    assert any("not its own" in fault for fault in three.faults(sent))


def test_wrong_keys_stop_their_account_alone(
    three: Brokers, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no lease and sends nothing; the others do; mended, it goes on by itself."""
    monkeypatch.setattr("torghut.services.supervisor.CHECK_AGAIN_S", 0.5)
    daemon = start(accounts={"beta": {"apca_api_secret_key": "not-this"}})
    sent = [one for label in three.labels for one in batch(label, 3)]
    daemon.desk.accept(sent, source="test")
    eventually(lambda: not any(map(three.open, OTHERS)))
    beta = daemon.units["beta"]
    error = eventually(lambda: beta.supervisor.refused)
    assert isinstance(error, ConfigError)
    assert error.setting == "[accounts.beta] apca_api_key_id"
    assert "not-this" not in str(error)
    assert three.posts("beta") == {} and "beta" not in three.owners()
    accounts = daemon.ready()["accounts"]
    assert isinstance(accounts, dict) and "refused" in accounts["beta"]
    daemon.wait(_already_over())  # one of three is no reason to end
    beta.supervisor._first_check = lambda: None
    eventually(lambda: "beta" in three.owners())


def test_keys_that_are_all_wrong_end_the_process(three: Brokers, start: Start) -> None:
    daemon = start(accounts={key: {"apca_api_secret_key": "not-this"} for key in three.labels})
    eventually(lambda: all(unit.supervisor.refused for unit in daemon.units.values()))
    with pytest.raises(ConfigError):
        daemon.wait(threading.Event())
    assert three.owners() == {}


def test_a_black_holed_broker_slows_nobody_else(three: Brokers, start: Start) -> None:
    """Beta's broker takes connections and says nothing, before the start and after it."""
    at = three.reach(three.settings())
    place = urlsplit(three.simulators["beta"].url)
    proxy = FaultProxy(str(place.hostname), int(place.port or 0))
    proxy.mode = "black_hole"
    at["beta"] = replace(at["beta"], base_url=proxy.url, data_url=proxy.url)
    try:
        daemon = start(at=at)
        sent = [one for label in three.labels for one in batch(label, 5)]
        daemon.desk.accept(sent, source="test")
        eventually(lambda: not any(map(three.open, OTHERS)))
        assert three.open("beta") == 5
        proxy.mode = "pass"
        eventually(lambda: three.open("beta") == 0)
    finally:
        proxy.shut()
    assert three.faults(sent) == []


def test_a_halt_is_one_accounts(three: Brokers, start: Start) -> None:
    daemon = start()
    eventually(lambda: len(three.owners()) == 3)
    operator.halt(
        three.database,
        operator.scope_of("beta", None),
        actor="test",
        reason="test",
        now=utc_now(),
        settings=daemon.settings,
    )
    sent = [one for label in OTHERS for one in batch(label, 3)]
    daemon.desk.accept([*sent, *batch("beta", 3)], source="test")
    eventually(lambda: not any(map(three.open, OTHERS)))
    assert three.posts("beta") == {}
    assert operator.states_now(three.database, "beta").of("sample")[0] is TradingState.HALTED


def test_metrics_are_by_account(three: Brokers, start: Start) -> None:
    start()
    eventually(lambda: len(three.owners()) == 3)
    for label in three.labels:
        assert telemetry.LEASE_HELD.labels(label).collect()[0].samples[0].value == 1
        assert telemetry.RATE_LEFT.labels(label).collect()[0].samples[0].value > 0


def _already_over() -> threading.Event:
    over = threading.Event()
    threading.Timer(1.0, over.set).start()
    return over
