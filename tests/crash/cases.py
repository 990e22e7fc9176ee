"""Which point with which answer, by which kills; and the sample of the default run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.crash.answers import ANSWERS, Answer
from torghut.recovery_points import RecoveryPoint as P

FULL = os.environ.get("CRASH_MATRIX") == "full"
POINTS_EACH = 1  # sample: points that each answer is played with, at least
ANSWERS_EACH = 2  # sample: answers that each point is played with, at least

# those of orders that stand are played in test_order_actions, those of sagas and plans in
# test_sagas and test_plans, those of the relay in tests/outbox,
# those of streams in tests/streams
_OTHER_STAGES = ("request.", "action.", "flatten.", "saga.", "plan.", "relay.", "stream.")
POINTS = tuple(point for point in P if not point.value.startswith(_OTHER_STAGES))

_PREFIX = {
    "sweep": P.SUBMIT_AFTER_CALL,  # a writer must have died for its row to be swept
    "settle": P.SUBMIT_AFTER_CALL,  # … or else only a doubtful answer gets there
    "check": P.SUBMIT_BEFORE_CALL,  # the lookup before a repeated attempt
}


@dataclass(frozen=True)
class Case:
    """The daemon is killed at each of `kills` in turn; every one of them must be reached."""

    answer: Answer
    kills: tuple[P, ...]

    @property
    def rules(self) -> list[dict[str, object]]:
        """Faults beside the answer: where the broker's lists forestall a point, they stay away.

        They come back after the last kill at such a point (World.play).
        """
        if not forestalled(self.kills):
            return []
        return [away("list_orders"), away("activities")]

    def __str__(self) -> str:
        return "+".join(kill.value for kill in self.kills) + "-" + self.answer.name


def forestalled(kills: Sequence[P]) -> bool:
    """Whether a pass of the reconciler can be quicker than one of these points."""
    return any(kill.value.startswith(("sweep.", "settle.")) for kill in kills)


def away(route: str, count: int | None = None) -> dict[str, object]:
    """The first `count` requests of a route get a 503, or all of them."""
    return {"route": route, "kind": "refuse_5xx", "status": 503, "count": count}


def case(point: P, answer: Answer) -> Case:
    """Power fails at `point`; where its stage is only entered after a death, that comes first."""
    prefix = _PREFIX.get(point.value.partition(".")[0])
    return Case(answer, (point,) if prefix is None else (prefix, point))


def matrix() -> list[Case]:
    """Every point with every answer."""
    return [case(point, answer) for point in POINTS for answer in ANSWERS]


def sample() -> list[Case]:
    """A fixed part of the matrix with every answer and every point in it several times.

    Always the pair that was needed most: fewest answers at the point, fewest points of the answer.
    """
    points: Counter[P] = Counter()
    answers: Counter[str] = Counter()
    chosen: list[tuple[P, Answer]] = []
    order = list(POINTS)
    while (
        min(points[p] for p in POINTS) < ANSWERS_EACH
        or min(answers[a.name] for a in ANSWERS) < POINTS_EACH
    ):
        answer = min(ANSWERS, key=lambda a: answers[a.name])
        # begin at another point each time, so that neighbours do not always meet
        start = len(chosen) * 7
        turn = [order[(start + i) % len(order)] for i in range(len(order))]
        point = min((p for p in turn if (p, answer) not in chosen), key=lambda p: points[p])
        chosen.append((point, answer))
        points[point] += 1
        answers[answer.name] += 1
    return [case(point, answer) for point, answer in chosen]


def played() -> list[Case]:
    """What this run plays."""
    return matrix() if FULL else sample()
