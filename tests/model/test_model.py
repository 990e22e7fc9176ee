"""The submission protocol in every order of events: P1, P2, P4, P5 (stories 2, 5, 6, 22, 38, 45).

The model is of one decision; docs/protocol.md says what is in it. That it is of this code and not
of another is tested as well: its steps, its tables and its statuses are compared with the domain's.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from tests.model import FULL, checker
from tests.model.checker import search
from torghut.clock import utc_now
from torghut.domain.lifecycle import TERMINAL, TRANSITIONS, DecisionStatus
from torghut.domain.reconcile import ENDED_WITHOUT_ORDER
from torghut.domain.submission import Doubt, Proof, after_lookup, after_submit

SAMPLE = {"FAULTS": 1}
SMALL = {"SLOTS": 1}
STATES = ({"REPLICAS": 3, "SLOTS": 1}, {"LAPSES": 2}) if FULL else (SAMPLE,)
ENDINGS = SMALL if FULL else {**SMALL, **SAMPLE, "CRASHES": 0}
"""Bounds of the searches, where they differ from those that protocol.pml sets itself."""

FULL_STATES_MIN = 1_000_000
FULL_CORE_S_MAX = 60

CONTROLS = {
    "NO_UNIQUE": "P1",
    "NO_FENCE": "P4",
    "NO_ATTEMPT_NO": "P2",
    "NO_SWEEP": "P2",
    "NO_RECONCILER": "P2",
    "ANSWER_ONLY_BOOKED": "P2",
    "FAILED_IS_ABSENT": "P2",
    "REJECT_ON_TIMEOUT": "P2",
    "BELIEVE_REFUSAL": "P2",
    "UNIQUE_IS_REFUSAL": "P2",
    "ABSENT_AFTER_ONE_MISS": "P2",
    "EXPIRE_IN_DOUBT": "P2",
    "EXPIRE_UNWATCHED": "P2",
}
"""A guard that is off → the promise that the model then sees broken."""

TEXT = checker.MODEL.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def programs() -> None:
    """Fail, never skip, without the model checker."""
    if line := checker.lacking():
        pytest.fail(line, pytrace=False)


# ---------------------------------------------------------------------- it holds


@pytest.mark.timeout(600)
def test_every_state_keeps_the_promises(tmp_path: Path) -> None:
    """All runs within the bounds, and all of them end: once the faults are over, a decision comes
    to its end, where P2 is asserted. Nothing stands in the model for nothing."""
    states, core_s = 0, 0.0
    for number, bounds in enumerate((*STATES, ENDINGS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        endless = bounds is ENDINGS
        found = search(folder, bounds, endless=endless, thorough=FULL)
        assert found.broken is None, found.trail
        assert endless or found.unreached == ()
        print(f"\nmodel: {told(bounds, endless)}: {found.states:,} states, depth {found.depth}, "
              f"0 errors, {found.seconds:.1f} s")  # fmt: skip
        states, core_s = states + (0 if endless else found.states), core_s + found.seconds
    print(f"model: {states:,} states, 0 errors, {core_s:.1f} s of one core")
    assert not FULL or (states >= FULL_STATES_MIN and core_s <= FULL_CORE_S_MAX)


def told(bounds: checker.Defines, endless: bool) -> str:
    """What a search is of, in words."""
    given = " ".join(f"{name}={value}" for name, value in bounds.items())
    return f"{given}, every run ends" if endless else given


def test_control_a_run_without_an_end_is_found(tmp_path: Path) -> None:
    found = search(tmp_path, {**SMALL, "ASK_FOR_EVER": 1}, endless=True)
    assert found.broken == "non-progress cycle"


# ---------------------------------------------------------------------- each guard is needed


@pytest.mark.parametrize("guard", CONTROLS)
def test_control_without_the_guard_a_promise_breaks(guard: str, tmp_path: Path) -> None:
    found = search(tmp_path, {**SMALL, guard: 1})
    assert found.broken == CONTROLS[guard], found


def test_the_first_look_of_a_repeated_attempt_is_not_what_keeps_p1(tmp_path: Path) -> None:
    """The one guard that nothing here needs: the broker's uniqueness catches what it would."""
    found = search(tmp_path, {**SMALL, **SAMPLE, "NO_CHECK_FIRST": 1})
    assert found.broken is None, found.trail


def test_every_variant_is_tested() -> None:
    """What protocol.pml can be told to leave out is a control here, and no other."""
    told = set(re.findall(r"^#ifn?def (\w+)$", TEXT, re.MULTILINE))
    bounds = set(re.findall(r"^#ifndef (\w+)\n#define \1 \d+$", TEXT, re.MULTILINE))
    assert told - bounds == {*CONTROLS, "ASK_FOR_EVER", "NO_CHECK_FIRST", "TABLES"}


# ---------------------------------------------------------------------- it is of this code


def test_its_steps_are_the_life_cycle() -> None:
    """All steps of the table and no others; that each is taken is `unreached` above."""
    steps = set(re.findall(r"\bstep\(([A-Z_]+), ([A-Z_]+)\)", TEXT))
    assert steps == {(a.name, b.name) for a, after in TRANSITIONS.items() for b in after}


def test_its_ends_are_those_of_the_code(tmp_path: Path) -> None:
    ends = {row[1]: (row[2], row[3]) for row in checker.rows(tmp_path) if row[0] == "status"}
    assert ends == {
        status.name: (str(int(status in TERMINAL)), str(int(status in ENDED_WITHOUT_ORDER)))
        for status in DecisionStatus
    }


def test_it_judges_answers_as_the_code_does(tmp_path: Path) -> None:
    """after_submit, for every proof and every lookup."""
    told = {(row[1], row[2]): row[3] for row in checker.rows(tmp_path) if row[0] == "after_submit"}
    came = (Proof.ACCEPTED, Proof.IN_DOUBT, Proof.EXISTS, Proof.REFUSED, Proof.NEVER_LEFT,
            Proof.NOT_SENT)  # fmt: skip
    asked = (None, Proof.FOUND, Proof.ABSENT, Proof.UNANSWERED)

    def in_code(proof: Proof, lookup: Proof | None) -> str:
        return after_submit(proof, lookup, attempt_no=1, wait_s=0).status.name

    assert told == {
        (p.name, a.name if a else "NONE"): in_code(p, a) for p, a in product(came, asked)
    }
    for same, lookup in product((Proof.RATE_LIMITED, Proof.ACCOUNT_REFUSED), asked):
        assert in_code(same, lookup) == in_code(Proof.NEVER_LEFT, lookup)


def test_it_judges_lookups_as_the_code_does(tmp_path: Path) -> None:
    """after_lookup, for every answer, number of misses, grace, last proof and expiry."""
    told = {tuple(row[1:6]): row[6] for row in checker.rows(tmp_path) if row[0] == "after_lookup"}
    now, grace_s = utc_now(), 30.0

    def in_code(asked: str, misses: str, graced: str, last: str, over: str) -> str:
        doubt = Doubt(
            since=now.replace(year=now.year - 1) if graced == "1" else now,
            lookups=0,
            misses=int(misses),
            refused=last == "REFUSED",
            exists=last == "EXISTS",
            expires_at=now if over == "1" else now.replace(year=now.year + 1),
        )
        return after_lookup(Proof[asked], doubt, now, absence_grace_s=grace_s).status.name

    cases = product(("FOUND", "ABSENT", "UNANSWERED"), "012", "01", ("NONE", "REFUSED", "EXISTS"),
                    "01")  # fmt: skip
    assert told == {case: in_code(*case) for case in cases}


@pytest.mark.parametrize(
    "guard", ["REJECT_ON_TIMEOUT", "BELIEVE_REFUSAL", "UNIQUE_IS_REFUSAL", "ABSENT_AFTER_ONE_MISS"]
)
def test_control_a_model_that_judges_otherwise_shows_it(guard: str, tmp_path: Path) -> None:
    """The tables compared above are those that the searches decide by."""
    assert checker.rows(tmp_path, {guard: 1}) != checker.rows(tmp_path)
