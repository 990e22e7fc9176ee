"""The commands about the outbox: how the sinks stand, and the events that one of them refused.

Exit 0: done; 1: no such dead letter, or it is settled already; no such sink, or it is in use;
2: no reason, or nothing named.
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
    from torghut.storage.dead_letters import DeadLetter
    from torghut.storage.outbox import SinkState

EXIT_USAGE = 2

Load = Callable[..., "Settings"]
Connect = Callable[[], AbstractContextManager["Database"]]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]
Sink = Annotated[str | None, typer.Option("--sink", help="Only this sink.")]
Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", min=1, max=2**63 - 1, help="As listed.")
]
All = Annotated[bool, typer.Option("--all", help="All of them, or all of --sink.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept with it.")]


def register(app: typer.Typer, load: Load, connect: Connect) -> None:
    """Add the commands to `app`; `connect` is called once per command that is run."""

    _register_outbox(app, load, connect)

    @app.command(name="event-schema")
    def event_schema() -> None:
        """The JSON Schema of the events that sinks get."""
        from torghut.domain.event_schema import json_schema

        typer.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))

    letters = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    app.add_typer(letters, name="dead-letters", help="Events that a sink refused for good.")

    @letters.callback()
    def dead_letters(context: typer.Context) -> None:
        """Events that a sink refused for good; without a command the list of them."""
        if context.invoked_subcommand is None:
            _list(connect, None, all_=False, limit=50, as_json=False)

    @letters.command(name="list")
    def list_(
        sink: Sink = None,
        all_: Annotated[bool, typer.Option("--all", help="Also what was settled.")] = False,
        limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Rows at most.")] = 50,
        as_json: AsJson = False,
    ) -> None:
        """Events that a sink refused, newest first, and what it said."""
        _list(connect, sink, all_=all_, limit=limit, as_json=as_json)

    @letters.command()
    def retry(
        reason: Why,
        ids: Ids = None,
        sink: Sink = None,
        all_: All = False,
        as_json: AsJson = False,
    ) -> None:
        """Have dead letters tried again by the daemon; what comes late comes out of order."""
        _settle(connect, "retry", ids, sink, reason, all_=all_, as_json=as_json)

    @letters.command()
    def drop(
        reason: Why,
        ids: Ids = None,
        sink: Sink = None,
        all_: All = False,
        as_json: AsJson = False,
    ) -> None:
        """Give dead letters up: the sink never gets them."""
        _settle(connect, "drop", ids, sink, reason, all_=all_, as_json=as_json)


def _register_outbox(app: typer.Typer, load: Load, connect: Connect) -> None:
    sinks = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    app.add_typer(sinks, name="outbox", help="How far each sink has been given the events.")

    @sinks.callback()
    def outbox(context: typer.Context, as_json: AsJson = False) -> None:
        """How far each sink has been given the events, what waits, and the last error."""
        if context.invoked_subcommand is None:
            _states(load(log_level="warning"), connect, as_json=as_json)

    @sinks.command()
    def forget(
        name: Annotated[str, typer.Argument(help="A sink that is not in the settings any more.")],
        reason: Why,
        as_json: AsJson = False,
    ) -> None:
        """Give a removed sink up: its position goes, and its dead letters are dropped."""
        _forget(load(log_level="warning"), connect, name, reason, as_json=as_json)


def _forget(settings: Settings, connect: Connect, name: str, reason: str, *, as_json: bool) -> None:
    from torghut.clock import utc_now
    from torghut.services import sink_removal
    from torghut.services.operator import NotChanged

    try:
        with connect() as database:
            done = sink_removal.forget(
                database,
                name,
                configured=settings.sinks.keys(),
                actor=actor(),
                reason=reason,
                now=utc_now(),
            )
    except NotChanged as error:
        fail(f"--{error.fault.field} {error.fault.problem}; say why, it is kept", EXIT_USAGE)
    if as_json:
        typer.echo(json.dumps({"sink": name, **asdict(done)}))
    else:
        typer.echo(
            f"{name}: forgotten; {done.lag} events it was not given,"
            f" {done.dead_letters} dead letters dropped"
        )


def _states(settings: Settings, connect: Connect, *, as_json: bool) -> None:
    from torghut.cli_output import Column, table
    from torghut.cli_text import line
    from torghut.clock import utc_now
    from torghut.storage import outbox

    with connect() as database, database.transaction() as tx:
        known = {state.sink: state for state in outbox.states(tx)}
    rows = [
        _row(settings, name, known.get(name), utc_now())
        for name in sorted(known.keys() | settings.sinks.keys())
    ]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif not rows:
        show(line("no sinks: add a table [sinks.NAME] to the settings file (docs/outbox.md)"))
    else:
        columns = (
            Column("sink", lambda row: row["sink"], fixed=True),
            Column("kind", lambda row: row["kind"] or "not in the settings"),
            Column("to", lambda row: row["to"] or ""),
            Column("delivered", lambda row: str(row["delivered"]), right=True),
            Column("waiting", _waiting, right=True),
            Column("dead", lambda row: str(row["dead_letters"]), right=True),
            Column("last error", _last_error),
        )
        show(table(rows, columns))


def _row(settings: Settings, name: str, state: SinkState | None, now: Any) -> dict[str, Any]:
    from torghut.domain.values import canonical_instant

    def instant(value: Any) -> str | None:
        return canonical_instant(value) if value is not None else None

    table = settings.sinks.get(name)
    oldest = state.oldest_at if state else None
    return {
        "sink": name,
        "kind": table.kind if table else None,
        "to": table.place() if table else None,
        "delivered": state.delivered if state else 0,
        "delivered_at": instant(state.delivered_at) if state else None,
        "lag_events": state.lag if state else None,
        "lag_seconds": round(max(0.0, (now - oldest).total_seconds()), 3) if oldest else 0.0,
        "dead_letters": state.dead if state else 0,
        "failures": state.failures if state else 0,
        "retry_at": instant(state.retry_at) if state else None,
        "last_error": state.last_error if state else None,
        "last_error_at": instant(state.last_error_at) if state else None,
        "served_by": state.owner if state else None,
    }


def _waiting(row: Mapping[str, Any]) -> str:
    from torghut.cli_text import duration

    if row["lag_events"] is None:
        return "not begun"
    if not row["lag_events"]:
        return "0"
    return f"{row['lag_events']} for {duration(row['lag_seconds'])}"


def _last_error(row: Mapping[str, Any]) -> str:
    from torghut.cli_text import moment

    if row["last_error"] is None:
        return ""
    stands = f", {row['failures']} in a row" if row["failures"] else ", over"
    return f"{row['last_error']} ({moment(row['last_error_at'])}{stands})"


def _list(connect: Connect, sink: str | None, *, all_: bool, limit: int, as_json: bool) -> None:
    from torghut.cli_output import Column, table
    from torghut.cli_text import line, moment
    from torghut.storage import dead_letters

    with connect() as database, database.transaction() as tx:
        rows = [
            _plain(one) for one in dead_letters.listed(tx, sink=sink, settled=all_, limit=limit)
        ]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif not rows:
        show(line("none" if all_ else "none; with --all those that were settled"))
    else:
        columns = (
            Column("id", lambda row: str(row["dead_letter_id"]), fixed=True, right=True),
            Column("sink", lambda row: row["sink"], fixed=True),
            Column("event", lambda row: f"{row['kind']} {row['event_id']}"),
            Column("status", lambda row: row["status"], fixed=True),
            Column("refused (UTC)", lambda row: f"{moment(row['tried_at'])} ×{row['refusals']}"),
            Column("error", lambda row: row["error"]),
        )
        show(table(rows, columns))


def _plain(one: DeadLetter) -> dict[str, Any]:
    from torghut.domain.values import canonical_instant

    row = asdict(one)
    for name in ("died_at", "tried_at", "settled_at"):
        row[name] = canonical_instant(row[name]) if row[name] is not None else None
    return row


def _settle(
    connect: Connect,
    what: str,
    ids: list[int] | None,
    sink: str | None,
    reason: str,
    *,
    all_: bool,
    as_json: bool,
) -> None:
    from torghut.clock import utc_now
    from torghut.services import dead_letters

    if bool(ids) == all_:
        fail("name dead letters by their ids, or all of them by --all", EXIT_USAGE)
    act = dead_letters.retry if what == "retry" else dead_letters.drop
    try:
        with connect() as database:
            moved = act(
                database, ids or None, sink=sink, actor=actor(), reason=reason, now=utc_now()
            )
    except dead_letters.NoReason as error:
        fail(str(error), EXIT_USAGE)
    for one in moved:
        if as_json:
            typer.echo(json.dumps(_plain(one)))
        else:
            typer.echo(f"{one.dead_letter_id} {one.sink} {one.kind} {one.event_id}: {one.status}")
    if not moved and not as_json:
        typer.echo("none")
