"""`torghut bench`: figures of this machine, in a database of its own that is gone afterwards.

Nothing of the settings' broker or database is touched. Exit 0: measured; 1: something was lost,
doubled or not done in time; 2: no such part.
"""

from __future__ import annotations

from typing import Annotated

import typer

EXIT_USAGE = 2


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def bench(
        parts: Annotated[
            list[str] | None, typer.Argument(metavar="[PART]...", help="intake, path, wire.")
        ] = None,
        quick: Annotated[bool, typer.Option("--quick", help="A tenth of the size.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts.")] = False,
    ) -> None:
        """How fast intake, the path to a broker and reading are on this machine."""
        _bench(parts or [], quick=quick, as_json=as_json)


def _bench(parts: list[str], *, quick: bool, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from torghut import config, places
    from torghut.bench import figures, running

    unknown = [name for name in parts if name not in running.PARTS]
    if unknown:
        known = ", ".join(running.PARTS)
        typer.echo(f"torghut bench: no part is called {unknown[0]!r}; there are {known}", err=True)
        raise typer.Exit(EXIT_USAGE)
    places.set_up_logging(config.load(log_level="error"))
    names = parts or list(running.PARTS)
    found = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"measuring: {names[0]}", total=len(names))
        sizes = running.QUICK if quick else running.WHOLE
        for done, (_, measured) in enumerate(running.run(names, sizes), start=1):
            found += measured
            following = names[done] if done < len(names) else "done"
            progress.update(task, advance=1, description=f"measuring: {following}")
    if as_json:
        typer.echo(figures.as_json(found))
    else:
        Console().print(figures.as_table(found))
