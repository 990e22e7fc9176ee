"""One process's line to the simulated broker: the `Broker` port, with every row of the table of
answers (domain/submission) and every way in which a question can fail, as the world decides.

A POST has three instants at which its process may die or freeze: before it leaves, after the
broker took it, and after the answer. Between the first two the broker decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from tests.simulation.book import Book, Booked, Refused
from torghut.domain.errors import BrokerRefused, BrokerUnavailable
from torghut.domain.exposure import AssetFacts
from torghut.domain.orders import Order, OrderRequest
from torghut.ports import (
    AccountEntry,
    Answer,
    BrokerAccount,
    BrokerPosition,
    FillActivity,
    Lookup,
    Outcome,
    Page,
    RateState,
)

FILLS_PAGE = 100

SUBMIT_FAULTS = (
    "answer_lost",  # taken, and the read times out
    "lost",  # a timeout, and it never arrives
    "late",  # a timeout, and it arrives later
    "refused",  # 4xx about this order
    "refused_live",  # 4xx, and the order lives
    "account_refused",  # 401, 403 forbidden
    "rate_limited",  # 429
    "never_left",  # connection refused
    "error",  # 5xx, not taken
    "error_taken",  # 5xx, and taken
    "unreadable",  # 200, taken, and the body is no order
    "another_id",  # 200, taken, and the body has another client_order_id
)
TAKEN = frozenset(
    {"accepted", "answer_lost", "refused_live", "error_taken", "unreadable", "another_id"}
)


class World(Protocol):
    """What a line needs to know of what goes on around it."""

    def pause(self, what: str) -> None: ...

    def stamp(self) -> int: ...

    def sending(self, line: Line, order: OrderRequest, client_order_id: str) -> Post: ...

    def submit_fault(self) -> str: ...

    def lags_s(self) -> tuple[float, float]: ...

    def retry_s(self) -> float: ...

    def arrive_later(self, order: OrderRequest, client_order_id: str) -> None: ...

    def arrived(self, order: Booked) -> None: ...

    def question_fault(self, route: str) -> str | None: ...

    def absent(self, client_order_id: str) -> None: ...

    def note(self, what: str) -> None: ...

    def name(self, client_order_id: str) -> str: ...


@dataclass
class Post:
    """One POST: who sent it, when, and what its process was told."""

    client_order_id: str
    process: str
    sent: int
    outcome: Outcome | None = None
    answered: int | None = None
    fate: str = "on its way"


class Calm:
    """A world in which nothing goes wrong; stands for itself in the conformance suite."""

    def __init__(self) -> None:
        self._count = 0

    def pause(self, what: str) -> None: ...

    def stamp(self) -> int:
        self._count += 1
        return self._count

    def sending(self, line: Line, order: OrderRequest, client_order_id: str) -> Post:
        return Post(client_order_id, line.process, self.stamp())

    def submit_fault(self) -> str:
        return "accepted"

    def lags_s(self) -> tuple[float, float]:
        return 0.0, 0.0

    def retry_s(self) -> float:
        return 1.0

    def arrive_later(self, order: OrderRequest, client_order_id: str) -> None: ...

    def arrived(self, order: Booked) -> None: ...

    def question_fault(self, route: str) -> str | None:
        return None

    def absent(self, client_order_id: str) -> None: ...

    def note(self, what: str) -> None: ...

    def name(self, client_order_id: str) -> str:
        return client_order_id


class Line:
    """The port `Broker` on a book."""

    def __init__(self, book: Book, world: World, process: str) -> None:
        self.process = process
        self._book = book
        self._world = world

    # ------------------------------------------------------------------ changes

    def submit(self, order: OrderRequest, client_order_id: str) -> Answer:
        post = self._world.sending(self, order, client_order_id)
        name = self._world.name(client_order_id)
        self._world.pause(f"POST {name} is about to leave")
        post.fate = self._world.submit_fault()
        answer = self._answer(post.fate, order, client_order_id)
        self._world.note(f"POST {name}: {post.fate}, {answer.outcome}")
        self._world.pause(f"POST {name} is answered")
        post.outcome, post.answered = answer.outcome, self._world.stamp()
        return answer

    def _answer(self, fate: str, order: OrderRequest, client_order_id: str) -> Answer:
        taken: Booked | None = None
        if fate in TAKEN:
            hidden_s, unlisted_s = self._world.lags_s()
            try:
                taken = self._book.take(
                    order, client_order_id, hidden_s=hidden_s, unlisted_s=unlisted_s
                )
            except Refused as refusal:
                return _refusal(*refusal.args)
            if taken is not None:
                self._world.arrived(taken)
            if taken is None and fate == "accepted":
                return Answer(
                    outcome=Outcome.EXISTS,
                    http_status=422,
                    broker_code="40010001",
                    message="client_order_id must be unique",
                )
        match fate:
            case "accepted":
                assert taken is not None
                return Answer(outcome=Outcome.ACCEPTED, order=taken.snapshot(), http_status=200)
            case "refused" | "refused_live":
                return _refusal(403, "40310000", "insufficient buying power")
            case "account_refused":
                return Answer(
                    outcome=Outcome.ACCOUNT_REFUSED, http_status=403, message="forbidden."
                )
            case "rate_limited":
                retry_at = self._book.clock() + timedelta(seconds=self._world.retry_s())
                return Answer(outcome=Outcome.RATE_LIMITED, http_status=429, retry_at=retry_at)
            case "never_left":
                return Answer(outcome=Outcome.NEVER_LEFT, message="connection refused")
            case "late":
                self._world.arrive_later(order, client_order_id)
        status = {"error": 500, "error_taken": 504, "unreadable": 200, "another_id": 200}.get(fate)
        return Answer(outcome=Outcome.IN_DOUBT, http_status=status, message=f"no answer: {fate}")

    def cancel(self, broker_order_id: str) -> Answer:
        self._world.pause(f"DELETE {broker_order_id[-7:]} is about to leave")
        order = self._find(broker_order_id)
        lost = self._world.question_fault("cancel") == "unavailable"
        if lost and self._world.retry_s() > 10:
            return Answer(outcome=Outcome.NEVER_LEFT, message="connection refused")
        live = order is not None and order.live
        if live:
            assert order is not None
            self._book.end(order, "canceled")
        self._world.note(f"DELETE {broker_order_id[-7:]}: {'canceled' if live else 'too late'}")
        self._world.pause("DELETE is answered")
        if lost:
            return Answer(outcome=Outcome.IN_DOUBT, message="read timed out")
        if live:
            return Answer(outcome=Outcome.ACCEPTED, http_status=204)
        return _refusal(422, "42210000", "order is not cancelable")

    def replace(self, broker_order_id: str, changes: object, client_order_id: str) -> Answer:
        return _refusal(422, "42210000", "order is not replaceable")

    # ------------------------------------------------------------------ questions

    def lookup(self, client_order_id: str) -> Lookup:
        self._ask("lookup", self._world.name(client_order_id))
        order = self._book.by_client_id.get(client_order_id)
        found = order is not None and order.visible_at <= self._book.shown()
        if not found:
            self._world.absent(client_order_id)
        self._world.note(f"lookup {self._world.name(client_order_id)}: {found}")
        snapshot = order.snapshot() if found and order is not None else None
        self._world.pause("lookup is answered")
        return Lookup(order=snapshot)

    def get_order(self, broker_order_id: str) -> Order | None:
        self._ask("get_order", broker_order_id[-7:])
        order = self._find(broker_order_id)
        return None if order is None else order.snapshot()

    def account(self) -> BrokerAccount:
        self._ask("account")
        return self._book.account()

    def positions(self) -> Sequence[BrokerPosition]:
        self._ask("positions")
        return self._book.positions()

    def asset(self, symbol: str) -> AssetFacts:
        self._ask("asset", symbol)
        return AssetFacts(listed=True, tradable=True, fractionable=True, shortable=True)

    def orders(self, *, after: datetime | None, limit: int) -> Page[Order]:
        self._ask("orders")
        later = [o for o in self._listed() if after is None or o.created_at > after]
        page = [order.snapshot() for order in later[:limit]]
        last_id = page[-1].broker_order_id if page else None
        return Page(page, full=len(page) == limit, last_id=last_id)

    def open_orders(self) -> Sequence[Order]:
        self._ask("open_orders")
        return [order.snapshot() for order in self._listed() if order.live]

    def fills(self, *, page_token: str | None, after: datetime | None) -> Page[FillActivity]:
        self._ask("fills")
        now = self._book.shown()
        later = [
            trade.activity
            for trade in self._book.trades
            if trade.listed_at <= now
            and (after is None or trade.activity.transact_time > after)
            and (page_token is None or trade.activity.activity_id > page_token)
        ]
        page = later[:FILLS_PAGE]
        last_id = page[-1].activity_id if page else None
        return Page(page, full=len(page) == FILLS_PAGE, last_id=last_id)

    def entries(self, *, page_token: str | None, after: datetime | None) -> Page[AccountEntry]:
        self._ask("entries")
        return Page()

    def rate_state(self) -> RateState:
        return RateState()

    def close(self) -> None: ...

    def _ask(self, route: str, about: str = "") -> None:
        """A question on its way; raises what a failing one raises."""
        self._world.pause(f"{route} {about} is about to leave")
        fault = self._world.question_fault(route)
        if fault == "unavailable":
            self._world.note(f"{route} {about}: no answer")
            raise BrokerUnavailable(f"{route}: read timed out")
        if fault == "refused":
            self._world.note(f"{route} {about}: 401")
            raise BrokerRefused(f"{route}: unauthorized.")

    def _find(self, broker_order_id: str) -> Booked | None:
        now = self._book.shown()
        for order in self._book.orders:
            if order.broker_order_id == broker_order_id and order.visible_at <= now:
                return order
        return None

    def _listed(self) -> list[Booked]:
        now = self._book.shown()
        return [order for order in self._book.orders if order.listed_at <= now]


def _refusal(status: int, code: str, message: str) -> Answer:
    return Answer(outcome=Outcome.REFUSED, http_status=status, broker_code=code, message=message)
