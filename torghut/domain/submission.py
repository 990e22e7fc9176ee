"""The submission table: what came back, what it proves, what is done next. Pure.

| came back                      | proves                  | next                                  |
|--------------------------------|-------------------------|---------------------------------------|
| accepted                       | the order exists        | submitted                             |
| exists ("must be unique")      | an order of this id is  | lookup; found: submitted (recovered)  |
| refused (about this order)     | refused, nearly surely  | lookup once; absent: rejected         |
| account_refused                | keys or account         | approved again, account halted        |
| rate_limited                   | not taken               | approved again at the reset           |
| never_left                     | no byte was sent        | approved again, backoff               |
| in_doubt                       | nothing                 | in_doubt, lookups with backoff        |

Absence is proven only by `MISSES_FOR_ABSENCE` definite "no such order" answers, the last of them
`absence_grace_s` after the doubt began. A lookup that fails proves nothing (P4). After "exists"
there is no proof of absence: the decision stays in doubt, where an operator sees it.

`Retries` says how often and how soon "approved again" may be sent again; the table is the same for
each attempt. Before each one after the first the broker is asked (services/placing), and after the
last as well: what was tried as often as it may be goes to in_doubt, and ends only on proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from torghut.domain.lifecycle import DecisionStatus, Reason

MISSES_FOR_ABSENCE = 3
BACKOFF_FIRST_S = 1.0
BACKOFF_CAP_S = 30.0
LOOKUP_FIRST_S = 0.25
LOOKUP_CAP_S = 10.0


class Proof(StrEnum):
    """Everything a submission attempt or a lookup can come to; stored as the attempt's outcome."""

    ACCEPTED = "accepted"
    IN_DOUBT = "in_doubt"
    EXISTS = "exists"
    REFUSED = "refused"
    ACCOUNT_REFUSED = "account_refused"
    RATE_LIMITED = "rate_limited"
    NEVER_LEFT = "never_left"
    NOT_SENT = "not_sent"  # the lookup before a repeated attempt made the POST needless or unsafe
    FOUND = "found"
    ABSENT = "absent"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a decision may be tried at the most (None: until it expires), and the pauses: the
    first, in seconds, and by what each is longer than the one before."""

    attempts_max: int | None = None
    first_s: float = BACKOFF_FIRST_S
    factor: float = 2.0

    def spent(self, attempts: int) -> bool:
        """True if there were as many attempts as there may be."""
        return self.attempts_max is not None and attempts >= self.attempts_max


UNTIL_EXPIRED = Retries()
SENT_AGAIN = frozenset({Proof.ACCOUNT_REFUSED, Proof.RATE_LIMITED, Proof.NEVER_LEFT})
"""What surely left no order; NOT_SENT is not among them: nothing was tried."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next status of the decision, why, and when it may be taken up again."""

    status: DecisionStatus
    reason: Reason
    wait_s: float = 0.0


def after_submit(
    proof: Proof,
    lookup: Proof | None,
    *,
    attempt_no: int,
    wait_s: float,
    retries: Retries = UNTIL_EXPIRED,
) -> Step:
    """The step after a submission attempt.

    `lookup` is what the question that follows `exists` and `refused` (or precedes a repeated
    attempt) came to, None if none was asked. `wait_s` is how long a rate limit lasts.
    """
    if lookup is Proof.FOUND:
        return Step(DecisionStatus.SUBMITTED, Reason.RECOVERED)
    if retries.spent(attempt_no) and proof in SENT_AGAIN:
        return Step(DecisionStatus.IN_DOUBT, Reason.ATTEMPTS_SPENT, LOOKUP_FIRST_S)
    backoff_s = backoff(
        attempt_no, first_s=retries.first_s, cap_s=BACKOFF_CAP_S, factor=retries.factor
    )
    match proof:
        case Proof.ACCEPTED:
            return Step(DecisionStatus.SUBMITTED, Reason.ACCEPTED)
        case Proof.REFUSED if lookup is Proof.ABSENT:
            return Step(DecisionStatus.REJECTED, Reason.REFUSED_BY_BROKER)
        case Proof.ACCOUNT_REFUSED:
            return Step(DecisionStatus.APPROVED, Reason.ACCOUNT_REFUSED, backoff_s)
        case Proof.RATE_LIMITED:
            return Step(DecisionStatus.APPROVED, Reason.RATE_LIMITED, wait_s)
        case Proof.NEVER_LEFT | Proof.NOT_SENT:
            return Step(DecisionStatus.APPROVED, Reason.NEVER_LEFT, backoff_s)
        case _:
            return Step(DecisionStatus.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, LOOKUP_FIRST_S)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Where the settling of one in_doubt decision stands, this lookup not yet counted."""

    since: datetime
    lookups: int
    misses: int
    refused: bool  # the submission itself was refused, only its lookup failed
    expires_at: datetime
    exists: bool = False  # the broker said that it has an order of this id
    spent: bool = False  # it was tried as often as it may be


def after_lookup(proof: Proof, doubt: Doubt, now: datetime, *, absence_grace_s: float) -> Step:
    """The step after asking the broker about an in_doubt decision's client_order_id."""
    if proof is Proof.FOUND:
        return Step(DecisionStatus.SUBMITTED, Reason.RECOVERED)
    graced = now - doubt.since >= timedelta(seconds=absence_grace_s)
    missed_enough = proof is Proof.ABSENT and doubt.misses + 1 >= MISSES_FOR_ABSENCE
    # "must be unique" proves that there is an order: not finding it then proves nothing (P4)
    if missed_enough and graced and not doubt.exists:
        if doubt.refused:
            return Step(DecisionStatus.REJECTED, Reason.REFUSED_BY_BROKER)
        if now >= doubt.expires_at:
            return Step(DecisionStatus.EXPIRED, Reason.OUT_OF_TIME)
        if doubt.spent:
            return Step(DecisionStatus.EXPIRED, Reason.ATTEMPTS_SPENT)
        return Step(DecisionStatus.APPROVED, Reason.PROVEN_ABSENT)
    wait_s = backoff(doubt.lookups + 1, first_s=LOOKUP_FIRST_S, cap_s=LOOKUP_CAP_S)
    return Step(DecisionStatus.IN_DOUBT, Reason.NO_DEFINITE_ANSWER, wait_s)


def backoff(attempt_no: int, *, first_s: float, cap_s: float, factor: float = 2.0) -> float:
    """`first_s`, times `factor` for each attempt after the first, up to `cap_s`; no jitter."""
    return float(min(max(cap_s, first_s), first_s * factor ** min(attempt_no - 1, 20)))
