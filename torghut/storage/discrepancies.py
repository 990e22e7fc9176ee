"""discrepancies: differences between our books and the broker's, with evidence (P12).

`open_` shows one, `renew` brings its evidence up to date, `end` closes it with the reason why, and
`resolve` because a person says so. One stands open per (account, kind, subject): opening it again
changes nothing. Each change brings its event in the same transaction (P9).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from torghut import telemetry
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.events import Event, EventKind
from torghut.storage import control
from torghut.storage.database import after_commit

SEEN_EVERY = timedelta(minutes=1)
LEFT_OUT_MAX = 5

LEFT_OUT = (DiscrepancyKind.UNREADABLE_ROW, DiscrepancyKind.CANNOT_BE_BOOKED)

Key = tuple[DiscrepancyKind, str]


@dataclass(frozen=True, slots=True)
class OpenDiscrepancy:
    """A discrepancy that is open."""

    discrepancy_id: int
    kind: DiscrepancyKind
    subject: str
    evidence: Mapping[str, Any]


def open_(
    tx: Connection,
    account: str,
    kind: DiscrepancyKind,
    subject: str,
    evidence: Mapping[str, object],
    *,
    actor: str,
    now: datetime,
) -> bool:
    """Make a difference visible; True if it is new, False if it already stands open."""
    opened = tx.execute(
        text("""
        INSERT INTO discrepancies (account, kind, subject, evidence, opened_at, seen_at)
        VALUES (:account, :kind, :subject, CAST(:evidence AS jsonb), :now, :now)
        ON CONFLICT (account, kind, subject) WHERE resolved_at IS NULL
        DO NOTHING RETURNING discrepancy_id"""),
        {
            "account": account,
            "kind": kind.value,
            "subject": subject,
            "evidence": json.dumps(dict(evidence), default=str),
            "now": now,
        },
    ).scalar_one_or_none()
    if opened is None:
        return False
    payload = {"kind": kind.value, "subject": subject, **evidence}
    event = Event(EventKind.DISCREPANCY_OPENED, actor, account=account, payload=payload)
    control.add_events(tx, [event], now=now)
    after_commit(tx, telemetry.DISCREPANCIES_OPENED.labels(kind.value).inc)
    return True


def open_by_kind(tx: Connection, account: str) -> dict[DiscrepancyKind, int]:
    """How many stand open, of every kind."""
    rows = tx.execute(
        text("""SELECT kind, count(*) AS n FROM discrepancies
        WHERE account = :account AND resolved_at IS NULL GROUP BY kind"""),
        {"account": account},
    )
    counted = {DiscrepancyKind(row.kind): int(row.n) for row in rows}
    return {kind: counted.get(kind, 0) for kind in DiscrepancyKind}


def unbooked_fills(tx: Connection, account: str) -> int:
    """How many listed fills stand open because their orders are not to be had."""
    found: int = tx.execute(
        text("""SELECT count(*) FROM discrepancies WHERE account = :account
        AND kind = :kind AND evidence ->> 'what' = 'fill' AND resolved_at IS NULL"""),
        {"account": account, "kind": DiscrepancyKind.CANNOT_BE_BOOKED.value},
    ).scalar_one()
    return found


def seen(tx: Connection, account: str, kind: DiscrepancyKind, subject: str) -> bool:
    """True if this difference stands open or ever did."""
    found = tx.execute(
        text("""SELECT EXISTS (SELECT 1 FROM discrepancies
        WHERE account = :account AND kind = :kind AND subject = :subject)"""),
        {"account": account, "kind": kind.value, "subject": subject},
    ).scalar_one()
    return bool(found)


def standing(
    tx: Connection, account: str, kinds: Sequence[DiscrepancyKind]
) -> dict[Key, OpenDiscrepancy]:
    """(kind, subject) → what stands open of these kinds."""
    rows = tx.execute(
        text("""SELECT discrepancy_id, kind, subject, evidence FROM discrepancies
        WHERE account = :account AND resolved_at IS NULL AND kind = ANY(CAST(:kinds AS text[]))"""),
        {"account": account, "kinds": [kind.value for kind in kinds]},
    )
    found = [
        OpenDiscrepancy(row.discrepancy_id, DiscrepancyKind(row.kind), row.subject, row.evidence)
        for row in rows
    ]
    return {(one.kind, one.subject): one for one in found}


def renew(
    tx: Connection, one: OpenDiscrepancy, evidence: Mapping[str, object], *, now: datetime
) -> None:
    """Bring the evidence of an open discrepancy up to date; once a minute it is seen again."""
    tx.execute(
        text("""
        UPDATE discrepancies SET evidence = CAST(:evidence AS jsonb), seen_at = :now
        WHERE discrepancy_id = :id AND resolved_at IS NULL
          AND (evidence <> CAST(:evidence AS jsonb) OR seen_at < :stale)"""),
        {
            "id": one.discrepancy_id,
            "evidence": json.dumps(dict(evidence), default=str),
            "now": now,
            "stale": now - SEEN_EVERY,
        },
    )


def end(
    tx: Connection,
    account: str,
    kinds: Sequence[DiscrepancyKind],
    subjects: Sequence[str],
    *,
    resolution: str,
    actor: str,
    now: datetime,
) -> int:
    """Close what stands open of these kinds about `subjects`; how many that were."""
    rows = tx.execute(
        text("""
        UPDATE discrepancies SET resolved_at = :now, resolution = :resolution
        WHERE account = :account AND kind = ANY(CAST(:kinds AS text[])) AND resolved_at IS NULL
          AND subject = ANY(CAST(:subjects AS text[]))
        RETURNING account, kind, subject"""),
        {
            "account": account,
            "kinds": [kind.value for kind in kinds],
            "subjects": list(subjects),
            "resolution": resolution,
            "now": now,
        },
    ).all()
    return _report(tx, rows, resolution, actor=actor, now=now)


def end_late_orders(
    tx: Connection, account: str, *, resolution: str, actor: str, now: datetime
) -> int:
    """Close `order_after_end` where every order of the decision has ended and none was filled.

    One that was replaced by an order that we do not know yet has not ended. What was filled moved
    money, and stays until a person has seen it.
    """
    rows = tx.execute(
        text("""
        UPDATE discrepancies d SET resolved_at = :now, resolution = :resolution
        WHERE d.account = :account AND d.kind = :kind AND d.resolved_at IS NULL
          AND (SELECT bool_and(e.terminal AND e.cum_qty = 0 AND (e.replaced_by IS NULL OR EXISTS
              (SELECT 1 FROM executions s WHERE s.broker_order_id = e.replaced_by)))
            FROM trade_decisions t JOIN executions e USING (decision_id)
            WHERE t.decision_hash = d.subject)
        RETURNING d.account, d.kind, d.subject"""),
        {
            "account": account,
            "kind": DiscrepancyKind.ORDER_AFTER_END.value,
            "resolution": resolution,
            "now": now,
        },
    ).all()
    return _report(tx, rows, resolution, actor=actor, now=now)


def left_out(
    tx: Connection, account: str, what: str, *, before: datetime, after: int
) -> dict[str, int]:
    """What our books lack since `before`, because it could not be read or booked: subject →
    discrepancy_id, in turn: those beyond `after`, then from the first, LEFT_OUT_MAX at the most.
    `what`: "order", "fill" or "entry".
    """
    rows = tx.execute(
        text("""SELECT subject, discrepancy_id FROM discrepancies
        WHERE account = :account AND resolved_at IS NULL AND opened_at <= :before
          AND kind = ANY(CAST(:kinds AS text[])) AND evidence ->> 'what' = :what
        ORDER BY discrepancy_id <= :after, discrepancy_id LIMIT :limit"""),
        {
            "account": account,
            "kinds": [kind.value for kind in LEFT_OUT],
            "what": what,
            "before": before,
            "after": after,
            "limit": LEFT_OUT_MAX,
        },
    )
    return {row.subject: row.discrepancy_id for row in rows}


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One discrepancy, open or not; `kind` may be of a later version."""

    discrepancy_id: int
    account: str
    kind: str
    subject: str
    resolution: str | None


def locked(tx: Connection, discrepancy_id: int) -> Discrepancy | None:
    """One discrepancy, held until the transaction ends; None if there is none of this id."""
    row = tx.execute(
        text("""SELECT discrepancy_id, account, kind, subject, resolution FROM discrepancies
        WHERE discrepancy_id = :id FOR UPDATE"""),
        {"id": discrepancy_id},
    ).one_or_none()
    return None if row is None else Discrepancy(**row._mapping)


def resolve(
    tx: Connection, discrepancy_id: int, *, resolution: str, actor: str, now: datetime
) -> bool:
    """Close one by its id; False if it is not open."""
    rows = tx.execute(
        text("""UPDATE discrepancies SET resolved_at = :now, resolution = :resolution
        WHERE discrepancy_id = :id AND resolved_at IS NULL RETURNING account, kind, subject"""),
        {"id": discrepancy_id, "resolution": resolution, "now": now},
    ).all()
    return _report(tx, rows, resolution, actor=actor, now=now) == 1


def _report(
    tx: Connection, rows: Sequence[Row[Any]], resolution: str, *, actor: str, now: datetime
) -> int:
    events = [
        Event(
            EventKind.DISCREPANCY_CLOSED,
            actor,
            account=row.account,
            payload={"kind": row.kind, "subject": row.subject, "resolution": resolution},
        )
        for row in rows
    ]
    control.add_events(tx, events, now=now)
    return len(rows)
