"""Spreading: even, the same for everybody, and it comes to rest."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from torghut.domain.seating import Move, Replica, next_move, takers

ACCOUNTS = [f"a{n}" for n in range(12)]
OWNERS = [f"r{n}" for n in range(6)]


def replicas(count: int, accounts: int = 12) -> list[Replica]:
    return [Replica(owner, frozenset(ACCOUNTS[:accounts])) for owner in OWNERS[:count]]


def test_who_has_the_fewest_takes_first() -> None:
    ranked = takers(["a0"], replicas(3), {"a1": "r0", "a2": "r0", "a3": "r1"})
    assert ranked["a0"] == ["r2", "r1", "r0"]


def test_many_free_accounts_are_shared_out_at_once() -> None:
    ranked = takers(ACCOUNTS, replicas(3), {})
    assert Counter(order[0] for order in ranked.values()) == {"r0": 4, "r1": 4, "r2": 4}


def test_only_who_could_own_it_is_asked() -> None:
    able = [Replica("r0", frozenset({"a0"})), Replica("r1", frozenset())]
    assert takers(["a0", "a1"], able, {}) == {"a0": ["r0"], "a1": []}


def test_a_difference_of_one_moves_nothing() -> None:
    assert next_move(replicas(2), {"a0": "r0", "a1": "r0", "a2": "r1"}) is None


def test_a_difference_of_two_moves_one() -> None:
    move = next_move(replicas(2, 2), {"a0": "r0", "a1": "r0"})
    assert move is not None and (move.giver, move.taker) == ("r0", "r1")


def test_what_was_given_away_and_is_not_taken_yet_moves_nothing_more() -> None:
    """Control: without the free one's turn, two against none would move another."""
    assert next_move(replicas(2, 3), {"a0": "r0", "a1": "r0"}) is None
    assert next_move(replicas(2, 2), {"a0": "r0", "a1": "r0"}) is not None


def test_nothing_moves_to_who_came_just_now_or_cannot() -> None:
    owners = {"a0": "r0", "a1": "r0", "a2": "r0"}
    own = Replica("r0", frozenset(ACCOUNTS))
    fresh = Replica("r1", frozenset(ACCOUNTS), settled=False)
    unable = Replica("r2", frozenset({"a9"}))
    assert next_move([own, fresh, unable], owners) is None


def test_nothing_moves_from_who_is_not_there() -> None:
    """An owner of an earlier version, which announces nothing."""
    assert next_move(replicas(2), {"a0": "old", "a1": "old", "a2": "old"}) is None


@settings(max_examples=300, deadline=None)
@given(
    given=st.lists(st.integers(0, 5), min_size=12, max_size=12),
    able=st.lists(st.sets(st.integers(0, 11)), min_size=6, max_size=6),
)
def test_moves_come_to_rest_and_end_even(given: list[int], able: list[set[int]]) -> None:
    """Each move makes the sum of squares smaller; where all can own all, one is the difference."""
    alive = [
        Replica(OWNERS[n], frozenset(ACCOUNTS[i] for i in could)) for n, could in enumerate(able)
    ]
    for there in (alive, replicas(6)):
        owners = {ACCOUNTS[n]: OWNERS[owner] for n, owner in enumerate(given)}
        for _ in range(100):
            move = next_move(there, owners)
            if move is None:
                break
            before = sum(count**2 for count in Counter(owners.values()).values())
            owners[move.account] = _taken(move, there, owners)
            assert sum(count**2 for count in Counter(owners.values()).values()) < before
        assert next_move(there, owners) is None
    counts = [Counter(owners.values())[owner] for owner in OWNERS]
    assert max(counts) - min(counts) <= 1


def _taken(move: Move, there: list[Replica], owners: dict[str, str]) -> str:
    """Who is first in turn for an account that was given up: no more has than the taker."""
    others = {account: owner for account, owner in owners.items() if account != move.account}
    return takers([move.account], there, others)[move.account][0]
