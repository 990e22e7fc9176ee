"""An alert becomes a decision, or a row that a person sees.

    alert ─▶ decision JSON (torghut.domain.alerts) ─▶ intake, as any decision
      └────▶ wrong, stale, or in conflict ─▶ the discrepancy `alert_refused`, once per alert

The sender is a chart: nobody reads its answers. So what it sends and cannot be traded stands open
until a person has looked at it, with what was sent, without its secret.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from torghut.domain.alerts import SOURCE, AlertRule, decision_of
from torghut.domain.decisions import Decision, parse_decision
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.services.batch import Accounts
from torghut.storage import discrepancies
from torghut.storage.database import Database

SHOWN_MAX = 2_000
OPEN_MAX = 1_000
_NAME_SHOWN = 12


def read(
    body: Mapping[str, Any],
    rules: Mapping[str, AlertRule],
    *,
    accounts: Accounts,
    now: datetime,
    max_age_s: float,
    ttl: timedelta,
) -> Decision:
    """The decision of an alert. Raises InvalidDecision naming every fault, StaleAlert."""
    data = decision_of(body, rules, now=now, max_age_s=max_age_s, ttl=ttl)
    decision = parse_decision(data, account=accounts.default, ttl=ttl)
    accounts.check(decision)
    return decision


def refuse(
    database: Database, account: str, sent: str, problem: str, *, secret: str, now: datetime
) -> bool:
    """Have a person see what could not be traded; True if it is new. The same text again is the
    same row, while that stands open. Raises DatabaseUnavailable: the sender should try again."""
    shown = _without(sent, secret)
    subject = f"{SOURCE} {hashlib.sha256(shown.encode()).hexdigest()[:_NAME_SHOWN]}"
    evidence = {"problem": problem, "received": shown[:SHOWN_MAX], "received_at": now.isoformat()}
    kind = DiscrepancyKind.ALERT_REFUSED
    with database.transaction() as tx:
        if discrepancies.open_by_kind(tx, account)[kind] >= OPEN_MAX:
            return False
        return discrepancies.open_(tx, account, kind, subject, evidence, actor=SOURCE, now=now)


def _without(sent: str, secret: str) -> str:
    """What was sent, without the secret, whatever way it is written, and without control
    characters."""
    try:
        data = json.loads(sent)
    except ValueError:
        data = None
    if isinstance(data, dict):
        sent = json.dumps({name: data[name] for name in data if name != "secret"})
    shown = sent.replace(secret, "[secret]")
    return "".join(char if char.isprintable() else " " for char in shown)
