"""What the demo shows: a live display while it runs, tables and a proof line at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import plotext
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, text

from torghut.proof import BrokerOrder, Proof, compare

CHART_HEIGHT = 12
CHART_WIDTH_MAX = 100

_HEALED = {
    "in_doubt": "no definite answer: the order may or may not be there",
    "found": "asked, and it was there: taken as sent",
    "absent": "asked, and it was not there; proven after three times",
    "unanswered": "asked, without an answer: asked again",
    "refused": "refused, and asked whether it is there all the same",
    "rate_limited": "rate limited: waited, and sent",
    "never_left": "never left: sent again",
    "not_sent": "asked before sending again: no need to",
    "exists": "the broker had it already",
}
_OPEN_NOTE = "wait at the broker for the next opening, after the last bar"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a replay."""

    by_status: Mapping[str, int]
    orders: int
    fills: int
    strategies: Sequence[tuple[str, int, Decimal, Decimal]]  # name, fills, realised, unrealised
    recoveries: Mapping[str, int]
    faults: int
    equity: Sequence[tuple[datetime, Decimal]]
    proof: Proof

    def as_json(self) -> dict[str, object]:
        return {
            "decisions": dict(self.by_status),
            "orders": self.orders,
            "fills": self.fills,
            "strategies": [
                {"strategy": name, "fills": fills, "realized_pl": str(r), "unrealized_pl": str(u)}
                for name, fills, r, u in self.strategies
            ],
            "faults": self.faults,
            "recoveries": dict(self.recoveries),
            "equity": [[at.isoformat(), str(value)] for at, value in self.equity],
            "duplicates": self.proof.duplicates,
            "lost": self.proof.lost,
            "differences": list(self.proof.differences),
            "proof": str(self.proof),
        }


def build_report(
    tx: Connection,
    account: str,
    broker: Sequence[BrokerOrder],
    equity: Sequence[tuple[datetime, Decimal]],
    *,
    faults: int,
) -> Report:
    """Read our books, and compare them with everything that the broker ever accepted."""
    only = {"account": account}

    def counts(query: str) -> dict[str, int]:
        return {str(name): int(count) for name, count in tx.execute(text(query), only)}

    prices = "SELECT DISTINCT ON (symbol) symbol, last_px FROM fills ORDER BY symbol, fill_id DESC"
    strategies = tx.execute(
        text(f"""
        SELECT p.strategy, (SELECT count(*) FROM fills f
                            WHERE f.account = :account AND f.strategy = p.strategy) AS fills,
          sum(p.realized_pl) AS realized, sum(p.qty * m.last_px - p.cost_basis) AS unrealized
        FROM strategy_positions p JOIN ({prices}) m USING (symbol)
        WHERE p.account = :account GROUP BY p.strategy ORDER BY p.strategy"""),
        only,
    )
    return Report(
        by_status=counts("""SELECT status, count(*) FROM trade_decisions
            WHERE account = :account GROUP BY status ORDER BY count(*) DESC"""),
        orders=tx.execute(
            text("SELECT count(*) FROM executions WHERE account = :account"), only
        ).scalar_one(),
        fills=tx.execute(
            text("SELECT count(*) FROM fills WHERE account = :account"), only
        ).scalar_one(),
        strategies=[(r.strategy, r.fills, r.realized, r.unrealized) for r in strategies],
        recoveries=counts("""SELECT a.outcome, count(*) FROM submission_attempts a
            JOIN trade_decisions d USING (decision_id)
            WHERE d.account = :account AND a.outcome IS DISTINCT FROM 'accepted'
            GROUP BY a.outcome ORDER BY count(*) DESC"""),
        faults=faults,
        equity=equity,
        proof=compare(tx, account, broker),
    )


class Screen:
    """The live display; quiet when the output is for a script."""

    def __init__(self, *, quiet: bool, strategies: tuple[str, ...]) -> None:
        self._console = Console(stderr=quiet, quiet=quiet, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("sessions"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._line = Text("")
        self._notes = 0
        self._strategies = strategies

    @contextmanager
    def live(self, sessions: tuple[int, int]) -> Iterator[None]:
        """Show the replay while the block runs."""
        passed, total = sessions
        names = " and ".join(self._strategies)
        self._console.print(
            f"Real daily bars of AAPL, FB, GOOG, IBM, MSFT; {names} trade through the whole path."
        )
        if passed:
            self._console.print(f"Going on after an earlier run, at session {passed} of {total}.")
        self._progress.update(self._task, total=total, completed=passed)
        view = Group(self._progress, self._line)
        with Live(view, console=self._console, refresh_per_second=8, transient=True):
            yield

    def session(self, day: str, counts: Mapping[str, int], equity: Decimal) -> None:
        """One session is through."""
        shown = "  ".join(f"{status} {count}" for status, count in sorted(counts.items()))
        self._progress.update(self._task, description=day, advance=1)
        self._line.plain = f"equity {equity:,.0f}  ·  {shown}  ·  retries of facts {self._notes}"

    def note(self, _what: str) -> None:
        """A question that was asked again."""
        self._notes += 1

    def next_steps(self, url: str) -> None:
        """What to try now."""
        self._console.print(
            f"""
Still running; press Ctrl-C to end. The console, for a browser:
  {url}/
Things to try in another terminal:
  curl {url}/v1/status                what the machine is doing
  curl '{url}/v1/decisions?limit=3'   the newest decisions
  make run ARGS="--fresh --fault-rate 0.4"       the same with more faults
  make run, kill -9 it in the middle, start it again, and read the last line
The daemon for your own account: README, "Alpaca paper".""",
            markup=False,
        )


def print_report(report: Report, *, as_json: bool, ended: bool) -> None:
    """The report, for people or as one JSON document on stdout."""
    if as_json:
        print(json.dumps(report.as_json()))
        return
    console = Console(highlight=False)
    console.print()
    if not ended:
        console.print("Stopped early; start again to go on.")
    console.print(_tables(report))
    _print_equity(report, console)
    for difference in report.proof.differences[:20]:
        console.print(f"  difference: {difference}", markup=False)
    verdict = "the two books are equal" if report.proof.holds else "THE BOOKS DIFFER"
    console.print(f"\n{verdict}, order by order:")
    console.print(str(report.proof), style="bold green" if report.proof.holds else "bold red")


def _tables(report: Report) -> Group:
    overview = Table(title="Decisions, orders, fills", title_justify="left")
    overview.add_column("what")
    overview.add_column("count", justify="right")
    for status, count in report.by_status.items():
        note = f" ({_OPEN_NOTE})" if status == "submitted" else ""
        overview.add_row(f"decisions {status}{note}", str(count))
    overview.add_row("broker orders", str(report.orders))
    overview.add_row("fills", str(report.fills))
    profit = Table(title="Profit and loss per strategy (USD)", title_justify="left")
    profit.add_column("strategy")
    for name in ("fills", "realised", "unrealised", "total"):
        profit.add_column(name, justify="right")
    for name, fills, realized, unrealized in report.strategies:
        total = realized + unrealized
        profit.add_row(
            name or "(external)",
            str(fills),
            f"{realized:,.2f}",
            f"{unrealized:,.2f}",
            f"{total:,.2f}",
        )
    title = f"Faults injected since this start: {report.faults}"
    healed = Table(title=title, title_justify="left", min_width=len(title))
    healed.add_column("submissions and lookups that were not simply accepted")
    healed.add_column("count", justify="right")
    for outcome, count in report.recoveries.items():
        healed.add_row(f"{outcome}: {_HEALED.get(outcome, '')}", str(count))
    return Group(overview, profit, healed)


def _print_equity(report: Report, console: Console) -> None:
    if len(report.equity) < 2:
        return
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(min(console.width, CHART_WIDTH_MAX), CHART_HEIGHT)
    plotext.title("Equity (USD)")
    days = [at.strftime("%d/%m/%Y") for at, _ in report.equity]
    plotext.date_form("d/m/Y")
    plotext.plot(days, [float(value) for _, value in report.equity], marker="braille")
    console.print(Text.from_ansi(plotext.build()))
