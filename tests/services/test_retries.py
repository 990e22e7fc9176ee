"""Retries as settings: how often, how soon, asked before each and after the last; the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.services.rig import Rig
from torghut.brokers.alpaca import AlpacaBroker
from torghut.domain.submission import Proof
from torghut.storage import queries
from torghut.storage.attempts import Asked


@contextmanager
def nobody_listens(rig: Rig) -> Iterator[None]:
    """No connection to the broker: no byte leaves."""
    real = rig.placer._broker
    nowhere = AlpacaBroker(key_id="k", secret_key="s", base_url="http://127.0.0.1:9", timeout_s=1)
    rig.placer._broker = nowhere
    yield
    rig.placer._broker = real
    nowhere.close()


def result(rig: Rig, hash_: str) -> dict[str, Any]:
    with rig.database.transaction() as tx:
        found = queries.decision(tx, hash_)
    assert found is not None
    return dict(found["result"])


def blind(rig: Rig) -> Callable[..., tuple[Asked, None]]:
    """Control: nobody asks the broker, and "no such order" is believed."""

    def ask(row: Any, attempt_no: int) -> tuple[Asked, None]:
        return Asked(
            decision_id=row.decision_id, attempt_no=attempt_no, client_order_id=row.decision_hash,
            proof=Proof.ABSENT, message="", asked_at=rig.time(),
        ), None  # fmt: skip

    return ask


def test_three_attempts_with_doubled_pauses_and_then_only_questions(
    make_rig: Callable[..., Rig],
) -> None:
    """The older design: 3, 1 s, × 2. What cannot be asked for is not given up (P4)."""
    rig = make_rig(retry_attempts=3, absence_grace_s=0)
    hash_ = rig.send()
    with nobody_listens(rig):
        # the second and third attempt begin with a question, which nobody answers
        rig.execute()
        assert rig.status(hash_) == ("approved", "never_left")
    posts_fail(rig)
    first, second = tried_again(rig, hash_)
    assert 0.5 < first < 1.3 and 1.5 < second < 2.6
    assert rig.status(hash_) == ("in_doubt", "attempts_spent")
    with nobody_listens(rig):
        for _ in range(5):
            rig.time.pass_s(60)
            rig.settle()
    assert rig.status(hash_)[0] == "in_doubt"
    assert result(rig, hash_)["success"] is None
    for _ in range(3):
        rig.time.pass_s(60)
        rig.settle()
    assert rig.status(hash_) == ("expired", "attempts_spent")
    rig.time.pass_s(600)
    rig.execute(3)
    assert rig.posts(hash_) == 0
    assert rig.row(hash_).attempts == 3
    said = result(rig, hash_)
    assert (said["success"], said["order_id"], said["retry_count"]) == (False, None, 2)
    assert said["error_code"] == "attempts_spent" and said["error"]


def posts_fail(rig: Rig) -> None:
    """Questions are answered from here on, and no POST leaves."""
    real = rig.placer._broker
    nowhere = AlpacaBroker(key_id="k", secret_key="s", base_url="http://127.0.0.1:9", timeout_s=1)

    class OnlyQuestions:
        submit = staticmethod(nowhere.submit)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    rig.placer._broker = OnlyQuestions()  # type: ignore[assignment]


def tried_again(rig: Rig, hash_: str) -> tuple[float, float]:
    """The second and the third attempt, each as soon as it may be; the pauses before them."""
    pauses = []
    for number in (2, 3):
        pauses.append((rig.row(hash_).due_at - rig.time()).total_seconds())
        rig.time.pass_s(pauses[-1] + 0.01)
        rig.execute()
        assert rig.row(hash_).attempts == number
    looks = [outcome for what, outcome in rig.attempts(hash_) if what == "lookup"]
    assert looks == ["absent", "absent"], "asked before each of them"
    return pauses[0], pauses[1]


@pytest.mark.parametrize(("asked", "status"), [(True, "submitted"), (False, "expired")])
def test_story_38_after_the_last_attempt_the_broker_is_asked(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, asked: bool, status: str
) -> None:
    """The order is live although the last attempt says that nothing left. Control: not asked."""
    rig = make_rig(retry_attempts=1, absence_grace_s=0)
    hash_ = rig.send()
    with nobody_listens(rig):
        rig.execute()
    assert rig.status(hash_) == ("in_doubt", "attempts_spent")
    placed = rig.place(client_order_id=hash_)
    if not asked:
        monkeypatch.setattr(rig.placer, "ask", blind(rig))
    for _ in range(3):
        rig.time.pass_s(60)
        rig.settle()
    assert rig.status(hash_)[0] == status
    if asked:
        said = result(rig, hash_)
        assert (said["success"], said["order_id"]) == (True, placed["id"])
        assert (said["error"], said["error_code"]) == (None, None)


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ({"retry_backoff_s": 8, "retry_backoff_factor": 1}, (8, 8), (10, 10)),
        ({"retry_backoff_s": 3, "retry_backoff_factor": 4}, (3, 12), (3.75, 15)),
    ],
)
def test_the_pauses_are_settings(
    make_rig: Callable[..., Rig],
    settings: dict[str, float],
    low: tuple[float, float],
    high: tuple[float, float],
) -> None:
    rig = make_rig(**settings)
    hash_ = rig.send()
    with nobody_listens(rig):
        rig.execute()
    posts_fail(rig)
    pauses = tried_again(rig, hash_)
    # less what the attempt itself took
    assert all(a - 1 < p <= b for a, p, b in zip(low, pauses, high, strict=True)), pauses


FATAL = [
    (422, 42210000, 'asset "NOPE" not found', "invalid_symbol"),
    (403, 40310000, "insufficient buying power", "insufficient_funds"),
    (403, 40310000, "insufficient qty available for order", "insufficient_funds"),
    (422, 42210000, "sub-penny increment does not fulfill minimum pricing criteria", "refused"),
]


@pytest.mark.parametrize(("status", "code", "message", "error_code"), FATAL)
def test_what_is_refused_for_good_is_sent_once(
    make_rig: Callable[..., Rig], status: int, code: int, message: str, error_code: str
) -> None:
    rig = make_rig(retry_attempts=3)
    rig.fault("reject", status=status, code=code, message=message)
    hash_ = rig.send()
    rig.execute()
    rig.time.pass_s(600)
    rig.execute(3)
    assert (rig.posts(hash_), rig.status(hash_)[0]) == (1, "rejected")
    said = result(rig, hash_)
    assert said == {
        "success": False, "order_id": None, "fill_price": None, "error": message,
        "retry_count": 0, "error_code": error_code,
    }  # fmt: skip


def test_keys_that_are_refused_are_tried_once_and_a_risk_violation_never(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(retry_attempts=3, risk={"max_order_qty": "20"})
    denied = rig.send(intent="large", qty="21")
    rig.fault("unauthorized")
    refused = rig.send(intent="keys")
    for _ in range(5):
        rig.execute()
        rig.time.pass_s(60)
    assert (rig.posts(denied), result(rig, denied)["error_code"]) == (0, "risk_violation")
    assert rig.posts(refused) == 1, "the account is halted until a person resumes it"
    said = result(rig, refused)
    assert (said["success"], said["error_code"]) == (None, "unauthorized")


def test_the_result_of_an_order_that_was_filled(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    hash_ = rig.send()
    before = result(rig, hash_)
    assert (before["success"], before["error"], before["retry_count"]) == (None, None, 0)
    rig.drive([hash_])
    for _ in range(3):
        rig.reconcile()
        rig.time.pass_s(5)
    said = result(rig, hash_)
    ((order_id, avg_px),) = rig.sql("SELECT broker_order_id, avg_px FROM executions")
    assert (said["success"], said["order_id"], said["error_code"]) == (True, order_id, None)
    assert float(said["fill_price"]) == float(avg_px) > 0
