"""What the HTTP interface is made of: given by whoever composes the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from torghut.clock import Clock, utc_now
from torghut.config import Settings
from torghut.domain.errors import Fault
from torghut.domain.risk_policy import RiskPolicy
from torghut.services.batch import Accounts
from torghut.services.intake import IntakeDesk
from torghut.storage.database import Database
from torghut.web.counter import Counter
from torghut.web.problems import invalid
from torghut.web.workers import BATCH_ANSWER_S, Workers

RATE_PER_S = 2_000.0


@dataclass(frozen=True, kw_only=True)
class ProcessFacts:
    """What only the process itself knows about an account: who it is, its share of the
    broker's rate, when it last compared everything with the broker (None: never), its trade
    updates, its limits."""

    owner: str
    rate_left: float
    rate_per_min: float
    reconciled_at: datetime | None
    trade_updates: str
    policy: RiskPolicy


@dataclass(frozen=True, kw_only=True)
class WebParts:
    """Everything the routes need.

    `health` says which loops stand still: `{"alive": bool, …}`; it must ask nobody outside.
    `ready` adds facts to /readyz; `"ready": False` in it makes the answer 503, with its `reasons`.
    `process` is for the console, of an account; None where no daemon runs around the interface.
    `rate_per_s` is what one peer address may send.
    """

    settings: Settings
    database: Database
    desk: IntakeDesk
    health: Callable[[], Mapping[str, object]]
    ready: Callable[[], Mapping[str, object]] = field(default=dict)
    process: Callable[[str], ProcessFacts | None] = lambda _account: None
    clock: Clock = utc_now
    rate_per_s: float = RATE_PER_S

    @property
    def accounts(self) -> Accounts:
        """The accounts whose decisions are taken here."""
        return Accounts(self.settings.labels, self.settings.default_account)

    def account(self, label: str | None) -> str:
        """The account that a request means. Raises Problem 422 where it has to name one."""
        try:
            return self.settings.wanted(label)
        except ValueError as error:
            raise invalid([Fault("account", str(error))], kind="invalid-request") from None


class Staff:
    """The threads of one app. At most eight connections of the pool at a time, all together,
    and one more that looks for tokens."""

    def __init__(self, desk: IntakeDesk) -> None:
        self.counter = Counter(desk)
        self.batches = Workers("batch", 2, deadline_s=BATCH_ANSWER_S)
        self.readers = Workers("read", 3)
        self.operators = Workers("operator", 1)
        self.probes = Workers("probe", 1)

    def close(self) -> None:
        """End all threads as soon as they have nothing under way."""
        for workers in (self.counter, self.batches, self.readers, self.operators, self.probes):
            workers.close()
