"""The floor: the least SQL that any program could run for it, with one connection and no objects.

    INSERT … SELECT FROM unnest … ON CONFLICT DO NOTHING                       one commit per batch
    SELECT … FOR UPDATE SKIP LOCKED, then verdicts + intents + status          one commit per batch
    executions + events + status                                               one commit per batch

Arrays go in the binary form (`%b`): as text, the client would escape every quotation mark of the
JSON in them, which takes more than twice as long as all the rest of an intake.

It judges nothing, keeps no fence, no lease, no history and no check of a status. Nothing that does
what Torghut does can be as fast; how near one comes says what the rest costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import LiteralString

import psycopg

from tests.bench.peers import work
from tests.bench.peers.entrant import BATCH, SAMPLES, Race, batches, main, singly

_TABLES = """
CREATE TABLE decisions (
  decision_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  decision_hash text NOT NULL UNIQUE,
  payload       jsonb NOT NULL,
  status        text NOT NULL DEFAULT 'planned',
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 80);
CREATE INDEX decisions_due ON decisions (decision_id) WHERE status = 'planned';
"""

_INSERT: LiteralString = """
INSERT INTO decisions (decision_hash, payload)
SELECT hash, payload::jsonb FROM unnest(%(hashes)b::text[], %(payloads)b::text[]) n (hash, payload)
ON CONFLICT DO NOTHING RETURNING decision_hash
"""

_CLAIM: LiteralString = """
SELECT decision_id, decision_hash, payload::text FROM decisions
WHERE status = 'planned' ORDER BY decision_id LIMIT %s FOR UPDATE SKIP LOCKED
"""

_INTEND: LiteralString = """
WITH verdict AS (
  INSERT INTO verdicts (decision_hash, outcome)
  SELECT unnest(%(hashes)b::text[]), 'approved'
), intent AS (
  INSERT INTO intents (decision_hash, order_sent)
  SELECT hash, sent::jsonb FROM unnest(%(hashes)b::text[], %(orders)b::text[]) n (hash, sent)
)
UPDATE decisions SET status = 'submitting' WHERE decision_id = ANY(%(ids)b::bigint[])
"""

_FINISH: LiteralString = """
WITH execution AS (
  INSERT INTO executions (client_order_id, broker_order_id, status)
  SELECT * FROM unnest(%(hashes)b::text[], %(orders)b::text[], %(statuses)b::text[])
), event AS (
  INSERT INTO outbox (decision_hash, kind, payload)
  SELECT hash, 'order.submitted', payload::jsonb
  FROM unnest(%(hashes)b::text[], %(events)b::text[]) n (hash, payload)
)
UPDATE decisions SET status = 'submitted' WHERE decision_id = ANY(%(ids)b::bigint[])
"""


def _insert(cursor: psycopg.Cursor[tuple[str]], rows: Sequence[tuple[str, str]]) -> int:
    """How many of the rows were new."""
    hashes, payloads = [hash_ for hash_, _ in rows], [payload for _, payload in rows]
    cursor.execute(_INSERT, {"hashes": hashes, "payloads": payloads})
    return len(cursor.fetchall())


def _claim(cursor: psycopg.Cursor[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """The next batch, its intent committed."""
    with cursor.connection.transaction():
        due = cursor.execute(_CLAIM, [BATCH]).fetchall()
        if due:
            ids, hashes, payloads = zip(*due, strict=True)
            sent = {"ids": list(ids), "hashes": list(hashes), "orders": list(payloads)}
            cursor.execute(_INTEND, sent)
    return due


def _finish(cursor: psycopg.Cursor[object], due: Sequence[tuple[int, str, str]]) -> None:
    hashes = [hash_ for _, hash_, _ in due]
    orders, statuses = zip(*map(work.submit, hashes), strict=True)
    events = list(map(work.event_of, orders, statuses))
    cursor.execute(
        _FINISH,
        {
            "ids": [decision_id for decision_id, _, _ in due],
            "hashes": hashes,
            "orders": list(orders),
            "statuses": list(statuses),
            "events": events,
        },
    )


def _connect(race: Race) -> psycopg.Cursor[tuple[object, ...]]:
    race.connection.execute(_TABLES + work.TABLES)
    connection = psycopg.connect(race.url, autocommit=True)
    return connection.cursor()


def intake(race: Race) -> Mapping[str, float]:
    """Batches of new decisions, then the same batches again."""
    cursor = _connect(race)
    rows = work.decisions(race.count)
    with race.window() as fresh:
        created = sum(_insert(cursor, some) for some in batches(rows))
    with race.window() as again:
        created_again = sum(_insert(cursor, some) for some in batches(rows))
    with race.window() as once_more:
        created_again += sum(_insert(cursor, some) for some in batches(rows))
    assert (created, created_again) == (race.count, 0)
    race.expect(decisions=race.count)
    return race.intake(race.count, fresh) | race.duplicates(race.count, again, once_more)


def path(race: Race) -> Mapping[str, float]:
    """Everything that waits, in batches."""
    cursor = _connect(race)
    for some in batches(work.decisions(race.count)):
        _insert(cursor, some)
    race.connection.execute("ANALYZE")
    with race.window() as window:
        while due := _claim(cursor):
            _finish(cursor, due)
    race.expect(**{"decisions WHERE status = 'submitted'": race.count})
    return race.path(window)


def latency(race: Race) -> Mapping[str, float]:
    """A worker that sleeps until it is notified."""
    sender = _connect(race)
    started: dict[str, float] = {}
    arrived, stopping = threading.Event(), threading.Event()

    def worker() -> None:
        with psycopg.connect(race.url, autocommit=True) as ears:
            ears.execute("LISTEN due")
            listening.set()
            cursor = psycopg.connect(race.url, autocommit=True).cursor()
            while not stopping.is_set():
                for _ in ears.notifies(timeout=0.5, stop_after=1):
                    for _, hash_, _ in (due := _claim(cursor)):
                        started[hash_] = time.perf_counter()
                        arrived.set()
                    if due:
                        _finish(cursor, due)

    def send(hash_: str, payload: str) -> None:
        _insert(sender, [(hash_, payload)])
        sender.execute("NOTIFY due")

    listening = threading.Event()
    thread = threading.Thread(target=worker)
    thread.start()
    listening.wait()
    began = singly(work.decisions(SAMPLES), send, started, arrived)
    stopping.set()
    thread.join()
    race.expect_work(len(began))
    return race.latency(began, started)


if __name__ == "__main__":
    main({"intake": intake, "path": path, "latency": latency})
