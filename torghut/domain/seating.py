"""How accounts are spread over the processes that could own them. Pure, and the same for each of
them, as all look at the same rows.

1. A free account goes to the process that owns the fewest; equal ones are ranked by a hash, so that
   not the same one is first for every account.
2. An account moves only where the giver has at least two more than the taker: a move makes the
   difference smaller, so moving ends, and a difference of one moves nothing.
3. One move at a time, the widest difference first. Only who has lived for a while takes by a move:
   a process that is restarted again and again moves nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that lives: its owner's name, the accounts that it could own."""

    owner: str
    accounts: frozenset[str]
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Move:
    """`account` leaves its owner because `taker` has too few."""

    account: str
    giver: str
    taker: str


def takers(
    free: Collection[str], replicas: Collection[Replica], owners: Mapping[str, str]
) -> dict[str, list[str]]:
    """For each free account the processes that may take it, the one whose turn it is first."""
    counts = Counter(owners.values())
    ranked: dict[str, list[str]] = {}
    for account in sorted(free):
        able = [replica.owner for replica in replicas if account in replica.accounts]
        ranked[account] = sorted(able, key=lambda one: (counts[one], _tie(account, one)))
        if able:
            counts[ranked[account][0]] += 1
    return ranked


def next_move(replicas: Collection[Replica], owners: Mapping[str, str]) -> Move | None:
    """The one move that would even things out, None if they are even.

    What is free counts for the one whose turn it is: an account that was just given away is not
    taken yet, and must not look like a reason to give away another one.
    """
    counts = Counter(owners.values())
    free = {account for replica in replicas for account in replica.accounts} - owners.keys()
    counts.update(able[0] for able in takers(free, replicas, owners).values() if able)
    alive = {replica.owner for replica in replicas}
    best: tuple[tuple[int, str, str, str], Move] | None = None
    for account, giver in owners.items():
        if giver not in alive:
            continue
        for replica in replicas:
            more = counts[giver] - counts[replica.owner]
            if more < 2 or not replica.settled or account not in replica.accounts:
                continue
            found = (-more, giver, replica.owner, _tie(account, replica.owner))
            if best is None or found < best[0]:
                best = found, Move(account, giver, replica.owner)
    return None if best is None else best[1]


def _tie(account: str, owner: str) -> str:
    return hashlib.sha256(f"{account}\n{owner}".encode()).hexdigest()
