"""The network before the broker: whatever it does, one order each, and nobody waits too long."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from tests.chaos import FULL
from tests.chaos.load import Sender, faults, settle
from tests.chaos.proxy import FaultProxy
from tests.crash.answers import BROKER_TIMEOUT_S, BY_NAME
from tests.crash.world import World

LATE_S = 1.0
SLOWEST = text("""
SELECT max(extract(epoch FROM answered_at - intended_at)) FROM submission_attempts
WHERE operation = 'submit' AND outcome IS NOT NULL""")


SAMPLE = ["black_hole", "reply_lost"]
WHOLE = [*SAMPLE, "refuse", "reset", "slow"]


@pytest.mark.parametrize("how", WHOLE if FULL else SAMPLE)
def test_one_order_each(how: str, database_url: str, tmp_path: Path) -> None:
    with World(database_url, tmp_path, BY_NAME["accepted"], others=0) as world:
        place = urlsplit(world.simulator.url)
        proxy = FaultProxy(str(place.hostname), int(place.port or 0))
        world.start(APCA_API_BASE_URL=f"http://127.0.0.1:{proxy.port}")
        world.wait(world._facts_known, "the account's facts")
        if how == "refuse":
            proxy.shut()
        elif how == "reset":
            proxy.reset()
        else:
            proxy.mode = how
        sender = Sender(world, 20 if FULL else 5)
        sender.start()
        sender.join(30)
        world.wait(lambda: world.state()["answered"] >= 2, "calls that met the fault")
        proxy.mode = "pass"
        proxy.open()
        settle(world, sender)
        assert faults(world, sender) == []
        with world.database.transaction() as tx:
            slowest = float(tx.execute(SLOWEST).scalar_one())
        # the call, the look before it where there is one, and the commit after it
        assert slowest <= 2 * BROKER_TIMEOUT_S + LATE_S + 2
        proxy.shut()
