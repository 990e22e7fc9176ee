"""The commands about orders that stand: cancel, replace, close, flatten, and the list of actions.

A command records a request and, unless told otherwise, waits a while to see what becomes of it;
the daemon does the work. A request has a key (`--key`): the same command under the same key does
nothing twice. Exit 0: done, or stored and still under way; 1: refused, or not usable.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from torghut.cli_control import actor
from torghut.cli_reads import account_of

if TYPE_CHECKING:
    from torghut.config import Settings
    from torghut.services.flattening import Flattening
    from torghut.services.order_requests import Asker, Requested
    from torghut.storage.database import Database

T = TypeVar("T")
POLL_S = 0.1
LIMIT_MAX = 10_000

Why = Annotated[str, typer.Option("--reason", help="Why; kept with the request.")]
Key = Annotated[
    str | None, typer.Option("--key", help="The request's key; the same again does nothing twice.")
]
Wait = Annotated[
    float, typer.Option("--wait", min=0, max=3600, help="Seconds to wait for the outcome.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Symbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol.")]
Strategy = Annotated[str | None, typer.Option("--strategy", help="Only this strategy.")]
Account = Annotated[str | None, typer.Option(help="Which; default TORGHUT_ACCOUNT.")]
Hash = Annotated[str, typer.Argument(metavar="HASH", help="decision_hash, or its first 8 or more.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("cancel")(_cancel)
    app.command("replace")(_replace)
    app.command("close")(_close)
    app.command("flatten")(_flatten)
    app.command("actions")(_actions)


def _cancel(
    reason: Why,
    decision_hash: Annotated[
        str | None, typer.Argument(metavar="HASH", help="One decision; or give a filter.")
    ] = None,
    symbol: Symbol = None,
    strategy: Strategy = None,
    all_: Annotated[bool, typer.Option("--all", help="Every open order of the account.")] = False,
    account: Account = None,
    key: Key = None,
    wait: Wait = 10,
    as_json: AsJson = False,
) -> None:
    """Cancel orders: one decision's, those of a symbol or strategy, or all. What has not been sent
    yet is called off."""
    from torghut.services import order_requests

    filtered = all_ or symbol is not None or strategy is not None
    if (decision_hash is not None) == filtered:
        raise typer.BadParameter("give a HASH, or --symbol, --strategy or --all")
    with _desk() as (database, settings):
        asker = _asker(reason, key)
        if decision_hash is not None:
            asked = _ask(lambda: order_requests.cancel(database, decision_hash, asker))
        else:
            asked = _ask(
                lambda: order_requests.cancel_all(
                    database,
                    account_of(settings, account),
                    asker,
                    symbol=symbol,
                    strategy=strategy,
                )
            )
        _show(_waited(database, asked, wait), as_json)


def _replace(
    decision_hash: Hash,
    reason: Why,
    qty: Annotated[
        str | None, typer.Option(help="Shares open from now on, filled ones not counted.")
    ] = None,
    limit_price: Annotated[str | None, typer.Option(help="New limit.")] = None,
    stop_price: Annotated[str | None, typer.Option(help="New stop.")] = None,
    trail: Annotated[
        str | None, typer.Option(help="New trail, price or percent as it was.")
    ] = None,
    time_in_force: Annotated[str | None, typer.Option(help="New time in force.")] = None,
    key: Key = None,
    wait: Wait = 10,
    as_json: AsJson = False,
) -> None:
    """Replace a decision's order by one with other values; risk judges what makes it larger."""
    from torghut.services import order_requests

    given = {
        "qty": qty,
        "limit_price": limit_price,
        "stop_price": stop_price,
        "trail": trail,
        "time_in_force": time_in_force,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with _desk() as (database, _settings):
        asker = _asker(reason, key)
        asked = _ask(lambda: order_requests.replace(database, decision_hash, changes, asker))
        _show(_waited(database, asked, wait), as_json)


def _close(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Whose position.")],
    reason: Why,
    qty: Annotated[str | None, typer.Option(help="Shares; without it all.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of it (the default).")] = False,
    account: Account = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Close a position, or a part of it, by a market decision of the strategy `operator`."""
    from torghut import places
    from torghut.domain.values import parse_amount
    from torghut.services import order_requests

    if all_ and qty is not None:
        raise typer.BadParameter("give --qty or --all")
    try:
        size: Decimal | None = None if qty is None else parse_amount(qty)
    except ValueError as error:
        raise typer.BadParameter(f"--qty {error}") from None
    with _desk() as (database, settings):
        asker = _asker(reason, key)
        account = account_of(settings, account)
        answer = _ask(
            lambda: order_requests.close(
                database,
                account,
                symbol,
                asker,
                qty=size,
                ttl=places.decision_ttl(settings),
            )
        )
        places.notify(database, {account})
    document = {
        "request_key": asker.key,
        "decision_hash": answer.decision_hash,
        "result": answer.result.value,
        "status": answer.status.value,
    }
    if as_json:
        typer.echo(json.dumps(document))
    else:
        typer.echo(f"{answer.result.value}: {answer.decision_hash} is {answer.status.value}")
        typer.echo(f"follow it: torghut explain {answer.decision_hash[:12]}")


def _flatten(
    reason: Why,
    account: Account = None,
    key: Key = None,
    wait: Wait = 60,
    as_json: AsJson = False,
) -> None:
    """Cancel every order of the account, then close every position; it stays `reducing`."""
    from torghut.services import flattening

    with _desk() as (database, settings):
        asker = _asker(reason, key)
        asked: Flattening = _ask(
            lambda: flattening.request(database, account_of(settings, account), asker)
        )
        created = asked.created
        row = asked.row
        asked = _until(lambda: flattening.look(database, row), lambda found: found.row.ended, wait)
    document = asked.as_json() | {"created": created}
    if as_json:
        typer.echo(json.dumps(document))
    else:
        known = "" if created else " (it was under way, or done, already)"
        said = f": {asked.row.status_detail}" if asked.row.status_detail else ""
        typer.echo(f"flatten {row.flatten_id}: {asked.row.status}{said}{known}")
        if not asked.row.ended:
            typer.echo("the daemon goes on with it; look again: the same command")
        else:
            typer.echo("the account is `reducing`: torghut resume, when it shall open positions")
    raise typer.Exit(1 if asked.row.status == "failed" else 0)


def _actions(
    status: Annotated[str | None, typer.Option("--status", help="Only this status.")] = None,
    symbol: Symbol = None,
    strategy: Strategy = None,
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Rows at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Cancels and replacements, newest first."""
    from torghut.storage import queries
    from torghut.storage.queries import Filters

    with _desk() as (database, _settings), database.transaction() as tx:
        filters = Filters(
            status=status, symbol=symbol, strategy=strategy, account=account, limit=limit
        )
        rows = queries.actions(tx, filters)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif not rows:
        typer.echo("nothing was asked for; see torghut cancel --help")
    for row in [] if as_json else rows:
        typer.echo(f"{row['created_at'][:19]}  {_line(row)}")


# ---------------------------------------------------------------- parts


@contextmanager
def _desk() -> Iterator[tuple[Database, Settings]]:
    from torghut import config, places

    settings = config.load(log_level="warning")
    places.set_up_logging(settings)
    places.arm_recovery_point(settings)
    with places.open_database(settings) as database:
        yield database, settings


def _asker(reason: str, key: str | None) -> Asker:
    from torghut.clock import utc_now
    from torghut.services.order_requests import Asker

    return Asker(actor(), reason, key or os.urandom(16).hex(), utc_now())


def _ask(request: Callable[[], T]) -> T:
    from torghut.services.order_requests import RequestRefused

    try:
        return request()
    except RequestRefused as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"torghut: {' '.join(message.split())}", err=True)
    raise typer.Exit(1)


def _until(look: Callable[[], T], done: Callable[[T], bool], wait_s: float) -> T:
    """The newest look, once it is done or the time is over."""
    pause = threading.Event()
    end = time.monotonic() + wait_s
    while not done(found := look()) and time.monotonic() < end:
        pause.wait(POLL_S)
    return found


def _waited(database: Database, asked: Requested, wait_s: float) -> Requested:
    from dataclasses import replace

    from torghut.services import order_requests

    if not asked.actions:
        return asked
    account = asked.actions[0].account
    found = _until(
        lambda: order_requests.look(database, account, asked.key),
        lambda now: now.settled,
        wait_s,
    )
    return replace(found, replayed=asked.replayed)


def _show(asked: Requested, as_json: bool) -> None:
    from torghut.services.order_requests import action_json

    if as_json:
        typer.echo(json.dumps(asked.as_json()))
    elif not asked.actions:
        typer.echo("nothing stands under this filter")
    else:
        for action in asked.actions:
            typer.echo(_line(action_json(action)))
        if not asked.settled:
            typer.echo("not settled yet; the daemon goes on with it: torghut actions")
    refused = any(action.status == "refused" for action in asked.actions)
    raise typer.Exit(1 if refused else 0)


def _line(action: dict[str, Any]) -> str:
    """`cancel 3f2a…: done, the order is canceled (the order is canceled, 0 filled)`."""
    from torghut.cli_text import printable
    from torghut.cli_words import ACTION_REASON_WORDS, ACTION_WORDS, in_words

    name = (action["decision_hash"] or action["broker_order_id"] or "")[:12]
    text = f"{action['operation']} {name}: {action['status']}"
    if action["status_reason"]:
        text += f", {in_words(ACTION_REASON_WORDS, action['status_reason'])}"
    else:
        text += f". {in_words(ACTION_WORDS, action['status'])}"
    if action["status_detail"]:
        text += f" ({action['status_detail']})"
    if action["client_order_id"]:
        text += f"; new order {action['client_order_id'][-4:].rpartition('-')[2]}"
    return printable(text)
