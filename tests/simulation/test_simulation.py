"""The services in virtual time: replicas, crashes, pauses beyond the lease, jumping clocks, every
answer and silence of the broker, a database that fails. P1–P7 and P12 hold in every seed, and all
decisions end when the faults do (stories 2, 4-6, 21-23, 27, 33, 36-38, 41, 42, 45, 47, 48).

A sample of the seeds; all of them with CHAOS=full. That the checks can see is shown by
`test_planted_bugs.py`.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.simulation.run import Simulation, command

FULL = os.environ.get("CHAOS") == "full"
pytestmark = pytest.mark.timeout(3_000 if FULL else 180)
SEEDS = 10_000 if FULL else 150
REPLAYED = 100 if FULL else 15


def test_every_seed_holds(simulation: Simulation) -> None:
    """A seed that does not hold says what broke, and how to see it again."""
    began, cpu_s = time.perf_counter(), simulation.cpu_s
    failed = [told for seed in range(1, SEEDS + 1) if (told := simulation.run(seed)).violations]
    seconds = time.perf_counter() - began
    cpu_s = simulation.cpu_s - cpu_s
    took = f"{seconds:.0f} s, {cpu_s:.0f} s of CPU, Postgres's included"
    print(f"\n{SEEDS} seeds in {took}; {len(failed)} with violations")
    assert not failed, "\n".join(map(str, failed))


def test_the_same_seed_is_the_same_story(simulation: Simulation) -> None:
    """Line for line, whatever ran before it."""
    seeds = range(1, REPLAYED + 1)
    simulation.reset()
    first = [simulation.run(seed).digest for seed in seeds]
    again = [simulation.run(seed).digest for seed in reversed(seeds)]
    same = sum(one == other for one, other in zip(first, reversed(again), strict=True))
    print(f"\n{same}/{REPLAYED} identical replays")
    assert same == REPLAYED
    assert len(set(first)) == REPLAYED, "the digest says nothing"


def test_the_command_replays_a_seed(simulation: Simulation) -> None:
    """What a failing seed prints is a command of this very package."""
    assert command(7) == ".venv/bin/python -m tests.simulation --seed 7 --trace"
    assert command(7) in str(simulation.run(7))
