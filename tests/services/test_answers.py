"""The submission table on the production path: each answer of the broker, and what it ends in.

Real adapter, real Postgres, simulator with one fault. At the end of each: one broker order or a
definite refusal, and never two POSTs where the first may have been taken (P1, P4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.services.rig import Rig

SUBMITTED, REJECTED = "submitted", "rejected"


@dataclass
class Case:
    """One fault; what stands right after the first attempt, and at the end."""

    kind: str
    first: tuple[str, str | None]
    last: str = SUBMITTED
    orders: int = 1
    posts: int = 1
    rule: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.kind, *(str(v) for v in self.rule.values())])


DOUBT = ("in_doubt", "no_definite_answer")
RECOVERED = ("submitted", "recovered")
RATE = ("approved", "rate_limited")
CASES = [
    Case("slow", ("submitted", "accepted"), rule={"delay_s": 0.05}),
    # taken, and the answer lost: found by lookup, never posted again
    Case("accept_then_hang", DOUBT, rule={"hold_s": 1.0}),
    Case("accept_then_reset", DOUBT),
    *(Case("accept_then_5xx", DOUBT, rule={"status": s, "html": h})
      for s in (500, 502, 503, 504) for h in (False, True)),
    Case("truncated_body", DOUBT),
    Case("garbage_body", DOUBT),
    Case("empty_body", DOUBT),
    Case("other_id", DOUBT),
    # seen live behind a 4xx: the lookup finds it at once (story 38)
    Case("accept_then_refuse", RECOVERED, rule={"status": 403}),
    Case("accept_then_refuse", RECOVERED, rule={"status": 422}),
    # not taken, and nothing says so: asked three times over the grace, then sent again
    *(Case("refuse_5xx", DOUBT, posts=2, rule={"status": s, "html": h})
      for s in (500, 504) for h in (False, True)),
    Case("reset_before", DOUBT, posts=2),
    Case("hang_before", DOUBT, posts=2, rule={"hold_s": 1.0}),
    # surely not taken
    Case("rate_limit", RATE, posts=2, rule={"rate_limit_headers": True}),
    Case("rate_limit", RATE, posts=2, rule={"rate_limit_headers": False}),
    Case("rate_limit", RATE, posts=2, rule={"html": True}),
    # refused (story 7): definite, with the broker's words
    Case("reject", ("rejected", "refused_by_broker"), REJECTED, 0,
         rule={"status": 403, "code": 40310000, "message": "cost basis must be >= 10"}),
    Case("reject", ("rejected", "refused_by_broker"), REJECTED, 0,
         rule={"status": 422, "code": 42210000, "message": "invalid qty"}),
    Case("reject", ("rejected", "refused_by_broker"), REJECTED, 0,
         rule={"status": 400, "code": 40010000, "message": "bad"}),
    Case("reject", ("rejected", "refused_by_broker"), REJECTED, 0,
         rule={"status": 404, "code": 40410000, "message": "asset not found"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answer(rig: Rig, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torghut.services.rate_budget.PAUSE_CAP_S", 0.5)
    monkeypatch.setattr("torghut.services.rate_budget.PAUSE_UNKNOWN_S", 0.5)
    rig.fault(case.kind, **case.rule)
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_) == case.first
    rig.drive([hash_], step_s=6)
    assert rig.row(hash_).status == case.last
    assert len(rig.broker_orders(hash_)) == case.orders
    assert rig.posts(hash_) == case.posts
    assert rig.count("executions") == case.orders
    if case.last == REJECTED:
        assert case.rule["message"] in rig.row(hash_).status_detail


def test_story_6_must_be_unique_is_no_absence_however_often_it_is_not_found(rig: Rig) -> None:
    """The broker says that it has the order, and cannot show it: in doubt, and never sent again."""
    message = "client_order_id must be unique"
    rig.fault("reject", status=422, code=40010001, message=message)
    hash_ = rig.send()
    rig.execute()
    for _ in range(8):
        rig.time.pass_s(60)
        rig.settle()
    assert rig.status(hash_) == DOUBT
    assert rig.posts(hash_) == 1


def test_story_5_a_duplicate_answer_is_the_order_itself(rig: Rig) -> None:
    """The order stands there already: 422 "must be unique" → lookup → recovered."""
    hash_ = rig.send()
    placed = rig.place(client_order_id=hash_)
    rig.execute()
    assert rig.status(hash_) == RECOVERED
    assert rig.attempts(hash_) == [("submit", "exists"), ("lookup", "found")]
    assert rig.sql("SELECT broker_order_id, origin FROM executions") == [
        (placed["id"], "recovered")
    ]
    assert rig.discrepancies() == []


def test_a_duplicate_that_is_another_order_is_a_discrepancy(rig: Rig) -> None:
    hash_ = rig.send()
    rig.place(client_order_id=hash_, qty="11")
    rig.execute()
    assert rig.status(hash_) == RECOVERED
    assert rig.discrepancies() == [("order_differs", hash_)]


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden"])
def test_keys_refused_halts_the_account(rig: Rig, kind: str) -> None:
    """401 and 403 "forbidden" say nothing about this order: it goes out after `resume`."""
    rig.fault(kind)
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_) == ("approved", "account_refused")
    state, reason = rig.state()
    assert (state, "account:paper by executor" in reason, "40" in reason) == ("halted", True, True)
    rig.time.pass_s(5)
    rig.execute(3)
    assert rig.posts(hash_) == 1
    resume(rig)
    rig.execute(3)
    assert rig.row(hash_).status == "submitted"
    assert rig.posts(hash_) == 2
    kinds = rig.sql("SELECT payload ->> 'after' FROM events WHERE kind = 'trading_state.changed'")
    assert [row[0] for row in kinds] == ["halted", "active"]


def resume(rig: Rig) -> None:
    from torghut.services import operator

    operator.resume(
        rig.database,
        "account:paper",
        actor="test",
        reason="new keys",
        now=rig.time(),
        settings=rig.settings,
    )


def test_nothing_listens_and_later_something_does(rig: Rig) -> None:
    """Connection refused: no byte left. Back to approved, backoff, sent when somebody is there."""
    from torghut.brokers.alpaca import AlpacaBroker

    nowhere = AlpacaBroker(key_id="k", secret_key="s", base_url="http://127.0.0.1:9", timeout_s=1)
    real, rig.placer._broker = rig.placer._broker, nowhere
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_) == ("approved", "never_left")
    assert rig.row(hash_).due_at > rig.time()
    rig.placer._broker = real
    nowhere.close()
    rig.execute()
    assert rig.posts(hash_) == 0  # not before its time
    rig.time.pass_s(2)
    rig.execute()
    assert rig.row(hash_).status == "submitted"
    # the second intent was committed before its lookup was asked
    assert rig.attempts(hash_) == [
        ("submit", "never_left"), ("submit", "accepted"), ("lookup", "absent"),
    ]  # fmt: skip


@pytest.mark.parametrize("headers", [True, False])
def test_a_429_is_waited_for_until_its_reset(rig: Rig, headers: bool) -> None:
    """Nothing at all is sent before, and other decisions wait as well."""
    rig.fault("rate_limit", rate_limit_headers=headers, delay_s=60)
    first = rig.send(intent="a")
    rig.execute()
    due = (rig.row(first).due_at - rig.time()).total_seconds()
    assert 50 < due < 91 if headers else 4 < due < 8
    rig.time.pass_s(30)
    second = rig.send(intent="b")
    rig.execute(3)
    assert (rig.posts(first), rig.posts(second)) == (1, 0)
    assert rig.budget.left == 0


def test_control_without_uniqueness_and_lookup_there_would_be_two(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take both protections away, and the lost answer becomes two broker orders."""
    from torghut.domain.submission import Proof
    from torghut.storage.attempts import Asked

    def blind(row, attempt_no):
        asked = Asked(
            decision_id=row.decision_id, attempt_no=attempt_no, client_order_id=row.decision_hash,
            proof=Proof.ABSENT, message="", asked_at=rig.time(),
        )  # fmt: skip
        return asked, None

    monkeypatch.setattr(rig.placer, "ask", blind)
    rig.control("POST", "/switches", {"uniqueness": "off"})
    rig.fault("accept_then_reset")
    hash_ = rig.send()
    rig.drive([hash_], step_s=20)
    assert len(rig.broker_orders(hash_)) == 2
