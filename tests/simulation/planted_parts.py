"""The planted bugs that need more than a line: contexts in which the production code has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torghut.domain.errors import DatabaseUnavailable
from torghut.domain.lifecycle import DecisionStatus
from torghut.domain.submission import Proof
from torghut.ports import Answer, Outcome
from torghut.services import executor, reconciler, risk_engine
from torghut.services.executor import Executor
from torghut.services.intake import IntakeDesk
from torghut.services.late_orders import LateOrders
from torghut.services.placing import Placed, Placer
from torghut.storage import attempts
from torghut.storage.rows import Intake, IntakeResult


@contextmanager
def attempt_not_recorded() -> Iterator[None]:
    """Check, then post: nothing says that a call is about to be made."""
    with patch.object(attempts, "add_intents", lambda *_, **__: None):
        yield


@contextmanager
def answered_before_the_call() -> Iterator[None]:
    """The outcome is handed on before there is one."""

    def place_one(self: Any, claim: Any) -> None:
        answer = Answer(outcome=Outcome.ACCEPTED, http_status=200)
        self._placed.put((Placed(claim.row, claim.attempt_no, Proof.ACCEPTED, answer), 0.0))
        self._placer.place(claim)

    with patch.object(Executor, "_place_one", place_one):
        yield


@contextmanager
def transaction_across_the_call() -> Iterator[None]:
    """The outcome's transaction begins before the call."""
    place = Placer._place

    def in_transaction(self: Any, claim: Any) -> Any:
        with self._state.args[0].transaction():
            return place(self, claim)

    with (
        patch.object(Placer, "_place", in_transaction),
        patch.object(Placer, "_held_back", lambda *_: None),
    ):
        yield


@contextmanager
def outcome_unfenced() -> Iterator[None]:
    """What came back is written whoever owns the account."""
    fence = executor.fence

    def only_claims(tx: Any, lease: Any, *, margin_s: float = 0) -> None:
        if margin_s:
            fence(tx, lease, margin_s=margin_s)

    with patch.object(executor, "fence", only_claims):
        yield


@contextmanager
def in_flight_for_ever() -> Iterator[None]:
    """An outcome that could not be written is dropped, and its decision stays under way."""
    write = Executor._write_outcomes

    def dropped(self: Any, batch: Any, lease: Any) -> None:
        try:
            write(self, batch, lease)
        except DatabaseUnavailable:
            self._unwritten = []
            raise

    with patch.object(Executor, "_write_outcomes", dropped):
        yield


@contextmanager
def acknowledged_unstored() -> Iterator[None]:
    """A database error at intake is taken for a COMMIT that was answered."""
    accept = IntakeDesk._accept

    def anyway(self: Any, batch: Any, *, source: str) -> Any:
        try:
            return accept(self, batch, source=source)
        except DatabaseUnavailable:
            return [
                Intake(one.decision_hash, IntakeResult.CREATED, DecisionStatus.PLANNED)
                for one in batch
            ]

    with patch("torghut.services.intake.TRIES", 1), patch.object(IntakeDesk, "_accept", anyway):
        yield


class _Reminting:
    """A broker that is given another id for each repeated attempt (stories 4, 36)."""

    def __init__(self, broker: Any, attempt_no: int) -> None:
        self._broker = broker
        self._attempt_no = attempt_no

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def submit(self, order: Any, client_order_id: str) -> Any:
        return self._broker.submit(order, f"{client_order_id}-{self._attempt_no}")


@contextmanager
def id_minted_anew() -> Iterator[None]:
    """Each attempt has an id of its own."""
    place = Placer._place

    def reminted(self: Any, claim: Any) -> Any:
        broker = self._broker
        self._broker = _Reminting(broker, claim.attempt_no)
        try:
            return place(self, claim)
        finally:
            self._broker = broker

    with patch.object(Placer, "_place", reminted):
        yield


@contextmanager
def verdict_on_the_last_reading() -> Iterator[None]:
    """The exposure is read outside the transaction that judges: what came since is not in it."""
    read = risk_engine._read
    last: dict[str, Any] = {}

    def before(tx: Any, account: str, *values: Any) -> Any:
        now = read(tx, account, *values)
        found = last.get(account, now)
        last[account] = now
        return found

    with patch.object(risk_engine, "_read", before):
        yield


@contextmanager
def late_order_left_alone() -> Iterator[None]:
    """It is shown, and trades on."""
    note = LateOrders.note

    def only_shown(self: Any, *values: Any, **named: Any) -> None:
        self._cancel = False
        note(self, *values, **named)

    with patch.object(LateOrders, "note", only_shown):
        yield


@contextmanager
def first_page_only() -> Iterator[None]:
    """The list of orders is read to its first full page."""
    pages = reconciler.order_pages

    def one_page(*values: Any) -> Iterator[Any]:
        yield next(pages(*values))

    with patch.object(reconciler, "order_pages", one_page):
        yield
