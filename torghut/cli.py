"""The command line: `torghut …`. Commands parse and print; what they do is in bootstrap and below.

Exit codes: 0 done, 1 failed, 2 usage, 78 configuration. Errors are one line on stderr that says
what, where and what to do; `--json` prints one JSON document or JSON lines on stdout. Everything
heavy is imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut import (
    cli_bench,
    cli_control,
    cli_discrepancies,
    cli_inbox,
    cli_ledger,
    cli_orders,
    cli_outbox,
    cli_plans,
    cli_reads,
    cli_reconcile,
    cli_replay,
    cli_tokens,
)

if TYPE_CHECKING:
    from torghut.config import Settings
    from torghut.storage.database import Database

EXIT_FAILED = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="torghut",
    help="Turns trading decisions into broker orders exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def main() -> None:
    """Entry point: runs the command and turns errors into one line and an exit code."""
    from torghut.domain.errors import TorghutError

    try:
        app()
    except TorghutError as error:
        typer.echo(f"torghut: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


def _settings(**overrides: Any) -> Settings:
    from torghut import config, places

    settings = config.load(**overrides)
    places.set_up_logging(settings)
    return settings


@contextmanager
def connect() -> Iterator[Database]:
    """The database of the settings, its schema checked."""
    from torghut import places

    with places.open_database(_settings(log_level="warning")) as database:
        yield database


cli_reads.register(app, connect)
cli_replay.register(app, _settings, connect)
cli_control.register(app, connect)
cli_ledger.register(app, connect)
cli_orders.register(app)
cli_outbox.register(app, _settings, connect)
cli_inbox.register(app, _settings, connect)
cli_plans.register(app, _settings, connect)
cli_discrepancies.register(app, connect)
cli_reconcile.register(app, connect)
cli_bench.register(app)
cli_tokens.register(app, connect)


@app.command()
def run(
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the database's schema up to date first.")
    ] = False,
) -> None:
    """Run the whole daemon: intake, risk, submission, reconciliation, strategies, HTTP."""
    from torghut import bootstrap
    from torghut.serving import serving

    settings = _settings()
    stop = _stop_event()
    with (
        bootstrap.running_daemon(settings, migrating=migrate) as daemon,
        serving(daemon) as url,
    ):
        _on_hangup(daemon.limits.on_signal, stop)
        for one in settings.each():
            where = "simulated broker" if one.broker == "sim" else one.base_url
            typer.echo(
                f"torghut: account {one.account}, {one.trading_mode} mode, {where}; "
                f"console and API at {url}",
                err=True,
            )
        daemon.wait(stop)


@app.command()
def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="End after the report.")] = False,
    sessions: Annotated[int, typer.Option(help="Trading days to replay; 0 replays all.")] = 0,
    fault_rate: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of faulty calls.")
    ] = 0.15,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier demo runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Real daily bars through the whole path, with faults, and the proof at the end."""
    from torghut import demo as show

    stop = _stop_event()
    code = show.run(
        sessions=sessions,
        fault_rate=fault_rate,
        fresh=fresh,
        serve=not exit_ and not as_json,
        as_json=as_json,
        stop=stop,
    )
    raise typer.Exit(code)


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    from torghut import places
    from torghut.storage import migrate as migration

    settings = _settings()
    before, after = migration.upgrade(places.database_url(settings))
    if before == after:
        typer.echo(f"schema {after}: nothing to do")
    else:
        typer.echo(f"schema {before or 'none'} → {after}")


@app.command()
def submit(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON lines of decisions.")],
) -> None:
    """Store decisions, one JSON object a line; prints one JSON line for each."""
    from torghut import places
    from torghut.clock import utc_now
    from torghut.services.batch import Accounts, submit_lines
    from torghut.services.intake import IntakeDesk

    settings = _settings()
    places.arm_recovery_point(settings)
    refused = 0
    with _lines(file) as lines, places.open_database(settings) as database:
        desk = IntakeDesk(database, utc_now, partial(places.notify, database))
        for answer in submit_lines(
            lines,
            desk,
            accounts=Accounts(settings.labels, settings.default_account),
            ttl=places.decision_ttl(settings),
            source="cli",
        ):
            refused += answer["result"] in ("invalid", "conflict")
            typer.echo(json.dumps(answer, ensure_ascii=True))
    raise typer.Exit(EXIT_FAILED if refused else 0)


@app.command(name="hash")
def hash_(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON lines of decisions.")],
    account: Annotated[str, typer.Option(envvar="TORGHUT_ACCOUNT")] = "paper",
) -> None:
    """Print identity and digest of decisions without storing anything."""
    from datetime import timedelta

    from torghut.domain.errors import InvalidDecision
    from torghut.domain.values import canonical_json
    from torghut.services.batch import Accounts, read_decision

    failed = False
    accounts = Accounts.only(account)
    with _lines(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                decision = read_decision(line, accounts=accounts, ttl=timedelta(days=1))
            except InvalidDecision as error:
                failed = True
                typer.echo(json.dumps({"line": number, "error": str(error)}))
                continue
            answer = {
                "line": number,
                "decision_hash": decision.decision_hash,
                "payload_digest": decision.payload_digest,
                "canonical_identity": canonical_json(decision.identity()).decode(),
            }
            typer.echo(json.dumps(answer))
    raise typer.Exit(EXIT_FAILED if failed else 0)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, database, schema, broker and keys, and say what to do."""
    from torghut import doctor as checks

    raise typer.Exit(checks.run(as_json=as_json))


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def sim(context: typer.Context) -> None:
    """Run the simulated broker alone, until interrupted; `torghut sim --help` for its options."""
    from torghut.simulator.__main__ import serve

    simulator = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    simulator.command()(serve)
    simulator(args=context.args, prog_name="torghut sim")


@contextmanager
def _lines(file: str) -> Iterator[Iterator[bytes]]:
    from torghut.services.batch import lines_of

    if file == "-":
        yield lines_of(sys.stdin.buffer)
        return
    try:
        with Path(file).open("rb") as stream:
            yield lines_of(stream)
    except OSError as error:
        typer.echo(f"torghut: {file}: {error.strerror}", err=True)
        raise typer.Exit(EXIT_USAGE) from None


def _stop_event() -> threading.Event:
    """Set by SIGTERM and SIGINT; a second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(EXIT_FAILED)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def _on_hangup(reload: Callable[[], None], stop: threading.Event) -> None:
    """SIGHUP reads the limits again; from a terminal that was closed it means the end."""
    terminal = sys.stderr.isatty()

    def on_signal(_number: int, _frame: object) -> None:
        if terminal and not sys.stderr.isatty():
            stop.set()
        else:
            reload()

    signal.signal(signal.SIGHUP, on_signal)
