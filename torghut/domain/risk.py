"""Pre-trade risk: `evaluate(request, limits, facts, reservations, now) → Verdict`, pure.

Every check runs, and all of them are in the verdict with measured value, limit, unit and where the
limit came from; the first failed reason of `DenyReason` names it. A check whose facts are missing
fails as `facts_unavailable` (fail closed, P7); a limit that is off passes and shows no limit.

    risk_case      sizes, prices and positions, worst case, worked out once
    risk_checks    standing · order · exposure · pace · account, each a list of checks

An order that only closes, with everything in flight counted, needs no quote and is not kept back
by a loss, by what is held already, or by a discrepancy: reducing risk stays possible when entering
is not (P11). Limits on its size, where that can be measured, and on the number of orders hold for
it as for any other, unless a person sends it (close, flatten).

Exposure counts filled + open + submitting + in doubt, each at the worse of our ledger and the
broker's snapshot. `Reservations` holds what other decisions may still turn into; a decision's
own row is never in it, because it is only counted once it is `submitting` (story 39).
"""

from __future__ import annotations

from datetime import datetime

from torghut.domain import risk_checks
from torghut.domain.deny_reasons import PRECEDENCE
from torghut.domain.exposure import Facts, Reservations
from torghut.domain.limits import Limits
from torghut.domain.orders import OrderRequest
from torghut.domain.risk_case import Case, Checks, Verdict


def evaluate(
    request: OrderRequest,
    limits: Limits,
    facts: Facts,
    reservations: Reservations,
    now: datetime,
    *,
    event_ts: datetime,
) -> Verdict:
    """Judge one order. Pure: the same arguments give the same verdict, byte for byte."""
    case = Case(request, facts, reservations, now, event_ts)
    checks = Checks(limits)
    risk_checks.standing(checks, case)
    risk_checks.order(checks, case)
    risk_checks.exposure(checks, case)
    risk_checks.pace(checks, case)
    risk_checks.account(checks, case)
    failed = checks.failed
    return Verdict(
        deny_reason=min(failed, key=PRECEDENCE.__getitem__) if failed else None,
        made=tuple(checks.made),
        policy_version=limits.policy_version,
        reference_px=case.price,
        size_qty=case.size,
        notional=case.cost,
    )
