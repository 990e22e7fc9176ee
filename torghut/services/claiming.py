"""Claiming: the one transaction in which decisions are judged and the intent to send is written.

    fence · lock due rows ─▶ expire ─▶ hold (market closed) ─▶ judge ─▶ denied
                       │                                          └──▶ approved ─▶ submitting
                       └─▶ its order is in the books already ─▶ submitted

Runs inside the executor's transaction (step 2 of its protocol) and leaves committing to it. The
rows are locked and the lease is held, so every step below must move: anything else is a defect.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from torghut import telemetry
from torghut.config import Settings
from torghut.domain.events import Event, EventKind
from torghut.domain.exposure import TradingState
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.risk_case import Verdict
from torghut.domain.risk_policy import RiskPolicy
from torghut.services import found_orders, risk_engine
from torghut.services.limit_reload import PolicyInForce
from torghut.services.placing import Claim
from torghut.services.risk_engine import FACTS_RETRY_S, Judged, Outside
from torghut.services.session_gate import SessionGate
from torghut.storage import attempts, control, decisions, executions, verdicts
from torghut.storage.attempts import Intent
from torghut.storage.control import TradingStates
from torghut.storage.database import after_commit
from torghut.storage.decisions import Advance
from torghut.storage.rows import DecisionRow, Lease

ACTOR = "executor"
CLAIMED = (DecisionStatus.PLANNED, DecisionStatus.APPROVED)


class Claimer:
    """Judges and claims decisions of one account."""

    def __init__(self, account: str, policy: PolicyInForce, settings: Settings) -> None:
        self._account = account
        self._policy = policy
        self._settings = settings
        self._policy_kept = ""  # version of the policy that was seen in the database

    def wants(self, *names: str) -> bool:
        """True if one of these limits is on: its facts are needed for the next claim."""
        return self._policy.current.uses(*names)

    def claim(
        self,
        tx: Connection,
        lease: Lease,
        outside: Outside,
        *,
        limit: int,
        room: int,
        now: datetime,
    ) -> tuple[list[Claim], int]:
        """Judge up to `limit` due decisions, oldest first, and claim at most `room` of them;
        returns the claims and how many were seen.

        Without leave to submit (halted, shadow mode) decisions are judged and not claimed; of a
        halted strategy likewise.
        """
        states = control.trading_states(tx, self._account, lock=True)
        submitting = self._settings.trading_enabled and states.account[0] is not TradingState.HALTED
        statuses = CLAIMED if submitting else CLAIMED[:1]
        rows = decisions.claim(
            tx, self._account, statuses, resting=states.halted(), now=now, limit=limit
        )
        unsent = self._settle_found(tx, rows, lease, now)
        live = self._hold(tx, self.expire(tx, unsent, lease, now), outside.sessions, lease, now)
        policy = self._policy.current
        self._keep(tx, policy, now)
        judged = risk_engine.judge(
            tx,
            self._account,
            live,
            outside,
            policy,
            states,
            room=room,
            settings=self._settings,
            now=now,
        )
        approved = self._write_verdicts(tx, judged, lease, now)
        claims = self._write_intents(tx, approved, states, lease, now) if submitting else []
        return claims, len(rows)

    def _keep(self, tx: Connection, policy: RiskPolicy, now: datetime) -> None:
        """Store the policy that verdicts will name; what an earlier claim committed is enough."""
        if policy.version == self._policy_kept:
            return
        if verdicts.has_policy(tx, policy.version):
            self._policy_kept = policy.version
        else:
            verdicts.add_policy(tx, policy.version, policy.text, now=now)

    def _settle_found(
        self, tx: Connection, rows: list[DecisionRow], lease: Lease, now: datetime
    ) -> list[DecisionRow]:
        """Settle the locked decisions whose order exists, as after a restored backup; returns the
        others. What is at the broker can neither expire nor be denied, and is never sent again."""
        known = executions.existing(tx, [row.decision_hash for row in rows])
        for row in rows:
            if row.decision_hash in known:
                found_orders.settle_booked(tx, row, actor=ACTOR, lease=lease, now=now)
                after_commit(tx, telemetry.DUPLICATES.labels("books").inc)
        return [row for row in rows if row.decision_hash not in known]

    def expire(
        self, tx: Connection, rows: list[DecisionRow], lease: Lease, now: datetime
    ) -> list[DecisionRow]:
        """End the locked decisions whose time is over; returns the others."""
        over = [row for row in rows if row.expires_at <= now]
        steps = [
            _step(
                row,
                DecisionStatus.EXPIRED,
                Reason.OUT_OF_TIME.value,
                now,
                _out_of_time(row),
            )
            for row in over
        ]
        self._advance(tx, steps, lease, now)
        events = [
            self._event(EventKind.DECISION_EXPIRED, row, reason=Reason.OUT_OF_TIME.value)
            for row in over
        ]
        control.add_events(tx, events, now=now)
        return [row for row in rows if row.expires_at > now]

    def _hold(
        self,
        tx: Connection,
        rows: list[DecisionRow],
        sessions: SessionGate,
        lease: Lease,
        now: datetime,
    ) -> list[DecisionRow]:
        """Policy `hold`: put off what the closed market would keep waiting at the broker."""
        opens = {row.decision_id: sessions.held_until(row) for row in rows}
        held = {id_: at for id_, at in opens.items() if at is not None}
        steps = [
            Advance(
                decision_id=row.decision_id,
                before=row.status,
                after=row.status,
                reason=Reason.MARKET_CLOSED.value,
                detail=f"held until {held[row.decision_id]:%Y-%m-%d %H:%M} UTC",
                due_at=min(held[row.decision_id], row.expires_at),
            )
            for row in rows
            if row.decision_id in held
        ]
        self._advance(tx, steps, lease, now)
        return [row for row in rows if row.decision_id not in held]

    def _write_verdicts(
        self, tx: Connection, judged: list[Judged], lease: Lease, now: datetime
    ) -> list[Judged]:
        steps: list[Advance] = []
        events: list[Event] = []
        approved: list[Judged] = []
        for item in judged:
            row, verdict = item.row, item.verdict
            if verdict is not None and verdict.approved:
                approved.append(item)
                if row.status is DecisionStatus.PLANNED:
                    steps.append(_step(row, DecisionStatus.APPROVED, None, now))
                    events.append(self._event(EventKind.DECISION_APPROVED, row))
                continue
            if verdict is None:
                due_at = now + timedelta(seconds=FACTS_RETRY_S)
                steps.append(_step(row, row.status, Reason.FACTS_AWAITED.value, due_at))
                continue
            assert verdict.deny_reason is not None
            reason = verdict.deny_reason.value
            if row.status is DecisionStatus.PLANNED:
                detail = told(verdict)
                steps.append(_step(row, DecisionStatus.DENIED, reason, now, detail))
                kind = EventKind.DECISION_DENIED
            else:
                detail = f"{Reason.RISK_CHANGED}: {told(verdict)}"
                steps.append(_step(row, DecisionStatus.CANCELED, reason, now, detail))
                kind = EventKind.DECISION_CANCELED
            events.append(self._event(kind, row, reason=reason))
        self._advance(tx, steps, lease, now)
        control.add_events(tx, events, now=now)
        return approved

    def _write_intents(
        self,
        tx: Connection,
        approved: list[Judged],
        states: TradingStates,
        lease: Lease,
        now: datetime,
    ) -> list[Claim]:
        rows = [item.row for item in approved]
        counted = {item.row.decision_id for item in approved if item.counted_today}
        claims = [
            Claim(
                row,
                row.attempts + 1,
                check_first=row.attempts > 0,
                fencing_token=lease.fencing_token,
                state=states.of(row.strategy)[0],
                claimed_at=now,
            )
            for row in rows
        ]
        steps = [
            Advance(
                decision_id=row.decision_id,
                before=DecisionStatus.APPROVED,
                after=DecisionStatus.SUBMITTING,
                reason=None,
                due_at=now,
                since=now if row.status is DecisionStatus.PLANNED else row.stage_began,
            )
            for row in rows
        ]
        self._advance(tx, steps, lease, now)
        intents = [
            Intent(
                decision_id=claim.row.decision_id,
                attempt_no=claim.attempt_no,
                client_order_id=claim.row.decision_hash,
                order_sent=claim.row.order.payload(),
                strategy=claim.row.strategy,
                counted_today=claim.row.decision_id in counted,
            )
            for claim in claims
        ]
        attempts.add_intents(
            tx,
            self._account,
            intents,
            token=lease.fencing_token,
            day=risk_engine.day_start(now).date(),
            now=now,
        )
        started = [
            self._event(EventKind.SUBMIT_STARTED, c.row, attempt_no=c.attempt_no) for c in claims
        ]
        control.add_events(tx, started, now=now)
        return claims

    def _advance(self, tx: Connection, steps: list[Advance], lease: Lease, now: datetime) -> None:
        moved = decisions.advance(tx, steps, token=lease.fencing_token, now=now)
        if moved != {step.decision_id for step in steps}:
            raise AssertionError("a decision moved although this transaction holds its row")

    def _event(self, kind: EventKind, row: DecisionRow, **payload: object) -> Event:
        return Event(kind, ACTOR, self._account, row.decision_hash, payload)


def told(verdict: Verdict) -> str:
    """The check that named a denial, in one line."""
    assert verdict.deny_reason is not None
    failed = verdict.failed(verdict.deny_reason)
    assert failed is not None
    check = failed.as_json()
    line = f"{check['name']}: {check['measured']}, limit {check['limit']} {check['unit']}"
    return line.rstrip()[:500]


def _out_of_time(row: DecisionRow) -> str:
    ended = f"its time ended {row.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    if not row.attempts:
        return f"{ended}, before it was sent"
    return f"{ended}; sent {row.attempts} times, and each time surely without an order"


def _step(
    row: DecisionRow,
    after: DecisionStatus,
    reason: str | None,
    due_at: datetime,
    detail: str | None = None,
) -> Advance:
    return Advance(
        decision_id=row.decision_id,
        before=row.status,
        after=after,
        reason=reason,
        detail=detail,
        due_at=due_at,
        since=row.stage_began,
    )
