"""Trading states (P11): three kinds of scope, and a halt that no claimed decision slips past."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from tests.services.rig import ACCOUNT, Inline, Rig, eventually
from torghut.domain.exposure import TradingState
from torghut.services import operator
from torghut.storage import control
from torghut.storage.control import GLOBAL, TradingStates, account_scope, strategy_scope
from torghut.storage.database import Database

ACTIVE, REDUCING, HALTED = TradingState

MakeRig = Callable[..., Rig]


def put(rig: Rig, scope: str, state: TradingState) -> None:
    """A person puts a scope into a state; committed when this returns."""
    operator.change(
        state,
        rig.database,
        scope,
        actor="test",
        reason="because",
        now=rig.time(),
        settings=rig.settings,
    )


def states(rig: Rig, *, lock: bool = False) -> TradingStates:
    with rig.database.transaction() as tx:
        return control.trading_states(tx, ACCOUNT, lock=lock)


class Parked(Inline):
    """Keeps what is submitted until it is told to run: between the intent and the call."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.waiting.append(lambda: fn(*args, **kwargs))

    def release(self) -> None:
        """Make the calls now."""
        while self.waiting:
            self.waiting.pop(0)()


# ---------------------------------------------------------------------- what is in force


@pytest.mark.parametrize(
    ("whole", "account", "strategy", "wanted"),
    [
        (ACTIVE, ACTIVE, ACTIVE, ACTIVE),
        (ACTIVE, ACTIVE, REDUCING, REDUCING),
        (ACTIVE, REDUCING, HALTED, HALTED),
        (REDUCING, ACTIVE, ACTIVE, REDUCING),
        (HALTED, ACTIVE, REDUCING, HALTED),
        (ACTIVE, HALTED, ACTIVE, HALTED),
    ],
)
def test_the_strictest_scope_is_in_force(
    rig: Rig,
    whole: TradingState,
    account: TradingState,
    strategy: TradingState,
    wanted: TradingState,
) -> None:
    """For a decision the strictest of global, account and its strategy; others are untouched."""
    rig.send(strategy="trend")
    for scope, state in (
        (GLOBAL, whole),
        (account_scope(ACCOUNT), account),
        (strategy_scope("trend"), strategy),
    ):
        put(rig, scope, state)
    assert states(rig).of("trend")[0] is wanted
    assert operator.states_now(rig.database, ACCOUNT).of("trend")[0] is wanted
    assert states(rig).of("another") == states(rig).account


def test_a_trip_never_loosens(rig: Rig) -> None:
    """`tighten` goes one way; only a person resumes, and that clears the trip."""
    scope = account_scope(ACCOUNT)

    def trip(state: TradingState) -> bool:
        with rig.database.transaction() as tx:
            return control.tighten(tx, scope, state, actor="risk", reason="loss", now=rig.time())

    assert [trip(state) for state in (ACTIVE, REDUCING, REDUCING, HALTED)] == [
        *(False, True, False, True),
    ]
    assert [trip(state) for state in (ACTIVE, REDUCING, HALTED)] == [False] * 3
    assert rig.state() == ("halted", f"{scope} by risk: loss")
    put(rig, scope, ACTIVE)
    assert rig.state()[0] == "active"
    changes = rig.sql("""SELECT actor, account, payload ->> 'after' AS after FROM events
        WHERE kind = 'trading_state.changed' ORDER BY event_seq""")
    assert [tuple(row) for row in changes] == [
        ("risk", ACCOUNT, "reducing"),
        ("risk", ACCOUNT, "halted"),
        ("test", ACCOUNT, "active"),
    ]


# ---------------------------------------------------------------------- at the claim


def test_a_halted_strategy_rests_and_the_others_go_on(make_rig: MakeRig) -> None:
    """Its approved decisions stay, take no place of the others', and leave when it is resumed."""
    rig = make_rig(submit_threads=2)
    rig.fault("rate_limit", count=2, rate_limit_headers=False)
    resting = rig.send_many(2, strategy="trend")
    rig.execute()
    assert [rig.status(h)[0] for h in resting] == ["approved"] * 2
    put(rig, strategy_scope("trend"), HALTED)
    rig.fill_budget()
    rig.time.pass_s(100)
    others = rig.send_many(4, strategy="calm")
    late = rig.send(strategy="trend", intent="late")
    rig.execute(6)
    assert [rig.status(h)[0] for h in others] == ["submitted"] * 4
    assert [rig.status(h)[0] for h in resting] == ["approved"] * 2
    assert rig.status(late) == ("denied", "trading_halted")
    put(rig, strategy_scope("trend"), ACTIVE)
    rig.execute(4)
    assert [rig.status(h)[0] for h in resting] == ["submitted"] * 2
    (checks,) = rig.sql("SELECT checks FROM risk_verdicts WHERE outcome = 'denied'")[0]
    (halted,) = (check for check in checks if not check["passed"])
    assert halted["source"] == "strategy:trend by test: because"


def test_a_reducing_strategy_may_only_shrink_its_position(rig: Rig) -> None:
    put_in = rig.send(strategy="trend", qty="10")
    rig.execute()
    eventually(lambda: rig.broker_orders(put_in)[0]["status"] == "filled")
    rig.time.pass_s(10)
    rig.reconcile()
    put(rig, strategy_scope("trend"), REDUCING)
    more = rig.send(strategy="trend", intent="more")
    less = rig.send(strategy="trend", intent="less", side="sell", qty="4", limit_price=None,
                    type="market")  # fmt: skip
    other = rig.send(strategy="calm", symbol="MSFT")
    rig.execute(3)
    assert rig.status(more) == ("denied", "reducing_only")
    assert rig.status(less)[0] == rig.status(other)[0] == "submitted"


@pytest.mark.parametrize("scope", [GLOBAL, account_scope(ACCOUNT), strategy_scope("trend")])
def test_a_change_of_state_waits_for_the_claim_under_way(rig: Rig, scope: str) -> None:
    """A claim holds what it judged by until it commits, also for a strategy without a row yet."""
    rig.send(strategy="trend")
    with ThreadPoolExecutor(1) as pool:
        with rig.database.transaction() as tx:
            control.trading_states(tx, ACCOUNT, lock=True)
            halting = pool.submit(put, rig, scope, HALTED)
            eventually(lambda: waiting_for_a_lock(rig.database))
            assert not halting.done()
            assert states(rig).of("trend")[0] is ACTIVE
        halting.result(10)
    assert states(rig).of("trend")[0] is HALTED


@pytest.mark.parametrize("scope", [GLOBAL, account_scope(ACCOUNT), strategy_scope("trend")])
def test_a_claim_that_waited_for_a_halt_sees_it(rig: Rig, scope: str) -> None:
    """The other way round: the halt came first, and the claim judges by it."""
    rig.send(strategy="trend")
    with ThreadPoolExecutor(1) as pool:
        with rig.database.transaction() as tx:
            control.set_trading_state(
                tx, scope, HALTED, actor="test", reason="because", now=rig.time()
            )
            claiming = pool.submit(states, rig, lock=True)
            eventually(lambda: waiting_for_a_lock(rig.database))
        assert claiming.result(10).of("trend")[0] is HALTED


def waiting_for_a_lock(database: Database) -> bool:
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    with database.transaction() as tx:
        return bool(tx.execute(text(query)).scalar_one())


# ---------------------------------------------------------------------- between claim and POST


@pytest.mark.parametrize("scope", [GLOBAL, account_scope(ACCOUNT), strategy_scope("trend")])
@pytest.mark.parametrize("state", [REDUCING, HALTED])
@pytest.mark.parametrize("looking", [True, False], ids=["", "control_off"])
def test_no_claimed_decision_slips_past_a_halt(
    make_rig: MakeRig, scope: str, state: TradingState, looking: bool
) -> None:
    """Claimed, intent committed, not yet posted: a halt that was acknowledged keeps it back.

    Control: without the look just before the POST the order leaves after the halt.
    """
    pool = Parked()
    rig = make_rig(pool=pool)
    if not looking:
        rig.placer = rig.new_placer(lambda: TradingStates((ACTIVE, "control"), {}))
        rig.executor = rig.new_executor()
    hash_ = rig.send(strategy="trend")
    rig.execute(1)
    assert rig.status(hash_)[0] == "submitting" and len(pool.waiting) == 1
    put(rig, scope, state)
    pool.release()
    assert rig.posts(hash_) == (0 if looking else 1)
    if looking:
        rig.execute(1)
        assert rig.status(hash_) == ("approved", "never_left")
        assert rig.attempts(hash_) == [("submit", "not_sent")]
        assert f"trading became {state}" in rig.row(hash_).status_detail
        rig.time.pass_s(100)
        rig.execute(2)
        ended = ("canceled", "reducing_only") if state is REDUCING else ("approved", "never_left")
        assert rig.status(hash_) == ended
        assert rig.posts(hash_) == 0


def test_a_halt_by_another_process_in_the_middle_of_a_batch(make_rig: MakeRig) -> None:
    """Eight are claimed; the halt commits while the first is under way: no other one is posted."""
    pool = Parked()
    rig = make_rig(pool=pool)
    hashes = rig.send_many(8)
    rig.execute(1)
    elsewhere = Database(rig.database.url.render_as_string(hide_password=False))
    try:
        pool.waiting.pop(0)()
        with elsewhere.transaction() as tx:
            control.tighten(tx, GLOBAL, HALTED, actor="risk", reason="loss", now=rig.time())
        pool.release()
    finally:
        elsewhere.close()
    assert [rig.posts(hash_) for hash_ in hashes] == [1, *[0] * 7]


def test_what_cannot_be_read_keeps_the_order_back(make_rig: MakeRig) -> None:
    """Fail closed: with the database away nobody can say that trading is allowed."""
    pool = Parked()
    rig = make_rig(pool=pool)
    hash_ = rig.send()
    rig.execute(1)
    away = Database("postgresql://postgres@127.0.0.1:1/nothing")
    placer = rig.new_placer(lambda: operator.states_now(away, ACCOUNT))
    rig.executor._placer = placer
    pool.release()
    away.close()
    assert rig.posts(hash_) == 0
    rig.execute(1)
    assert rig.status(hash_) == ("approved", "never_left")
    assert "the trading state could not be read" in rig.row(hash_).status_detail


def test_orders_and_halts_at_the_same_time(make_rig: MakeRig) -> None:
    """Threads post while a person halts: after the acknowledgement the broker sees no new order."""
    pool = ThreadPoolExecutor(4)
    rig = make_rig(pool=pool, submit_threads=4)
    rig.send_many(40)
    stop = threading.Event()

    def trade() -> None:
        while not stop.is_set():
            rig.execute(1)

    with ThreadPoolExecutor(1) as trader:
        trading = trader.submit(trade)
        eventually(lambda: rig.posts() >= 5)
        put(rig, GLOBAL, HALTED)
        # what had looked before the halt is at most one call per thread
        eventually(lambda: rig.executor.in_flight == 0)
        after_halt = rig.posts()
        rig.execute(0)
        eventually(
            lambda: rig.sql("SELECT count(*) FROM trade_decisions WHERE status = 'denied'")[0][0]
        )
        stop.set()
        trading.result(30)
    pool.shutdown()
    assert rig.posts() == after_halt
