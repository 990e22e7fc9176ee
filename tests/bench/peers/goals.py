"""The goals, and whether they are reached.

A goal is on one figure of Torghut, or on its ratio to another entrant's (or to another figure of
its own), taken within each repetition; the median over the repetitions counts. Figures that are not
in `entrant` are those of `torghut bench --json`, by its names.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.peers import entrant
from tests.bench.peers.contest import Results

OURS = "Torghut"


@dataclass(frozen=True)
class Goal:
    """`at_least` or `at_most`, of Torghut's `figure`, over `of`'s (entrant, figure) if given."""

    says: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None
    of: tuple[str, str] | None = None

    @property
    def wanted(self) -> str:
        sign, value = ("≥", self.at_least) if self.at_most is None else ("≤", self.at_most)
        return f"{sign} {value:,g}{' ×' if self.of else ''}"


@dataclass(frozen=True)
class Outcome:
    """A goal with what was measured; None where nothing was."""

    goal: Goal
    value: float | None

    @property
    def word(self) -> str:
        if self.value is None:
            return "not measured"
        least, most = self.goal.at_least, self.goal.at_most
        reached = (least is None or self.value >= least) and (most is None or self.value <= most)
        return "pass" if reached else "falls short"


GOALS = (
    Goal("intake, batches of 500, to the floor", entrant.INTAKE, 0.5, of=("floor", entrant.INTAKE)),
    Goal(
        "intake, batches of 500, to pgqueuer", entrant.INTAKE, 0.7, of=("pgqueuer", entrant.INTAKE)
    ),
    Goal("intake, single HTTP requests, per second", "intake_http", 800),
    Goal("intake, single HTTP requests, p99 ms", "intake_http_p99", at_most=30),
    Goal("duplicates refused, to fresh intake", entrant.DUPLICATES, 1, of=(OURS, entrant.INTAKE)),
    Goal("duplicates refused, bytes of WAL each", entrant.DUPLICATE_WAL, at_most=1),
    Goal("full path, decisions per second", entrant.PATH, 6_000),
    Goal("full path, to pgqueuer", entrant.PATH, 2, of=("pgqueuer", entrant.PATH)),
    Goal("full path, to procrastinate", entrant.PATH, 7, of=("procrastinate", entrant.PATH)),
    Goal("full path, to DBOS", entrant.PATH, 30, of=("DBOS", entrant.PATH)),
    Goal("full path, to the floor", entrant.PATH, 0.25, of=("floor", entrant.PATH)),
    Goal("over the wire, % of a bare loop of alpaca-py", "wire_share", 80),
    Goal("accepted to POST, idle, p50 ms", "latency_p50", at_most=4),
    Goal("accepted to POST, idle, p99 ms", "latency_p99", at_most=10),
    Goal("accepted to POST, 200/s, p99 ms", "latency_paced_p99", at_most=20),
    Goal("commits per decision, alone", "commits_per_decision_alone", at_most=3),
    Goal("commits per decision, in batches", "commits_per_decision_in_batches", at_most=0.1),
    Goal("rates with 5,000,000 closed, to 10,000", "rate_share_with_5000000_closed", 0.9),
    Goal("reconcile 100,000 orders, own CPU s", "reconcile_cpu_s", at_most=60),
    Goal("reconcile 100,000 orders, peak MB", "reconcile_peak_mb", at_most=300),
    Goal("take-over after kill -9, s beyond the lease", "take_over_beyond_lease_s", at_most=2),
    Goal("start to /readyz, s", "ready_s", at_most=3),
    Goal("torghut --help, s", "help_s", at_most=0.4),
    Goal("daemon memory, idle, MB", "memory", at_most=150),
)


def judge(results: Results, goals: Sequence[Goal] = GOALS) -> list[Outcome]:
    """Each goal with the median of what was measured for it."""
    return [Outcome(goal, _measured(results, goal)) for goal in goals]


def _measured(results: Results, goal: Goal) -> float | None:
    values = results.get(OURS, {}).get(goal.figure, [])
    if goal.of is not None:
        other, figure = goal.of
        against = results.get(other, {}).get(figure, [])
        values = [ours / theirs for ours, theirs in zip(values, against, strict=False)]
    return statistics.median(values) if values else None
