"""The commands about discrepancies: what differs, with evidence and what to do, and closing one.

`resolve` is for what a person has looked into. Exit 0: resolved; 1: no such discrepancy, closed
already, or it would be open again at the next look; 2: no reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_control import actor
from torghut.cli_reads import LIMIT_MAX, fail, show

if TYPE_CHECKING:
    from rich.console import Group

    from torghut.storage.database import Database

EXIT_USAGE = 2
ID_MAX = 2**63 - 1

Connect = Callable[[], AbstractContextManager["Database"]]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]


def register(app: typer.Typer, connect: Connect) -> None:
    """Add the commands to `app`; `connect` is called once per command that is run."""

    @app.command()
    def discrepancies(
        all_: Annotated[bool, typer.Option("--all", help="Also what has ended.")] = False,
        account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Rows at most.")] = 50,
        as_json: AsJson = False,
    ) -> None:
        """Where our books and the broker's differ, newest first, and what to do."""
        _list(connect, all_, account, limit, as_json=as_json)

    @app.command()
    def resolve(
        discrepancy_id: Annotated[
            int, typer.Argument(metavar="ID", min=1, max=ID_MAX, help="As listed.")
        ],
        reason: Annotated[str, typer.Option("--reason", help="Why; kept with it.")],
        as_json: AsJson = False,
    ) -> None:
        """Close a discrepancy that was looked into."""
        _resolve(connect, discrepancy_id, reason, as_json=as_json)


def _list(connect: Connect, all_: bool, account: str | None, limit: int, *, as_json: bool) -> None:
    from torghut.cli_text import line
    from torghut.storage import queries

    filters = queries.Filters(status=None if all_ else "open", account=account, limit=limit)
    with connect() as database, database.transaction() as tx:
        queries.begin(tx)
        rows = queries.discrepancies(tx, filters)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif not rows:
        show(line("none" if all_ else "none is open; with --all those that have ended"))
    else:
        more = [line(f"{len(rows)} shown; more with --limit N")] if len(rows) == limit else []
        show(*(_shown(row) for row in rows), *more)


def _shown(row: Mapping[str, Any]) -> Group:
    from torghut import cli_words as words
    from torghut.cli_text import fields, grid, moment, section

    stands = row["resolved_at"] is None
    said = [
        ("what", words.in_words(words.DISCREPANCY_WORDS, row["kind"])),
        ("subject", row["subject"]),
        ("account", row["account"]),
        ("evidence", fields(row["evidence"])),
        ("first seen", f"{moment(row['opened_at'])} (UTC)"),
    ]
    if stands:
        said.append(("to do", words.DISCREPANCY_ADVICE.get(row["kind"], "")))
    else:
        said.append(("ended", f"{moment(row['resolved_at'])} (UTC): {row['resolution']}"))
    return section(f"{row['id']} {row['kind']}{'' if stands else ' (ended)'}", grid(said))


def _resolve(connect: Connect, discrepancy_id: int, reason: str, *, as_json: bool) -> None:
    from torghut.clock import utc_now
    from torghut.services import operator

    try:
        with connect() as database:
            done = operator.resolve(
                database, discrepancy_id, actor=actor(), reason=reason, now=utc_now()
            )
    except operator.NotChanged as error:
        fail(f"--{error.fault.field} {error.fault.problem}; say why, it is kept", EXIT_USAGE)
    if as_json:
        typer.echo(json.dumps(done))
    else:
        typer.echo(f"{done['id']} {done['kind']} {done['subject']}: {done['resolution']}")
