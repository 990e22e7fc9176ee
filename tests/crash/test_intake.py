"""The sender's side of a power failure: resubmit the same file, and one order comes of it (P1, P2).

Stories 34, 36. `torghut submit` is killed before or after its commit, on a server with fsync on;
the sender got no answer and submits the file again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.crash.answers import BY_NAME
from tests.crash.world import World
from torghut.recovery_points import RecoveryPoint


@pytest.mark.parametrize(
    ("point", "second_answer"),
    [
        (RecoveryPoint.INTAKE_BEFORE_COMMIT, "created"),
        (RecoveryPoint.INTAKE_AFTER_COMMIT, "replayed"),
    ],
)
def test_the_sender_submits_again(
    point: RecoveryPoint, second_answer: str, durable_database_url: str, tmp_path: Path
) -> None:
    """Before the commit nothing is there, after it everything: never half of a file."""
    with World(durable_database_url, tmp_path, BY_NAME["accepted"]) as world:
        batch = [world.subject, *world.others]
        first = world.submit_by_cli(batch, point)
        assert first.power_failed
        assert "result" not in first.log.read_text(), "an answer before it is true"
        for expected in (second_answer, "replayed"):
            again = world.submit_by_cli(batch, None)
            lines = [json.loads(line) for line in again.log.read_text().splitlines()[-3:]]
            assert [line["result"] for line in lines] == [expected] * 3
        world.run_until_settled()
        assert world.faults() == []
