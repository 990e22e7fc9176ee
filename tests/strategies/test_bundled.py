"""What holds for both bundled strategies: pure, deterministic, no lookahead, valid decisions."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.strategies.market import facts_of, facts_on, real_bars, sessions
from torghut.domain.decisions import parse_decision
from torghut.ports import Strategy
from torghut.strategies.ma_crossover import MovingAverageCrossover
from torghut.strategies.monthly_rebalance import MonthlyRebalance

STRATEGIES: list[Strategy] = [MovingAverageCrossover(), MonthlyRebalance()]
POSITIONS = {"AAPL": Decimal("7.5"), "MSFT": Decimal(2000), "GOOG": Decimal(0)}

both = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)


@both
def test_the_same_facts_give_the_same_decisions(strategy: Strategy) -> None:
    """A tick run again by another replica must find its own decisions (P1)."""
    seen = 0
    for day in sessions()[60:]:
        facts = facts_on(day, positions=POSITIONS)
        decisions = strategy.decide(facts)
        assert strategy.decide(facts) == decisions and facts == facts_on(day, positions=POSITIONS)
        shuffled = list(facts.bars)
        random.Random(day.toordinal()).shuffle(shuffled)
        again = facts_of({s: facts.bars[s] for s in shuffled}, day, positions=POSITIONS)
        assert strategy.decide(again) == decisions
        seen += len(decisions)
    assert seen > 30


@both
def test_bars_of_the_future_change_nothing(strategy: Strategy) -> None:
    """No lookahead, even if the future is handed over."""
    for day in sessions()[60::7]:
        upto = {s: tuple(b for b in rows if b.session <= day) for s, rows in real_bars().items()}
        assert strategy.decide(facts_of(upto, day)) == strategy.decide(facts_of(real_bars(), day))


@both
def test_bars_wanted_are_enough(strategy: Strategy) -> None:
    for day in sessions()[60:]:
        few = facts_on(day, positions=POSITIONS, count=strategy.bars_wanted)
        assert strategy.decide(few) == strategy.decide(facts_on(day, positions=POSITIONS))


@both
def test_every_decision_is_a_valid_one_with_an_identity_of_its_own(strategy: Strategy) -> None:
    """Story 3: nothing that varies from run to run is in params, as nothing is in params."""
    hashes: list[str] = []
    for day in sessions():
        facts = facts_on(day, positions=POSITIONS)
        sides = []
        for data in strategy.decide(facts):
            decision = parse_decision(
                {**data, "strategy": "s", "event_ts": facts.scheduled_for.isoformat()},
                account="paper",
                ttl=timedelta(hours=1),
            )
            assert decision.params == {} and decision.intent
            assert isinstance(data["qty"], str)
            sides.append(decision.order.side.value)
            hashes.append(decision.decision_hash)
        assert sides == sorted(sides, reverse=True), "sells come before buys"
    assert len(set(hashes)) == len(hashes) > 30


@both
def test_nothing_is_known_nothing_is_done(strategy: Strategy) -> None:
    day = sessions()[0]
    assert strategy.decide(facts_of({}, day)) == []
    assert strategy.decide(facts_of({"AAPL": ()}, day)) == []
    assert strategy.decide(facts_of({"AAPL": real_bars()["AAPL"]}, day)) == []
    for poor in ("0", "-5"):
        for session in sessions()[60:200]:
            assert strategy.decide(facts_on(session, equity=poor)) == []
