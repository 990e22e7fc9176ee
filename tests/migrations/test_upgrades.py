"""Every schema with data comes to the newest one, and the version before goes on working on it.

What docs/upgrading.md says: migrations only expand; a daemon of an older version keeps on while the
new one starts; a schema from the future is refused with what to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, sql

from tests.end_to_end.user import User, one_line
from tests.migrations.contract import WRITES
from tests.migrations.test_schema import plain
from torghut.storage import migrate

REVISIONS = [script.revision for script in migrate._scripts().walk_revisions()][::-1]
COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
  a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS wanted
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
  AND NOT a.attisdropped AND c.relname <> 'alembic_version'"""
NOT_VALID = "SELECT conname FROM pg_constraint WHERE NOT convalidated"
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"

Columns = dict[tuple[str, str], tuple[str, bool]]


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[Connection[tuple[object, ...]]]:
    with psycopg.connect(plain(empty_database_url), autocommit=True) as connection:
        yield connection


def columns(connection: Connection[tuple[object, ...]]) -> Columns:
    """(table, column) → (type, an INSERT has to name it)."""
    rows = connection.execute(COLUMNS).fetchall()
    return {(str(r[0]), str(r[1])): (str(r[2]), bool(r[3])) for r in rows}


def contract_faults(old: Columns, new: Columns) -> list[str]:
    """What statements of the old schema would stumble over on the new one."""
    found = [
        f"{table}.{column} was {kind}, is {new.get((table, column), ('gone',))[0]}"
        for (table, column), (kind, _) in old.items()
        if new.get((table, column), ("", False))[0] != kind
    ]
    tables = {table for table, _ in old}
    return found + [
        f"{table}.{column} is new and an old INSERT does not name it"
        for (table, column), (_, wanted) in new.items()
        if wanted and table in tables and not old.get((table, column), ("", False))[1]
    ]


def write(connection: Connection[tuple[object, ...]], revision: str, n: int) -> None:
    """What the version of `revision` writes, from a decision to its end."""
    values = {"n": n, "hash": hashlib.sha256(str(n).encode()).hexdigest()}
    for known in REVISIONS[: REVISIONS.index(revision) + 1]:
        for statement in WRITES.get(known, ()):
            done = connection.execute(statement.encode(), values)
            assert done.rowcount == 1, statement


def read(connection: Connection[tuple[object, ...]], known: Columns) -> dict[str, object]:
    """Every column of an older schema; a digest of the rows by table."""
    found: dict[str, object] = {}
    for table in sorted({table for table, _ in known}):
        names = sql.SQL(", ").join(sql.Identifier(c) for t, c in sorted(known) if t == table)
        query = sql.SQL("SELECT md5(string_agg(r::text, '|' ORDER BY r::text)) FROM "
                        "(SELECT {} FROM {}) r").format(names, sql.Identifier(table))  # fmt: skip
        found[table] = connection.execute(query).fetchone()
    return found


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_schema_with_data_comes_to_the_newest(
    revision: str, empty_database_url: str, connection: Connection[tuple[object, ...]]
) -> None:
    """Nothing of the data changes, and the old version's reads and writes go on."""
    migrate.upgrade(empty_database_url, to=revision)
    for n in (1, 2):
        write(connection, revision, n)
    old = columns(connection)
    before = read(connection, old)
    came_from, head = migrate.upgrade(empty_database_url)
    assert (came_from, head) == (revision, REVISIONS[-1])
    assert read(connection, old) == before
    assert contract_faults(old, columns(connection)) == []
    write(connection, revision, 3)
    write(connection, head, 4)
    assert connection.execute("SELECT qty FROM positions").fetchall() == [(4,)]
    closed = "SELECT count(*) FROM trade_decisions WHERE status = 'closed'"
    assert connection.execute(closed).fetchone() == (4,)
    # what is counted by triggers counts what was there before them
    tallies = "SELECT executions, observations, fills FROM book_tallies"
    assert connection.execute(tallies).fetchall() == [(4, 4, 4)]
    assert connection.execute(NOT_VALID).fetchall() == []
    assert connection.execute(INVALID).fetchall() == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE fills DROP COLUMN strategy",
        "ALTER TABLE fills RENAME COLUMN strategy TO plan",
        "ALTER TABLE fills ALTER COLUMN last_px TYPE double precision",
        "ALTER TABLE fills ADD COLUMN fee numeric NOT NULL",
        "DROP TABLE fills",
    ],
)
def test_control_a_change_that_breaks_the_version_before_is_found(
    change: str, empty_database_url: str, connection: Connection[tuple[object, ...]]
) -> None:
    migrate.upgrade(empty_database_url)
    old = columns(connection)
    connection.execute(change.encode())
    assert contract_faults(old, columns(connection)) != []


def test_an_interrupted_migration_goes_on(
    empty_database_url: str, connection: Connection[tuple[object, ...]]
) -> None:
    """An index that was half built, as by a kill in the middle, is built anew."""
    migrate.upgrade(empty_database_url, to="0007_idempotency")
    connection.execute("CREATE INDEX events_xact ON events (event_seq)")
    connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'events_xact'::regclass"
    )
    migrate.upgrade(empty_database_url)
    assert connection.execute(INVALID).fetchall() == []
    made = connection.execute("SELECT pg_get_indexdef('events_xact'::regclass)").fetchone()
    assert made is not None and "(xact_id, event_seq)" in str(made[0])


@pytest.mark.parametrize("command", ["migrate", "run", "decisions"])
def test_an_older_version_refuses_a_newer_schema(
    command: str,
    tmp_path: Path,
    empty_database_url: str,
    connection: Connection[tuple[object, ...]],
) -> None:
    """The clear refusal of a downgrade: one line that says what to do, and nothing is changed."""
    connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    connection.execute("INSERT INTO alembic_version VALUES ('9999_future')")
    done = User(tmp_path, empty_database_url).torghut(command)
    assert done.returncode == 1
    one_line(done, "9999_future", "newer", "install that version")
    assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("9999_future",)]
    assert len(columns(connection)) == 0
