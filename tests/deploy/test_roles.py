"""roles.sql of the database component on a real server: each role can do its work, and no more.

The whole path runs as torghut_app: migrate as another role, trade, cancel, reconcile, halt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg
import pytest

from tests.deploy.tools import DEPLOY
from tests.end_to_end.user import User, decisions, eventually
from torghut.storage import migrate

ROLES = (DEPLOY / "components" / "database" / "roles.sql").read_text(encoding="utf-8")

Address = Callable[[str], str]


@pytest.fixture
def as_role(empty_database_url: str) -> Iterator[Address]:
    """`as_role(name)`: the address of a migrated database for one of the roles."""
    admin = empty_database_url.replace("+psycopg", "", 1)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(ROLES)
        connection.execute(ROLES)  # again: nothing changes

    def address(role: str) -> str:
        # instead of a login: the test server may know no passwords
        option = quote(f"-c role={role}", safe="")
        return f"{admin}{'&' if '?' in admin else '?'}options={option}"

    migrate.upgrade(address("torghut_migrate"))
    yield address


def refused(address: str, *statements: str) -> list[str]:
    """The statements that were not refused for want of a right."""
    done = []
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in statements:
            try:
                connection.execute(statement)
                done.append(statement)
            except (
                psycopg.errors.InsufficientPrivilege,
                psycopg.errors.ReadOnlySqlTransaction,
                psycopg.errors.RaiseException,
                psycopg.errors.RestrictViolation,
                psycopg.errors.CheckViolation,
            ):
                continue
    return done


DDL = (
    "CREATE TABLE mine (a int)",
    "CREATE TEMP TABLE mine (a int)",
    "ALTER TABLE trade_decisions ADD COLUMN mine int",
    "DROP TABLE events",
    "TRUNCATE events",
    "ALTER TABLE fills DISABLE TRIGGER ALL",
    "CREATE INDEX mine ON fills (symbol)",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "UPDATE alembic_version SET version_num = 'x'",
    "SET session_replication_role = replica",
)


def test_the_daemon_trades_as_torghut_app(as_role: Address, user: User) -> None:
    """Intake, order, fill, reconciliation, a cancel, a halt, doctor; and it changes rows alone."""
    user.url = user.env["TORGHUT_DATABASE_URL"] = as_role("torghut_app")
    user.sim()
    daemon = user.run()
    assert user.submit(decisions(3))[0] == 0
    eventually(lambda: user.statuses().get("closed") == 3)
    resting = decisions(1, type="limit", limit_price="1", strategy="resting")
    assert user.submit(resting)[0] == 0
    eventually(lambda: user.statuses().get("submitted") == 1)
    user.place()  # somebody else's: adopted, and its fill moves positions and cash
    for command in (("cancel", "--all"), ("halt",)):
        done = user.torghut(*command, "--reason", "test")
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert "privileges" not in user.torghut("doctor").stdout
    assert daemon.end() == 0
    assert "permission denied" not in daemon.output
    assert "InsufficientPrivilege" not in daemon.output
    assert refused(user.url, *DDL, "DELETE FROM trade_decisions", "DELETE FROM events") == []
    # control: the owner may, so it is the role that is refused
    with psycopg.connect(as_role("torghut_migrate"), autocommit=True) as connection:
        connection.execute("CREATE TABLE mine (a int)")
        connection.execute("DROP TABLE mine")


def test_torghut_ro_only_reads(as_role: Address) -> None:
    reader = as_role("torghut_ro")
    writes = (
        "INSERT INTO account_leases (account) VALUES ('x')",
        "UPDATE trading_states SET state = 'active'",
        "DELETE FROM positions",
        "SELECT nextval(pg_get_serial_sequence('executions', 'execution_id'))",
    )
    assert refused(reader, *DDL, *writes) == []
    # nor with the read-only default switched off
    with psycopg.connect(reader, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for statement in writes:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        for table in ("trade_decisions", "executions", "fills", "events", "positions"):
            connection.execute(f"SELECT * FROM {table} LIMIT 1")
        for table in ("console_keys", "api_tokens"):  # what a session could be signed with
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {table}")
        own = connection.execute(
            "SELECT rolconfig FROM pg_roles WHERE rolname = 'torghut_ro'"
        ).fetchone()
    assert own is not None and "default_transaction_read_only=on" in own[0]
    assert "statement_timeout=30s" in own[0]


def test_torghut_migrate_is_no_superuser(as_role: Address) -> None:
    owner = as_role("torghut_migrate")
    forbidden = (
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "SET session_replication_role = replica",
    )
    assert refused(owner, *forbidden) == []
