"""Replay: judge stored decisions again, from the facts that were stored with their verdicts.

    risk_verdicts (facts, reservations) + risk_policies ─▶ evaluate ─▶ the same bytes, or not
                                         another policy ─▶ what would have changed

Under its own policy every verdict must come out byte for byte as it was stored: what is stored is
then all that the verdict was made from. What cannot be judged again because it is not there any
more, or cannot be read, came out otherwise as well. Under another policy each decision is judged as
it stood; what a changed verdict would have done to the decisions after it is not worked out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from torghut.domain.risk import evaluate
from torghut.domain.risk_case import Verdict
from torghut.domain.risk_policy import RiskPolicy
from torghut.domain.values import canonical_json
from torghut.storage import verdicts
from torghut.storage.database import Database
from torghut.storage.verdicts import StoredVerdict

APPROVED = "approved"
NO_POLICY = "its policy is not kept"
NO_FACTS = "its facts cannot be read"
NO_VERDICT = "no verdict is kept"
UNJUDGED_MAX = 1_000

_STORED_STEP = Decimal("1e-9")  # of reference_px and notional


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A verdict that came out otherwise: `before`, `after` are a deny reason or "approved", or why
    it could not be judged again."""

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
        if policy is None:
            for stored in verdicts.unjudged(tx, account, since=since, limit=UNJUDGED_MAX):
                _note(done, stored, NO_VERDICT, NO_VERDICT)
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
    before = stored.deny_reason or APPROVED
    facts, reservations, order = stored.facts, stored.reservations, stored.order
    if policy is None or facts is None or reservations is None or order is None:
        if stored.older or not exact:
            done.unreadable += 1
        else:
            _note(done, stored, before, NO_POLICY if policy is None else NO_FACTS)
        return
    verdict = evaluate(
        order,
        policy.limits_for(stored.strategy, order.symbol),
        facts,
        reservations,
        stored.judged_at,
        event_ts=stored.event_ts,
    )
    after = verdict.deny_reason.value if verdict.deny_reason else APPROVED
    done.judged += 1
    done.before[before] += 1
    done.after[after] += 1
    if _equal(stored, verdict) if exact else before == after:
        done.same += 1
        return
    _note(done, stored, before, after)


def _note(done: Replayed, stored: StoredVerdict, before: str, after: str) -> None:
    done.changed.append(
        Changed(
            decision_hash=stored.decision_hash,
            strategy=stored.strategy,
            symbol=stored.symbol,
            judged_at=stored.judged_at,
            before=before,
            after=after,
        )
    )


def _equal(stored: StoredVerdict, verdict: Verdict) -> bool:
    """The outcome, every byte of the checks, the policy, what is reserved for it, and the facts
    being those that were judged."""
    assert stored.facts is not None and stored.reservations is not None
    again = [check.as_json() for check in verdict.checks]
    return (
        canonical_json({"checks": again}) == canonical_json({"checks": list(stored.checks)})
        and verdict.deny_reason == stored.deny_reason
        and _as_stored(verdict.reference_px) == stored.reference_px
        and _as_stored(verdict.notional) == stored.notional
        and verdict.policy_version == stored.policy_version
        and verdicts.facts_id(stored.facts, stored.reservations) == stored.facts_id
    )


def _as_stored(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else amount.quantize(_STORED_STEP, ROUND_HALF_UP)
