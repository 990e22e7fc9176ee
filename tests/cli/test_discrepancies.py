"""`torghut discrepancies` and `resolve`: what differs, what to do, and who closed it why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest
import typer
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from torghut import cli_discrepancies
from torghut.cli_words import DISCREPANCY_ADVICE, DISCREPANCY_WORDS
from torghut.domain.discrepancies import DRIFTS, DiscrepancyKind
from torghut.services.operator import NotResolved, UnknownDiscrepancy
from torghut.storage import discrepancies
from torghut.storage.database import Database

NOW = datetime(2026, 1, 5, 21, tzinfo=UTC)
KINDS = list(DiscrepancyKind)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as opened:
        yield opened


@pytest.fixture
def app(database: Database) -> typer.Typer:
    made = typer.Typer()

    @contextmanager
    def connect() -> Iterator[Database]:
        yield database

    cli_discrepancies.register(made, connect)
    return made


def run(app: typer.Typer, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, list(arguments))


def opened(database: Database) -> dict[DiscrepancyKind, int]:
    """One of each kind, the last of the enum newest."""
    with database.transaction() as tx:
        for kind in KINDS:
            evidence = {"why": f"\x1b[31m{kind}"}
            discrepancies.open_(tx, "paper", kind, f"about-{kind}", evidence, actor="test", now=NOW)
        standing = discrepancies.standing(tx, "paper", KINDS)
    return {kind: one.discrepancy_id for (kind, _), one in standing.items()}


def test_each_is_shown_with_evidence_and_what_to_do(app: typer.Typer, database: Database) -> None:
    assert "none is open" in run(app, "discrepancies").output
    ids = opened(database)
    output = run(app, "discrepancies").output
    for kind, id_ in ids.items():
        assert f"{id_} {kind}" in output
        assert DISCREPANCY_WORDS[kind] in output
        assert DISCREPANCY_ADVICE[kind] in " ".join(output.split())
        assert f"[31m{kind}" in output
    assert "\x1b" not in output
    assert [row["id"] for row in lines(run(app, "discrepancies", "--json"))] == sorted(
        ids.values(), reverse=True
    )
    assert len(lines(run(app, "discrepancies", "--json", "--limit", "2"))) == 2
    assert lines(run(app, "discrepancies", "--json", "--account", "other")) == []


def lines(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_resolved_by_whom_and_why(app: typer.Typer, database: Database) -> None:
    ids = opened(database)
    id_ = ids[DiscrepancyKind.ORDER_DIFFERS]
    done = run(app, "resolve", str(id_), "--reason", "canceled at the broker")
    assert done.exit_code == 0, done.output
    open_ = lines(run(app, "discrepancies", "--json"))
    assert {row["id"] for row in open_} == set(ids.values()) - {id_}
    (whole,) = (r for r in lines(run(app, "discrepancies", "--json", "--all")) if r["id"] == id_)
    who, _, why = str(whole["resolution"]).partition(": ")
    assert who.startswith("resolved by cli:") and why == "canceled at the broker"
    assert "canceled at the broker" in run(app, "discrepancies", "--all").output
    with database.transaction() as tx:
        events = tx.execute(text("SELECT payload FROM events WHERE kind = 'discrepancy.closed'"))
        assert [row.payload["resolution"] for row in events] == [whole["resolution"]]
        # the same difference, seen again, is a new one
        assert discrepancies.open_(
            tx,
            "paper",
            DiscrepancyKind.ORDER_DIFFERS,
            "about-order_differs",
            {},
            actor="test",
            now=NOW,
        )


def test_what_is_not_resolved(app: typer.Typer, database: Database) -> None:
    """Unknown and closed ones (1), empty reasons (2); amounts name the command that helps."""
    ids = opened(database)
    id_ = str(ids[DiscrepancyKind.DUPLICATE_ORDER])
    unknown = run(app, "resolve", "999", "--reason", "why")
    assert (unknown.exit_code, type(unknown.exception)) == (1, UnknownDiscrepancy)
    for reason in ("", "  "):
        empty = run(app, "resolve", id_, "--reason", reason)
        assert (empty.exit_code, "--reason" in empty.stderr) == (2, True)
    assert run(app, "resolve", id_).exit_code == 2
    assert run(app, "resolve", id_, "--reason", "why").exit_code == 0
    closed = run(app, "resolve", id_, "--reason", "why")
    assert (closed.exit_code, type(closed.exception)) == (1, NotResolved)
    for kind in DRIFTS:
        back = run(app, "resolve", str(ids[kind]), "--reason", "why")
        assert (back.exit_code, type(back.exception)) == (1, NotResolved)
        assert "would come back at the next look; take the broker's amount into our books" in str(
            back.exception
        )
        assert f"torghut accept about-{kind}" in str(back.exception)
    with database.transaction() as tx:
        assert len(discrepancies.standing(tx, "paper", KINDS)) == len(KINDS) - 1
        count = text("SELECT count(*) FROM events WHERE kind = 'discrepancy.closed'")
        assert tx.execute(count).scalar_one() == 1
