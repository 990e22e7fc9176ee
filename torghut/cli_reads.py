"""The commands that only read: decisions, executions, fills, positions, explain, status.

```
options ─▶ Filters ─▶ one transaction, read and closed ─▶ a table, or JSON (--json) on stdout
```

Nothing is printed while a transaction is open: a pager that waits must not hold one. Errors are
one line on stderr: exit 1 (no such decision, the database does not answer), 2 usage, 78 settings.
A reader that goes away (`| head`) is no error. What a command needs is imported when it runs, so
that `torghut --help` is fast.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy import Connection
    from sqlalchemy.exc import SQLAlchemyError

    from torghut.config import Settings
    from torghut.storage.database import Database
    from torghut.storage.queries import Filters

T = TypeVar("T")
Connect = Callable[[], "Database | AbstractContextManager[Database]"]
"""Opens the database; closed by us, or by the context manager if that is what it returns."""

EXIT_USAGE = 2
LIMIT_MAX = 10_000
DISCREPANCIES_SHOWN = 5

_UNDEFINED_TABLE = "42P01"


def _since(value: str) -> datetime:
    """An instant from RFC 3339 text, or from how long ago it was: `2h`, `3d`, `1d12h`."""
    from torghut.clock import utc_now
    from torghut.domain.values import parse_since

    try:
        return parse_since(value, now=utc_now())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Status = Annotated[str | None, typer.Option("--status", help="Only this status.")]
Symbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol.")]
Strategy = Annotated[str | None, typer.Option("--strategy", help="Only this strategy.")]
Account = Annotated[str | None, typer.Option("--account", help="Only this account.")]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        parser=_since,
        metavar="TIME",
        help="Only from then on: 2026-01-05T14:30:00Z, or how long ago, such as 2h or 3d.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="Rows at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]


def account_of(settings: Settings, account: str | None) -> str:
    """The account that a command is about; ends the command where it has to be named."""
    try:
        return settings.wanted(account)
    except ValueError as error:
        fail(f"--account {error}", EXIT_USAGE)


def settings_of(settings: Settings, account: str | None) -> Settings:
    """The settings of the account that a command is about; it has to be in them."""
    label = account_of(settings, account)
    if label not in settings.labels:
        fail(
            f"--account {label!a} is not in the settings: {', '.join(settings.labels)}", EXIT_USAGE
        )
    return settings.of(label)


def register(app: typer.Typer, connect: Connect) -> None:
    """Add the commands to `app`; `connect` is called once per command that is run."""
    _add_list(app, connect, "decisions", "Decisions, newest first.")
    _add_list(app, connect, "executions", "Broker orders, ours and external, newest first.")
    _add_list(app, connect, "fills", "Booked fills, newest first; --status is their order's.")
    _add_list(app, connect, "positions", "Positions by account and symbol (status: open, flat).")
    _add_explain(app, connect)
    _add_status(app, connect)


def _add_list(app: typer.Typer, connect: Connect, name: str, summary: str) -> None:
    @app.command(name, help=summary)
    def command(
        status: Status = None,
        symbol: Symbol = None,
        strategy: Strategy = None,
        account: Account = None,
        since: Since = None,
        limit: Limit = 50,
        as_json: AsJson = False,
    ) -> None:
        from torghut.storage.queries import Filters

        _check_status(name, status)
        filters = Filters(
            status=status,
            symbol=symbol,
            strategy=strategy,
            account=account,
            since=since,
            limit=limit,
        )
        rows = _ask(connect, lambda tx: _rows(tx, name, filters))
        if as_json:
            _print_json(rows)
        else:
            _print_table(name, rows, filters)


def _check_status(name: str, status: str | None) -> None:
    """Refuse a status that no row can have; the broker's order statuses are an open set."""
    from torghut.domain.lifecycle import DecisionStatus

    known = {"decisions": tuple(DecisionStatus), "positions": ("open", "flat")}.get(name)
    if status is not None and known is not None and status not in known:
        raise typer.BadParameter("must be one of " + ", ".join(known), param_hint="--status")


def _rows(tx: Connection, name: str, filters: Filters) -> list[dict[str, Any]]:
    from torghut.storage import pnl, queries

    lists = {
        "decisions": queries.decisions,
        "executions": queries.executions,
        "fills": queries.fills,
        "positions": pnl.positions,
    }
    return lists[name](tx, filters)


def _print_table(name: str, rows: list[dict[str, Any]], filters: Filters) -> None:
    from torghut.cli_output import LISTINGS, table
    from torghut.cli_text import line

    listing = LISTINGS[name]
    asked = [n for n in ("status", "symbol", "strategy", "account", "since") if getattr(filters, n)]
    if not rows and asked:
        show(line(f"no {name} with this {', '.join(asked)}; without it there may be some"))
    elif not rows:
        show(line(listing.empty))
    elif len(rows) == filters.limit:
        show(table(rows, listing.columns), line(f"{len(rows)} rows; more with --limit N"))
    else:
        show(table(rows, listing.columns))


def _add_explain(app: typer.Typer, connect: Connect) -> None:
    @app.command("explain", help="A decision's whole story, in order.")
    def command(
        decision_hash: Annotated[
            str, typer.Argument(metavar="HASH", help="decision_hash, or its first 8 or more.")
        ],
        as_json: AsJson = False,
    ) -> None:
        from torghut.cli_output import explain
        from torghut.clock import utc_now
        from torghut.storage import queries

        story = _ask(connect, lambda tx: queries.story(tx, decision_hash))
        if story is None:
            fail(f"no decision {_shown(decision_hash)}; list them: torghut decisions")
        if as_json:
            _print_json([story])
        else:
            show(explain(story, utc_now()))


def _add_status(app: typer.Typer, connect: Connect) -> None:
    @app.command("status", help="How an account stands: trading state, owner, doubts, broker.")
    def command(
        account: Annotated[
            str | None,
            typer.Option("--account", help="Which account; without it TORGHUT_ACCOUNT."),
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        from torghut.cli_output import status

        summary = _ask(connect, lambda tx: _summary(tx, account))
        if as_json:
            _print_json([summary])
        else:
            show(status(summary))


def _summary(tx: Connection, account: str | None) -> dict[str, Any]:
    from torghut import config
    from torghut.storage import queries

    account = account or account_of(config.load(), None)
    newest = queries.Filters(status="open", account=account, limit=DISCREPANCIES_SHOWN)
    return {**queries.summary(tx, account), "discrepancies": queries.discrepancies(tx, newest)}


# ---------------------------------------------------------------- database


def _ask(connect: Connect, question: Callable[[Connection], T]) -> T:
    """The answer of one transaction; a failure ends the command with one line on stderr."""
    from sqlalchemy.exc import SQLAlchemyError

    from torghut.domain.errors import TorghutError

    try:
        opened = connect()
        owned = opened if isinstance(opened, AbstractContextManager) else closing(opened)
        with owned as database, database.transaction() as tx:
            return question(tx)
    except TorghutError as error:
        fail(str(error), error.exit_code)
    except SQLAlchemyError as error:
        fail(_database_said(error))


def _database_said(error: SQLAlchemyError) -> str:
    from torghut.storage.database_faults import first_line

    if getattr(getattr(error, "orig", None), "sqlstate", None) == _UNDEFINED_TABLE:
        return "the database has no tables of torghut (or old ones); run: torghut migrate"
    return f"the database could not answer: {first_line(error)}"


# ---------------------------------------------------------------- output


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with one line on stderr."""
    typer.echo(f"torghut: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 64 else text[:61] + "...")


def _print_json(documents: Iterable[dict[str, Any]]) -> None:
    """One JSON document a line, ASCII only."""
    _write(lambda: sys.stdout.writelines(json.dumps(document) + "\n" for document in documents))


def show(*renderables: RenderableType) -> None:
    """Print for a person: as wide as the terminal, colours only there, nothing taken for markup."""
    from rich.console import Console

    class QuietConsole(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            raise BrokenPipeError

    if hasattr(sys.stdout, "reconfigure"):  # a terminal without ✓ shows ? in its place
        sys.stdout.reconfigure(errors="replace")
    console = QuietConsole(highlight=False, markup=False, emoji=False)
    _write(lambda: console.print(*renderables, sep="\n"))


def _write(write: Callable[[], None]) -> None:
    """Write to stdout; if its reader has gone, so has the reason to go on, and that is no error."""
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
