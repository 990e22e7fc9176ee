"""Every recovery point × every answer of the submission table: one order, or a definite refusal.

Stories 2, 5, 6, 7, 21, 22, 23, 33, 38. Each pair kills the daemon with SIGKILL at the point, in
the middle of a decision that gets the answer, with two undisturbed decisions beside it, restarts
it, and compares the books. Every kill must have happened: a pair that does not get to its point
fails. `CRASH_MATRIX=full` plays all pairs, otherwise a fixed sample.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.crash import cases
from tests.crash.answers import ANSWERS
from tests.crash.cases import Case
from tests.crash.conftest import Build


@pytest.mark.parametrize("case", cases.played(), ids=str)
def test_one_order_or_a_refusal(case: Case, build: Build) -> None:
    """P1, P2, P4 after SIGKILL at the case's points."""
    world = build(case.answer, rules=case.rules)
    assert world.play(case.kills) == list(case.kills)
    assert world.faults() == []


def test_the_sample_has_every_point_and_every_answer() -> None:
    """The default run plays each point and each answer several times."""
    points = Counter(case.kills[-1] for case in cases.sample())
    answers = Counter(case.answer.name for case in cases.sample())
    assert points.keys() == set(cases.POINTS)
    assert answers.keys() == {answer.name for answer in ANSWERS}
    assert min(points.values()) >= cases.ANSWERS_EACH
    assert min(answers.values()) >= cases.POINTS_EACH


def test_the_full_matrix_is_points_times_answers() -> None:
    """No pair is left out of `CRASH_MATRIX=full`."""
    pairs = {(case.kills[-1], case.answer.name) for case in cases.matrix()}
    assert len(pairs) == len(cases.POINTS) * len(ANSWERS)
