"""What was refused of rows and messages: in `torghut inbox` and in Attention, until dismissed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner

from tests.factories import TTL, decision_json
from tests.web.conftest import Served, serve, served
from tests.web.test_console_access import csrf_of
from torghut import cli_inbox
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.domain.streams import StreamAnswer
from torghut.services.inbox import Inbox
from torghut.storage import inbox
from torghut.storage.database import Database
from torghut.storage.inbox import Refused

__all__ = ["serve", "served"]

BODY = '<script>alert("no decision")</script>'


@pytest.fixture
def database(served: Served) -> Database:
    """One row and one message that were refused, and a row that was taken."""
    bodies = [BODY, json.dumps(decision_json())]
    with served.database.transaction() as tx:
        for body in bodies:
            tx.execute(text("INSERT INTO decision_inbox (body) VALUES (:b)"), {"b": body})
    Inbox(("paper",), served.database, ttl=TTL, wake=lambda _: None).run_once(utc_now())
    said = StreamAnswer("7-0", "conflict", "ab" * 32, "other payload")
    with served.database.transaction() as tx:
        for account in ("paper", "other"):
            refused = [Refused("7-0" + account, b"{}", said)]
            inbox.keep(tx, account, "stream:signals", refused, now=utc_now())
    return served.database


@pytest.fixture
def app(database: Database) -> typer.Typer:
    made = typer.Typer()

    @contextmanager
    def connect() -> Iterator[Database]:
        yield database

    cli_inbox.register(made, lambda **_: Settings(), connect)

    @made.command()
    def other() -> None:
        """So that `inbox` is one of several."""

    return made


def run(app: typer.Typer, *arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["inbox", *arguments])


def rows(app: typer.Typer, *arguments: str) -> list[dict[str, Any]]:
    done = run(app, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_they_are_listed_with_what_came_and_dismissed(app: typer.Typer, database: Database) -> None:
    message, row = rows(app)
    assert (message["source"], message["message_id"]) == ("stream:signals", "7-0paper")
    assert (message["result"], message["decision_hash"]) == ("conflict", "ab" * 32)
    assert (row["source"], row["message_id"], row["body"]) == ("inbox", None, BODY)
    assert "stream:signals" in run(app).output
    done = run(app, "dismiss", str(row["id"]), "--reason", "a test")
    assert (done.exit_code, done.stdout) == (0, f"{row['id']} dismissed\n")
    assert [one["id"] for one in rows(app)] == [message["id"]]
    (kept,) = [one for one in rows(app, "--all") if one["id"] == row["id"]]
    assert kept["dismissed_reason"] == "a test" and kept["dismissed_by"].startswith("cli:")
    assert run(app, "dismiss", str(row["id"]), "--reason", "again").exit_code == 1
    assert run(app, "dismiss", "--all", "--reason", "all").exit_code == 0
    assert rows(app) == [] and "none" in run(app).output
    with database.transaction() as tx:
        events = tx.execute(text("SELECT count(*) FROM events WHERE kind = 'inbox.dismissed'"))
        assert events.scalar_one() == 2, "the other account's row is left alone"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("dismiss", "--reason", "why"), 2),
        (("dismiss", "1", "--all", "--reason", "why"), 2),
        (("dismiss", "1", "--reason", " "), 2),
        (("dismiss", "1"), 2),
        (("dismiss", "99", "--reason", "why"), 1),
    ],
)
def test_what_is_refused(app: typer.Typer, arguments: tuple[str, ...], code: int) -> None:
    assert run(app, *arguments).exit_code == code


def test_attention_shows_them_and_dismisses_them(served: Served, database: Database) -> None:
    page = served.client.get("/console/attention")
    assert "Refused decisions" in page.text and "stream:signals" in page.text
    assert "&lt;script&gt;alert" in page.text and "<script>alert" not in page.text
    with database.transaction() as tx:
        ids = [row["id"] for row in inbox.refused(
            tx, "paper", dismissed=False, limit=9, length_max=9)]  # fmt: skip
    for number in ids:
        form = {"csrf": csrf_of(page), "id": str(number), "reason": "seen", "back": "/"}
        assert served.client.post("/console/dismiss", data=form).status_code == 303
    assert "Nothing waits for you" in served.client.get("/console/attention").text
    again = {"csrf": csrf_of(page), "id": str(ids[0]), "reason": "seen", "back": "/"}
    assert served.client.post("/console/dismiss", data=again).status_code != 500
    audit = served.client.get("/console/audit").text
    assert "refused decision dismissed" in audit


def test_a_message_that_comes_again_is_kept_once(database: Database) -> None:
    """A stream that was made anew begins with 1 again: another body is another message."""
    said = StreamAnswer("1", "invalid", None, "no decision")
    with database.transaction() as tx:
        for body in (b"one", b"one", b"two"):
            inbox.keep(tx, "paper", "stream:x", [Refused("1", body, said)], now=utc_now())
        bodies = tx.execute(
            text("SELECT body FROM decision_inbox WHERE source = 'stream:x' ORDER BY 1")
        )
        assert bodies.scalars().all() == ["one", "two"]


def test_bodies_that_are_no_text_or_too_long_are_kept_as_far_as_they_can_be(
    database: Database,
) -> None:
    said = StreamAnswer("1", "invalid", None, "no decision")
    for number, body in enumerate([b"\xff\x00\xc3", "é".encode() * 200_000, b""]):
        with database.transaction() as tx:
            refused = [Refused(str(number), body, said)]
            inbox.keep(tx, "paper", "stream:y", refused, now=utc_now())
    with database.transaction() as tx:
        found = tx.execute(
            text("""SELECT left(body, 12), octet_length(body) FROM decision_inbox
            WHERE source = 'stream:y' ORDER BY message_id""")
        )
        assert [tuple(row) for row in found] == [
            (r"\xff\x00\xc3", 12), ("é" * 12, 262_144), ("", 0),
        ]  # fmt: skip
