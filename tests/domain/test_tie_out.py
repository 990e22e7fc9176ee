"""What a tie-out concludes, and what not: no false alarm, and no difference that is never seen."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torghut.domain.tie_out import (
    CASH_STEP,
    QTY_STEP,
    Booked,
    Look,
    Standing,
    beyond,
    differences,
    follow,
    one_name,
    symbol_key,
)

ZERO = Decimal(0)
AMOUNTS = st.integers(-40, 40).map(lambda n: Decimal(n) / 4)
PATHS = st.lists(AMOUNTS, max_size=6).map(tuple)
LOOKS = st.lists(st.tuples(PATHS, st.integers(0, 6)), min_size=1, max_size=5)


def look_at(start: Decimal, looks: list[tuple[tuple[Decimal, ...], int]], drift: Decimal) -> Look:
    """Looks at an amount that moves on: each answer is of some instant among the moves."""
    look: Look | None = None
    amount = start
    for moves, instant in looks:
        broker = amount + sum(moves[:instant], ZERO) + drift
        seen = differences(Booked(amount=amount, moves=moves), broker, step=QTY_STEP)
        look = follow(look, seen)
        amount += sum(moves, ZERO)
    assert look is not None
    return look


@given(start=AMOUNTS, looks=LOOKS)
def test_right_books_never_differ_however_much_is_traded(
    start: Decimal, looks: list[tuple[tuple[Decimal, ...], int]]
) -> None:
    """Invariant 1: whatever the instant of the answer, 0 stays possible."""
    look = look_at(start, looks, ZERO)
    assert ZERO in look.differences
    assert look.standing is not Standing.DIFFERS


@given(start=AMOUNTS, looks=LOOKS, drift=AMOUNTS.filter(bool))
def test_a_lasting_difference_stays_possible_and_is_seen_at_rest(
    start: Decimal, looks: list[tuple[tuple[Decimal, ...], int]], drift: Decimal
) -> None:
    """Invariant 2; and two looks without moves end every doubt."""
    look = look_at(start, looks, drift)
    assert drift in look.differences
    for _ in range(2):
        look = follow(look, differences(Booked(amount=start), start + drift, step=QTY_STEP))
    assert look.standing is Standing.DIFFERS
    assert look.difference == drift


def test_one_look_is_not_enough_to_differ_and_two_are() -> None:
    seen = differences(Booked(amount=Decimal(10)), Decimal(12), step=QTY_STEP)
    first = follow(None, seen)
    assert first.standing is Standing.UNCERTAIN
    assert follow(first, seen).standing is Standing.DIFFERS


def test_another_difference_begins_the_doubt_anew() -> None:
    """A fill that is late in the lists of the broker looks like another difference each time."""
    look = follow(None, frozenset({Decimal(2)}))
    look = follow(look, frozenset({Decimal(5)}))
    assert (look.standing, look.looks) == (Standing.UNCERTAIN, 1)


def test_a_look_in_which_the_books_may_be_right_concludes_nothing() -> None:
    """A first look that was wrong must not make a difference of the fills of a later one."""
    look = follow(None, frozenset({Decimal(-2), Decimal(-4)}))
    look = follow(look, frozenset({ZERO, Decimal(-2)}))
    assert look.standing is Standing.UNCERTAIN
    look = follow(look, frozenset({Decimal(-2)}))
    assert look.standing is Standing.UNCERTAIN, "two in a row"
    assert follow(look, frozenset({Decimal(-2)})).standing is Standing.DIFFERS


def test_equal_again_is_believed_at_once_at_rest_and_at_the_second_look_while_it_moves() -> None:
    differs = Look(frozenset({Decimal(2)}), 5)
    assert follow(differs, frozenset({ZERO})).standing is Standing.EQUAL
    moving = follow(differs, frozenset({ZERO, Decimal(7)}))
    assert moving.standing is Standing.UNCERTAIN
    assert follow(moving, frozenset({ZERO, Decimal(1)})).standing is Standing.EQUAL


def test_a_fill_that_is_known_and_not_booked_says_wait() -> None:
    waiting = Booked(amount=Decimal(10), waiting=True)
    assert differences(waiting, Decimal(12), step=QTY_STEP) == frozenset()


def test_story_20_a_fee_in_coins_that_is_not_listed_yet_is_no_difference() -> None:
    """The broker holds less than was bought, up to the fee; more, or much less, is a difference."""
    coins = Booked(amount=Decimal(1), fee_awaited=Decimal("0.003"))
    for held, difference in (
        ("0.9975", "0"), ("0.997", "0"), ("0.99", "-0.01"), ("1.0025", "0.0025"),
    ):  # fmt: skip
        seen = differences(coins, Decimal(held), step=QTY_STEP)
        assert seen == {Decimal(difference)}


@pytest.mark.parametrize(
    ("broker", "found"), [("100.009", "0"), ("100.01", "0.01"), ("99.9900000001", "0")]
)
def test_less_than_a_cent_is_rounding(broker: str, found: str) -> None:
    seen = differences(Booked(amount=Decimal(100)), Decimal(broker), step=CASH_STEP)
    assert seen == {Decimal(found)}


def test_an_entry_may_have_happened_before_or_after_the_answer() -> None:
    booked = Booked(amount=Decimal(100), entries=(Decimal(-30),))
    for broker in ("100", "70"):
        assert ZERO in differences(booked, Decimal(broker), step=CASH_STEP)
    assert ZERO not in differences(booked, Decimal(130), step=CASH_STEP)


def test_the_tolerance_itself_is_let_pass() -> None:
    assert not beyond(Decimal(-1), Decimal(1))
    assert beyond(Decimal("-1.01"), Decimal(1))


def test_story_20_a_pair_has_one_name() -> None:
    assert symbol_key("BTC/USD") == symbol_key("BTCUSD")
    assert one_name(["BTCUSD", "BTC/USD", "AAPL"]) == {"BTCUSD": "BTC/USD", "AAPL": "AAPL"}
