"""The commands about tokens of the HTTP interface: make, list, revoke.

Exit 0: done; 1: no such token, or the name is taken; 2: what was given cannot be used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_control import actor
from torghut.cli_reads import fail, show
from torghut.domain.access import Scope

if TYPE_CHECKING:
    from datetime import datetime

    from torghut.storage.database import Database
    from torghut.storage.tokens import TokenRow

EXIT_USAGE = 2

Connect = Callable[[], AbstractContextManager["Database"]]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]
Name = Annotated[str, typer.Argument(help="What it is called in the books; never used twice.")]
Scopes = Annotated[
    list[Scope], typer.Option("--scope", help="What it may do; may be given more than once.")
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires", metavar="TIME", help="When it ends: 90d, 12h, or 2027-01-05T14:30:00Z."
    ),
]


def register(app: typer.Typer, connect: Connect) -> None:
    """Add the commands to `app`; `connect` is called once per command that is run."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="token", help="Tokens of the HTTP interface and the console.")

    @group.command()
    def create(name: Name, scope: Scopes, expires: Expires = None, as_json: AsJson = False) -> None:
        """Make a token and print it, this once: only its SHA-256 is kept."""
        _create(connect, name, scope, expires, as_json=as_json)

    @group.command(name="list")
    def list_(
        all_: Annotated[bool, typer.Option("--all", help="Also what ended.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Tokens that can be used: what they may do, by whom, since when, last used."""
        _list(connect, all_=all_, as_json=as_json)

    @group.command()
    def revoke(
        name: Name,
        reason: Annotated[str, typer.Option("--reason", help="Why; kept with it.")],
        as_json: AsJson = False,
    ) -> None:
        """End a token: no daemon takes it any more after a second."""
        _revoke(connect, name, reason, as_json=as_json)


def _create(
    connect: Connect, name: str, scopes: list[Scope], expires: str | None, *, as_json: bool
) -> None:
    from torghut.clock import utc_now
    from torghut.domain.values import canonical_instant
    from torghut.services import tokens

    now = utc_now()
    ends = None if expires is None else _ends(expires, now)
    try:
        with connect() as database:
            token = tokens.create(database, name, scopes, expires_at=ends, actor=actor(), now=now)
    except tokens.NotUsable as error:
        fail(str(error), EXIT_USAGE)
    if not as_json:
        typer.echo("kept nowhere: this is the only time it is shown", err=True)
        typer.echo(token)
        return
    made = {"name": name, "scopes": sorted(set(scopes)), "token": token}
    typer.echo(json.dumps({**made, "expires_at": canonical_instant(ends) if ends else None}))


def _ends(text: str, now: datetime) -> datetime:
    """An instant, or how long from now."""
    from torghut.domain.values import parse_instant, parse_since

    try:
        if text[:1].isdigit() and "T" not in text and "-" not in text:
            return now + (now - parse_since(text, now=now))
        return parse_instant(text)
    except (ValueError, OverflowError) as error:
        fail(f"--expires {error}", EXIT_USAGE)


def _list(connect: Connect, *, all_: bool, as_json: bool) -> None:
    from torghut.cli_output import Column, table
    from torghut.cli_text import line, moment
    from torghut.clock import utc_now
    from torghut.storage import tokens

    with connect() as database, database.transaction() as tx:
        rows = [_plain(one) for one in tokens.listed(tx, all_=all_, now=utc_now())]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif not rows:
        show(line("none; make one: torghut token create NAME --scope read"))
    else:
        columns = (
            Column("name", lambda row: row["name"], fixed=True),
            Column("scopes", lambda row: " ".join(row["scopes"]), fixed=True),
            Column("made (UTC)", lambda row: f"{moment(row['made_at'])} {row['made_by']}"),
            Column("expires", lambda row: _moment(row["expires_at"], "never")),
            Column("last used", lambda row: _moment(row["last_used_at"], "never")),
            Column("revoked", lambda row: _moment(row["revoked_at"], "")),
        )
        show(table(rows, columns))


def _moment(instant: str | None, none: str) -> str:
    from torghut.cli_text import moment

    return none if instant is None else moment(instant)


def _revoke(connect: Connect, name: str, reason: str, *, as_json: bool) -> None:
    from torghut.clock import utc_now
    from torghut.services import tokens

    try:
        with connect() as database:
            row = tokens.revoke(database, name, actor=actor(), reason=reason, now=utc_now())
    except tokens.NotUsable as error:
        fail(str(error), EXIT_USAGE)
    typer.echo(json.dumps(_plain(row)) if as_json else f"{name}: revoked")


def _plain(one: TokenRow) -> dict[str, Any]:
    from dataclasses import asdict

    from torghut.domain.values import canonical_instant

    row = asdict(one)
    for field in ("made_at", "expires_at", "last_used_at", "revoked_at"):
        row[field] = canonical_instant(row[field]) if row[field] is not None else None
    return row
