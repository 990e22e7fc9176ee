"""`torghut inbox`: refused decisions of decision_inbox and of streams, and dismissing them.

Exit 0: done; 1: no such row, or it is dismissed already; 2: no reason, or nothing named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_control import actor
from torghut.cli_reads import LIMIT_MAX, fail, show

if TYPE_CHECKING:
    from torghut.config import Settings
    from torghut.storage.database import Database

EXIT_USAGE = 2
BODY_SHOWN_MAX = 200

Load = Callable[..., "Settings"]
Connect = Callable[[], AbstractContextManager["Database"]]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]
Also = Annotated[bool, typer.Option("--all", help="Also what was dismissed.")]
Limit = Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Rows at most.")]


def register(app: typer.Typer, load: Load, connect: Connect) -> None:
    """Add the commands to `app`; `connect` is called once per command that is run."""
    inbox = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    app.add_typer(inbox, name="inbox", help="Refused decisions of the inbox and of streams.")

    @inbox.callback()
    def refused(
        context: typer.Context, all_: Also = False, limit: Limit = 50, as_json: AsJson = False
    ) -> None:
        """Decisions of the inbox and of streams that were refused, newest first, and why."""
        if context.invoked_subcommand is None:
            account = load(log_level="warning").account
            _list(connect, account, all_=all_, limit=limit, as_json=as_json)

    @inbox.command()
    def dismiss(
        reason: Annotated[str, typer.Option("--reason", help="Why; kept with it.")],
        ids: Annotated[
            list[int] | None,
            typer.Argument(metavar="[ID]...", min=1, max=2**63 - 1, help="As listed."),
        ] = None,
        all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Note that refused decisions were looked into: they are not shown any more."""
        account = load(log_level="warning").account
        _dismiss(connect, account, ids, reason, all_=all_, as_json=as_json)


def _list(connect: Connect, account: str, *, all_: bool, limit: int, as_json: bool) -> None:
    from torghut.cli_output import Column, table
    from torghut.cli_text import line, moment
    from torghut.storage import inbox

    length = inbox.BODY_BYTES_MAX if as_json else BODY_SHOWN_MAX
    with connect() as database, database.transaction() as tx:
        rows = inbox.refused(tx, account, dismissed=all_, limit=limit, length_max=length)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif not rows:
        show(line("none was refused" if all_ else "none; with --all those that were dismissed"))
    else:
        columns = (
            Column("id", lambda row: str(row["id"]), fixed=True, right=True),
            Column("from", _origin),
            Column("answer", lambda row: row["result"], fixed=True),
            Column("at (UTC)", lambda row: moment(row["answered_at"])),
            Column("error", lambda row: row["error"] or ""),
            Column("as it came", lambda row: row["body"]),
        )
        show(table(rows, columns))


def _origin(row: Mapping[str, Any]) -> str:
    return f"{row['source']} {row['message_id']}" if row["message_id"] else str(row["source"])


def _dismiss(
    connect: Connect,
    account: str,
    ids: list[int] | None,
    reason: str,
    *,
    all_: bool,
    as_json: bool,
) -> None:
    from torghut.clock import utc_now
    from torghut.services import refusals
    from torghut.services.operator import NotChanged

    if bool(ids) == all_:
        fail("name refused decisions by their ids, or all of them by --all", EXIT_USAGE)
    try:
        with connect() as database:
            done = refusals.dismiss(
                database, account, ids or None, actor=actor(), reason=reason, now=utc_now()
            )
    except NotChanged as error:
        fail(f"--{error.fault.field} {error.fault.problem}; say why, it is kept", EXIT_USAGE)
    for one in done:
        typer.echo(json.dumps(asdict(one)) if as_json else f"{one.inbox_id} dismissed")
    if not done and not as_json:
        typer.echo("none")
