"""outbox_cursors: what each sink is to be given next, and how far it was given events.

A cursor's window is what its `target` snapshot sees and its `base` does not, worked off in the
order of event_seq; then `target` becomes `base`. torghut/services/relay.py has the proof.

A dump that is restored into another cluster brings transaction numbers that mean nothing there.
`adopt_cursors` notices: what the old `base` had not seen is given, and for what is written from
then on the counting begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from torghut.domain.outbox import OutboxEvent

NOTHING = "1:1:"  # a snapshot that sees no transaction
LAG_COUNTED_MAX = 100_000

EVENT_COLUMNS = """e.event_seq, e.event_id, e.kind, e.schema_version, e.created_at, e.account,
  e.decision_hash, e.actor, e.payload"""

_WINDOW = """e.xact_id >= pg_snapshot_xmin(CAST(:base AS pg_snapshot))
  AND e.xact_id < pg_snapshot_xmax(CAST(:target AS pg_snapshot))
  AND NOT pg_visible_in_snapshot(e.xact_id, CAST(:base AS pg_snapshot))
  AND pg_visible_in_snapshot(e.xact_id, CAST(:target AS pg_snapshot))
  AND e.event_seq > :after"""

_RESTORED = """e.event_seq > :after AND e.event_seq <= :through
  AND NOT pg_visible_in_snapshot(e.xact_id, CAST(:base AS pg_snapshot))"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A sink's position, taken under a lease: `token` is what `record` has to show."""

    sink: str
    token: int
    base: str
    target: str | None
    after_seq: int
    last_seq: int
    restored_base: str | None
    restored_through: int
    failures: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sink cannot be given anything now; not before `wait_s` again."""

    error: str
    wait_s: float


def begin(tx: Connection, sink: str, *, from_now: bool) -> None:
    """Make the sink's cursor if it has none: before all events, or after those there are."""
    tx.execute(
        text("""
        INSERT INTO outbox_cursors (sink, cluster, base)
        SELECT :sink, system_identifier,
          CASE WHEN :from_now THEN pg_current_snapshot() ELSE CAST(:nothing AS pg_snapshot) END
        FROM pg_control_system() ON CONFLICT (sink) DO NOTHING"""),
        {"sink": sink, "from_now": from_now, "nothing": NOTHING},
    )


def adopt_cursors(tx: Connection) -> list[str]:
    """Set up anew the cursors that came with a dump from another cluster; returns their sinks.

    Must be committed before this process writes an event: what is there now came with the dump.
    Only reads where there is nothing to do, as a stand-by or a reader's role allows no more.
    """
    foreign = tx.execute(
        text("""SELECT EXISTS (SELECT 1 FROM outbox_cursors, pg_control_system() AS s
        WHERE cluster <> s.system_identifier)""")
    ).scalar_one()
    if not foreign:
        return []
    rows = tx.execute(
        text("""
        UPDATE outbox_cursors AS c SET cluster = s.system_identifier,
          -- restored twice before the first was worked off: everything once more
          restored_base = CASE WHEN restored_base IS NULL THEN base
                          ELSE CAST(:nothing AS pg_snapshot) END,
          restored_through = (SELECT coalesce(max(event_seq), 0) FROM events),
          base = CAST(:nothing AS pg_snapshot), target = NULL, after_seq = 0, last_seq = 0,
          lease_token = lease_token + 1, lease_until = NULL, retry_at = NULL
        FROM pg_control_system() AS s WHERE c.cluster <> s.system_identifier
        RETURNING c.sink"""),
        {"nothing": NOTHING},
    )
    return sorted(row.sink for row in rows)


def has_work(tx: Connection, sink: str, owner: str) -> bool:
    """True if there may be something to do for the sink, and nobody else is at it. Only reads."""
    found: bool = tx.execute(
        text("""
        SELECT EXISTS (SELECT 1 FROM outbox_cursors c WHERE c.sink = :sink
          AND (c.owner = :owner OR c.lease_until IS NULL OR c.lease_until <= clock_timestamp())
          AND (c.retry_at IS NULL OR c.retry_at <= clock_timestamp())
          AND (c.target IS NOT NULL OR c.restored_base IS NOT NULL
            -- sorted so that the index is what it is read by, whatever the planner takes it for
            OR (SELECT 1 FROM events e
                WHERE e.xact_id >= pg_snapshot_xmin(c.base) AND e.event_seq > c.restored_through
                  AND NOT pg_visible_in_snapshot(e.xact_id, c.base)
                ORDER BY e.xact_id LIMIT 1) IS NOT NULL
            OR EXISTS (SELECT 1 FROM dead_letters d
              WHERE d.sink = c.sink AND d.status = 'retrying')))"""),
        {"sink": sink, "owner": owner},
    ).scalar_one()
    return found


def claim(tx: Connection, sink: str, owner: str, *, ttl_s: float) -> Cursor | None:
    """The cursor, for this owner alone for `ttl_s`; None if another has it or it rests."""
    row = tx.execute(
        text("""
        UPDATE outbox_cursors SET owner = :owner, lease_token = lease_token + 1,
          lease_until = clock_timestamp() + make_interval(secs => :ttl)
        WHERE sink = (
          SELECT sink FROM outbox_cursors WHERE sink = :sink
            AND (owner = :owner OR lease_until IS NULL OR lease_until <= clock_timestamp())
            AND (retry_at IS NULL OR retry_at <= clock_timestamp())
          FOR UPDATE SKIP LOCKED)
        RETURNING sink, lease_token, base::text, target::text, after_seq, last_seq,
          restored_base::text, restored_through, failures"""),
        {"sink": sink, "owner": owner, "ttl": ttl_s},
    ).one_or_none()
    return None if row is None else Cursor(*row)


def page(tx: Connection, cursor: Cursor, *, limit: int) -> list[OutboxEvent]:
    """The next events for the sink, in order; opens a new window where the last is worked off."""
    if cursor.restored_base is not None:
        if found := _restored(tx, cursor, limit):
            return found
        tx.execute(
            text("""UPDATE outbox_cursors SET restored_base = NULL, after_seq = 0
            WHERE sink = :sink"""),
            {"sink": cursor.sink},
        )
    base = cursor.base
    if cursor.target is not None:
        if found := _window(tx, base, cursor.target, cursor.after_seq, cursor.last_seq, limit):
            return found
        base = cursor.target
        tx.execute(
            text("""UPDATE outbox_cursors SET base = target, target = NULL, after_seq = 0,
              last_seq = 0 WHERE sink = :sink"""),
            {"sink": cursor.sink},
        )
    return _open_window(tx, replace(cursor, base=base), limit)


def _open_window(tx: Connection, cursor: Cursor, limit: int) -> list[OutboxEvent]:
    # one statement, one snapshot: what is stored as target is what the rows were seen by
    row = tx.execute(
        text("""
        SELECT pg_current_snapshot()::text AS target, max(e.event_seq) AS last
        FROM events e
        WHERE e.xact_id >= pg_snapshot_xmin(CAST(:base AS pg_snapshot))
          AND NOT pg_visible_in_snapshot(e.xact_id, CAST(:base AS pg_snapshot))
          AND pg_visible_in_snapshot(e.xact_id, pg_current_snapshot())
          AND e.event_seq > :through"""),
        {"base": cursor.base, "through": cursor.restored_through},
    ).one()
    if row.last is None:
        return []
    tx.execute(
        text("""UPDATE outbox_cursors SET target = CAST(:target AS pg_snapshot),
          after_seq = :after, last_seq = :last WHERE sink = :sink"""),
        {
            "sink": cursor.sink,
            "target": row.target,
            "after": cursor.restored_through,
            "last": row.last,
        },
    )
    return _window(tx, cursor.base, row.target, cursor.restored_through, row.last, limit)


def _window(
    tx: Connection, base: str, target: str, after: int, last: int, limit: int
) -> list[OutboxEvent]:
    rows = tx.execute(
        text(f"""SELECT {EVENT_COLUMNS} FROM events e WHERE {_WINDOW} AND e.event_seq <= :last
        ORDER BY e.event_seq LIMIT :limit"""),
        {"base": base, "target": target, "after": after, "last": last, "limit": limit},
    )
    return [event_of(row) for row in rows]


def _restored(tx: Connection, cursor: Cursor, limit: int) -> list[OutboxEvent]:
    rows = tx.execute(
        text(f"""SELECT {EVENT_COLUMNS} FROM events e WHERE {_RESTORED}
        ORDER BY e.event_seq LIMIT :limit"""),
        {
            "base": cursor.restored_base,
            "through": cursor.restored_through,
            "after": cursor.after_seq,
            "limit": limit,
        },
    )
    return [event_of(row) for row in rows]


def record(
    tx: Connection,
    cursor: Cursor,
    *,
    after_seq: int | None,
    delivered: int,
    failure: Failure | None,
    now: datetime,
) -> bool:
    """Store how far the sink was given events; False if another process has the cursor now.

    `after_seq`: up to here they were given or are dead letters; None where nothing was.
    """
    moved = tx.execute(
        text("""
        UPDATE outbox_cursors SET after_seq = coalesce(:after_seq, after_seq),
          delivered = delivered + :delivered,
          delivered_at = CASE WHEN :delivered > 0 THEN :now ELSE delivered_at END,
          failures = CASE WHEN CAST(:error AS text) IS NULL THEN 0
                          WHEN :delivered > 0 THEN 1 ELSE failures + 1 END,
          retry_at = clock_timestamp() + make_interval(secs => :wait),
          last_error = coalesce(:error, last_error),
          last_error_at = CASE WHEN CAST(:error AS text) IS NULL THEN last_error_at ELSE :now END,
          lease_until = NULL
        WHERE sink = :sink AND lease_token = :token"""),
        {
            "sink": cursor.sink,
            "token": cursor.token,
            "after_seq": after_seq,
            "delivered": delivered,
            "error": failure.error if failure else None,
            "wait": failure.wait_s if failure else None,
            "now": now,
        },
    ).rowcount
    return bool(moved)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a sink that was given up had not got: `lag` events, and dead letters dropped with it."""

    lag: int
    dead_letters: int


def forget(tx: Connection, sink: str, *, now: datetime) -> Forgotten | None:
    """Delete the cursor of a sink, and drop its dead letters; None if there is no such cursor or
    a process has it at this moment."""
    free = tx.execute(
        text("""SELECT 1 FROM outbox_cursors WHERE sink = :sink
          AND (lease_until IS NULL OR lease_until <= clock_timestamp()) FOR UPDATE"""),
        {"sink": sink},
    ).one_or_none()
    if free is None:
        return None
    (state,) = states(tx, sink)
    tx.execute(text("DELETE FROM outbox_cursors WHERE sink = :sink"), {"sink": sink})
    dropped = tx.execute(
        text("""UPDATE dead_letters SET status = 'dropped', settled_at = :now
        WHERE sink = :sink AND status IN ('dead', 'retrying')"""),
        {"sink": sink, "now": now},
    ).rowcount
    return Forgotten(state.lag, dropped)


# ---------------------------------------------------------------------- what there is


@dataclass(frozen=True, slots=True)
class SinkState:
    """How a sink stands. `lag` events wait (counted up to LAG_COUNTED_MAX), the oldest since."""

    sink: str
    delivered: int
    delivered_at: datetime | None
    lag: int
    oldest_at: datetime | None
    dead: int
    failures: int
    retry_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    owner: str | None


def states(tx: Connection, sink: str | None = None) -> list[SinkState]:
    """Every sink that ever was given events, or one, by name."""
    rows = tx.execute(
        text("""
        SELECT c.sink, c.delivered, c.delivered_at, c.failures, c.retry_at, c.last_error,
          c.last_error_at, c.base::text, c.target::text, c.after_seq, c.restored_base::text,
          c.restored_through, CASE WHEN c.lease_until > clock_timestamp() THEN c.owner END AS owner,
          (SELECT count(*) FROM dead_letters d
           WHERE d.sink = c.sink AND d.status IN ('dead', 'retrying')) AS dead
        FROM outbox_cursors c
        WHERE CAST(:sink AS text) IS NULL OR c.sink = :sink ORDER BY c.sink"""),
        {"sink": sink},
    ).all()
    return [_state(tx, row) for row in rows]


def _state(tx: Connection, row: Row[Any]) -> SinkState:
    # with the snapshots as values the planner knows how little of `events` is asked for
    lag, oldest_at = tx.execute(
        text("""
        SELECT count(*), min(created_at) FROM (
          SELECT e.created_at FROM events e
          WHERE e.xact_id >= pg_snapshot_xmin(CAST(:base AS pg_snapshot))
            AND e.event_seq > :through
            AND NOT pg_visible_in_snapshot(e.xact_id, CAST(:base AS pg_snapshot))
            AND NOT (CAST(:target AS pg_snapshot) IS NOT NULL AND e.event_seq <= :after
                     AND pg_visible_in_snapshot(e.xact_id, CAST(:target AS pg_snapshot)))
          UNION ALL
          SELECT e.created_at FROM events e
          WHERE CAST(:restored AS pg_snapshot) IS NOT NULL
            AND e.event_seq > :after AND e.event_seq <= :through
            AND NOT pg_visible_in_snapshot(e.xact_id, CAST(:restored AS pg_snapshot))
          LIMIT :max) AS waiting"""),
        {
            "base": row.base,
            "target": row.target,
            "after": row.after_seq,
            "restored": row.restored_base,
            "through": row.restored_through,
            "max": LAG_COUNTED_MAX,
        },
    ).one()
    return SinkState(
        sink=row.sink,
        delivered=row.delivered,
        delivered_at=row.delivered_at,
        lag=lag,
        oldest_at=oldest_at,
        dead=row.dead,
        failures=row.failures,
        retry_at=row.retry_at,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        owner=row.owner,
    )


def notify(tx: Connection, channel: str, payload: str) -> None:
    """Tell whoever listens on a channel of the database, once this is committed."""
    tx.execute(
        text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload}
    )


def event_of(row: Row[Any]) -> OutboxEvent:
    """The event of a row with EVENT_COLUMNS."""
    return OutboxEvent(
        seq=row.event_seq,
        event_id=str(row.event_id),
        kind=row.kind,
        schema_version=row.schema_version,
        occurred_at=row.created_at,
        account=row.account,
        decision_hash=row.decision_hash,
        actor=row.actor,
        payload=row.payload,
    )
