"""Intake by table: what a row leads to and what comes back in it (P1, P2)."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.factories import TTL, decision, decision_json
from tests.services.rig import Rig
from torghut.services import intake
from torghut.services.inbox import Inbox


def taking(rig: Rig, wake: Any = lambda _: None) -> Inbox:
    return Inbox(("paper",), rig.database, ttl=TTL, wake=wake)


def insert(rig: Rig, *bodies: object, account: str = "paper") -> list[int]:
    texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
    query = "INSERT INTO decision_inbox (account, body) VALUES (:a, :b) RETURNING inbox_id"
    return [rig.sql(query, a=account, b=body)[0][0] for body in texts]


def answers(rig: Rig) -> list[tuple[str | None, str | None, str | None]]:
    rows = rig.sql("SELECT result, decision_hash, error FROM decision_inbox ORDER BY inbox_id")
    return [tuple(row) for row in rows]


def test_every_row_has_its_answer_and_a_bad_one_stops_no_other(rig: Rig) -> None:
    first = decision_json(intent="first")
    bodies = [first, "{not JSON", {**first, "qty": -1}, first, {**first, "qty": "11"}]
    insert(rig, *bodies)
    woken = threading.Event()
    counts = taking(rig, lambda _: woken.set()).run_once(rig.time())
    assert counts == {"created": 1, "replayed": 1, "conflict": 1, "invalid": 2}
    hash_ = decision(intent="first").decision_hash
    assert [row[:2] for row in answers(rig)] == [
        ("created", hash_), ("invalid", None), ("invalid", None),
        ("replayed", hash_), ("conflict", hash_),
    ]  # fmt: skip
    errors = [row[2] for row in answers(rig)]
    assert errors[0] is None and "qty" in errors[2] and "qty" in errors[4]
    assert woken.is_set()
    rig.execute()
    assert rig.status(hash_)[0] == "submitted"
    assert rig.count("trade_decisions", "source = 'inbox'") == 1


def test_rows_of_other_accounts_are_left_alone(rig: Rig) -> None:
    insert(rig, decision_json(), account="other")
    assert not any(taking(rig).run_once(rig.time()).values())
    assert answers(rig) == [(None, None, None)]


def test_a_row_that_cannot_be_stored_does_not_hold_up_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Story 28. The batch fails, its rows are taken one by one."""
    store = intake.store

    def poisoned(tx: Any, decisions: Any, **named: Any) -> Any:
        if any(one.intent == "poison" for one in decisions):
            tx.execute(text("SELECT 1 / 0"))
        return store(tx, decisions, **named)

    monkeypatch.setattr(intake, "store", poisoned)
    insert(rig, *(decision_json(intent=intent) for intent in ("a", "poison", "b")))
    inbox = taking(rig)
    for _ in range(2):  # not a pass for each row: those of other accounts wait behind it
        inbox.run_once(rig.time())
    assert [row[0] for row in answers(rig)] == ["created", "invalid", "created"]
    assert answers(rig)[1][2] == "cannot be stored: DivisionByZero"


def test_a_daemon_refuses_the_row_that_failed_and_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has refused it meanwhile: the row behind it is a good one. And then batches are
    whole again, however many rows wait."""
    store = intake.store
    refuse = Inbox._refuse

    def poisoned(tx: Any, decisions: Any, **named: Any) -> Any:
        if any(one.intent == "poison" for one in decisions):
            tx.execute(text("SELECT 1 / 0"))
        return store(tx, decisions, **named)

    def overtaken(self: Inbox, *how: Any) -> Any:
        if self is slow:
            for _ in range(2):
                quick.run_once(rig.time())
        return refuse(self, *how)

    monkeypatch.setattr(intake, "store", poisoned)
    monkeypatch.setattr(Inbox, "_refuse", overtaken)
    slow, quick = taking(rig), taking(rig)
    insert(rig, *(decision_json(intent=intent) for intent in ("poison", "a", "b", "c")))
    for _ in range(3):
        slow.run_once(rig.time())
    assert [row[0] for row in answers(rig)] == ["invalid", "created", "created", "created"]


def test_decision_and_answer_are_one_commit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies before its commit leaves neither; the next one takes the row anew."""

    class PowerFails(BaseException):
        pass

    insert(rig, decision_json())
    with monkeypatch.context() as dying:

        def dies(*_: object, **__: object) -> None:
            raise PowerFails

        dying.setattr("torghut.storage.inbox.answer", dies)
        with pytest.raises(PowerFails):
            taking(rig).run_once(rig.time())
    assert rig.count("trade_decisions") == 0
    assert taking(rig).run_once(rig.time())["created"] == 1


def test_two_daemons_take_each_row_once(rig: Rig) -> None:
    insert(rig, *(decision_json(intent=f"n{n}") for n in range(60)))
    total: list[int] = []

    def work() -> None:
        inbox = taking(rig)
        while created := inbox.run_once(rig.time())["created"]:
            total.append(created)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(total) == 60
    assert {row[0] for row in answers(rig)} == {"created"}


def test_what_the_table_refuses(rig: Rig) -> None:
    for values in (
        "'{}', 'done', now()",
        "'{}', 'created', NULL",
        "repeat('x', 300000), NULL, NULL",
    ):
        with pytest.raises(DBAPIError):
            rig.sql(f"INSERT INTO decision_inbox (body, result, answered_at) VALUES ({values})")


def test_a_signal_without_an_end_gets_one(rig: Rig) -> None:
    """TORGHUT_DECISION_TTL_S holds here, too."""
    event_ts = (rig.time() - timedelta(days=3)).isoformat()
    insert(rig, decision_json(event_ts=event_ts))
    Inbox(("paper",), rig.database, ttl=timedelta(days=1), wake=lambda _: None).run_once(rig.time())
    rig.execute()
    assert rig.count("trade_decisions", "status = 'expired'") == 1


def test_only_the_row_that_cannot_be_stored_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was inserted before it may be committed only now, and then is the oldest."""
    store = intake.store
    failures: list[int] = []

    def poisoned(tx: Any, decisions: Any, **named: Any) -> Any:
        if any(one.intent == "poison" for one in decisions):
            failures.append(-len(failures))
            rig.sql(
                """INSERT INTO decision_inbox (inbox_id, account, body)
                OVERRIDING SYSTEM VALUE VALUES (:id, 'paper', :body)""",
                id=failures[-1],
                body=json.dumps(decision_json(intent=f"good {failures[-1]}")),
            )
            tx.execute(text("SELECT 1 / 0"))
        return store(tx, decisions, **named)

    monkeypatch.setattr(intake, "store", poisoned)
    insert(rig, decision_json(intent="poison"))
    inbox = taking(rig)
    for _ in range(2):
        inbox.run_once(rig.time())
    assert failures == [0, -1]  # in a batch, and alone
    assert [row[0] for row in answers(rig)] == ["created", "created", "invalid"]
