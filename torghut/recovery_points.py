"""Named instants, from "decision accepted" to "event delivered", at which power may fail.

Each sits on the production path, before or after a commit or a call to the broker. With
`TORGHUT_CRASH_AT=<name>[:<n>]` the process kills itself with SIGKILL when it comes by for the
n-th time (default first), so that a test can show what the next start sees. Live mode refuses
the setting; without it a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum


class RecoveryPoint(StrEnum):
    """Every point; the crash tests run through all of them."""

    INTAKE_BEFORE_COMMIT = "intake.before_commit"
    INTAKE_AFTER_COMMIT = "intake.after_commit"
    STREAM_BEFORE_ACK = "stream.before_ack"
    STREAM_AFTER_ACK = "stream.after_ack"
    CLAIM_BEFORE_COMMIT = "claim.before_commit"
    CLAIM_AFTER_COMMIT = "claim.after_commit"
    SUBMIT_BEFORE_CALL = "submit.before_call"
    SUBMIT_AFTER_CALL = "submit.after_call"
    CHECK_BEFORE_CALL = "check.before_call"
    CHECK_AFTER_CALL = "check.after_call"
    OUTCOME_BEFORE_COMMIT = "outcome.before_commit"
    OUTCOME_AFTER_COMMIT = "outcome.after_commit"
    SWEEP_BEFORE_COMMIT = "sweep.before_commit"
    SWEEP_AFTER_COMMIT = "sweep.after_commit"
    SETTLE_BEFORE_CALL = "settle.before_call"
    SETTLE_AFTER_CALL = "settle.after_call"
    SETTLE_BEFORE_COMMIT = "settle.before_commit"
    SETTLE_AFTER_COMMIT = "settle.after_commit"
    RECONCILE_BEFORE_COMMIT = "reconcile.before_commit"
    RECONCILE_AFTER_COMMIT = "reconcile.after_commit"
    REQUEST_BEFORE_COMMIT = "request.before_commit"
    REQUEST_AFTER_COMMIT = "request.after_commit"
    ACTION_BEFORE_COMMIT = "action.before_commit"
    ACTION_AFTER_COMMIT = "action.after_commit"
    ACTION_BEFORE_CALL = "action.before_call"
    ACTION_AFTER_CALL = "action.after_call"
    ACTION_BEFORE_OUTCOME = "action.before_outcome"
    ACTION_AFTER_OUTCOME = "action.after_outcome"
    ACTION_BEFORE_SWEEP = "action.before_sweep"
    ACTION_AFTER_SWEEP = "action.after_sweep"
    FLATTEN_BEFORE_COMMIT = "flatten.before_commit"
    FLATTEN_AFTER_COMMIT = "flatten.after_commit"
    SAGA_AFTER_BEGIN = "saga.after_begin"
    SAGA_AFTER_CALL = "saga.after_call"
    SAGA_BEFORE_COMMIT = "saga.before_commit"
    SAGA_AFTER_COMMIT = "saga.after_commit"
    PLAN_BEFORE_COMMIT = "plan.before_commit"
    PLAN_AFTER_COMMIT = "plan.after_commit"
    RELAY_BEFORE_PUBLISH = "relay.before_publish"
    RELAY_AFTER_PUBLISH = "relay.after_publish"
    RELAY_BEFORE_COMMIT = "relay.before_commit"
    RELAY_AFTER_COMMIT = "relay.after_commit"


_armed: str | None = None
_passes_left = 0


def arm(setting: str | None) -> None:
    """Read `<name>[:<n>]`; None disarms. Raises ValueError for an unknown point."""
    global _armed, _passes_left
    if not setting:
        _armed = None
        return
    name, _, count = setting.partition(":")
    _armed = RecoveryPoint(name).value
    _passes_left = int(count or 1)


def reached(point: RecoveryPoint) -> None:
    """Power fails here if this is the armed point."""
    global _passes_left
    if _armed is None or point.value != _armed:
        return
    _passes_left -= 1
    if _passes_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
