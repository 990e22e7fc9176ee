"""The order stands at the broker before its decision is known here (stories 6, 9).

So it is after a database was restored from an older backup and the sender submits again.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.crash.answers import BY_NAME
from tests.crash.conftest import Build
from torghut.recovery_points import RecoveryPoint as P

PLACED = replace(BY_NAME["accepted"], name="placed_before", placed_before=True)


@pytest.mark.parametrize(
    "kills", [(), (P.CLAIM_BEFORE_COMMIT,), (P.OUTCOME_BEFORE_COMMIT,)], ids=str
)
def test_an_order_adopted_before_its_decision(kills: tuple[P, ...], build: Build) -> None:
    """It is found in the books, never sent again, and the decision ends with it."""
    world = build(PLACED)
    adopter = world.start()
    world.wait(lambda: world.state()["external"] > 0, "the order's adoption")
    adopter.kill()
    assert world.play(kills) == list(kills)
    assert world.faults() == []
