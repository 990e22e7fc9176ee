"""The commands of the ledger: pnl, accept.

```
pnl     ─▶ one transaction, read and closed ─▶ profit by strategy, by symbol, of the account
accept  ─▶ an entry with who and why: the broker's amount is ours from now on
```
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_control import actor
from torghut.cli_reads import account_of, fail, show

if TYPE_CHECKING:
    from torghut.cli_output import Column
    from torghut.storage.database import Database

EXIT_USAGE = 2

Connect = Callable[[], AbstractContextManager["Database"]]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]
Account = Annotated[str | None, typer.Option(help="Which account; without it TORGHUT_ACCOUNT.")]


class By(StrEnum):
    """What profit is added up by."""

    STRATEGY = "strategy"
    SYMBOL = "symbol"
    ACCOUNT = "account"


def register(app: typer.Typer, connect: Connect) -> None:
    """Add the commands to `app`; `connect` is called once per command that is run."""

    @app.command("pnl")
    def profit(
        by: Annotated[By, typer.Option("--by", help="Added up by this.")] = By.STRATEGY,
        account: Account = None,
        as_json: AsJson = False,
    ) -> None:
        """Profit and loss, realized and unrealized, at the broker's newest prices."""
        _pnl(connect, by, account, as_json=as_json)

    @app.command()
    def accept(
        subject: Annotated[str, typer.Argument(help="A symbol, or cash.")],
        reason: Annotated[str, typer.Option("--reason", help="Why; kept with the entry.")],
        account: Account = None,
        as_json: AsJson = False,
    ) -> None:
        """Take the broker's amount into our books where a difference stands open."""
        _accept(connect, subject, reason, account, as_json=as_json)


def _pnl(connect: Connect, by: By, account: str | None, *, as_json: bool) -> None:
    from torghut import config
    from torghut.cli_output import table
    from torghut.cli_text import line
    from torghut.storage import pnl, queries

    account = account or account_of(config.load(log_level="warning"), None)
    with connect() as database, database.transaction() as tx:
        queries.begin(tx)
        rows = pnl.totals(tx, account, by=by.value)
        whole = rows if by is By.ACCOUNT else pnl.totals(tx, account, by="account")
    if as_json:
        for row in rows:
            typer.echo(json.dumps({"account": account, **row}))
        return
    if not rows:
        show(line("no positions yet; they follow fills: torghut fills"))
        return
    total = {**whole[0], by.value: "all"}
    shown = rows if by is By.ACCOUNT else [*rows, total]
    notes = [f"fees and income beside it: {_money(total['fees_and_income'])}"]
    if total["unpriced"]:
        notes.append(f"{total['unpriced']} open positions have no price yet, and are left out")
    show(table(shown, _columns(by)), *map(line, notes))


def _columns(by: By) -> tuple[Column, ...]:
    from torghut.cli_output import Column

    def both(row: Any) -> str:
        return _money(str(Decimal(row["realized_pl"]) + Decimal(row["unrealized_pl"])))

    return (
        Column(by.value, lambda row: row[by.value] or "(nobody's)"),
        Column("open", lambda row: str(row["positions"]), right=True),
        Column("realized P&L", lambda row: _money(row["realized_pl"]), right=True),
        Column("unrealized P&L", lambda row: _money(row["unrealized_pl"]), right=True),
        Column("both", both, right=True),
    )


def _money(amount: str) -> str:
    return f"{Decimal(amount):,.2f}"


def _accept(
    connect: Connect, subject: str, reason: str, account: str | None, *, as_json: bool
) -> None:
    from torghut import config
    from torghut.clock import utc_now
    from torghut.domain.values import parse_text
    from torghut.services import tie_out
    from torghut.services.operator import REASON_LENGTH_MAX

    try:
        reason = parse_text(reason.strip(), length_max=REASON_LENGTH_MAX)
    except ValueError as error:
        fail(f"--reason {error}; say why, it is kept", EXIT_USAGE)
    account = account or account_of(config.load(log_level="warning"), None)
    with connect() as database:
        done = tie_out.accept(
            database,
            account,
            subject,
            actor=actor(),
            reason=reason,
            now=utc_now(),
        )
    if as_json:
        typer.echo(json.dumps(dict(done)))
        return
    typer.echo(
        f"{done['subject']}: {done['difference']} taken over; torghut states shows the state"
    )
