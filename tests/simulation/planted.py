"""Bugs to plant in the protocol: each takes one protection away, and the simulation must see it.

`BUGS` has them by name: what is broken, the promises of which one must be reported, and a context
in which the production code has the bug. Those of tests/crash/mutations.py are used from there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from tests.crash import mutations
from tests.simulation import driver
from tests.simulation.planted_parts import (
    acknowledged_unstored,
    answered_before_the_call,
    attempt_not_recorded,
    first_page_only,
    id_minted_anew,
    in_flight_for_ever,
    late_order_left_alone,
    outcome_unfenced,
    transaction_across_the_call,
    verdict_on_the_last_reading,
)
from torghut.domain import submission
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.submission import Doubt, Proof, Step
from torghut.services import broker_lists, claiming, executor, risk_engine, settler
from torghut.services.late_orders import LateOrders
from torghut.services.placing import Placer
from torghut.services.tie_out import TieOut

_COMMENT = re.compile(r"--.*")

Planting = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Bug:
    """One planted bug; one of `promises` must be reported broken."""

    plant: Planting
    promises: frozenset[str]


def _bug(promises: str, plant: Planting) -> Bug:
    return Bug(plant, frozenset(promises.split()))


def _is(target: Any, name: str, value: Any) -> Planting:
    return lambda: patch.object(target, name, value)


def _nothing(*_: object, **__: object) -> None:
    """Instead of a protection."""


def _sql(old: str, new: str) -> Planting:
    """A statement with one condition changed."""

    @contextmanager
    def plant() -> Iterator[None]:
        numbered = driver._numbered

        def changed(text: str) -> Any:
            plain = " ".join(_COMMENT.sub("", text).split())
            return numbered(plain.replace(old, new) if old in plain else text)

        with patch.object(driver, "_numbered", changed):
            yield

    return plant


def _after_submit(wrong: Mapping[Proof, Step]) -> Planting:
    """Another step than the table's after some answers."""
    right = submission.after_submit

    def after_submit(proof: Proof, lookup: Proof | None, **values: Any) -> Step:
        return wrong[proof] if proof in wrong else right(proof, lookup, **values)

    return _is(executor, "after_submit", after_submit)


def _after_lookup(change: Callable[[Doubt], Doubt], grace_s: float | None = None) -> Planting:
    """Doubt is judged on other facts."""
    right = submission.after_lookup

    def after_lookup(proof: Proof, doubt: Doubt, now: Any, *, absence_grace_s: float) -> Step:
        grace = absence_grace_s if grace_s is None else grace_s
        return right(proof, change(doubt), now, absence_grace_s=grace)

    return _is(settler, "after_lookup", after_lookup)


def _crash(function: Callable[[], None]) -> Planting:
    """A mutation of the crash tests, taken back afterwards."""

    @contextmanager
    def plant() -> Iterator[None]:
        touched = [Placer, sys.modules["torghut.services.supervisor"].Supervisor]
        touched += [m for name, m in sys.modules.items() if name.startswith("torghut.services.")]
        before = [(one, dict(vars(one))) for one in touched]
        try:
            function()
            yield
        finally:
            for one, names in before:
                for name, value in names.items():
                    if vars(one).get(name) is not value:
                        setattr(one, name, value)
                for name in vars(one).keys() - names.keys():
                    delattr(one, name)

    return plant


def _unasked(*values: Any, check_first: bool, **named: Any) -> claiming.Claim:
    return right_claim(*values, check_first=False, **named)


right_claim = claiming.Claim
_REJECTED = Step(DecisionStatus.REJECTED, Reason.REFUSED_BY_BROKER)
_APPROVED = Step(DecisionStatus.APPROVED, Reason.NEVER_LEFT)

_UNBOOKED = "d.status IN ('submitting', 'in_doubt', 'submitted') AND NOT EXISTS"

BUGS: Mapping[str, Bug] = {
    # ---- leases and fencing
    "no fence, and a lease is held for ever": _bug("P5", _crash(mutations.fence_removed)),
    "the settler writes unfenced": _bug("P5", _is(settler, "fence", _nothing)),
    "outcomes are written unfenced": _bug("P5", outcome_unfenced),
    "the fence does not look at the term": _bug(
        "P5",
        _sql(
            "AND expires_at > clock_timestamp() + make_interval(secs => :margin) FOR",
            "AND CAST(:margin AS float8) >= 0 FOR",
        ),
    ),
    "a valid lease is taken": _bug(
        "P5",
        _sql("AND (owner IS NULL OR expires_at <= clock_timestamp()) FOR UPDATE", "FOR UPDATE"),
    ),
    "the old token is used again": _bug(
        "P5", _sql("fencing_token = fencing_token + 1", "fencing_token = fencing_token")
    ),
    "another's lease is released": _bug(
        "P5",
        _sql("expires_at = clock_timestamp() WHERE account = :account AND owner = :owner AND"
             " fencing_token = :token",
             "expires_at = clock_timestamp() WHERE account = :account AND :owner <> ''"
             " AND :token > 0"),
    ),
    # ---- intent and outcome
    "the attempt is not recorded": _bug("P3", attempt_not_recorded),
    "the outcome is written before the call": _bug("P3 P4", answered_before_the_call),
    "a transaction is open during the call": _bug("P3", transaction_across_the_call),
    "a step is no compare-and-set": _bug(
        "P5 P4 P2", _sql("AND d.status = n.before AND d.fencing_token", "AND d.fencing_token")
    ),
    "an unwritten outcome keeps its decision": _bug("P2", in_flight_for_ever),
    "acknowledged though not stored": _bug("P2", acknowledged_unstored),
    # ---- what an answer means
    "a timeout is a refusal": _bug("P4", _after_submit({Proof.IN_DOUBT: _REJECTED})),
    "must be unique is a refusal": _bug("P4", _after_submit({Proof.EXISTS: _REJECTED})),
    "a 4xx is believed": _bug("P4", _after_submit({Proof.REFUSED: _REJECTED})),
    "a 429 is a refusal": _bug("P4", _after_submit({Proof.RATE_LIMITED: _REJECTED})),
    "a 5xx has never left": _bug("P4", _after_submit({Proof.IN_DOUBT: _APPROVED})),
    "a refused account is a refused order": _bug(
        "P4", _after_submit({Proof.ACCOUNT_REFUSED: _REJECTED})
    ),
    # ---- doubt
    "a failed lookup is absence": _bug(
        "P4 P1", _crash(mutations.failed_lookup_is_absence)
    ),
    "nobody is asked": _bug("P4", _crash(mutations.lookup_removed)),
    "one miss is absence": _bug("P4", _is(submission, "MISSES_FOR_ABSENCE", 1)),
    "no grace": _bug("P4", _after_lookup(lambda doubt: doubt, grace_s=0)),
    "an order that exists can be absent": _bug(
        "P4", _after_lookup(lambda doubt: replace(doubt, exists=False))
    ),
    "what is in doubt expires": _bug(
        "P4",
        _sql("d.status IN ('planned', 'approved') AND NOT EXISTS",
             "d.status IN ('planned', 'approved', 'in_doubt') AND NOT EXISTS"),
    ),
    "what nobody works on is sent again": _bug(
        "P4", _is(executor, "Step", lambda *_: _APPROVED)
    ),
    "old doubts are not looked at": _bug(
        "P2",
        _sql("AND d.due_at <= :now AND d.status = :status",
             "AND d.due_at <= :now AND d.status = :status"
             " AND d.in_doubt_since > CAST(:now AS timestamptz) - interval '8 s'"),
    ),
    # ---- sending again
    "another id for each attempt": _bug("P1", id_minted_anew),
    "sent again without asking": _bug("P1", _is(claiming, "Claim", _unasked)),
    "sent after its time, by whoever": _bug("P4 P5", _is(Placer, "_held_back", _nothing)),
    # ---- risk
    "in doubt is not counted": _bug(
        "P7", _sql(_UNBOOKED, "d.status IN ('submitting', 'submitted') AND NOT EXISTS")
    ),
    "submitting is not counted": _bug(
        "P7", _sql(_UNBOOKED, "d.status IN ('in_doubt', 'submitted') AND NOT EXISTS")
    ),
    "open orders are not counted": _bug(
        "P7", _sql("NOT e.terminal AND e.status <> 'held' GROUP BY", "false GROUP BY")
    ),
    "decisions of one batch do not see each other": _bug(
        "P7", _is(risk_engine, "_take", _nothing)
    ),
    "a verdict on what was read before": _bug("P7", verdict_on_the_last_reading),
    # ---- books
    "a late order is not shown": _bug("P12 P2", _is(LateOrders, "note", _nothing)),
    "a late order is not canceled": _bug("P12 P2", late_order_left_alone),
    "lists are read without overlap": _bug("P12 P2", _is(broker_lists, "OVERLAP_S", 0)),
    "a full page is the end": _bug("P12 P2", first_page_only),
    "an opening is booked at the first look": _bug("P12", _is(TieOut, "_lasts", lambda *_: True)),
    "closed while its order lives": _bug(
        "P2 P12",
        _sql("AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.decision_id = d.decision_id AND"
             " NOT e.terminal)", ""),
    ),
}  # fmt: skip
"""Name → bug."""

SLOW = frozenset(
    {
        "a 4xx is believed",
        "a failed lookup is absence",
        "a late order is not canceled",
        "a late order is not shown",
        "a refused account is a refused order",
        "a step is no compare-and-set",
        "acknowledged though not stored",
        "an order that exists can be absent",
        "open orders are not counted",
        "outcomes are written unfenced",
        "sent after its time, by whoever",
        "submitting is not counted",
    }
)
"""Those that need more seeds than a sample has."""


@contextmanager
def planted(name: str) -> Iterator[Bug]:
    """The bug `name` is in the code."""
    bug = BUGS[name]
    with ExitStack() as stack:
        stack.enter_context(bug.plant())
        yield bug
