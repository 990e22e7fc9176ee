"""A whole daemon on the rig's database and simulator, with the pauses of its stream shortened.

The reconciler's interval is an hour: what the books learn, they learn from the stream or from a
pass that the stream's own part asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.factories import decision
from tests.services.rig import ACCOUNT, Rig, eventually
from torghut import proof
from torghut.bootstrap import Daemon
from torghut.places import Reach
from torghut.services.live_connection import Pauses
from torghut.storage import leases

SHORT = Pauses(floor_s=0.0, first_s=0.002, cap_s=0.01, refused_s=0.05)


class Live:
    """One daemon that owns the account, and what is to be seen of its stream."""

    def __init__(self, rig: Rig, daemon: Daemon) -> None:
        self.rig = rig
        self.daemon = daemon

    @property
    def state(self) -> str:
        return self.daemon.units["paper"].live.connection.state

    def stream(self) -> dict[str, Any]:
        """The simulator's side of it."""
        shown: dict[str, Any] = self.rig.control("GET", "/stream")
        return shown

    def connections(self) -> int:
        return int(self.stream()["since_reset"].get("connections", 0))

    def fault(self, kind: str, probability: float = 1.0, **values: Any) -> None:
        self.rig.fault(kind, "stream", count=0, probability=probability, **values)

    def in_step(self) -> bool:
        """Connected, and the gap before that is filled."""
        live = self.daemon.units["paper"].live
        return live.connection.connected and live._filled == live._gaps > 0

    def decide(self, count: int, *, first: int = 0, **over: object) -> list[str]:
        found = [decision(**{"intent": f"{first + n}", **over}) for n in range(count)]
        answers = self.daemon.desk.accept(found, source="test")
        return [answer.decision_hash for answer in answers]

    def place(self, count: int, **over: object) -> None:
        """That many orders of somebody else in the same account."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: self.rig.place(**over), range(count)))

    def statuses(self) -> dict[str, int]:
        """How many decisions have which status."""
        query = "SELECT status, count(*) FROM trade_decisions GROUP BY status"
        return {row.status: row.count for row in self.rig.sql(query)}

    def differences(self) -> list[str]:
        """What is not equal in the two books; nobody is asked to reconcile for it."""
        ledger = self.rig.control("GET", "/ledger")
        with self.rig.database.transaction() as tx:
            found = list(proof.compare(tx, ACCOUNT, proof.ledger_orders(ledger)).differences)
        booked = self.rig.count("fills")
        if booked != ledger["totals"]["fills"]:
            found.append(f"{booked} fills booked of {ledger['totals']['fills']}")
        return found

    def agree(self, timeout_s: float = 30) -> None:
        eventually(lambda: not self.differences(), timeout_s)


@contextmanager
def running(
    rig: Rig,
    *,
    pauses: Pauses = SHORT,
    late_s: float = 60.0,
    prepare: Callable[[Daemon], None] = lambda _: None,
    **settings: Any,
) -> Iterator[Live]:
    """A daemon that is connected and in step; `prepare` changes it before it starts."""
    with rig.database.transaction() as tx:
        leases.release(tx, rig.lease)
    values = {"lease_ttl_s": 3.0, "reconcile_interval_s": 3600.0, "broker_timeout_s": 5.0}
    own = rig.settings.model_copy(update={**values, **settings})
    daemon = Daemon(own, rig.database, {"paper": Reach(rig.sim.url, rig.sim.url, "k", "s")})
    daemon.units["paper"].live._late_s = late_s
    daemon.units["paper"].live.connection._pauses = pauses
    prepare(daemon)
    try:
        daemon.start()
        assert daemon.wait_owner(10)
        yield Live(rig, daemon)
    finally:
        daemon.stop()
