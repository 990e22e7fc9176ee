"""The world of one seed: virtual time, the processes, the broker, and what goes wrong when.

```
World.run ─▶ chaos: step by step, drawn from the seed
          │    a process goes on (to its next pause) or begins a pass · time passes · an order is
          │    filled · a process dies, freezes, thaws · a clock jumps · a decision is sent
          └▶ calm: nothing goes wrong any more; until every decision is terminal, and booked
```

Where a process can stop (`pause`) is where the real one can be overtaken by another: before and
after each transaction, and around each call to the broker. Everything that happens is a line of the
trace and has a stamp; the same seed gives the same lines.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from hashlib import sha256
from typing import Any

from tests.simulation import trouble
from tests.simulation.baton import Baton, PowerFailure, Task
from tests.simulation.book import Book, Booked
from tests.simulation.database import Server
from tests.simulation.line import Line, Post
from tests.simulation.plan import BEGAN, GRACE_S, HIDDEN_MAX_S, LEASE_TTL_S, draw
from tests.simulation.posts import check_post
from tests.simulation.replica import Replica
from tests.simulation.weather import Weather
from torghut.config import Settings
from torghut.domain.decisions import Decision
from torghut.domain.errors import DatabaseUnavailable, TorghutError
from torghut.domain.orders import OrderRequest
from torghut.services.intake import IntakeDesk
from torghut.services.limit_reload import PolicyInForce
from torghut.storage.rows import IntakeResult

SENDER = "sender"
DELTAS_S = (0.05, 0.3, 1.0, 1.0, 2.5, 2.5, 6.0, 12.0, 35.0)
BEAT_S = 6.0  # longer than the interval of the heartbeat, shorter than a lease
PASSES = {"heartbeat": 2, "executor": 9, "settler": 4, "reconciler": 1}
QUICK_RATE = 0.6
UNSEEN_S = 6.0  # by then the account is asked for again


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, and how."""

    promise: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


@dataclass
class Arrival:
    """An order that is still on its way to the broker."""

    at_s: float
    order: OrderRequest
    client_order_id: str


@dataclass
class Absent:
    """The broker said that there is no order of this id."""

    client_order_id: str
    stamp: int
    at: datetime


@dataclass
class Seen:
    """What the world saw, for the checks."""

    posts: list[Post] = field(default_factory=list)
    absents: list[Absent] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    violations: list[Violation] = field(default_factory=list)


class World(Weather):
    """One seed, once. `make_database` is the class that processes reach the server through."""

    def __init__(
        self,
        seed: int,
        account: str,
        server: Server,
        settings: Callable[[str], Settings],
        policy: Callable[[Mapping[str, object]], PolicyInForce],
        make_database: Callable[[Server, Any, str], Any],
        baton: Baton,
    ) -> None:
        rng = random.Random(f"torghut {seed}")
        super().__init__(rng, draw(rng, account))
        self.seed = seed
        self.account = account
        self.seen = Seen()
        self.trace: list[str] = []
        self.transaction_of: str | None = None
        self.calm = False  # nobody stops in the middle any more
        self.now_s = 0.0
        self.postgres_ahead_s = 0.0
        self.beaten_s = 0.0
        self.read = (0, BEGAN)  # when the calm's last reconciliation began
        self.book = Book(self.utc, account, self.stamp)
        self.tasks: list[Task] = []
        self.replicas: list[Replica] = []
        self.unsent: list[Decision] = list(self.plan.decisions)
        self._baton = baton
        self._server = server
        self._settings = settings(account)
        self._policy = policy(self.plan.risk())
        self._make_database = make_database
        self._count = 0
        self._born = 0
        self._arrivals: list[Arrival] = []
        self._names = {d.decision_hash: f"d{n}" for n, d in enumerate(self.plan.decisions)}
        self._databases: list[Any] = []
        self.person = self._reach("person")
        self._desk = IntakeDesk(self._reach(SENDER), self.utc, lambda _: None)
        for _ in range(self.plan.replicas):
            self.replicas.append(self.new_replica())

    # ------------------------------------------------------------------ what the parts ask for

    def utc(self) -> datetime:
        """The true time."""
        return BEGAN + timedelta(seconds=self.now_s)

    @property
    def hiding(self) -> bool:
        """Something of the broker's is still on its way, or not listed yet."""
        now = self.utc()
        return bool(
            self._arrivals
            or any(order.listed_at > now for order in self.book.orders)
            or any(trade.listed_at > now for trade in self.book.trades)
        )

    @property
    def read_to_the_end(self) -> bool:
        """The last reconciliation saw the book as it is now."""
        stamp, at = self.read
        shown = [one.listed_at for one in (*self.book.orders, *self.book.trades)]
        return stamp > self.book.changed and all(when <= at for when in shown)

    def postgres_now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.now_s + self.postgres_ahead_s)

    def stamp(self) -> int:
        self._count += 1
        return self._count

    def note(self, what: str) -> None:
        """A line of the trace."""
        task = self._baton.current
        who = "" if task is None else f"{task.process} {task.name}: "
        what = what.replace(self.account, "the account")  # named anew for each run
        self.trace.append(f"{self.now_s:9.3f} {who}{what}")

    def violated(self, promise: str, what: str) -> None:
        """A promise is broken."""
        self.note(f"VIOLATION {promise}: {what}")
        self.seen.violations.append(Violation(promise, what))

    def name(self, client_order_id: str) -> str:
        """An order's short name, by its client_order_id: the decision's, or a stranger's."""
        return self._names.get(client_order_id, client_order_id.removeprefix(self.account))

    def pause(self, what: str) -> None:
        """The running process may stop here, and others go on."""
        task = self._baton.current
        if task is not None and task.killed:
            raise PowerFailure
        if self.transaction_of is not None:
            self.violated("P3", f"{what}, with a transaction open")
            return
        if task is None or self.calm or self.rng.random() >= self.plan.pause_rate:
            return
        self.note(f"… {what}")
        self._baton.pause()

    def sleep(self, seconds: float) -> None:
        """The running process waits."""
        task = self._baton.current
        if task is None or self.calm:
            self.advance(seconds)
            return
        task.wake_at = self.now_s + seconds
        self._baton.pause()

    def spawn(self, process: str, name: str, work: Callable[[], object]) -> None:
        """Another thread of a process."""
        self.tasks.append(Task(name, process, work))

    def sending(self, line: Line, order: OrderRequest, client_order_id: str) -> Post:
        """A POST is about to leave: is it allowed to? Looked at before anything can intervene."""
        post = Post(client_order_id, line.process, self.stamp())
        check_post(self, self._server.session, post, order)
        self.seen.posts.append(post)
        return post

    def arrive_later(self, order: OrderRequest, client_order_id: str) -> None:
        self._arrivals.append(Arrival(self.now_s + self.late_s(), order, client_order_id))

    def arrived(self, order: Booked) -> None:
        if self.plan.quick and not self.fair and self.rng.random() < QUICK_RATE:
            self.fill(order, whole=self.rng.random() < 0.7)
            self.note(f"order {self.name(order.client_order_id)} is {order.status} at once")

    def absent(self, client_order_id: str) -> None:
        self.seen.absents.append(Absent(client_order_id, self.stamp(), self.utc()))

    # ------------------------------------------------------------------ chaos

    def run(self) -> None:
        """The whole story; `seen.violations` says whether it held."""
        self._open_account()
        for _ in range(self.plan.steps):
            self._step()
            if self.seen.violations:
                break
        self.settle_down()

    def _open_account(self) -> None:
        """The account has its first owner; its first pass may be before there is anything to trade.

        It is where strangers trade, too: what of theirs the broker shows in positions and not yet
        in lists is taken for an opening, as nobody can know better.
        """
        self.calm = self.fair = True
        first = self.replicas[0]
        self.begin(first, "heartbeat")
        if self.plan.opened or self.plan.strangers or self.plan.placed_before:
            self.begin(first, "reconciler")
        while self.plan.head_start and self.unsent:
            self.accept(self.unsent[0])
            if self.plan.one_by_one:
                break
        if self.plan.head_start and (self.plan.doubt_first or self.plan.first_look):
            self._begin_in_doubt(first)
        self.calm = self.fair = False
        if self.plan.placed_before:
            order = self.plan.decisions[0]
            hidden_s = self.rng.choice((0.0, 5.0, HIDDEN_MAX_S))
            self.book.take(order.order, order.decision_hash, hidden_s=hidden_s)
        if not self.plan.head_start:
            trouble.crash(self, first)

    def _begin_in_doubt(self, first: Replica) -> None:
        """The first orders live, and nobody knows. With `first_look` the books begin when positions
        show their fills and lists do not."""
        self.forced = True
        for name in ("executor", "executor"):
            self.begin(first, name)
            self.drain()
        self.forced = False
        if not self.plan.first_look:
            return
        self._time_passes(UNSEEN_S)
        for order in self.book.orders:
            if order.live:
                self.book.fill(order, order.qty, unlisted_s=4.0)
        self.begin(first, "reconciler")
        self.drain()

    def settle_down(self) -> None:
        """What is under way is finished, and a last round is made that meets faults."""
        self.calm = True
        self.postgres_ahead_s = 0.0
        for replica in self.replicas:
            replica.frozen, replica.ahead = False, timedelta(0)
        self.drain()
        for name in ("heartbeat", "executor", "executor", "settler"):
            for replica in self.replicas:
                if not self.seen.violations and (replica.owner or name == "heartbeat"):
                    self.begin(replica, name)
                    self.drain()
            self.advance(0.3)
        self.fair = True

    def drain(self) -> None:
        """Whatever is under way goes on to its end."""
        while self.tasks:
            for task in list(self.tasks):
                self.go_on(task)

    def kill(self, task: Task) -> None:
        """A task ends where it stands."""
        self._baton.kill(task)
        self.tasks.remove(task)

    def end(self) -> None:
        """So does whatever is still under way."""
        for task in list(self.tasks):
            self.kill(task)

    def close(self) -> None:
        """Give back what the processes held."""
        for database in self._databases:
            database.close()

    def _step(self) -> None:
        drawn = self.rng.random()
        if drawn < self.plan.trouble_rate:
            trouble.trouble(self)
        elif drawn < 0.2:
            self._time_passes(self.rng.choice(DELTAS_S))
        elif drawn < 0.3 and (self.plan.strangers or self.book.orders):
            trouble.broker_moves(self)
        else:
            self._somebody_goes_on()

    def _somebody_goes_on(self) -> None:
        choices: list[Callable[[], None]] = []
        weights: list[int] = []
        busy = {(task.process, task.name) for task in self.tasks}
        frozen = {replica.name for replica in self.replicas if replica.frozen}
        for task in self.tasks:
            if task.process not in frozen and task.wake_at <= self.now_s:
                choices.append(partial(self.go_on, task))
                weights.append(8)
        for replica in self.replicas:
            if replica.frozen:
                continue
            for name, weight in PASSES.items():
                idle = (replica.name, name) not in busy
                if idle and (name == "heartbeat" or replica.owner):
                    choices.append(partial(self.begin, replica, name))
                    weights.append(weight if replica.owner else 1)
        if self.unsent and (SENDER, "send") not in busy:
            choices.append(self._send)
            weights.append(10)
        if choices:
            self.rng.choices(choices, weights)[0]()

    def begin(self, replica: Replica, name: str) -> None:
        """A loop of a process comes round."""
        task = Task(name, replica.name, lambda: replica.passes[name](replica.clock()))
        self.tasks.append(task)
        self.go_on(task)

    def _send(self) -> None:
        decision = self.unsent[0]
        task = Task("send", SENDER, lambda: self.accept(decision))
        self.tasks.append(task)
        self.go_on(task)

    def accept(self, decision: Decision) -> None:
        """Somebody sends a decision."""
        try:
            (answer,) = self._desk.accept([decision], source="simulation")
        except DatabaseUnavailable:
            return  # not acknowledged: sent again
        self.note(f"{self.name(decision.decision_hash)} {answer.result}")
        if answer.result is IntakeResult.CONFLICT:
            self.violated("P2", "the same decision again is a conflict")
        self.seen.acknowledged.add(decision.decision_hash)
        if decision in self.unsent and (self.calm or self.rng.random() < 0.9):  # else once more
            self.unsent.remove(decision)

    def go_on(self, task: Task) -> None:
        """Let a task run until it stops or ends, and see how it ended."""
        self._baton.resume(task)
        if not task.done:
            return
        if task in self.tasks:
            self.tasks.remove(task)
        if isinstance(task.error, TorghutError):
            self.note(f"{task.process} {task.name} failed: {task.error}")
        elif task.error is not None:
            error = f"{type(task.error).__name__} {str(task.error)[:300]}"
            self.violated("P5", f"{task.name} of {task.process} died of {error}")

    def _time_passes(self, seconds: float) -> None:
        """Meanwhile owners keep their lease, unless they are frozen or stopped in a heartbeat."""
        self.note(f"{seconds} s pass")
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.advance(min(BEAT_S, until_s - self.now_s))
            busy = {task.process for task in self.tasks if task.name == "heartbeat"}
            for replica in list(self.replicas) if seconds >= BEAT_S else ():
                if replica.owner and not replica.frozen and replica.name not in busy:
                    self.begin(replica, "heartbeat")

    def advance(self, seconds: float) -> None:
        """Time passes; what was on its way arrives."""
        target = self.now_s + seconds
        for arrival in sorted(self._arrivals, key=lambda one: one.at_s):
            if arrival.at_s <= target:
                self.now_s = max(self.now_s, arrival.at_s)
                self._arrivals.remove(arrival)
                taken = self.book.take(arrival.order, arrival.client_order_id)
                outcome = "refused, its id is taken" if taken is None else "taken"
                self.note(f"late POST {self.name(arrival.client_order_id)} arrives: {outcome}")
                if taken is not None:
                    self.arrived(taken)
        self.now_s = target

    def fill(self, order: Booked, *, whole: bool) -> None:
        """The rest of an order, or one share of it, is traded."""
        rest = order.qty - order.cum_qty
        qty = rest if whole else min(rest, Decimal(1))
        self.book.fill(order, qty, unlisted_s=self.fill_lag_s())

    def _reach(self, process: str) -> Any:
        """A process's way to the server."""
        database = self._make_database(self._server, self, process)
        self._databases.append(database)
        return database

    def new_replica(self) -> Replica:
        """A process that nobody has seen before."""
        name = f"r{self._born}"
        self._born += 1
        return Replica(
            name,
            self,
            self._reach(name),
            Line(self.book, self, name),
            self._settings,
            self._policy,
            f"{self.seed} {name}",
        )

    @property
    def digest(self) -> str:
        """Of all that happened."""
        return sha256("\n".join(self.trace).encode()).hexdigest()


SETTINGS = {"lease_ttl_s": LEASE_TTL_S, "absence_grace_s": GRACE_S, "broker": "alpaca"}
