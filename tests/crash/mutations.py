"""What a control takes away: each function breaks one protection in the calling (child) process.

These are the only replaced parts in this folder, and each is named by the test that uses it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any


def shorten_waits() -> None:
    """Not a control: the fixed waits of production, a quarter or less of them."""
    from torghut.domain import submission
    from torghut.services import loops, rate_budget, supervisor
    from torghut.storage import database

    os.environ.setdefault("TORGHUT_RETRY_BACKOFF_S", "0.25")
    submission.BACKOFF_FIRST_S = 0.25  # of cancels and replacements
    submission.LOOKUP_FIRST_S = 0.1
    loops.BACKOFF_CAP_S = 1.0
    supervisor.EXECUTOR_POLL_S = supervisor.SETTLER_POLL_S = 0.1
    database.IDLE_IN_TRANSACTION_TIMEOUT_MS = 1_500  # a frozen process may hold a row that long
    rate_budget.PAUSE_UNKNOWN_S = 0.5
    rate_budget.RESERVE_SHARE = 0.01  # of a minute's requests, and so of a minute after a 429


def lookup_removed() -> None:
    """Nobody asks the broker: every question is answered "no such order" (stories 2, 22)."""
    from torghut.domain.submission import Proof
    from torghut.services.placing import Placer
    from torghut.storage.attempts import Asked

    def ask(self: Any, row: Any, attempt_no: int) -> tuple[Asked, None]:
        asked = Asked(
            decision_id=row.decision_id,
            attempt_no=attempt_no,
            client_order_id=row.decision_hash,
            proof=Proof.ABSENT,
            message="not asked",
            asked_at=self._clock(),
        )
        return asked, None

    Placer.ask = ask  # type: ignore[method-assign]


def failed_lookup_is_absence() -> None:
    """A question that could not be answered is read as "no such order" (stories 22, 23)."""
    from dataclasses import replace

    from torghut.domain.submission import Proof
    from torghut.services.placing import Placer

    ask = Placer.ask

    def guess(self: Any, row: Any, attempt_no: int) -> Any:
        asked, order = ask(self, row, attempt_no)
        return (replace(asked, proof=Proof.ABSENT) if order is None else asked), order

    Placer.ask = guess  # type: ignore[method-assign]


def reconciler_removed() -> None:
    """Nobody reads the broker's lists."""
    from torghut.services.reconciler import Reconciler

    Reconciler.run_once = lambda self, lease, now: {}  # type: ignore[method-assign]


def fence_removed() -> None:
    """A lease once held is held for ever: no fence, and no look at its term (stories 36, 45)."""
    from torghut.services.supervisor import Supervisor

    def no_fence(*_: object, **__: object) -> None:
        return None

    for name, module in list(sys.modules.items()):
        if name.startswith("torghut.services.") and hasattr(module, "fence"):
            module.fence = no_fence  # type: ignore[attr-defined]

    def keep(self: Any, lease: Any) -> None:
        if lease is not None:
            self.__dict__.setdefault("first_lease", lease)

    kept = property(lambda self: self.__dict__.get("first_lease"), keep)
    Supervisor._lease = kept  # type: ignore[assignment]
    Supervisor.lease = kept  # type: ignore[assignment, method-assign]


def spreading_removed() -> None:
    """Who has a lease keeps it, however few the others have."""
    from torghut.services import seats

    seats.next_move = lambda *_: None  # type: ignore[assignment]


def ack_first() -> None:
    """A message of a stream is acknowledged when it comes, and stored then."""
    from torghut.domain.streams import StreamAnswer
    from torghut.services.stream_intake import StreamIntake

    store = StreamIntake._store

    def acknowledged(self: Any, deliveries: Any, now: Any) -> Any:
        self._stream.acknowledge(
            [StreamAnswer(one.message_id, "created", None, None) for one in deliveries]
        )
        return store(self, deliveries, now)

    StreamIntake._store = acknowledged  # type: ignore[method-assign]


def begun_is_done() -> None:
    """A step that was begun before a crash is taken for done, and not called again."""
    from torghut.domain.sagas import SagaStatus, StepStatus
    from torghut.services import sagas

    whole = sagas.next_move

    def skipping(status: Any, steps: Any) -> Any:
        if status is SagaStatus.RUNNING:
            steps = [StepStatus.DONE if s is StepStatus.RUNNING else s for s in steps]
        return whole(status, steps)

    sagas.next_move = skipping


def sells_not_awaited() -> None:
    """A phase of a plan is done when its orders are placed, whatever has become of them."""
    from torghut.services.plan_saga import PlanSteps

    PlanSteps._settle = lambda self, phase, run, plan: ([], [])  # type: ignore[method-assign]


def items_forgotten() -> None:
    """The row of an item does not say that it was ordered, and its identity is new each time."""
    import uuid

    from torghut.services import plan_items
    from torghut.storage import plans

    plans.place = lambda *_, **__: None  # type: ignore[assignment]
    plan_items.intent = lambda *_: f"again {uuid.uuid4()}"  # noqa: TID251 - what must not be


def stop_instead_of_kill() -> None:
    """Not a control: at the armed point the process freezes, once (SIGSTOP), and can go on."""
    from torghut import recovery_points

    def freeze(_pid: int, _: int) -> None:
        recovery_points.arm(None)
        # to this very thread: it stops before it goes on, whichever thread a signal would wake
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    recovery_points.os = SimpleNamespace(kill=freeze, getpid=os.getpid)  # type: ignore[assignment]


BY_NAME: Mapping[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        lookup_removed,
        failed_lookup_is_absence,
        reconciler_removed,
        fence_removed,
        spreading_removed,
        ack_first,
        begun_is_done,
        sells_not_awaited,
        items_forgotten,
        stop_instead_of_kill,
    )
}
