"""`torghut replay`: judge stored decisions again, under their own or another policy."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_reads import account_of

if TYPE_CHECKING:
    from torghut.config import Settings
    from torghut.domain.risk_policy import RiskPolicy
    from torghut.services.replay import Replayed
    from torghut.storage.database import Database

EXIT_FAILED, EXIT_USAGE = 1, 2
SHOWN_MAX = 50


def register(
    app: typer.Typer,
    settings: Callable[..., Settings],
    connect: Callable[[], AbstractContextManager[Database]],
) -> None:
    """Add the command to the application."""

    @app.command()
    def replay(
        since: Annotated[str | None, typer.Option(help="Verdicts from this instant on.")] = None,
        policy: Annotated[
            Path | None, typer.Option(help="A TOML file with another [risk] table.")
        ] = None,
        account: Annotated[str | None, typer.Option(help="Which; default TORGHUT_ACCOUNT.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
    ) -> None:
        """Judge stored decisions again from their stored facts; exit 1 if one comes out otherwise.

        With --policy: what would have changed under another [risk] table.
        """
        from torghut.domain.values import parse_instant
        from torghut.services.replay import replay as judge_again

        account = account_of(settings(log_level="warning"), account)
        try:
            start = None if since is None else parse_instant(since)
        except ValueError as error:
            typer.echo(f"torghut: --since {error}", err=True)
            raise typer.Exit(EXIT_USAGE) from None
        other = None if policy is None else _policy(policy, account)
        with connect() as database:
            done = judge_again(database, account, since=start, policy=other)
        if as_json:
            typer.echo(json.dumps(_as_json(done)))
        else:
            _show(done, other)
        raise typer.Exit(EXIT_FAILED if done.changed and other is None else 0)


def _policy(file: Path, account: str) -> RiskPolicy:
    from torghut.domain.risk_policy import RiskPolicy

    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("risk", {})
    except OSError as error:
        problem = f"{error.strerror}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = f"is not TOML: {error}"
    else:
        return RiskPolicy(table, account=account, live=False)
    typer.echo(f"torghut: {file}: {problem}", err=True)
    raise typer.Exit(EXIT_USAGE)


def _as_json(done: Replayed) -> dict[str, Any]:
    return {
        "judged": done.judged,
        "same": done.same,
        "unreadable": done.unreadable,
        "before": dict(done.before),
        "after": dict(done.after),
        "changed": [
            {**asdict(change), "judged_at": change.judged_at.isoformat()} for change in done.changed
        ],
    }


def _show(done: Replayed, other: RiskPolicy | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from torghut.cli_text import line, printable

    console = Console()
    told = f"{done.judged} verdicts judged again: {done.same} the same"
    told += f", {len(done.changed)} {'would change' if other else 'came out otherwise'}"
    if done.unreadable:
        told += f"; {done.unreadable} were stored before facts were kept whole"
    console.print(told, markup=False)
    if not done.changed:
        return
    totals = Table("verdict", "before", "after")
    for reason in sorted({*done.before, *done.after}):
        totals.add_row(reason, str(done.before[reason]), str(done.after[reason]))
    console.print(totals)
    rows = Table("decision", "strategy", "symbol", "before", "after")
    for change in done.changed[:SHOWN_MAX]:
        short = change.decision_hash[:12]
        cells = (short, change.strategy, change.symbol, change.before, change.after)
        rows.add_row(*(line(printable(cell)) for cell in cells))
    console.print(rows)
    if len(done.changed) > SHOWN_MAX:
        console.print(f"and {len(done.changed) - SHOWN_MAX} more; --json has them all")
