"""The commands that steer trading: halt, reduce, resume, states, limits.

A change of state is a transaction on the database, which every process looks at before each order.
Limits belong to a process: `limits reload` leaves a request in the database, the daemons answer it
with an event, and the answer of the one that owns the account is what is printed.
"""

from __future__ import annotations

import getpass
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_reads import account_of, fail, settings_of, show

if TYPE_CHECKING:
    from torghut.storage.database import Database

EXIT_USAGE = 2
LOOK_EVERY_S = 0.1
WAIT_S = 10.0

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the change.")]
Account = Annotated[str | None, typer.Option(help="One account only; default: everything.")]
Which = Annotated[str | None, typer.Option("--account", help="Which; default TORGHUT_ACCOUNT.")]
Strategy = Annotated[
    str | None, typer.Option(help="One strategy only, on every account; default: everything.")
]
Wait = Annotated[
    float, typer.Option("--wait", min=0.1, max=600, help="Seconds to wait for the daemon.")
]
Connect = Callable[[], AbstractContextManager["Database"]]


def register(app: typer.Typer, connect: Connect) -> None:
    """Add the commands to `app`; `connect` is called once per command that is run."""

    @app.command()
    def halt(reason: Reason, account: Account = None, strategy: Strategy = None) -> None:
        """Stop trading: nothing is sent until `torghut resume`."""
        _change_state(connect, "halted", reason, account, strategy)

    @app.command()
    def reduce(reason: Reason, account: Account = None, strategy: Strategy = None) -> None:
        """Send only orders that shrink a position, until `torghut resume`."""
        _change_state(connect, "reducing", reason, account, strategy)

    @app.command()
    def resume(reason: Reason, account: Account = None, strategy: Strategy = None) -> None:
        """Trade again after a halt, one of the program's own included."""
        _change_state(connect, "active", reason, account, strategy)

    @app.command()
    def states(as_json: AsJson = False) -> None:
        """What may be traded: each scope's state, by whom, why and since when."""
        _states(connect, as_json=as_json)

    limits = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    app.add_typer(limits, name="limits", help="The risk limits of these settings.")

    @limits.callback()
    def show_limits(context: typer.Context, account: Which = None, as_json: AsJson = False) -> None:
        """The risk limits of these settings, where each comes from, and the policy's version."""
        if context.invoked_subcommand is None:
            _limits(connect, account, as_json=as_json)

    @limits.command()
    def reload(wait: Wait = WAIT_S, account: Which = None, as_json: AsJson = False) -> None:
        """Have the running daemons read their limits again, and show what changed for the
        account."""
        _reload(connect, wait, account, as_json=as_json)


def _change_state(
    connect: Connect, state: str, reason: str, account: str | None, strategy: str | None
) -> None:
    from torghut import config
    from torghut.clock import utc_now
    from torghut.domain.exposure import TradingState
    from torghut.services import operator

    if not reason.strip():
        fail("--reason is empty; say why, it is kept", EXIT_USAGE)
    if account is not None and strategy is not None:
        fail("--account and --strategy exclude each other; give one of them", EXIT_USAGE)
    settings = config.load()
    with connect() as database:
        done = operator.change(
            TradingState(state),
            database,
            operator.scope_of(account, strategy),
            actor=actor(),
            reason=reason,
            now=utc_now(),
            settings=settings,
        )
    typer.echo(
        f"{done.scope}: {done.before} → {done.state}"
        if done.changed
        else f"{done.scope}: is {done.state} already"
    )


def _states(connect: Connect, *, as_json: bool) -> None:
    from torghut.cli_output import Column, table
    from torghut.cli_text import line, moment
    from torghut.storage import queries

    with connect() as database, database.transaction() as tx:
        rows = queries.trading_states(tx)
    if as_json:
        typer.echo(json.dumps(rows))
    elif not rows:
        show(line("global: active; nothing was ever halted or reduced"))
    else:
        columns = (
            Column("scope", lambda row: row["scope"]),
            Column("state", lambda row: row["state"], fixed=True),
            Column("since (UTC)", lambda row: moment(row["changed_at"]), fixed=True),
            Column("by", lambda row: row["actor"]),
            Column("reason", lambda row: row["reason"]),
        )
        show(table(rows, columns))


def _limits(connect: Connect, account: str | None, *, as_json: bool) -> None:
    from torghut import config
    from torghut.cli_output import Column, table
    from torghut.cli_text import line
    from torghut.services.limit_reload import listed
    from torghut.storage import queries

    settings = settings_of(config.load(), account)
    policy = config.risk_policy(settings)
    rows = listed(policy)
    with connect() as database, database.transaction() as tx:
        judged = queries.newest_policy(tx, settings.account)
    if as_json:
        answer = {"policy_version": policy.version, "limits": rows, "last_judged": judged}
        typer.echo(json.dumps(answer))
        return
    columns = (
        Column("limit", lambda row: row["limit"], fixed=True),
        Column("value", lambda row: row["value"], right=True),
        Column("from", lambda row: row["source"]),
    )
    show(table(rows, columns), line(_judged_under(policy.version, judged)))


def _judged_under(version: str, judged: dict[str, Any] | None) -> str:
    said = f"policy {version} of these settings"
    if judged is None:
        return f"{said}; no decision was judged yet"
    if judged["policy_version"] == version:
        return f"{said}; the newest verdict is by the same"
    return (
        f"{said}; the newest verdict ({judged['judged_at']}) was by {judged['policy_version']}. "
        "If the daemon's settings are these: torghut limits reload"
    )


def _reload(connect: Connect, wait_s: float, account: str | None, *, as_json: bool) -> None:
    from torghut import config
    from torghut.clock import utc_now
    from torghut.storage import control, leases

    account = account or account_of(config.load(), None)
    with connect() as database:
        with database.transaction() as tx:
            lease = leases.current(tx, account)
            if lease is None or not lease[2]:
                fail(f"no daemon trades account {account}; its limits are read when one starts")
            reload_id, newest = control.request_reload(tx, actor=actor(), now=utc_now())
        kind, payload = _answer(database, account, lease[0], reload_id, newest, wait_s)
    if as_json:
        typer.echo(json.dumps(payload))
    if kind == "limits.reload_refused":
        fail(f"the old limits stay: {payload['error']}")
    if not as_json:
        _print_changes(payload)


def _answer(
    database: Database,
    account: str,
    owner: str | None,
    reload_id: int,
    newest: int,
    wait_s: float,
) -> tuple[str, dict[str, Any]]:
    """The event of the account's owner; polls for it, each time in a transaction of its own."""
    from torghut.storage import control

    pause = threading.Event()
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        with database.transaction() as tx:
            for kind, payload in control.reload_answers(tx, account, reload_id, after=newest):
                if payload["owner"] == owner:
                    return kind, payload
        pause.wait(LOOK_EVERY_S)
    fail(f"{owner} did not answer within {wait_s:g} s; its log says why")


def _print_changes(payload: dict[str, Any]) -> None:
    from torghut.cli_output import Column, table
    from torghut.cli_text import line

    changes = payload["changes"]
    columns = (
        Column("limit", lambda row: row["name"], fixed=True),
        Column("scope", lambda row: row["scope"]),
        Column("before", lambda row: row["before"] or "not set", right=True),
        Column("after", lambda row: row["after"] or "not set", right=True),
    )
    if changes:
        show(table(changes, columns))
    versions = f"policy {payload['version_before']} → {payload['version_after']}"
    show(line(versions if changes else f"the limits are the same: {versions}"))
    if payload["needs_restart"]:
        show(line("changed, and needs a restart: " + ", ".join(payload["needs_restart"])))


def actor() -> str:
    """Who is at the command line."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:uid-{os.getuid()}"
