"""Replay: judge stored decisions again, from the facts that were stored with their verdicts.

    risk_verdicts (facts, reservations) + risk_policies ─▶ evaluate ─▶ the same bytes, or not
                                         another policy ─▶ what would have changed

Under its own policy every verdict must come out byte for byte as it was stored: what is stored is
then all that the verdict was made from. Under another policy each decision is judged as it stood;
what a changed verdict would have done to the decisions after it is not worked out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from torghut.domain.risk import evaluate
from torghut.domain.risk_case import Verdict
from torghut.domain.risk_policy import RiskPolicy
from torghut.domain.values import canonical_json
from torghut.storage import verdicts
from torghut.storage.database import Database
from torghut.storage.verdicts import StoredVerdict

APPROVED = "approved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A verdict that came out otherwise: `before`, `after` are a deny reason or "approved"."""

    decision_hash: str
    strategy: str
    symbol: str
    judged_at: datetime
    before: str
    after: str


@dataclass(slots=True)
class Replayed:
    """What came of a replay; `unreadable` were stored by a version that kept too few facts."""

    judged: int = 0
    same: int = 0
    unreadable: int = 0
    changed: list[Changed] = field(default_factory=list)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)


def replay(
    database: Database,
    account: str,
    *,
    since: datetime | None,
    policy: RiskPolicy | None,
    on_page: Callable[[int], object] = lambda _count: None,
) -> Replayed:
    """Judge the account's verdicts again, under `policy` or, if it is None, each under its own.

    Raises DatabaseUnavailable.
    """
    done = Replayed()
    known: dict[str, RiskPolicy | None] = {}
    with database.transaction() as tx:
        stored_policies = verdicts.policies(tx)
        for page in verdicts.stored(tx, account, since=since):
            for stored in page:
                version = stored.policy_version
                if version not in known:
                    known[version] = _read(stored_policies.get(version))
                _judge_again(done, stored, policy or known[version], exact=policy is None)
            on_page(len(page))
    return done


def _read(policy: dict[str, object] | None) -> RiskPolicy | None:
    if policy is None:
        return None
    try:
        return RiskPolicy.from_json(policy)
    except ValueError:
        return None


def _judge_again(
    done: Replayed, stored: StoredVerdict, policy: RiskPolicy | None, *, exact: bool
) -> None:
    if policy is None or stored.facts is None or stored.reservations is None:
        done.unreadable += 1
        return
    verdict = evaluate(
        stored.order,
        policy.limits_for(stored.strategy, stored.order.symbol),
        stored.facts,
        stored.reservations,
        stored.judged_at,
        event_ts=stored.event_ts,
    )
    before = stored.deny_reason or APPROVED
    after = verdict.deny_reason.value if verdict.deny_reason else APPROVED
    done.judged += 1
    done.before[before] += 1
    done.after[after] += 1
    if _equal(stored, verdict) if exact else before == after:
        done.same += 1
        return
    done.changed.append(
        Changed(
            decision_hash=stored.decision_hash,
            strategy=stored.strategy,
            symbol=stored.order.symbol,
            judged_at=stored.judged_at,
            before=before,
            after=after,
        )
    )


def _equal(stored: StoredVerdict, verdict: Verdict) -> bool:
    """Every byte of the checks, the policy, and the facts being those that were judged."""
    assert stored.facts is not None and stored.reservations is not None
    again = [check.as_json() for check in verdict.checks]
    return (
        canonical_json({"checks": again}) == canonical_json({"checks": list(stored.checks)})
        and verdict.policy_version == stored.policy_version
        and verdicts.facts_id(stored.facts, stored.reservations) == stored.facts_id
    )
