"""Reconciliation on demand, from outside of a daemon: `torghut reconcile`.

```
reconcile_once ─▶ passes under the account's lease until there is nothing more to read
preview        ─▶ the same questions and the same comparison; nothing is written
```

While a daemon owns the account its token is used: a pass only books facts and settles by positive
evidence, each a compare-and-set, so two of them at a time do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime

from torghut.clock import utc_now
from torghut.config import Settings
from torghut.parts import open_broker, owner_name, rate_budget
from torghut.places import reach
from torghut.ports import MarketData
from torghut.services.account_check import verify_account
from torghut.services.late_orders import LateOrders
from torghut.services.loops import Loop
from torghut.services.outside_facts import OutsideFacts
from torghut.services.questions import Questions
from torghut.services.reconcile_preview import Preview, Wanted
from torghut.services.reconciler import Reconciler
from torghut.services.tie_out import TieOut
from torghut.storage import leases
from torghut.storage.database import Database
from torghut.storage.leases import LeaseLost
from torghut.storage.rows import Lease

LEASES_MAX = 20
"""How often the owner may change while one reconciliation lasts."""

OnPage = Callable[[str, int], None]


def reconcile_once(
    settings: Settings, database: Database, *, since: datetime | None, on_page: OnPage
) -> Mapping[str, int]:
    """Reconcile to the end of the broker's lists; what was written, by kind.

    With `since` orders and fills are read again from there on. Raises TorghutError if no pass was
    possible.
    """
    with ExitStack() as stack:
        questions, market = stack.enter_context(_asking(settings))
        outside = OutsideFacts(settings.account, database, questions, market, utc_now)
        stack.callback(outside.close)
        reconciler = Reconciler(
            settings.account,
            database,
            questions,
            outside,
            TieOut(settings.account, database, questions, settings.tolerance, clock=utc_now),
            LateOrders(settings.account, cancel=settings.late_orders == "cancel"),
            clock=utc_now,
            on_page=on_page,
        )
        total: dict[str, int] = {}
        for _ in range(LEASES_MAX):
            try:
                with _lease(settings, database) as lease:
                    _to_the_end(lease, reconciler, since, total)
                break
            except LeaseLost:
                since = None  # the cursors are back already, or further on
        else:
            raise LeaseLost(
                f"account {settings.account}: not read to the end, the lease was lost"
                f" {LEASES_MAX} times; what was read is booked: run it again"
            )
        total.pop("more", None)
        return total


def preview(
    settings: Settings, database: Database, *, since: datetime | None, on_page: OnPage
) -> Iterator[Wanted]:
    """What `reconcile_once` would write. Raises TorghutError if the broker cannot be asked."""
    with _asking(settings) as (questions, _):
        looks = Preview(settings.account, database, questions, clock=utc_now, on_page=on_page)
        yield from looks.run(since)


def _to_the_end(
    lease: Lease, reconciler: Reconciler, since: datetime | None, total: dict[str, int]
) -> None:
    if since is not None:
        reconciler.read_again(lease, since)
    while True:
        counts = reconciler.run_once(lease, utc_now())
        for what, count in counts.items():
            total[what] = total.get(what, 0) + count
        if not counts.get("more") or counts.get("failed"):
            return


@contextmanager
def _lease(settings: Settings, database: Database) -> Iterator[Lease]:
    """The owner's lease, or one of our own, which is renewed until it is given back."""
    owner, ttl_s = owner_name(), settings.lease_ttl_s
    with database.transaction() as tx:
        lease = leases.borrow(tx, settings.account, owner, ttl_s=ttl_s)
    if lease.owner != owner:
        yield lease
        return

    def renew(_now: datetime) -> Mapping[str, int]:
        with database.transaction() as tx:
            leases.renew(tx, lease, ttl_s=ttl_s)
        return {}

    beat = Loop("lease", renew, interval_s=ttl_s / 5, clock=utc_now)
    beat.start()
    try:
        yield lease
    finally:
        beat.stop(ttl_s)
        with database.transaction() as tx:
            leases.release(tx, lease)


@contextmanager
def _asking(settings: Settings) -> Iterator[tuple[Questions, MarketData]]:
    broker, market = open_broker(reach(settings), settings)
    try:
        verify_account(settings, broker)
        yield Questions(broker, rate_budget(settings), utc_now), market
    finally:
        broker.close()
        market.close()
