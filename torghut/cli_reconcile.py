"""The command `torghut reconcile`: compare with the broker now, correct, or only show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_reads import AsJson, Since, settings_of

if TYPE_CHECKING:
    from torghut.config import Settings
    from torghut.storage.database import Database

EXIT_FAILED = 1
SHOWN_MAX = 50
COUNTED = {
    "missing": "rows missing",
    "restored": "books restored",
    "fold": "orders brought up to date",
    "backfill": "orders of decisions found",
    "late": "orders of ended decisions found",
    "adopt": "orders of others adopted",
    "fills": "fills booked",
    "closed": "decisions closed",
    "entries": "entries booked",
    "opening": "opening booked",
    "drifts_opened": "differences of positions or cash opened",
    "drifts_closed": "differences of positions or cash ended",
    "poison": "rows that cannot be booked",
    "unanswered": "questions not answered",
    "failed": "steps failed",
}
"""What a pass counts and a person wants to know."""

Account = Annotated[str | None, typer.Option(help="Which; default TORGHUT_ACCOUNT.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")]


def register(app: typer.Typer, connect: Callable[[], AbstractContextManager[Database]]) -> None:
    """Add the command to `app`; `connect` is called once per command that is run."""

    @app.command()
    def reconcile(
        since: Since = None,
        dry_run: DryRun = False,
        account: Account = None,
        as_json: AsJson = False,
    ) -> None:
        """Compare the books with the broker's now, and correct ours."""
        from torghut import config

        settings = settings_of(config.load(log_level="warning"), account)
        with connect() as database, _progress() as on_page:
            if dry_run:
                _show(settings, database, since, on_page, as_json=as_json)
            else:
                _correct(settings, database, since, on_page, as_json=as_json)


def _correct(
    settings: Settings,
    database: Database,
    since: datetime | None,
    on_page: Callable[[str, int], None],
    *,
    as_json: bool,
) -> None:
    from torghut import reconciling

    counts = reconciling.reconcile_once(settings, database, since=since, on_page=on_page)
    found = {what: counts[what] for what in COUNTED if counts.get(what)}
    if as_json:
        typer.echo(json.dumps(found))
    elif found:
        typer.echo(", ".join(f"{COUNTED[what]} {count}" for what, count in found.items()))
    else:
        typer.echo("books and broker agree: nothing to correct")
    raise typer.Exit(EXIT_FAILED if found.get("failed") else 0)


def _show(
    settings: Settings,
    database: Database,
    since: datetime | None,
    on_page: Callable[[str, int], None],
    *,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from torghut import reconciling

    total = 0
    for one in reconciling.preview(settings, database, since=since, on_page=on_page):
        total += 1
        if as_json:
            typer.echo(json.dumps(asdict(one)))
        elif total <= SHOWN_MAX:
            typer.echo(f"{one.what:<9} {one.symbol:<10} {one.broker_id}  {one.detail}")
    if as_json:
        return
    if total > SHOWN_MAX:
        typer.echo(f"… and {total - SHOWN_MAX} more; all of them: --json")
    wanted = f"{total} corrections wanted; nothing was written"
    typer.echo(wanted if total else "books and broker agree: nothing to correct")


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """On a terminal: rows read of each list, on stderr; gone when it is over."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        SpinnerColumn(),
        TextColumn("reading {task.description}: {task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def on_page(name: str, rows: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None)
            bar.advance(tasks[name], rows)

        yield on_page
