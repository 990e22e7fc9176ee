"""What the database itself refuses, whatever the code does (P5, P6), and how it gets its schema.

Every refusal has a control: with the guard dropped the same statement passes, so that the test is
known to see the guard and not something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from torghut.domain.decisions import parse_decision
from torghut.domain.lifecycle import TERMINAL, TRANSITIONS, DecisionStatus
from torghut.storage import intake, migrate
from torghut.storage.database import Database
from torghut.storage.migrate import SchemaError

NOW = datetime(2026, 1, 5, 21, tzinfo=UTC)
HASH = "ab" * 32

CHECK_VIOLATION = "23514"
RESTRICT_VIOLATION = "23001"

MOVE = """
UPDATE trade_decisions SET status = %(status)s, status_reason = 'test',
  attempts = greatest(attempts, 1), fencing_token = greatest(fencing_token, 1),
  in_doubt_since = CASE WHEN %(status)s = 'in_doubt' THEN now() END,
  finalized_at = CASE WHEN %(status)s = ANY(%(terminal)s) THEN now() END
WHERE decision_id = %(id)s
"""

DECISION = """
INSERT INTO trade_decisions (decision_hash, hash_version, payload_digest, account, strategy, symbol,
  side, event_ts, intent, payload, source, status, due_at, expires_at, created_at, updated_at)
VALUES (%(decision_hash)s, 1, %(payload_digest)s, 'paper', 's', 'AAPL', %(side)s, now(), '',
  %(payload)s, 'test', %(status)s, now(), now(), now(), now())
"""

VERDICT = """
INSERT INTO risk_verdicts (decision_id, outcome, policy_version, checks, facts, judged_at)
VALUES (1, 'approved', 'v', '[]', '{}', now())
"""

ATTEMPT = """
INSERT INTO submission_attempts (decision_id, operation, attempt_no, client_order_id,
  fencing_token, intended_at) VALUES (1, 'submit', 1, 'c', 1, now())
"""

EXECUTION = """
INSERT INTO executions (decision_id, account, client_order_id, broker_order_id, origin, symbol,
  side, order_type, time_in_force, qty, status, terminal, cum_qty, leaves_qty, broker_created_at,
  created_at, updated_at)
VALUES (1, 'paper', 'c', 'b', 'submitted', 'AAPL', 'buy', 'market', 'day', 10,
  'partially_filled', false, 4, 6, now(), now(), now())
"""

EXECUTION_EVENT = """
INSERT INTO execution_events (execution_id, event_key, source, status, cum_qty, observed_at, raw)
VALUES (1, 'k', 'submit', 'new', 0, now(), '{}')
"""

FILL = """
INSERT INTO fills (activity_id, execution_id, decision_id, account, strategy, symbol, side,
  last_qty, last_px, cum_qty, leaves_qty, transact_time, recorded_at, raw)
VALUES ('a', 1, 1, 'paper', 's', 'AAPL', 'buy', 4, 100, 4, 6, now(), now(), '{}')
"""

EVENT = """
INSERT INTO events (kind, account, actor, payload, created_at)
VALUES ('test', 'paper', 'test', '{}', now())
"""

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to a migrated database that holds nothing."""
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def facts(connection: Connection) -> Connection:
    """A connection to a database with one row in each table of facts."""
    insert(connection)
    for statement in (VERDICT, ATTEMPT, EXECUTION, EXECUTION_EVENT, FILL, EVENT):
        connection.execute(statement)
    return connection


def plain(url: str) -> str:
    """The address as psycopg wants it."""
    return url.replace("postgresql+psycopg:", "postgresql:", 1)


def refusal(
    connection: Connection,
    statement: str | sql.Composed,
    values: Mapping[str, object] | None = None,
) -> str | None:
    """SQLSTATE with which the database refuses the statement; None if it takes it (undone)."""
    try:
        with connection.transaction(force_rollback=True):
            changed = connection.execute(statement, values).rowcount  # type: ignore[arg-type]
            assert changed != 0, "nothing was touched: the statement shows nothing"
    except psycopg.Error as error:
        return error.sqlstate
    return None


def drop_guards(connection: Connection, table: str) -> None:
    """Take away all triggers and CHECKs of a table."""
    connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(table)))
    checks = connection.execute(
        "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'", [table]
    ).fetchall()
    for (name,) in checks:
        drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        connection.execute(drop.format(sql.Identifier(table), sql.Identifier(str(name))))


def insert(connection: Connection, **values: object) -> None:
    """A decision row straight by SQL."""
    connection.execute(DECISION, decision(**values))


def decision(**changes: object) -> dict[str, object]:
    """Values for DECISION."""
    return {
        "decision_hash": HASH,
        "payload_digest": HASH,
        "side": "buy",
        "payload": '{"type": "market", "qty": "10"}',
        "status": "planned",
    } | changes


# ---------------------------------------------------------------------- the life cycle


def path_to(status: DecisionStatus) -> list[DecisionStatus]:
    """A shortest path of legal steps from planned to `status`, without planned."""
    paths: dict[DecisionStatus, list[DecisionStatus]] = {DecisionStatus.PLANNED: []}
    ahead = [DecisionStatus.PLANNED]
    for at in ahead:
        for after in sorted(TRANSITIONS[at] - paths.keys()):
            paths[after] = [*paths[at], after]
            ahead.append(after)
    return paths[status]


def steps_taken(connection: Connection) -> dict[DecisionStatus, frozenset[DecisionStatus]]:
    """Try every pair of statuses; the steps that the database lets pass."""
    taken: dict[DecisionStatus, frozenset[DecisionStatus]] = {}
    for number, before in enumerate(DecisionStatus, start=1):
        insert(connection, decision_hash=f"{number:064x}")
        (id_,) = connection.execute("SELECT max(decision_id) FROM trade_decisions").fetchone() or ()
        terminal = [status.value for status in TERMINAL]
        for status in path_to(before):
            connection.execute(MOVE, {"status": status.value, "terminal": terminal, "id": id_})
        taken[before] = frozenset(
            after
            for after in DecisionStatus
            if after is not before
            and refusal(connection, MOVE, {"status": after.value, "terminal": terminal, "id": id_})
            is None
        )
    return taken


def test_p5_the_database_has_the_same_transition_table(connection: Connection) -> None:
    """Of all 90 pairs exactly those of torghut.domain.lifecycle pass."""
    assert steps_taken(connection) == TRANSITIONS


def test_p5_control_without_the_trigger_every_step_passes(connection: Connection) -> None:
    """Control: CHECKs alone would let every pair pass, so it is the trigger that was tested."""
    connection.execute("ALTER TABLE trade_decisions DISABLE TRIGGER decision_guard")
    assert steps_taken(connection) == {
        status: frozenset(DecisionStatus) - {status} for status in DecisionStatus
    }


def test_p5_a_decision_begins_as_planned(connection: Connection) -> None:
    """No row is born approved."""
    values = decision(status="approved")
    assert refusal(connection, DECISION, values) == CHECK_VIOLATION
    drop_guards(connection, "trade_decisions")
    assert refusal(connection, DECISION, values) is None


def test_p1_intake_writes_rows_that_the_schema_takes(database_url: str) -> None:
    """The production insert passes every guard, and its second try is the same row."""
    data = {"strategy": "s", "symbol": "AAPL", "side": "buy", "qty": "10", "type": "market"}
    one = parse_decision(
        data | {"event_ts": NOW.isoformat()}, account="paper", ttl=timedelta(days=1)
    )
    database = Database(database_url)
    try:
        results = []
        for _ in range(2):
            with database.transaction() as tx:
                (answer,) = intake.insert(tx, [one], source="test", now=NOW)
                results.append(answer.result.value)
    finally:
        database.close()
    assert results == ["created", "replayed"]


# ---------------------------------------------------------------------- facts and identity

CHANGES = {
    "risk_verdicts": "UPDATE risk_verdicts SET policy_version = 'other'",
    "execution_events": "UPDATE execution_events SET cum_qty = 1",
    "fills": "UPDATE fills SET last_px = 1",
    "events": "UPDATE events SET kind = 'other'",
}
KEPT = ("risk_verdicts", "execution_events", "fills", "events", "submission_attempts")


@pytest.mark.parametrize(("table", "statement"), CHANGES.items(), ids=CHANGES)
def test_p6_facts_are_never_changed(facts: Connection, table: str, statement: str) -> None:
    """UPDATE is refused on append-only tables; without the trigger it passes."""
    assert refusal(facts, statement) == RESTRICT_VIOLATION
    drop_guards(facts, table)
    assert refusal(facts, statement) is None


@pytest.mark.parametrize("verb", ["DELETE FROM", "TRUNCATE"])
@pytest.mark.parametrize("table", KEPT)
def test_p6_facts_are_never_removed(facts: Connection, table: str, verb: str) -> None:
    """DELETE and TRUNCATE are refused on tables of facts; without the triggers they pass."""
    statement = sql.SQL(f"{verb} {{}}").format(sql.Identifier(table))
    assert refusal(facts, statement) == RESTRICT_VIOLATION
    drop_guards(facts, table)
    assert refusal(facts, statement) is None


@pytest.mark.parametrize("statement", ["DELETE FROM trade_decisions", "TRUNCATE trade_decisions"])
def test_p1_decisions_are_never_removed(connection: Connection, statement: str) -> None:
    """Without the row the same decision could be sent twice."""
    insert(connection)
    statement += " CASCADE" if statement.startswith("TRUNCATE") else ""
    assert refusal(connection, statement) == RESTRICT_VIOLATION
    for table in ("trade_decisions", "order_actions", *KEPT):
        drop_guards(connection, table)
    assert refusal(connection, statement) is None


def test_p6_an_execution_with_observations_is_never_removed(facts: Connection) -> None:
    """Neither one by one nor with all that hangs on it."""
    foreign_key = psycopg.errors.ForeignKeyViolation.sqlstate
    assert refusal(facts, "DELETE FROM executions") in (foreign_key, RESTRICT_VIOLATION)
    assert refusal(facts, "TRUNCATE executions CASCADE") == RESTRICT_VIOLATION


IDENTITY = {
    "decision_hash": f"'{'cd' * 32}'",
    "hash_version": "2",
    "payload_digest": f"'{'cd' * 32}'",
    "account": "'other'",
    "strategy": "'other'",
    "symbol": "'MSFT'",
    "side": "'sell'",
    "event_ts": "event_ts + interval '1 s'",
    "intent": "'other'",
    "payload": """'{"type": "market", "qty": "11"}'""",
    "created_at": "created_at + interval '1 s'",
}


@pytest.mark.parametrize(("column", "value"), IDENTITY.items(), ids=IDENTITY)
def test_p1_identity_never_changes(connection: Connection, column: str, value: str) -> None:
    """Whatever is hashed stays as it was hashed."""
    insert(connection)
    statement = f"UPDATE trade_decisions SET {column} = {value}"
    assert refusal(connection, statement) == RESTRICT_VIOLATION
    drop_guards(connection, "trade_decisions")
    assert refusal(connection, statement) is None


EXECUTION_IDENTITY = {
    "client_order_id": "'other'",
    "broker_order_id": "'other'",
    "account": "'other'",
    "origin": "'recovered'",
    "symbol": "'MSFT'",
    "side": "'sell'",
}


@pytest.mark.parametrize(("column", "value"), EXECUTION_IDENTITY.items(), ids=EXECUTION_IDENTITY)
def test_p6_identity_of_an_execution_never_changes(
    facts: Connection, column: str, value: str
) -> None:
    """One row is one broker order for good."""
    statement = f"UPDATE executions SET {column} = {value}"
    assert refusal(facts, statement) == RESTRICT_VIOLATION
    drop_guards(facts, "executions")
    assert refusal(facts, statement) is None


def test_p1_one_execution_per_client_order_id(facts: Connection) -> None:
    """A second row for the same client_order_id or broker_order_id is refused."""
    unique = psycopg.errors.UniqueViolation.sqlstate
    assert refusal(facts, EXECUTION) == unique
    assert refusal(facts, EXECUTION.replace("'b'", "'b2'")) == unique
    assert refusal(facts, EXECUTION.replace("'c'", "'c2'")) == unique
    assert refusal(facts, EXECUTION.replace("'b'", "'b2'").replace("'c'", "'c2'")) is None


@pytest.mark.parametrize("column", ["fencing_token", "attempts"])
def test_p5_fencing_token_and_attempts_never_decrease(connection: Connection, column: str) -> None:
    """A stalled writer with an older token writes nothing."""
    insert(connection)
    connection.execute("UPDATE trade_decisions SET fencing_token = 7, attempts = 7")
    statement = f"UPDATE trade_decisions SET {column} = 6"
    assert refusal(connection, statement) == CHECK_VIOLATION
    drop_guards(connection, "trade_decisions")
    assert refusal(connection, statement) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE executions SET cum_qty = 3",
        "UPDATE executions SET terminal = false, status = 'new'",
    ],
)
def test_p6_fills_are_not_taken_back_and_the_dead_stay_dead(
    facts: Connection, statement: str
) -> None:
    """cum_qty never decreases; a terminal order never lives again, but takes a late fill."""
    facts.execute("UPDATE executions SET terminal = true, status = 'canceled', leaves_qty = 0")
    assert refusal(facts, statement) == CHECK_VIOLATION
    assert refusal(facts, "UPDATE executions SET cum_qty = 5") is None
    drop_guards(facts, "executions")
    assert refusal(facts, statement) is None


def test_p3_an_attempt_gets_its_outcome_once(facts: Connection) -> None:
    """Intent, then outcome; neither is rewritten."""
    outcome = "UPDATE submission_attempts SET outcome = %(o)s, answered_at = now()"
    intent = "UPDATE submission_attempts SET client_order_id = 'other'"
    assert refusal(facts, intent) == RESTRICT_VIOLATION
    facts.execute(outcome, {"o": "in_doubt"})
    assert refusal(facts, outcome, {"o": "accepted"}) == RESTRICT_VIOLATION
    drop_guards(facts, "submission_attempts")
    assert refusal(facts, outcome, {"o": "accepted"}) is None
    assert refusal(facts, intent) is None


# ---------------------------------------------------------------------- CHECKs

BAD_DECISIONS = {
    "negative qty": {"payload": '{"type": "market", "qty": "-1"}'},
    "zero qty": {"payload": '{"type": "market", "qty": "0"}'},
    "negative notional": {"payload": '{"type": "market", "notional": "-1"}'},
    "negative price": {"payload": '{"type": "limit", "qty": "1", "limit_price": "-1"}'},
    "qty and notional": {"payload": '{"type": "market", "qty": "1", "notional": "1"}'},
    "neither": {"payload": '{"type": "market"}'},
    "payload no object": {"payload": "[]"},
    "short hash": {"decision_hash": "ab"},
    "upper-case hash": {"decision_hash": "AB" * 32},
    "bad digest": {"payload_digest": "x" * 64},
    "unknown side": {"side": "hold"},
    "unknown status": {"status": "lost"},
}


@pytest.mark.parametrize("values", BAD_DECISIONS.values(), ids=BAD_DECISIONS)
def test_checks_refuse_what_is_no_decision(
    connection: Connection, values: dict[str, object]
) -> None:
    """What intake refuses the table refuses too; without the CHECKs it would be stored."""
    bad = decision(**values)
    assert refusal(connection, DECISION, bad) in (
        CHECK_VIOLATION,
        psycopg.errors.NotNullViolation.sqlstate,
    )
    if values != {"payload": "[]"}:  # that one has no type either, which is NOT NULL
        drop_guards(connection, "trade_decisions")
        assert refusal(connection, DECISION, bad) is None


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity"])
def test_no_amount_is_unbounded_or_not_a_number(connection: Connection, amount: str) -> None:
    """To Postgres NaN is greater than 0, so that a plain `> 0` would let it pass."""
    payload = f'{{"type": "market", "qty": "{amount}"}}'
    assert refusal(connection, DECISION, decision(payload=payload)) is not None


STATUS_RULES = {
    "in doubt without a since": (
        ["approved", "submitting"],
        "UPDATE trade_decisions SET status = 'in_doubt'",
    ),
    "final without an end": (
        [],
        "UPDATE trade_decisions SET status = 'denied', status_reason = 'x'",
    ),
    "final without a reason": (
        [],
        "UPDATE trade_decisions SET status = 'denied', status_reason = NULL, finalized_at = now()",
    ),
    "submitting without an attempt": (
        [],
        "UPDATE trade_decisions SET status = 'submitting', attempts = 0",
    ),
    "submitting without a token": (
        [],
        "UPDATE trade_decisions SET status = 'submitting', attempts = 1",
    ),
}


@pytest.mark.parametrize(("path", "statement"), STATUS_RULES.values(), ids=STATUS_RULES)
def test_p5_a_status_has_what_belongs_to_it(
    connection: Connection, path: list[str], statement: str
) -> None:
    """CHECKs tie reason, attempt, token and instants to the status."""
    insert(connection)
    terminal = [status.value for status in TERMINAL]
    for status in path:
        connection.execute(MOVE, {"status": status, "terminal": terminal, "id": 1})
    connection.execute("ALTER TABLE trade_decisions DISABLE TRIGGER decision_guard")
    assert refusal(connection, statement) == CHECK_VIOLATION
    drop_guards(connection, "trade_decisions")
    assert refusal(connection, statement) is None


# ---------------------------------------------------------------------- the schema itself


def test_every_table_has_a_comment(connection: Connection) -> None:
    """A user who looks at the database finds what each table is for."""
    bare = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
      AND relname <> 'alembic_version' AND obj_description(oid, 'pg_class') IS NULL"""
    assert connection.execute(bare).fetchall() == []
    connection.execute("CREATE TABLE bare (x int)")
    assert connection.execute(bare).fetchall() == [("bare",)]


def test_the_tables_a_user_may_query_are_there(connection: Connection) -> None:
    """The names are an outside interface."""
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    ).fetchall()
    promised = {
        *("trade_decisions", "risk_verdicts", "submission_attempts", "executions"),
        *("execution_events", "fills", "positions", "events", "discrepancies"),
        *("trading_states", "account_leases"),
    }
    assert promised <= {str(name) for (name,) in rows}


def test_upgrade_twice_changes_nothing(empty_database_url: str) -> None:
    """The second upgrade finds the schema it wants."""
    before, head = migrate.upgrade(empty_database_url)
    assert before is None
    with psycopg.connect(plain(empty_database_url), autocommit=True) as connection:
        insert(connection)
        assert migrate.upgrade(empty_database_url) == (head, head)
        assert connection.execute("SELECT count(*) FROM trade_decisions").fetchone() == (1,)
    assert migrate.check(empty_database_url) == head


def test_upgrades_at_the_same_time_do_not_meet(empty_database_url: str) -> None:
    """Of four processes that start at once one migrates; the others find it done."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(migrate.upgrade, [empty_database_url] * 4))
    heads = {after for _, after in answers}
    assert len(heads) == 1
    assert sorted(before or "" for before, _ in answers) == ["", *[heads.copy().pop()] * 3]


def test_check_says_what_to_do_about_an_empty_database(empty_database_url: str) -> None:
    """The message names the command."""
    with pytest.raises(SchemaError, match=r"is empty, this version needs .*torghut migrate"):
        migrate.check(empty_database_url)


def test_a_newer_schema_is_left_alone(database_url: str) -> None:
    """A schema from the future stops both check and upgrade, and stays as it is."""
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        for question in (migrate.check, migrate.upgrade):
            with pytest.raises(SchemaError, match=r"9999.*newer.*install"):
                question(database_url)
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
