"""Orders that our books hold open, asked for at the broker: local → broker.

```
executions not terminal, in turn ─▶ GET open orders ─▶ those not in it: GET each, or a list from the
successors of replaced orders,      (one question)      oldest of them on where that is cheaper
orders that could not be booked
```

Every open execution has its turn, however many there are: a pass takes the next `OPEN_MAX`, and of
those that must be asked for one by one the next `ASK_SINGLY_MAX`; so have the orders that could not
be booked. Where the turns stand is remembered by the process only; another one begins with the
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from torghut.clock import Clock
from torghut.domain.errors import BrokerUnavailable
from torghut.domain.orders import Order
from torghut.services.broker_lists import OVERLAP_S, Ask, order_pages
from torghut.services.questions import Questions
from torghut.storage import discrepancies, executions, order_targets
from torghut.storage.database import Database
from torghut.storage.rows import ExecutionRow

OPEN_MAX = 5_000
ASK_SINGLY_MAX = 20
ASK_OTHERS_MAX = 10
ASK_FAILURES_MAX = 3
LIST_PAGES_MAX = 20

log = structlog.get_logger(__name__)


class OpenOrders:
    """Asks for the open orders of one account; called by one thread at a time."""

    def __init__(
        self,
        account: str,
        database: Database,
        questions: Questions,
        *,
        ask: Ask,
        budget_wait_s: float,
        clock: Clock,
    ) -> None:
        self._account = account
        self._database = database
        self._questions = questions
        self._ask = ask
        self._budget_wait_s = budget_wait_s
        self._clock = clock
        self._taken = 0  # execution_id up to which they had their turn
        self._asked = 0  # … of those that were asked for one by one
        self._left_out = 0  # … of discrepancies about orders that could not be booked

    def look(self) -> tuple[list[Order], int]:
        """What the broker says of them now, and how many questions were not answered.

        Raises BrokerUnavailable, BrokerRefused if the list of open orders is not answered.
        """
        unlisted = self._clock() - timedelta(seconds=OVERLAP_S)
        with self._database.transaction() as tx:
            rows = executions.unfinished(tx, self._account, after=self._taken, limit=OPEN_MAX)
            left_out = discrepancies.left_out(
                tx, self._account, "order", before=unlisted, after=self._left_out
            )
            lost = order_targets.lost_successors(tx, self._account, limit=ASK_OTHERS_MAX)
        others = [*lost, *left_out]
        self._left_out = next(reversed(left_out.values()), 0)
        if not rows and not others:
            return [], 0
        seen = {order.broker_order_id: order for order in self._ask(lambda b: b.open_orders())}
        self._taken = rows[-1].execution_id if len(rows) == OPEN_MAX else 0
        missing = [row for row in rows if row.broker_order_id not in seen]
        if len(missing) > ASK_SINGLY_MAX:
            seen |= self._listed(missing, set(others))
            missing = [row for row in missing if row.broker_order_id not in seen]
        turn = self._in_turn(missing)
        strange = [id_ for id_ in others if id_ not in seen]
        ours = [row.broker_order_id for row in turn]
        asked, failures = self._asked_singly(ours)
        # apart: what cannot be read must not keep our own from being asked for
        others_asked, others_failed = self._asked_singly(
            [id_ for id_ in strange if id_ not in asked]
        )
        asked, failures = asked | others_asked, failures + others_failed
        wanted = {row.broker_order_id for row in rows} | set(others)
        return [order for id_, order in (seen | asked).items() if id_ in wanted], failures

    def _in_turn(self, missing: Sequence[ExecutionRow]) -> list[ExecutionRow]:
        """The next ones to be asked for one by one."""
        order = sorted(missing, key=lambda row: (row.execution_id <= self._asked, row.execution_id))
        turn = order[:ASK_SINGLY_MAX]
        if turn:
            self._asked = turn[-1].execution_id
        return turn

    def _listed(self, missing: Sequence[ExecutionRow], others: set[str]) -> dict[str, Order]:
        """Those of the missing that a list of any status shows, within LIST_PAGES_MAX pages."""
        wanted = {row.broker_order_id for row in missing} | others
        oldest = min(row.broker_created_at for row in missing) - timedelta(seconds=OVERLAP_S)
        seen: dict[str, Order] = {}
        for number, page in enumerate(order_pages(self._ask, oldest), start=1):
            seen |= {o.broker_order_id: o for o in page if o.broker_order_id in wanted}
            if number == LIST_PAGES_MAX or len(seen) == len(wanted):
                break
        return seen

    def _asked_singly(self, broker_order_ids: Sequence[str]) -> tuple[dict[str, Order], int]:
        """Each order by its id; one question that fails does not keep the others from theirs."""
        seen: dict[str, Order] = {}
        failures = 0
        for id_ in broker_order_ids:
            try:
                order = self._questions.order(id_, budget_wait_s=self._budget_wait_s)
            except BrokerUnavailable as error:
                failures += 1
                log.info("order not answered", broker_order_id=id_, error=str(error))
                if failures == ASK_FAILURES_MAX:
                    break
                continue
            if order is None:
                log.warning("an open order is unknown to the broker", broker_order_id=id_)
            else:
                seen[id_] = order
        return seen, failures
