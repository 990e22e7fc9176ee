"""One case's world: a database, a simulator that survives every kill, and daemons that do not.

with World(database_url, folder, answer) as world:
    world.play(kills)        send · kill at each point in turn · restart · wait until settled
    world.faults()           what does not hold (tests.crash.books)
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
from sqlalchemy import text

from tests.crash import books
from tests.crash.answers import BROKER_TIMEOUT_S, Answer, End
from tests.crash.cases import forestalled
from tests.crash.door import Door
from tests.crash.processes import Child
from tests.factories import ACCOUNT, decision, decision_json
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.domain.decisions import Decision
from torghut.places import notify
from torghut.recovery_points import RecoveryPoint
from torghut.services import operator
from torghut.services.intake import IntakeDesk
from torghut.simulator import SimConfig, Simulator
from torghut.simulator.faults import FaultRule
from torghut.storage.database import Database
from torghut.storage.rows import IntakeResult

DEADLINE_S = 60.0
POLL_S = 0.02
KEYS = {"APCA-API-KEY-ID": "crash-test-key", "APCA-API-SECRET-KEY": "crash-test-secret"}

_STATE = text("""
SELECT count(*) FILTER (WHERE d.finalized_at IS NULL) AS open,
  count(*) AS known,
  (SELECT count(*) FROM submission_attempts WHERE operation = 'submit') AS attempts,
  (SELECT count(*) FROM submission_attempts WHERE operation = 'submit' AND outcome IS NOT NULL)
    AS answered,
  (SELECT count(*) FROM executions WHERE NOT terminal OR cum_qty <> ledger_qty) AS unbooked,
  (SELECT count(*) FROM submission_attempts WHERE outcome IS NULL
     AND fencing_token = (SELECT max(fencing_token) FROM account_leases)) AS in_flight,
  (SELECT count(*) FROM executions WHERE origin = 'external') AS external,
  (SELECT count(*) FROM trading_states WHERE state = 'halted') AS halted
FROM trade_decisions d""")


class TooSlow(AssertionError):
    """What was waited for did not come."""


class World:
    """Use as a context. `subject` is the decision that `answer` is about, the others get none."""

    def __init__(
        self,
        database_url: str,
        folder: Path,
        answer: Answer,
        *,
        others: int = 2,
        rules: Sequence[Mapping[str, Any]] = (),
        **simulator: Any,
    ) -> None:
        self.answer = answer
        self.subject = _decision("subject", "AAPL")
        self.others = [_decision(f"other {n}", ("MSFT", "AAPL")[n % 2]) for n in range(others)]
        self.database = Database(database_url, pool_size=2)
        self.desk = IntakeDesk(
            self.database, utc_now, lambda accounts: notify(self.database, accounts)
        )
        self.daemons: list[Child] = []
        self.kills = 0
        self._others_sent = False
        self._kill_awaited = False
        self._resumed = False
        self._url = database_url
        self._folder = folder
        self._stack = ExitStack()
        self._pause = threading.Event()
        settings: dict[str, Any] = {"partial_fill_probability": 0.0, "fault_hold_s": 2.0}
        self.simulator = Simulator(SimConfig(port=0, control_port=0, **(settings | simulator)))
        for rule in answer.rules:
            self._add_fault({**rule, "client_order_id": self.subject.decision_hash})
        added = [self._add_fault(rule) for rule in rules]
        self._away = [rule.id for rule in added if rule.count is None]

    def __enter__(self) -> World:
        self._stack.callback(self.database.close)
        self._stack.enter_context(self.simulator)
        self.door = Door(self.simulator.url)
        self._stack.callback(self.door.shut)
        self._http = self._stack.enter_context(requests.Session())
        if self.answer.placed_before:
            self.place_directly(self.subject)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for daemon in self.daemons:
            daemon.kill()
        self._stack.close()

    # ------------------------------------------------------------------ the story

    def play(self, kills: Sequence[RecoveryPoint]) -> list[RecoveryPoint]:
        """Kill at each point in turn, then let a last daemon finish; returns the points reached.

        The subject goes first, so that the first kill is about it; the others follow once its
        process is dead, or it is settled, or, if none is to die, once it is under way.
        """
        reached: list[RecoveryPoint] = []
        plan = list(kills)
        if self.answer.door:
            self._warm_up()
            self.door.shut()
        if plan and plan[0].value.startswith("intake."):
            reached.append(self._sender_dies(plan.pop(0)))
        self.accept([self.subject])
        while plan:
            point = plan.pop(0)
            if not self.run_until_dead(point):
                return reached
            reached.append(point)
            if not forestalled(plan):
                self.return_lists()
        self.run_until_settled()
        return reached

    def run_until_dead(self, point: RecoveryPoint) -> bool:
        """A daemon armed for `point`; False if everything was settled without getting there."""
        daemon = self.start(point)
        self._kill_awaited = True
        self.wait(lambda: daemon.dead or self._all_sent_and_settled(), f"armed for {point}")
        self._kill_awaited = False
        assert not daemon.dead or daemon.power_failed, f"it ended by itself: {self.logs()}"
        self.kills += daemon.dead
        return daemon.dead

    def run_until_settled(self, *, mutated: Sequence[str] = ()) -> Child:
        """A daemon that nobody kills; returns it, still running."""
        daemon = self.start(mutated=mutated)
        self.wait(self._all_sent_and_settled, "the last daemon")
        return daemon

    def start(
        self,
        point: RecoveryPoint | None = None,
        *,
        mutated: Sequence[str] = (),
        target: str = "daemon",
        **settings: object,
    ) -> Child:
        """A daemon, armed for `point`, with what `mutated` names taken away from it.

        `target` is `run` for the command itself, which ends on SIGTERM."""
        environment = self._environment(point) | {k: str(v) for k, v in settings.items()}
        log = self._folder / f"daemon-{len(self.daemons) + 1}.log"
        daemon = Child(target, environment, log=log, mutated=tuple(mutated))
        self.daemons.append(daemon)
        return daemon

    def accept(self, batch: Sequence[Decision]) -> list[IntakeResult]:
        """Through the one door for decisions, from this process."""
        return [answer.result for answer in self.desk.accept(batch, source="test")]

    def submit_by_cli(self, batch: Sequence[Decision], point: RecoveryPoint | None) -> Child:
        """`torghut submit FILE` in a process of its own, armed for `point`; waits for its end."""
        file = self._folder / "decisions.jsonl"
        lines = (decision_json(**fields_of(item)) for item in batch)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return self.command(["submit", str(file)], point)

    def command(self, words: list[str], point: RecoveryPoint | None) -> Child:
        """`torghut …` in a process of its own, armed for `point`; waits for its end."""
        log = self._folder / f"{words[0]}-{point or 'again'}.log"
        child = Child("command", self._environment(point), log=log, words=words)
        assert child.join(60) is not None, f"torghut {words[0]} hangs"
        return child

    def return_lists(self) -> None:
        """The routes answer again that were away without a count."""
        self.end_faults(self._away)

    def end_faults(self, rules: Sequence[int | None] = (None,)) -> None:
        """These rules end, or all: from now on the broker behaves."""
        for rule in rules:
            parameters = {} if rule is None else {"id": rule}
            url = f"{self.simulator.control_url}/faults"
            self._http.delete(url, params=parameters, timeout=10).raise_for_status()

    def place_directly(self, item: Decision) -> None:
        """An order with the decision's id, placed past us."""
        order = {**item.order.payload(), "symbol": item.order.symbol, "side": item.order.side.value}
        wanted = ("symbol", "side", "type", "qty", "time_in_force")
        body = {name: order[name] for name in wanted} | {"client_order_id": item.decision_hash}
        answer = self._http.post(f"{self.simulator.url}/v2/orders", json=body, headers=KEYS)
        assert answer.status_code == 200, answer.text

    # ------------------------------------------------------------------ waiting

    def wait(self, done: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
        """Until `done`, doing meanwhile what the outside world would do."""
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise TooSlow(f"{what}: not within {timeout_s} s; {self.state()}\n{self.logs()}")
            self._tend()
            self._pause.wait(POLL_S)

    def settled(self) -> bool:
        """Every decision is final, every order's fills are booked, every call has come back."""
        state = self.state()
        open_ = state["open"] or state["unbooked"] or state["in_flight"]
        return bool(state["known"]) and not open_

    def state(self) -> Mapping[str, int]:
        """Counts of what is open, from the database."""
        with self.database.transaction() as tx:
            return dict(tx.execute(_STATE).mappings().one())

    def _all_sent_and_settled(self) -> bool:
        return not self.others_unsent and self.settled()

    @property
    def others_unsent(self) -> bool:
        return bool(self.others) and not self._others_sent

    def _tend(self) -> None:
        state = self.state()
        dead = any(daemon.dead for daemon in self.daemons)
        if self.answer.door and (dead or state["answered"]):
            self.door.open()
        # while the account is halted, new decisions are denied: they come when it is resumed
        if self.answer.halts:
            under_way = self._resumed or not state["open"]
        else:
            # not before a first death while the subject can still bring it: a later kill may be
            # about them
            soon = not self._kill_awaited or not state["open"]
            under_way = dead or bool(state["attempts"] and soon)
        if self.others_unsent and under_way:
            self._others_sent = True
            self.accept(self.others)
        if self.answer.halts and state["halted"]:
            operator.resume(
                self.database,
                operator.scope_of(ACCOUNT),
                actor="test",
                reason="keys were mended",
                now=utc_now(),
                settings=Settings(account=ACCOUNT),
            )
            self._resumed = True

    def _warm_up(self) -> None:
        """The account's facts get known, so that a decision is sent to a broker that is away."""
        daemon = self.start()
        self.wait(self._facts_known, "the account's facts")
        daemon.kill()
        self.daemons.remove(daemon)

    def _facts_known(self) -> bool:
        with self.database.transaction() as tx:
            return bool(tx.execute(text("SELECT count(*) FROM broker_accounts")).scalar_one())

    def _sender_dies(self, point: RecoveryPoint) -> RecoveryPoint:
        sender = self.submit_by_cli([self.subject], point)
        assert sender.power_failed, sender.log.read_text()
        return point

    # ------------------------------------------------------------------ judging

    def ledger(self) -> dict[str, Any]:
        """The broker's own second books."""
        return self._control("ledger")

    def requests(self) -> dict[str, Any]:
        """What the broker was asked."""
        return self._control("requests")

    def faults(self, *, allowed: Sequence[str] = ()) -> list[str]:
        """What does not hold: the books, the subject's end, the number of POSTs."""
        return self.book_faults(allowed=allowed) + self._end_faults() + self._post_faults()

    def book_faults(self, *, allowed: Sequence[str] = ()) -> list[str]:
        """What does not hold in the two books."""
        with self.database.transaction() as tx:
            return books.faults(tx, self.ledger(), allowed=allowed)

    def orders_of(self, item: Decision) -> int:
        """Orders that the broker ever accepted for the decision."""
        return len(self.ledger()["orders"].get(item.decision_hash, []))

    def status_of(self, item: Decision) -> str:
        """The decision's status."""
        with self.database.transaction() as tx:
            query = text("SELECT status FROM trade_decisions WHERE decision_hash = :hash")
            return str(tx.execute(query, {"hash": item.decision_hash}).scalar_one())

    def posts_of(self, item: Decision) -> int:
        """POSTs that the broker received for the decision, whatever came of them."""
        return books.posted(self.requests(), item.decision_hash)

    def discrepancies(self) -> list[str]:
        """Kinds of the discrepancies."""
        with self.database.transaction() as tx:
            return sorted(tx.execute(text("SELECT kind FROM discrepancies")).scalars())

    def logs(self) -> str:
        """The end of each daemon's log."""
        return "\n".join(
            f"--- {daemon.log.name}\n{daemon.log.read_text()[-3000:]}"
            for daemon in self.daemons
            if daemon.log.exists()
        )

    def _end_faults(self) -> list[str]:
        orders, status = self.orders_of(self.subject), self.status_of(self.subject)
        wanted = (1, "closed") if self.answer.end is End.ORDER else (0, "rejected")
        if (orders, status) == wanted:
            return []
        return [f"subject: {self.answer.end} wanted, found {status} with {orders} order(s)"]

    def _post_faults(self) -> list[str]:
        seen = self.requests()
        posts = books.posted(seen, self.subject.decision_hash)
        kills = self.kills + 1
        wanted = self.answer.posts or frozenset(range(1, kills + 1))
        found = [] if posts in wanted else [f"subject: {posts} POSTs, {sorted(wanted)} expected"]
        return found + [
            f"an undisturbed decision was sent {posts} times"
            for item in self.others
            if (posts := books.posted(seen, item.decision_hash)) != 1
        ]

    # ------------------------------------------------------------------ parts

    def _environment(self, point: RecoveryPoint | None) -> dict[str, str]:
        environment = {
            "TORGHUT_DATABASE_URL": self._url,
            "TORGHUT_BROKER": "alpaca",
            "TORGHUT_ACCOUNT": ACCOUNT,
            "APCA_API_KEY_ID": KEYS["APCA-API-KEY-ID"],
            "APCA_API_SECRET_KEY": KEYS["APCA-API-SECRET-KEY"],
            "APCA_API_BASE_URL": self.door.url if self.answer.door else self.simulator.url,
            "APCA_API_DATA_URL": self.simulator.url,
            "TORGHUT_BROKER_TIMEOUT_S": str(BROKER_TIMEOUT_S),
            "TORGHUT_ABSENCE_GRACE_S": "0.6",
            "TORGHUT_LEASE_TTL_S": "1",
            "TORGHUT_RECONCILE_INTERVAL_S": "0.2",
            "TORGHUT_BROKER_RATE_PER_MIN": "100000",
            "TORGHUT_DECISION_TTL_S": str(3650 * 86_400),
            "TORGHUT_LOG_LEVEL": "info",
            # the door to the broker may be shut from the start, and then no asset is known
            "TORGHUT_RISK__CHECK_ASSETS": "false",
        }
        return environment | ({"TORGHUT_CRASH_AT": point.value} if point else {})

    def _add_fault(self, rule: Mapping[str, Any]) -> FaultRule:
        return self.simulator.plan.add(FaultRule(**rule))

    def _control(self, path: str) -> dict[str, Any]:
        answer = self._http.get(f"{self.simulator.control_url}/{path}", timeout=10)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def _decision(intent: str, symbol: str, qty: str = "3") -> Decision:
    return decision(strategy="crash", symbol=symbol, qty=qty, intent=intent)


def fields_of(item: Decision) -> dict[str, object]:
    """What `decision` was called with."""
    return {
        "strategy": item.strategy,
        "symbol": item.order.symbol,
        "qty": str(item.order.qty),
        "intent": item.intent,
    }


def numbered(first: int, count: int, qty: str = "3") -> list[Decision]:
    """More decisions, for load."""
    symbols = ("AAPL", "MSFT")
    return [_decision(f"load {n}", symbols[n % 2], qty) for n in range(first, first + count)]
