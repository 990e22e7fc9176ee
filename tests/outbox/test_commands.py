"""`torghut outbox` and `torghut dead-letters`, and the daemon with a sink from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import typer
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from tests.factories import decision
from tests.outbox.parts import Kept, drain, relay, stored, write
from tests.outbox.receiver import receiver
from tests.outbox.test_relay import refusing
from tests.services.rig import eventually
from torghut import bootstrap, cli_outbox
from torghut.config import Settings
from torghut.domain.outbox import Message, SinkUnavailable
from torghut.services import relay as relay_module
from torghut.serving import serving
from torghut.storage import outbox
from torghut.storage.database import Database


@pytest.fixture
def app(database: Database) -> typer.Typer:
    made = typer.Typer()

    @contextmanager
    def connect() -> Iterator[Database]:
        yield database

    settings = Settings(sinks={"test": {"kind": "log"}, "new": {"kind": "notify"}})
    cli_outbox.register(made, lambda **_: settings, connect)
    return made


def run(app: typer.Typer, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, list(arguments))


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_outbox_shows_position_lag_and_error(app: typer.Typer, database: Database) -> None:
    with database.transaction() as tx:
        write(tx, None, "a", "b", "c")

    def failing_at_b(message: Message) -> None:
        if message.event.payload["reason"] == "b":
            raise SinkUnavailable("answered 503")

    drain(relay(database, Kept(failing_at_b)))
    rows = {row["sink"]: row for row in lines(run(app, "outbox", "--json"))}
    assert rows.keys() == {"new", "test"}
    row = rows["test"]
    assert (row["kind"], row["to"], row["delivered"]) == ("log", "stdout", 1)
    assert (row["lag_events"], row["failures"], row["last_error"]) == (2, 1, "answered 503")
    assert row["lag_seconds"] > 0 and row["retry_at"] and row["last_error_at"]
    assert rows["new"]["lag_events"] is None
    table = run(app, "outbox").output
    assert "answered 503" in table and "1 in a row" in table and "not begun" in table


def test_dead_letters_are_listed_retried_and_dropped(app: typer.Typer, database: Database) -> None:
    assert "none" in run(app, "dead-letters").output
    with database.transaction() as tx:
        write(tx, None, "p1", "p2", "p3")
    drain(relay(database, Kept(refusing("p1", "p2", "p3"))))
    rows = lines(run(app, "dead-letters", "list", "--json"))
    assert [row["dead_letter_id"] for row in rows] == [3, 2, 1]
    assert rows[0]["error"] == "answered 422" and rows[0]["kind"] == "order.submitted"
    assert "answered 422" in run(app, "dead-letters", "list").output
    (retried,) = lines(run(app, "dead-letters", "retry", "1", "--reason", "mended", "--json"))
    assert retried["status"] == "retrying"
    done = run(app, "dead-letters", "drop", "--all", "--sink", "test", "--reason", "old")
    assert done.exit_code == 0 and done.output.count("dropped") == 3
    assert lines(run(app, "dead-letters", "list", "--json")) == []
    every = lines(run(app, "dead-letters", "list", "--all", "--json"))
    assert {row["status"] for row in every} == {"dropped"}
    told = [row for row in stored(database) if row[0] > 3]
    assert len(told) == 4, "an event for each"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("retry", "7", "--reason", "why"), 1),
        (("retry", "--reason", "why"), 2),
        (("drop", "7", "--all", "--reason", "why"), 2),
        (("drop", "7", "--reason", "  "), 2),
        (("drop", "7"), 2),
        (("drop", "--all", "--reason", "none there"), 0),
    ],
)
def test_what_is_refused(app: typer.Typer, arguments: tuple[str, ...], code: int) -> None:
    assert run(app, "dead-letters", *arguments).exit_code == code


def test_event_schema_is_the_published_one(app: typer.Typer) -> None:
    published = Path(__file__).parents[2] / "docs" / "event.schema.json"
    assert run(app, "event-schema").stdout == published.read_text(encoding="utf-8")


def test_the_daemon_gives_a_sink_the_story_of_an_order(database_url: str, tmp_path: Path) -> None:
    """Wired: settings, daemon, relay, HTTP. In order, and `/healthz` counts its loop."""
    with receiver() as hook:
        settings = Settings(
            home=tmp_path,
            database_url=database_url,
            http_port=0,
            sinks={"hook": {"kind": "webhook", "url": hook.url, "secret": "x" * 16}},
        )
        with bootstrap.running_daemon(settings) as daemon, serving(daemon) as url:
            assert daemon.wait_owner(60)
            (answer,) = daemon.desk.accept([decision(event_ts="2026-01-05T14:30:00Z")], source="t")
            eventually(lambda: "decision.closed" in kinds(hook.requests, answer.decision_hash))
            with daemon.database.transaction() as tx:
                tx.execute(text("INSERT INTO decision_inbox (body) VALUES ('no decision')"))
            eventually(lambda: answered(daemon.database) == ["invalid"])
            assert requests.get(f"{url}/healthz", timeout=10).ok
            assert (
                'torghut_outbox_lag_events{sink="hook"}'
                in requests.get(f"{url}/metrics", timeout=10).text
            )
        seen = kinds(hook.requests, answer.decision_hash)
    wanted = ["decision.planned", "decision.approved", "order.submit_started", "order.submitted"]
    assert seen[:4] == wanted and seen[-1] == "decision.closed"


def answered(database: Database) -> list[str | None]:
    """The results in `decision_inbox`."""
    with database.transaction() as tx:
        return [row[0] for row in tx.execute(text("SELECT result FROM decision_inbox"))]


def kinds(came: list[Any], hash_: str) -> list[str]:
    """Kinds of the events about a decision, as they came."""
    envelopes = [json.loads(body) for _, body in came]
    return [one["kind"] for one in envelopes if one["decision_hash"] == hash_]


# ---------------------------------------------------------------------- forgetting a sink


def removed(database: Database) -> None:
    """A sink `gone` that is not in the settings: one event given, a dead letter, two that wait."""
    with database.transaction() as tx:
        write(tx, None, "a", "poison")
    one = relay(database, Kept(refusing("poison")), "gone")
    drain(one)
    with database.transaction() as tx:
        write(tx, None, "b", "c")


def test_a_removed_sink_is_forgotten_with_its_dead_letters(
    app: typer.Typer, database: Database
) -> None:
    removed(database)
    assert "gone" in run(app, "outbox").output
    (done,) = lines(run(app, "outbox", "forget", "gone", "--reason", "no more", "--json"))
    assert done == {"sink": "gone", "lag": 2, "dead_letters": 1}
    assert {row["sink"] for row in lines(run(app, "outbox", "--json"))} == {"new", "test"}
    assert lines(run(app, "dead-letters", "list", "--json")) == []
    with database.transaction() as tx:
        rows = tx.execute(text("SELECT actor, payload FROM events WHERE kind = 'sink.forgotten'"))
        ((actor, payload),) = [tuple(row) for row in rows]
    assert actor.startswith("cli:") and payload["reason"] == "no more"
    again = Kept()
    drain(relay(database, again, "gone"))
    assert again.steps()[:4] == ["a", "poison", "b", "c"], "set up again it is a new sink"


@pytest.mark.parametrize(
    ("name", "reason", "code", "said"),
    [
        ("test", "why", 1, "is in the settings"),
        ("nobody", "why", 1, "no sink"),
        ("gone", " ", 2, "say why"),
    ],
)
def test_what_is_not_forgotten(
    app: typer.Typer, database: Database, name: str, reason: str, code: int, said: str
) -> None:
    drain(relay(database, Kept()))
    removed(database)
    done = run(app, "outbox", "forget", name, "--reason", reason)
    # the text of what TorghutError says is printed by `main`
    told = done.output + str(done.exception)
    assert done.exit_code == code and said in told, told
    assert "gone" in run(app, "outbox").output


def test_a_sink_that_is_served_is_not_forgotten(app: typer.Typer, database: Database) -> None:
    removed(database)
    with database.transaction() as tx:
        assert outbox.claim(tx, "gone", "another process", ttl_s=60)
    done = run(app, "outbox", "forget", "gone", "--reason", "why")
    assert done.exit_code == 1 and "another process" in str(done.exception)


def test_forgotten_while_it_is_served_it_begins_anew_and_does_not_stand_still(
    app: typer.Typer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file of settings still has it: its relay must not look idle for ever."""
    monkeypatch.setattr(relay_module, "MEASURE_S", 0.0)
    with database.transaction() as tx:
        write(tx, None, "a")
    sink = Kept()
    one = relay(database, sink, "gone")
    drain(one)
    assert run(app, "outbox", "forget", "gone", "--reason", "a mistake").exit_code == 0
    with database.transaction() as tx:
        write(tx, None, "b")
    for _ in range(3):
        drain(one)
    assert sink.steps()[-1] == "b"
