"""The read commands on a real database: the same facts for people and for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests import factories
from torghut import cli_reads
from torghut.clock import utc_now
from torghut.domain.decisions import Decision
from torghut.domain.deny_reasons import DenyReason
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.errors import ConfigError
from torghut.domain.events import Event, EventKind
from torghut.domain.exposure import Facts, Reservations, TradingState
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.limits import Rule
from torghut.domain.orders import Order
from torghut.domain.risk_case import Check, Verdict
from torghut.domain.submission import Proof
from torghut.ports import Answer, FillActivity, Outcome
from torghut.storage import (
    attempts,
    control,
    decisions,
    discrepancies,
    executions,
    fills,
    intake,
    leases,
    queries,
    verdicts,
)
from torghut.storage.attempts import Intent
from torghut.storage.database import Database
from torghut.storage.decisions import Advance
from torghut.storage.executions import Observation
from torghut.storage.fills import Booking
from torghut.storage.verdicts import Judgement

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
LISTS = ("decisions", "executions", "fills", "positions")


class Commands:
    """The commands on an app of their own; `run` gives the result of one command line."""

    def __init__(self, connect: cli_reads.Connect) -> None:
        self.app = typer.Typer()
        cli_reads.register(self.app, connect)

    def run(self, *arguments: str) -> Result:
        return CliRunner(env={"COLUMNS": "200"}).invoke(self.app, list(arguments))

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(row) for row in result.stdout.splitlines()]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as opened:
        yield opened


@pytest.fixture
def commands(database_url: str) -> Commands:
    return Commands(lambda: Database(database_url, pool_size=1))


def insert(database: Database, *batch: Decision, now: datetime = NOW) -> None:
    with database.transaction() as tx:
        intake.insert(tx, batch, source="test", now=now)
        events = [
            Event(EventKind.DECISION_PLANNED, "test", "paper", d.decision_hash) for d in batch
        ]
        control.add_events(tx, events, now=now)


def step(
    database: Database, decision_id: int, before: DecisionStatus, after: DecisionStatus, **more: Any
) -> None:
    change = Advance(
        decision_id=decision_id,
        before=before,
        after=after,
        **{"reason": None, "due_at": NOW, **more},
    )
    with database.transaction() as tx:
        assert decisions.advance(tx, [change], token=1, now=NOW) == {decision_id}


def approve(database: Database, decision_id: int) -> None:
    rule = Rule(DenyReason.ORDER_QTY, "max_order_qty", Decimal(100), "shares", "default")
    check = Check(rule.code, rule, True, Decimal(10))
    verdict = Verdict(
        deny_reason=None,
        made=(check,),
        policy_version="v1",
        reference_px=Decimal("189.5"),
        size_qty=Decimal(10),
        notional=Decimal(1895),
    )
    facts = Facts(state=TradingState.ACTIVE, state_reason="default", account=None)
    with database.transaction() as tx:
        item = Judgement(
            decision_id=decision_id, verdict=verdict, facts=facts, reservations=Reservations()
        )
        verdicts.add(tx, [item], now=NOW)
    step(database, decision_id, DecisionStatus.PLANNED, DecisionStatus.APPROVED)


def send(database: Database, decision_id: int, hash_: str, proof: Proof, answer: Answer) -> None:
    step(database, decision_id, DecisionStatus.APPROVED, DecisionStatus.SUBMITTING)
    intent = Intent(
        decision_id=decision_id,
        attempt_no=1,
        client_order_id=hash_,
        order_sent={"qty": "10"},
        strategy="trend",
        counted_today=False,
    )
    with database.transaction() as tx:
        attempts.add_intents(tx, "paper", [intent], token=1, day=NOW.date(), now=NOW)
        answered = NOW + timedelta(milliseconds=80)
        attempts.set_outcomes(tx, [(decision_id, 1, proof, answer)], now=answered)


def book(database: Database, decision_id: int | None, client_order_id: str) -> None:
    """An order that was filled at once, with its fill."""
    order = Order(
        broker_order_id=f"order-of-{client_order_id[:8]}",
        client_order_id=client_order_id,
        symbol="AAPL",
        side="buy",
        order_type="market",
        time_in_force="day",
        status="filled",
        qty=Decimal(10),
        notional=None,
        limit_price=None,
        stop_price=None,
        cum_qty=Decimal(10),
        avg_px=Decimal("189.42"),
        created_at=NOW,
        updated_at=NOW,
        submitted_at=NOW,
        replaces=None,
        replaced_by=None,
        raw={},
    )
    fill = FillActivity(
        activity_id=f"fill-of-{client_order_id[:8]}",
        broker_order_id=order.broker_order_id,
        symbol="AAPL",
        side="buy",
        last_qty=Decimal(10),
        last_px=Decimal("189.42"),
        cum_qty=Decimal(10),
        leaves_qty=Decimal(0),
        transact_time=NOW,
        raw={},
    )
    origin = "external" if decision_id is None else "submitted"
    with database.transaction() as tx:
        seen = Observation(order, decision_id, origin, "rest")
        [recorded] = executions.record(tx, "paper", [seen], now=NOW)
        strategy = "" if decision_id is None else "sample"
        booking = Booking(fill, recorded.execution_id, decision_id, strategy)
        fills.append(tx, "paper", [booking], now=NOW)


def filled(database: Database) -> str:
    """A decision with all of its story; its hash."""
    decision = factories.decision()
    insert(database, decision)
    hash_ = decision.decision_hash
    with database.transaction() as tx:
        id_ = decisions.by_hashes(tx, [hash_])[hash_].decision_id
    approve(database, id_)
    send(database, id_, hash_, Proof.ACCEPTED, Answer(outcome=Outcome.ACCEPTED, http_status=200))
    step(
        database,
        id_,
        DecisionStatus.SUBMITTING,
        DecisionStatus.SUBMITTED,
        reason=Reason.ACCEPTED.value,
    )
    book(database, id_, hash_)
    return hash_


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("decisions", "no decisions yet; submit one: torghut submit FILE"),
        ("executions", "no broker orders yet"),
        ("fills", "no fills yet"),
        ("positions", "no positions yet"),
    ],
)
def test_an_empty_list_says_what_to_do(commands: Commands, name: str, said: str) -> None:
    result = commands.run(name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert said in result.stdout
    assert commands.json(name) == []


def test_lists_show_the_same_facts_to_people_and_to_scripts(
    commands: Commands, database: Database
) -> None:
    hash_ = filled(database)
    book(database, None, "by-hand-at-the-broker")
    keys = {"decisions": "decision_hash", "executions": "client_order_id"}
    keys |= {"fills": "client_order_id", "positions": "symbol"}
    for name in LISTS:
        rows = commands.json(name)
        shown = commands.run(name).stdout
        assert rows
        assert len(shown.splitlines()) == len(rows) + 1
        for row in rows:
            assert row[keys[name]][:12] in shown
    assert commands.json("decisions")[0]["status"] == "submitted"
    assert [row["strategy"] for row in commands.json("executions")] == [None, "sample"]
    assert commands.json("positions")[0]["qty"] == "20"
    assert commands.json("fills", "--strategy", "sample")[0]["client_order_id"] == hash_


def test_options_choose_rows(commands: Commands, database: Database) -> None:
    apple = factories.decision()
    tesla = factories.decision(symbol="TSLA", strategy="other")
    insert(database, apple, now=NOW)
    insert(database, tesla, now=NOW + timedelta(hours=1))

    def symbols(*options: str) -> list[str]:
        return [row["symbol"] for row in commands.json("decisions", *options)]

    assert symbols() == ["TSLA", "AAPL"]
    assert symbols("--limit", "1") == ["TSLA"]
    assert symbols("--symbol", "aapl") == ["AAPL"]
    assert symbols("--strategy", "other") == ["TSLA"]
    assert symbols("--status", "planned") == ["TSLA", "AAPL"]
    assert symbols("--status", "closed") == []
    assert symbols("--account", "another") == []
    assert symbols("--since", "2026-01-05T15:00:00Z") == ["TSLA"]
    assert symbols("--since", "2026-01-05T10:30:00-05:00") == ["TSLA"]
    assert "1 rows; more with --limit N" in commands.run("decisions", "--limit", "1").stdout
    told = commands.run("decisions", "--status", "closed", "--symbol", "X").stdout
    assert "no decisions with this status, symbol" in told


def test_since_takes_how_long_ago(commands: Commands, database: Database) -> None:
    insert(database, factories.decision(), now=utc_now() - timedelta(hours=3))
    assert len(commands.json("decisions", "--since", "1d")) == 1
    assert len(commands.json("decisions", "--since", "3h30m")) == 1
    assert commands.json("decisions", "--since", "2h") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decisions", "--since", "yesterday"), "how long ago"),
        (("decisions", "--since", "2026-01-05T14:30:00"), "no time zone"),
        (("decisions", "--since", "999999999w"), "too long ago"),
        (("decisions", "--since", ""), "how long ago"),
        (("decisions", "--status", "done"), "planned, approved"),
        (("positions", "--status", "done"), "open, flat"),
        (("decisions", "--limit", "0"), "--limit"),
        (("decisions", "--limit", "10001"), "--limit"),
        (("explain",), "HASH"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: tuple[str, ...], said: str) -> None:
    def connect() -> Database:
        raise AssertionError("wrong usage must not reach the database")

    result = Commands(connect).run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_the_ceiling_of_a_list_is_that_of_the_queries() -> None:
    assert cli_reads.LIMIT_MAX == queries.LIMIT_MAX


def test_markup_in_a_stored_name_is_shown_as_written(
    commands: Commands, database: Database
) -> None:
    decision = factories.decision(strategy="[bold red]evil[/] :bomb:")
    insert(database, decision)
    for arguments in (("decisions",), ("explain", decision.decision_hash)):
        assert "[bold red]evil[/] :bomb:" in commands.run(*arguments).stdout


# ---------------------------------------------------------------- explain


def test_explain_tells_what_is_stored(commands: Commands, database: Database) -> None:
    hash_ = filled(database)
    text = " ".join(commands.run("explain", hash_).stdout.split())
    for fact in (
        "BUY 10 AAPL market day",
        "strategy sample, account paper",
        "submitted: Its order stands at the broker.",
        hash_,
        "the hash matches: yes",
        "✓ order_qty: 10, at most 100 shares [max_order_qty, default]",
        "attempt 1, sent: accepted (HTTP 200), after 80 ms",
        "now filled, 10 of 10 filled at 189.42 on average",
        "buy 10 AAPL at 189.42",
        "decision.planned stored (test)",
    ):
        assert fact in text
    [story] = commands.json("explain", hash_)
    assert story["decision"]["decision_hash"] == hash_
    assert story["attempts"][0]["http_status"] == 200
    assert story["executions"][0]["cum_qty"] == "10"
    assert story["fills"][0]["last_px"] == "189.42"
    assert story["verdicts"][0]["checks"][0]["measured"] == "10"
    with database.transaction() as tx:
        [stored] = next(iter(verdicts.stored(tx, "paper", since=None)))
    told = {name: story["verdicts"][0][name] for name in ("verdict_id", "facts_id")}
    assert told == {"verdict_id": stored.verdict_id, "facts_id": stored.facts_id}
    assert stored.facts_id


def test_explain_of_a_doubt_names_the_next_question(commands: Commands, database: Database) -> None:
    decision = factories.decision()
    insert(database, decision)
    with database.transaction() as tx:
        id_ = next(iter(decisions.by_hashes(tx, [decision.decision_hash]).values())).decision_id
    approve(database, id_)
    answer = Answer(outcome=Outcome.IN_DOUBT, http_status=504, message="Gateway\nTime-out")
    send(database, id_, decision.decision_hash, Proof.IN_DOUBT, answer)
    doubt = {"reason": Reason.NO_DEFINITE_ANSWER.value, "due_at": utc_now() + timedelta(hours=1)}
    step(database, id_, DecisionStatus.SUBMITTING, DecisionStatus.IN_DOUBT, **doubt)
    step(
        database, id_, DecisionStatus.IN_DOUBT, DecisionStatus.IN_DOUBT, asked=1, missed=1, **doubt
    )
    text = " ".join(commands.run("explain", decision.decision_hash).stdout.split())
    assert "asked once since, once the answer was 'no such order'" in text
    assert 'no definite answer (HTTP 504), "Gateway Time-out"' in text
    assert "Next: question at" in text
    assert "(in 59 min" in text


def test_the_crafted_stories_have_the_shape_of_real_ones(
    commands: Commands, database: Database
) -> None:
    from tests.cli.stories import STORIES

    [real] = commands.json("explain", filled(database))
    crafted = STORIES["closed"]
    assert set(crafted) == set(real)
    for part in ("decision", "verdicts", "attempts", "executions", "fills", "events"):
        one, other = crafted[part], real[part]
        if part != "decision":
            one, other = one[0], other[0]
        assert set(one) <= set(other), part


def test_a_beginning_of_a_hash_will_do(commands: Commands, database: Database) -> None:
    decision = factories.decision()
    insert(database, decision)
    result = commands.run("explain", decision.decision_hash[:12].upper())
    assert result.exit_code == 0
    assert decision.decision_hash in result.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [("0" * 64, "no decision '0000"), ("abcd", "64 hexadecimal"), ("\x1b[31m" * 30, "hexadecimal")],
)
def test_a_hash_that_is_not_known_is_exit_1(commands: Commands, given: str, said: str) -> None:
    for extra in ((), ("--json",)):
        result = commands.run("explain", given, *extra)
        assert (result.exit_code, result.stdout) == (1, "")
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1


# ---------------------------------------------------------------- status


def test_status_tells_the_same_to_people_and_to_scripts(
    commands: Commands, database: Database
) -> None:
    filled(database)
    with database.transaction() as tx:
        leases.acquire(tx, "paper", "host:1", ttl_s=60)
        discrepancies.open_(
            tx, "paper", DiscrepancyKind.ORDER_DIFFERS, "abc", {"a": 1}, actor="test", now=NOW
        )
        discrepancies.open_(
            tx, "other", DiscrepancyKind.ORDER_DIFFERS, "x", {}, actor="test", now=NOW
        )
        control.set_trading_state(
            tx, "account:paper", TradingState.HALTED, actor="me", reason="lunch", now=NOW
        )
    [summary] = commands.json("status", "--account", "paper")
    assert summary["decisions"]["submitted"] == 1
    assert summary["trading_state"]["state"] == "halted"
    assert [d["subject"] for d in summary["discrepancies"]] == ["abc"]
    text = " ".join(commands.run("status", "--account", "paper").stdout.split())
    assert "halted (account:paper by me: lunch)" in text
    assert "host:1 (fencing token 1)" in text
    assert "1 open: order_differs abc" in text


def test_status_is_of_the_account_of_the_settings(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORGHUT_TEST_RUN_HOME")  # of the database fixture, and no setting
    monkeypatch.setenv("TORGHUT_ACCOUNT", "from-settings")
    assert commands.json("status")[0]["account"] == "from-settings"


# ---------------------------------------------------------------- failures and endings


@pytest.mark.parametrize(
    "arguments",
    [*((name,) for name in LISTS), ("explain", "0" * 64), ("status", "--account", "paper")],
)
def test_a_database_that_is_down_is_one_line_and_exit_1(arguments: tuple[str, ...]) -> None:
    url = "postgresql://me:secret@127.0.0.1:9/none"
    result = Commands(lambda: Database(url)).run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "127.0.0.1:9/none does not answer" in result.stderr
    assert "secret" not in result.stderr


def test_a_database_that_is_not_migrated_says_how_to_mend_it(empty_database_url: str) -> None:
    result = Commands(lambda: Database(empty_database_url)).run("decisions")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "torghut migrate" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_setting_is_exit_78() -> None:
    def connect() -> Database:
        raise ConfigError("TORGHUT_DATABASE_URL", "is wrong", "mend it")

    result = Commands(connect).run("decisions")
    assert result.exit_code == 78
    assert result.stderr == "torghut: TORGHUT_DATABASE_URL: is wrong; mend it\n"


def test_a_context_manager_is_left_before_the_output(database_url: str) -> None:
    left: list[bool] = []

    class Opened(AbstractContextManager[Database]):
        def __enter__(self) -> Database:
            self.database = Database(database_url, pool_size=1)
            return self.database

        def __exit__(self, *_: object) -> None:
            self.database.close()
            left.append(True)

    assert Commands(Opened).run("decisions").exit_code == 0
    assert left == [True]


SCRIPT = """
import sys, typer
from torghut import cli_reads
from torghut.storage.database import Database
app = typer.Typer()
url = sys.argv.pop()
cli_reads.register(app, lambda: Database(url, pool_size=1))
app()
"""


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_goes_away_is_no_error(
    database: Database, database_url: str, options: tuple[str, ...]
) -> None:
    insert(database, *(factories.decision(intent=str(n)) for n in range(300)))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "decisions", "--limit", "300", *options, database_url],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_knows_no_check_mark_is_no_error(
    database: Database, database_url: str
) -> None:
    hash_ = filled(database)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "explain", hash_, database_url],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?  order_qty: 10" in done.stdout
