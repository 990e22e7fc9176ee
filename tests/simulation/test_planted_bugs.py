"""Each planted bug is found, and reported as what it is: the simulation can see.

Every test is the control of `test_every_seed_holds`: the same seeds hold without the bug. In
`make test` those that show within a few seeds, with CHAOS=full all of them.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.planted import BUGS, SLOW, planted
from tests.simulation.run import Simulation

FULL = os.environ.get("CHAOS") == "full"
pytestmark = pytest.mark.timeout(600 if FULL else 180)
SEEDS_MAX = 1_000 if FULL else 60


def test_there_are_enough_of_them() -> None:
    assert len(BUGS) >= 25 and BUGS.keys() >= SLOW
    assert len(BUGS.keys() - SLOW) >= 25


@pytest.mark.parametrize("name", [name for name in BUGS if FULL or name not in SLOW])
def test_it_is_found(name: str, simulation: Simulation) -> None:
    with planted(name) as bug:
        for seed in range(1, SEEDS_MAX + 1):
            told = simulation.run(seed)
            if told.violations:
                break
        else:
            pytest.fail(f"{SEEDS_MAX} seeds did not show it")
    found = {violation.promise for violation in told.violations}
    assert found & bug.promises, f"found as something else: {told}"
