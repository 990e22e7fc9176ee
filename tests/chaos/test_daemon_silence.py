"""A whole daemon before a database that falls silent: it says so, sends nothing, and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import requests

from tests.chaos import FULL
from tests.chaos.cluster import Node
from tests.chaos.proxy import FaultProxy
from tests.factories import ACCOUNT, decision
from tests.services.rig import eventually
from torghut.bootstrap import Daemon
from torghut.config import Settings
from torghut.places import Reach
from torghut.services.loops import BACKOFF_CAP_S
from torghut.serving import serving
from torghut.simulator import SimConfig, Simulator
from torghut.storage import watched
from torghut.storage.address import CONNECT_TIMEOUT_S
from torghut.storage.database import Database

NOTICED_S = 5.0
GIVEN_UP_S = watched.SUSPECT_AFTER_S + watched.PROBE_S + CONNECT_TIMEOUT_S
COUNT = 30


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimConfig(port=0, control_port=0)) as sim:
        yield sim


def posts(simulator: Simulator) -> dict[str, int]:
    """POSTs by client_order_id that reached the broker."""
    seen = requests.get(f"{simulator.control_url}/requests", timeout=10).json()
    return dict(seen["posts_by_client_order_id"])


@pytest.mark.parametrize("how", ["frozen", "black hole"] if FULL else ["frozen"])
def test_ready_is_false_nothing_is_sent_and_it_goes_on(
    how: str, node: Node, simulator: Simulator
) -> None:
    proxy = FaultProxy("127.0.0.1", node.port)
    with ExitStack() as stack:
        stack.callback(proxy.shut)
        database = stack.enter_context(closing(Database(node.url_at(proxy.port))))
        settings = Settings(
            account=ACCOUNT,
            broker="alpaca",
            apca_api_base_url=simulator.url,
            lease_ttl_s=3,
            reconcile_interval_s=0.5,
            broker_rate_per_min=100_000,
            submit_threads=2,
            http_port=0,
        )
        daemon = Daemon(
            settings, database, {"paper": Reach(simulator.url, simulator.url, "k", "s")}
        )
        stack.callback(daemon.stop)
        daemon.start()
        url = stack.enter_context(serving(daemon))
        assert daemon.wait_owner(10)
        eventually(lambda: requests.get(f"{url}/readyz", timeout=5).status_code == 200)

        batch = [decision(intent=str(n), qty="1") for n in range(COUNT)]
        daemon.desk.accept(batch, source="test")
        eventually(lambda: posts(simulator))
        if how == "frozen":
            node.freeze()
        else:
            proxy.mode = "black_hole"
        began = time.monotonic()
        eventually(lambda: requests.get(f"{url}/readyz", timeout=5).status_code == 503, NOTICED_S)
        assert time.monotonic() - began < NOTICED_S
        eventually(lambda: not daemon.units["paper"].owned, NOTICED_S)
        before = posts(simulator)
        slowest = 0.0
        while time.monotonic() - began < GIVEN_UP_S + 2:
            # a pass may be given up and its pause be at its longest; it comes round all the same
            slowest = max(
                slowest, *(loop.stalled_s for loop in daemon.units["paper"].supervisor.loops)
            )
            eventually(lambda: requests.get(f"{url}/healthz", timeout=5).ok, NOTICED_S)
        assert slowest < GIVEN_UP_S + BACKOFF_CAP_S + 1
        assert posts(simulator) == before

        node.thaw()
        proxy.mode = "pass"
        query = "SELECT count(*) FROM trade_decisions WHERE finalized_at IS NULL"
        eventually(lambda: node.execute(query) == [(0,)])
        eventually(lambda: requests.get(f"{url}/readyz", timeout=5).status_code == 200)
        ledger = requests.get(f"{simulator.control_url}/ledger", timeout=10).json()
        assert {h: len(ledger["orders"].get(h, [])) for h in (d.decision_hash for d in batch)} == {
            d.decision_hash: 1 for d in batch
        }
