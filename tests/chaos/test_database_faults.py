"""What the database does to us, one fault at a time, on servers of the test's own (stories 41-53).

P2 and P4: nothing is acknowledged that may be lost; nobody waits for ever; all of it ends by
itself when the fault does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from tests.chaos.cluster import Node
from tests.chaos.proxy import FaultProxy
from tests.factories import decision
from tests.services.rig import eventually
from torghut import doctor
from torghut.clock import utc_now
from torghut.domain.errors import DatabaseUnavailable, NotDurable
from torghut.services.intake import IntakeDesk
from torghut.storage import database as database_module
from torghut.storage import durability, intake, migrate, wake, watched
from torghut.storage.database import CommitInDoubt, Conflict, Database
from torghut.storage.database_faults import DatabaseFault
from torghut.storage.rows import IntakeResult
from torghut.storage.server import server_facts
from torghut.telemetry import DATABASE_FAULTS

NOTICED_S = 5.0
DEADLINE_S = watched.SUSPECT_AFTER_S + watched.PROBE_S


@pytest.fixture
def opened() -> Iterator[Callable[..., Database]]:
    with ExitStack() as stack:

        def open_it(url: str, **over: object) -> Database:
            return stack.enter_context(closing(Database(url, **over)))  # type: ignore[arg-type]

        yield open_it


def counted(fault: DatabaseFault) -> float:
    """How often the fault was met so far."""
    return float(DATABASE_FAULTS.labels(fault)._value.get())


def ask(database: Database, query: str = "SELECT 1") -> None:
    with database.transaction() as tx:
        tx.execute(text(query))


def seconds_until_given_up(work: Callable[[], object]) -> float:
    """How long it took until `work` raised DatabaseUnavailable."""
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        work()
    return time.monotonic() - began


# ---------------------------------------------------------------- silence


def test_a_frozen_server_is_noticed_by_whoever_waits(
    node: Node, opened: Callable[..., Database]
) -> None:
    """Queries under way, pooled connections, new ones and the listener; and all come back."""
    database = opened(node.url)
    listener = wake.Listener(database)
    assert listener.wait()
    under_way = threading.Barrier(5)

    def sleep() -> float:
        def query() -> None:
            with database.transaction() as tx:
                tx.execute(text("SELECT 1"))
                under_way.wait(10)
                tx.execute(text("SELECT pg_sleep(14)"))

        return seconds_until_given_up(query)

    with ThreadPoolExecutor(12) as pool:
        sleeping = [pool.submit(sleep) for _ in range(4)]
        under_way.wait(10)
        eventually(
            lambda: node.execute(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(14)%' "
                "AND pid <> pg_backend_pid() AND state = 'active' OFFSET 3"
            )
        )
        node.freeze()
        began = time.monotonic()
        asking = [pool.submit(seconds_until_given_up, lambda: ask(database)) for _ in range(4)]
        with pytest.raises(psycopg.OperationalError):
            while True:
                listener.wait(0.2)
        assert time.monotonic() - began < NOTICED_S
        assert all(one.result(30) < NOTICED_S for one in [*asking])
        for one in sleeping:
            one.result(30)
        assert time.monotonic() - began < DEADLINE_S + 1
    node.thaw()
    ask(database)
    assert listener.wait()  # it may have missed something: it wakes
    listener.close()


def test_control_a_plain_connection_waits_on(node: Node) -> None:
    """Without the watch libpq waits beyond every timeout that it knows of."""
    plain = psycopg.connect(
        host="127.0.0.1",
        port=node.port,
        user="torghut",
        dbname="torghut",
        tcp_user_timeout=2_000,
        options="-c statement_timeout=1000",
    )
    node.freeze()
    ended = threading.Event()

    def query() -> None:
        plain.execute("SELECT 1")
        ended.set()

    waiting = threading.Thread(target=query, daemon=True)
    waiting.start()
    assert not ended.wait(DEADLINE_S + 1)
    node.thaw()
    assert ended.wait(10)
    waiting.join(10)
    plain.close()


def test_a_black_hole_is_noticed_and_a_slow_link_is_not(
    node: Node, opened: Callable[..., Database]
) -> None:
    proxy = FaultProxy("127.0.0.1", node.port)
    database = opened(node.url_at(proxy.port))
    ask(database)
    proxy.mode = "black_hole"
    assert seconds_until_given_up(lambda: ask(database)) < NOTICED_S
    proxy.mode = "slow"
    ask(database)
    proxy.mode = "pass"
    proxy.reset()
    ask(database)  # a connection that was reset is replaced before it is used
    proxy.shut()
    assert seconds_until_given_up(lambda: ask(database)) < 1
    proxy.open()
    ask(database)
    proxy.shut()


def test_slow_is_not_silent(node: Node, opened: Callable[..., Database]) -> None:
    """A statement, and a wait for a lock, that take longer than it takes to be suspected."""
    database = opened(node.url)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as tx:
            tx.execute(text("LOCK TABLE events IN ACCESS EXCLUSIVE MODE"))
            waiting = pool.submit(ask, database, "SELECT count(*) FROM events")
            tx.execute(text(f"SELECT pg_sleep({DEADLINE_S + 0.5})"))
        waiting.result(10)


def test_one_frozen_backend_is_given_up_at_the_deadline(
    node: Node, opened: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers others, but never this wait."""
    monkeypatch.setattr(watched, "ANSWER_DEADLINE_S", 3.0)
    database = opened(node.url)
    with pytest.raises(DatabaseUnavailable), database.transaction() as tx:
        pid = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
        node.freeze_process(int(pid))
        began = time.monotonic()
        tx.execute(text("SELECT 1"))
    assert time.monotonic() - began < 3.0 + watched.SUSPECT_AFTER_S + 0.5
    node.thaw()


def test_a_commit_without_an_answer_is_in_doubt(
    node: Node, opened: Callable[..., Database]
) -> None:
    proxy = FaultProxy("127.0.0.1", node.port)
    database = opened(node.url_at(proxy.port))
    with pytest.raises(CommitInDoubt), database.transaction() as tx:
        tx.execute(text("CREATE TABLE there (n int)"))
        proxy.mode = "reply_lost"
    proxy.mode = "pass"
    ask(database, "SELECT n FROM there")  # this time it was committed
    proxy.shut()


# ---------------------------------------------------------------- death


def test_crash_restart_and_back(node: Node, opened: Callable[..., Database]) -> None:
    database = opened(node.url)
    desk = IntakeDesk(database, utc_now, lambda _: None)
    (first,) = desk.accept([decision(intent="1")], source="test")
    for end in (node.crash, node.crash_backend):
        end()
        if end == node.crash:
            with pytest.raises(DatabaseUnavailable):
                desk.accept([decision(intent="2")], source="test")
            node.start()
        eventually(lambda: _answers(database), 20)
        (again,) = desk.accept([decision(intent="1")], source="test")
        assert (again.result, again.decision_hash) == (
            IntakeResult.REPLAYED,
            first.decision_hash,
        )


def test_a_stand_by_is_passed_over_and_a_demoted_primary_left(
    folder: Path, node: Node, opened: Callable[..., Database]
) -> None:
    """Several hosts; and the transaction that meets a read-only server is refused as transient."""
    with Node(folder, "standby", follows=node) as standby:
        hosts = f"127.0.0.1:{standby.port},127.0.0.1:{node.port}"
        url = f"postgresql://torghut@{hosts}/torghut?target_session_attrs=read-write"
        assert migrate.check(url)
        database = opened(url)
        with database.transaction() as tx:
            assert tx.execute(text("SELECT inet_server_port()")).scalar_one() == node.port
        only = opened(standby.url)
        before = counted(DatabaseFault.READ_ONLY)
        with pytest.raises(DatabaseUnavailable, match="target_session_attrs"):
            ask(only, "CREATE TABLE nothing (n int)")
        assert counted(DatabaseFault.READ_ONLY) == before + 1
        node.crash()
        standby.promote()
        with database.transaction() as tx:
            assert tx.execute(text("SELECT inet_server_port()")).scalar_one() == standby.port


def _answers(database: Database) -> bool:
    try:
        ask(database)
    except DatabaseUnavailable:
        return False
    return True


# ---------------------------------------------------------------- refusals


def test_a_full_disk_is_transient_and_says_so(
    database_url: str, opened: Callable[..., Database]
) -> None:
    """The error is Postgres's own (53100), raised by a trigger instead of a file system."""
    database = opened(database_url)
    ask(
        database,
        """CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$""",
    )
    ask(
        database,
        "CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_space()",
    )
    desk = IntakeDesk(database, utc_now, lambda _: None)
    before = counted(DatabaseFault.DISK_FULL)
    with pytest.raises(DatabaseUnavailable, match="no space left: nothing was stored"):
        desk.accept([decision()], source="test")
    assert counted(DatabaseFault.DISK_FULL) > before
    ask(database, "DROP TRIGGER full_disk ON events")
    assert desk.accept([decision()], source="test")[0].result is IntakeResult.CREATED


@pytest.mark.parametrize("tries", [1, 5])
def test_a_deadlock_is_tried_again(
    tries: int,
    database_url: str,
    opened: Callable[..., Database],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Control: with a single try the loser of the deadlock is told."""
    monkeypatch.setattr(database_module, "CONFLICT_TRIES", tries)
    database = opened(database_url)
    ask(database, "CREATE TABLE pair (n int PRIMARY KEY, v int DEFAULT 0)")
    ask(database, "INSERT INTO pair (n) VALUES (1), (2)")
    both_hold_one = threading.Barrier(2)

    def cross(first: int, second: int) -> str:
        meet = [both_hold_one]

        def work(tx: object) -> None:
            for step, n in enumerate((first, second)):
                tx.execute(text(f"UPDATE pair SET v = v + 1 WHERE n = {n}"))  # type: ignore[attr-defined]
                if step == 0 and meet:
                    meet.pop().wait(10)

        try:
            database.retried(work)
        except Conflict:
            return "conflict"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        ends = sorted(
            one.result(30) for one in [pool.submit(cross, 1, 2), pool.submit(cross, 2, 1)]
        )
    assert ends == (["done", "done"] if tries > 1 else ["conflict", "done"])


# ---------------------------------------------------------------- a lost synchronous stand-by


@pytest.mark.parametrize("confirming", [True, False])
def test_a_lost_stand_by_acknowledges_nothing(
    confirming: bool,
    node: Node,
    opened: Callable[..., Database],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P2: the row can be seen, and is acknowledged to nobody: neither at first nor as a replay.

    Control: without `confirm` the replay is answered although the row is on one disk only.
    """
    monkeypatch.setattr(watched, "ANSWER_DEADLINE_S", 1.0)
    if not confirming:
        monkeypatch.setattr(durability, "confirm", lambda _: None)
    database = opened(node.url)
    ask(database)
    desk = IntakeDesk(database, utc_now, lambda _: None)
    node.set(synchronous_standby_names="gone")
    eventually(lambda: node.execute("SHOW synchronous_standby_names") == [("gone",)])
    before = counted(DatabaseFault.NOT_DURABLE)
    with pytest.raises(NotDurable):
        desk.accept([decision()], source="test")
    assert counted(DatabaseFault.NOT_DURABLE) == before + 1
    assert node.execute("SELECT count(*) FROM trade_decisions") == [(1,)]
    with database.transaction() as tx:
        facts = server_facts(tx)
    assert (facts.standbys_wanted, facts.standbys) == ("gone", 0)
    assert doctor._standby(facts).result == doctor.FAILED
    if confirming:
        with pytest.raises(NotDurable):
            desk.accept([decision()], source="test")
    else:
        (answer,) = desk.accept([decision()], source="test")
        assert answer.result is IntakeResult.REPLAYED
        return
    node.set(synchronous_standby_names="")
    eventually(lambda: node.execute("SHOW synchronous_standby_names") == [("",)])
    (answer,) = desk.accept([decision()], source="test")
    assert answer.result is IntakeResult.REPLAYED


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("pooled", [True, False])
def test_timeouts_hold_and_nothing_is_prepared_behind_a_pooler(
    pooled: bool, database_url: str, opened: Callable[..., Database]
) -> None:
    """Behind a pooler: no session setting, no prepared statement. Control: directly, both."""
    database = opened(database_url, pool_size=1, pooled=pooled)
    for _ in range(8):
        with database.transaction() as tx:
            found = tx.execute(
                text("""SELECT current_setting('statement_timeout'),
                current_setting('lock_timeout'), current_setting('timezone'),
                current_setting('idle_in_transaction_session_timeout')""")
            ).one()
            intake.insert(tx, [decision()], source="test", now=utc_now())
    assert tuple(found) == ("15s", "5s", "UTC", "5s")
    with database.transaction() as tx:
        prepared = tx.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
        session = tx.execute(
            text("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'")
        ).scalar_one()
    assert (prepared == 0) is pooled
    assert session == ("0" if pooled else "15000")
