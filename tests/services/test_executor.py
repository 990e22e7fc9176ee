"""The executor: claims, trading states, sessions, facts, rates, and outcomes that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from tests.services.rig import Inline, Rig, eventually
from tests.services.test_reconciler import Scripted
from torghut.domain.errors import DatabaseUnavailable
from torghut.domain.order_actions import OPERATOR
from torghut.domain.sessions import MarketClock
from torghut.ports import RateState
from torghut.services import operator
from torghut.services.placing import WAITED_MAX_S
from torghut.services.session_gate import SessionGate, SessionPolicies
from torghut.storage import decisions
from torghut.storage.leases import LeaseLost

SATURDAY = datetime(2026, 1, 10, 15, 0, tzinfo=UTC)
MONDAY_OPEN = datetime(2026, 1, 12, 14, 30, tzinfo=UTC)
MakeRig = Callable[..., Rig]


def change(rig: Rig, what: Callable[..., Any], scope: str = "account:paper") -> None:
    what(
        rig.database,
        scope,
        actor="test",
        reason="because",
        now=rig.time(),
        settings=rig.settings,
    )


def test_the_happy_path(rig: Rig) -> None:
    """Intent, call, outcome; then the books of both sides and the events agree."""
    hash_ = rig.send()
    assert rig.status(hash_) == ("planned", None)
    rig.execute()
    assert rig.status(hash_) == ("submitted", "accepted")
    eventually(lambda: rig.broker_orders(hash_)[0]["status"] == "filled")
    rig.reconcile()
    assert rig.status(hash_) == ("closed", "order_terminal")
    (execution,) = rig.sql("SELECT * FROM executions")
    (order,) = rig.broker_orders(hash_)
    assert (execution.broker_order_id, execution.origin) == (order["order_id"], "submitted")
    assert (execution.cum_qty, execution.ledger_qty, execution.terminal) == (10, 10, True)
    assert rig.sql("SELECT symbol, qty FROM positions") == [("AAPL", 10)]
    assert rig.attempts(hash_) == [("submit", "accepted")]
    assert rig.events(hash_) == [
        "decision.planned", "decision.approved", "order.submit_started", "order.submitted",
        "fill.recorded", "decision.closed",
    ]  # fmt: skip


def test_p3_the_intent_is_committed_before_the_call(rig: Rig) -> None:
    """While the broker is called the row stands `submitting` with its attempt, for all to see."""
    seen: list[Any] = []
    submit = rig.broker.submit

    def watch(order, client_order_id):
        seen.append((rig.status(client_order_id)[0], rig.attempts(client_order_id)))
        return submit(order, client_order_id)

    rig.placer._broker = type("B", (), {"__getattr__": lambda _, n: getattr(rig.broker, n)})()
    rig.placer._broker.submit = watch
    rig.send()
    rig.execute()
    assert seen == [("submitting", [("submit", None)])]


def test_batches_in_order(make_rig: MakeRig) -> None:
    """At most `submit_threads` at a time, oldest first, over several batches."""
    rig = make_rig(submit_threads=3)
    hashes = rig.send_many(8)
    rounds = []
    for _ in range(4):
        rig.execute(1)
        rounds.append([rig.attempts(h) != [] for h in hashes].count(True))
    rig.execute(1)
    assert max(b - a for a, b in zip([0, *rounds], rounds, strict=False)) <= 6
    order = rig.sql("SELECT client_order_id FROM submission_attempts ORDER BY attempt_id")
    assert [row[0] for row in order] == hashes
    assert rig.open(hashes) == 0


def test_a_second_executor_passes_what_the_first_has_locked(rig: Rig) -> None:
    """SKIP LOCKED: a locked row is passed, not waited for."""
    first, second = rig.send_many(2)
    with rig.database.transaction() as tx:
        tx.execute(
            text("SELECT 1 FROM trade_decisions WHERE decision_hash = :h FOR UPDATE"), {"h": first}
        )
        rig.execute()
        assert rig.status(second)[0] == "submitted"
    rig.execute()
    assert rig.status(first)[0] == "submitted"


# ---------------------------------------------------------------------- trading states (P11)


@pytest.mark.parametrize("scope", ["global", "account:paper"])
def test_halted(rig: Rig, scope: str) -> None:
    """What is approved stays approved and is not sent; what is planned is denied, with a reason."""
    rig.fault("rate_limit", rate_limit_headers=False)
    approved = rig.send(intent="before")
    rig.execute()
    assert rig.status(approved) == ("approved", "rate_limited")
    change(rig, operator.halt, scope)
    planned = rig.send(intent="after")
    rig.fill_budget()
    rig.time.pass_s(100)
    rig.execute(3)
    assert rig.status(planned) == ("denied", "trading_halted")
    assert rig.status(approved)[0] == "approved"
    assert (rig.posts(approved), rig.posts(planned)) == (1, 0)
    change(rig, operator.resume, scope)
    rig.execute(3)
    assert rig.status(approved)[0] == "submitted"
    assert rig.status(planned)[0] == "denied"  # a denial is final


def test_resuming_one_scope_does_not_lift_the_other(rig: Rig) -> None:
    change(rig, operator.halt, "global")
    change(rig, operator.halt)
    change(rig, operator.resume)
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_) == ("denied", "trading_halted")
    (verdict,) = rig.sql("SELECT deny_reason, checks FROM risk_verdicts")
    (halted,) = (c for c in verdict.checks if not c["passed"])
    assert halted["source"] == "global by test: because"


def test_shadow_mode_judges_and_never_sends(make_rig: MakeRig) -> None:
    rig = make_rig(trading_enabled=False)
    expires = datetime.fromtimestamp(rig.time().timestamp() + 60, UTC).isoformat()
    hash_ = rig.send(expires_at=expires)
    rig.execute(3)
    assert rig.status(hash_)[0] == "approved"
    assert rig.count("risk_verdicts") == 1
    rig.time.pass_s(61)
    rig.execute(3)
    assert rig.status(hash_) == ("expired", "out_of_time")
    assert rig.posts() == 0


@pytest.mark.parametrize("stage", ["planned", "approved"])
def test_an_expired_decision_is_never_sent(rig: Rig, stage: str) -> None:
    """P2 and a stale signal: its end is `expired`, with a reason, and no POST after it."""
    expires = datetime.fromtimestamp(rig.time().timestamp() + 60, UTC).isoformat()
    hash_ = rig.send(expires_at=expires)
    if stage == "approved":
        rig.fault("rate_limit", rate_limit_headers=False)
        rig.execute()
    posts = rig.posts()
    rig.fill_budget()
    rig.time.pass_s(61)
    rig.execute(3)
    assert rig.status(hash_) == ("expired", "out_of_time")
    assert rig.posts() == posts
    assert rig.events(hash_)[-1] == "decision.expired"


# ---------------------------------------------------------------------- sessions


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        ("send", ("submitted", "accepted")),
        ("deny", ("denied", "session_closed")),
        ("hold", ("planned", "market_closed")),
    ],
)
def test_on_a_saturday(make_rig: MakeRig, policy: str, status: tuple[str, str]) -> None:
    rig = make_rig(session_policy=policy)
    rig.time.fixed = SATURDAY
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_) == status
    assert rig.posts() == (1 if policy == "send" else 0)
    if policy == "hold":
        assert rig.row(hash_).due_at == MONDAY_OPEN
        rig.time.fixed = MONDAY_OPEN
        rig.execute()
        assert rig.status(hash_)[0] == "submitted"


@pytest.mark.parametrize("policy", ["hold", "deny"])
@pytest.mark.parametrize(
    ("tif", "status"), [("opg", "submitted"), ("day", None)], ids=["opg", "control_day"]
)
def test_an_order_for_the_auction_is_sent_before_it(
    policy: str, tif: str, status: str | None, make_rig: MakeRig
) -> None:
    """Held until the market opens it would be too late for what it is for."""
    rig = make_rig(session_policy=policy)
    rig.time.fixed = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 08:00 in New York
    rig.lease = rig.take_lease("early")
    hash_ = rig.send(time_in_force=tif, type="limit", limit_price="1")
    rig.execute(3)
    assert (rig.status(hash_)[0] == "submitted") is (status == "submitted")


@pytest.mark.parametrize("policy", ["hold", "deny"])
def test_crypto_never_closes(make_rig: MakeRig, policy: str) -> None:
    rig = make_rig(session_policy=policy)
    rig.time.fixed = SATURDAY
    hash_ = rig.send(symbol="BTC/USD", qty="0.01", time_in_force="gtc")
    rig.execute()
    assert rig.status(hash_)[0] == "submitted"


def test_held_beyond_its_time_expires(make_rig: MakeRig) -> None:
    rig = make_rig(session_policy="hold")
    rig.time.fixed = SATURDAY
    hash_ = rig.send(expires_at="2026-01-10T16:00:00Z")
    rig.execute()
    assert rig.row(hash_).due_at.hour == 16
    rig.time.fixed = datetime(2026, 1, 10, 16, 0, tzinfo=UTC)
    rig.execute()
    assert rig.status(hash_) == ("expired", "out_of_time")


@pytest.mark.parametrize(("strategy", "held"), [("patient", True), ("momentum", False)])
def test_a_strategy_may_have_its_own_policy(make_rig: MakeRig, strategy: str, held: bool) -> None:
    rig = make_rig(session_policies={"patient": "hold"})
    rig.time.fixed = SATURDAY
    hash_ = rig.send(strategy=strategy)
    rig.execute()
    assert (rig.status(hash_) == ("planned", "market_closed")) is held


@pytest.mark.parametrize(("extended", "held"), [(True, False), (False, True)])
def test_extended_hours_are_open_for_orders_that_ask_for_them(
    make_rig: MakeRig, extended: bool, held: bool
) -> None:
    rig = make_rig(session_policy="hold")
    rig.time.fixed = MONDAY_OPEN - timedelta(hours=1)
    hash_ = rig.send(type="limit", limit_price="1", extended_hours=extended)
    rig.execute()
    assert (rig.status(hash_) == ("planned", "market_closed")) is held


@pytest.mark.parametrize("policy", ["hold", "deny"])
def test_what_closes_for_a_person_is_sent_at_any_time(make_rig: MakeRig, policy: str) -> None:
    """P11: a closed market is no reason to keep a closing order back."""
    rig = make_rig(session_policy=policy)
    hash_ = rig.send()
    with rig.database.transaction() as tx:
        row = decisions.by_hashes(tx, [hash_])[hash_]
    saturday = SessionPolicies(rig.settings.session_policy, {})
    gate = SessionGate(saturday, SATURDAY, None)
    assert gate.open_for(row) is (False if policy == "deny" else None)
    closing = replace(row, strategy=OPERATOR)
    assert (gate.open_for(closing), gate.held_until(closing)) == (None, None)


@pytest.mark.parametrize(("told_s_ago", "status"), [(10, "market_closed"), (400, "accepted")])
def test_the_brokers_clock_overrules_the_calendar(
    make_rig: MakeRig, told_s_ago: float, status: str
) -> None:
    """A Monday on which the exchange stays closed; a clock that stands still says nothing."""
    rig = make_rig(session_policy="hold", broker=Shut)
    rig.time.fixed = MONDAY_OPEN + timedelta(hours=1)
    assert isinstance(rig.broker, Shut)
    rig.broker.told_at = rig.time() - timedelta(seconds=told_s_ago)
    hash_ = rig.send()
    rig.execute()
    assert rig.status(hash_)[1] == status
    if status == "market_closed":
        assert rig.row(hash_).due_at == MONDAY_OPEN + timedelta(days=1)


class Shut(Scripted):
    """The real broker, on a day on which the exchange stays closed."""

    told_at: datetime

    def market_clock(self) -> MarketClock:
        return MarketClock(
            is_open=False,
            told_at=self.told_at,
            next_open=MONDAY_OPEN + timedelta(days=1),
            next_close=MONDAY_OPEN + timedelta(days=1, hours=6),
        )


# ---------------------------------------------------------------------- facts


def test_without_account_facts_it_waits_and_never_sends(rig: Rig) -> None:
    """The broker does not answer: not denied for that, as a refused connection would not be."""
    rig.fault("refuse_5xx", "account", count=None, probability=1.0)
    hash_ = rig.send()
    for _ in range(5):
        rig.execute()
        rig.time.pass_s(20)
    assert rig.status(hash_) == ("planned", "facts_awaited")
    assert rig.posts() == 0
    rig.clear_faults()
    rig.execute(3)
    assert rig.status(hash_)[0] == "submitted"


def test_without_a_quote_it_waits_and_then_is_denied(make_rig: MakeRig) -> None:
    """Fail closed after `facts_wait_s`, not before."""
    rig = make_rig(facts_wait_s=30)
    rig.fault("refuse_5xx", "quotes", count=None, probability=1.0)
    hash_ = rig.send()
    limited = rig.send(type="limit", limit_price="100", intent="limit")
    for _ in range(6):
        rig.execute(1)
        rig.time.pass_s(4)
    assert rig.status(limited)[0] == "submitted"  # it needs no quote
    assert rig.status(hash_) == ("planned", "facts_awaited")
    rig.time.pass_s(10)
    rig.execute()
    assert rig.status(hash_) == ("planned", "facts_awaited")  # the broker may be silent altogether
    assert rig._all_facts[0].refresh_account() is not None
    rig.time.pass_s(1)
    rig.execute()
    assert rig.status(hash_) == ("denied", "facts_unavailable")
    assert rig.posts(hash_) == 0


def test_a_sell_is_not_bounded_by_its_limit_price(make_rig: MakeRig) -> None:
    """10,000 shares offered from 0.01 on are not worth 100: the market pays the bid."""
    rig = make_rig()
    rig.control("POST", "/market/price", {"symbol": "AAPL", "price": "100"})
    hash_ = rig.send(side="sell", type="limit", limit_price="0.01", qty="10000")
    rig.execute()
    assert rig.status(hash_) == ("denied", "order_notional")
    assert rig.posts() == 0


# ---------------------------------------------------------------------- rate budget


class Stopped:
    """`time` for the rate budget, under the test's hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_no_more_posts_a_minute_than_allowed(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 a minute a fifth is kept: 16 less what was asked at once, the rest as it comes in."""
    stopped = Stopped()
    monkeypatch.setattr("torghut.services.rate_budget.time", stopped)
    rig = make_rig(rate_per_min=20)
    rig.broker.rate_state = RateState  # type: ignore[method-assign]  # it names no limit
    hashes = rig.send_many(40)
    for _ in range(10):
        rig.execute(1)
    first = rig.posts()
    assert 10 <= first <= 16
    asked = rig.control("GET", "/requests")["routes"]
    assert sum(asked.values()) - asked.get("quotes", 0) <= 20
    assert rig.budget.for_orders(1) == 0
    assert rig.budget.wait_for_one(0)  # a question still gets through
    for _ in range(60):
        stopped.now += 1
        rig.execute(1)
    assert rig.posts() <= first + 21
    assert rig.posts() > first + 5
    assert rig.open(hashes) > 0


def test_a_claim_that_fails_uses_nothing_of_the_budget(rig: Rig) -> None:
    """With calls that took a moment lately hundreds are taken ahead: lost, the next minute's."""
    rig.broker.rate_state = RateState  # type: ignore[method-assign]  # it names no limit
    rig.executor._call_s = 0.001
    rig.send()
    left, stale = rig.budget.left, rig.lease
    rig.take_lease("the next")
    with pytest.raises(LeaseLost):
        rig.executor.run_once(stale, rig.time())
    assert rig.budget.left > left - 10  # what was asked of the broker


# ---------------------------------------------------------------------- outcomes that wait


class Held(Inline):
    """Callers that are all busy until `go`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.waiting.append(partial(fn, *args, **kwargs))
        return Future()

    def go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


@pytest.mark.parametrize(("waited_s", "posts"), [(WAITED_MAX_S + 1, 0), (1, 1)])
def test_what_waits_for_a_caller_for_long_is_judged_anew(
    make_rig: MakeRig, waited_s: float, posts: int
) -> None:
    """A broker that was quick is slow all at once: what was claimed ahead is not sent minutes
    later, by the quote and the limits of then. The control: one that waited a moment is sent."""
    held = Held()
    rig = make_rig(pool=held)
    hash_ = rig.send()
    rig.execute(1)
    rig.time.pass_s(waited_s)
    held.go()
    assert rig.posts(hash_) == posts
    verdicts = rig.count("risk_verdicts")
    for _ in range(2):
        rig.execute(1)
        rig.time.pass_s(5)
    held.go()
    rig.execute(1)
    assert rig.status(hash_)[0] == "submitted"
    assert rig.posts(hash_) == 1
    assert rig.count("risk_verdicts") == verdicts + (not posts)


def test_an_outcome_waits_for_the_database(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away after the POST: the outcome is kept, and written when it is back."""
    hash_ = rig.send()
    rig.execute(1)
    assert rig.posts(hash_) == 1
    real = rig.executor._database

    class Away:
        def transaction(self) -> object:
            raise DatabaseUnavailable("away")

    rig.executor._database = Away()  # type: ignore[assignment]
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            rig.executor.run_once(rig.lease, rig.time())
    assert rig.executor.in_flight == 1
    rig.executor._database = real
    assert rig.execute(1)["recorded"] == 1
    assert rig.status(hash_) == ("submitted", "accepted")
    assert (rig.posts(hash_), rig.executor.in_flight, rig.count("executions")) == (1, 0, 1)


def test_an_outcome_whose_commit_is_in_doubt_is_written_once(rig: Rig) -> None:
    """COMMIT went through and its answer was lost: the second writing changes nothing."""
    from torghut.storage.database import CommitInDoubt

    hash_ = rig.send()
    rig.execute(1)
    commit, lost = rig.database._commit, []

    def lose(connection):
        commit(connection)
        if not lost:
            lost.append(1)
            raise CommitInDoubt("lost")

    rig.database._commit = lose  # type: ignore[method-assign]
    with pytest.raises(CommitInDoubt):
        rig.executor.run_once(rig.lease, rig.time())
    before = rig.events(hash_)
    rig.execute(2)
    assert rig.status(hash_) == ("submitted", "accepted")
    assert rig.events(hash_) == before
    assert (rig.count("executions"), rig.count("execution_events")) == (1, 1)


def test_shutdown_finishes_and_claims_nothing(rig: Rig) -> None:
    hash_, later = rig.send_many(2)
    rig.executor._settings = rig.settings.model_copy(update={"submit_threads": 1})
    rig.executor.run_once(rig.lease, rig.time())
    posts = rig.posts()
    rig.executor.run_once(rig.lease, rig.time(), claiming=False)
    assert (rig.executor.in_flight, rig.posts()) == (0, posts)
    assert rig.status(hash_)[0] == "submitted"
    assert rig.open([hash_, later]) == 2 - posts


def test_many_threads_call_each_order_once(make_rig: MakeRig) -> None:
    """With a real pool of callers; the passes go on while calls are under way."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        rig = make_rig(pool=pool, submit_threads=8, timeout_s=5)
        rig.fault("slow", count=None, probability=0.3, delay_s=0.05)
        hashes = rig.send_many(60, qty="1")
        eventually(lambda: rig.execute(1) and not rig.open(hashes))
    posts = rig.control("GET", "/requests")["posts_by_client_order_id"]
    assert posts == dict.fromkeys(hashes, 1)
    assert threading.active_count() < 100
