"""What the read commands show: JSON-ready rows in, Rich renderables out. Pure.

```
rows    ──table────▶ one line per row, hashes shortened (explain takes a beginning of a hash)
story   ──explain──▶ header · identity · verdicts · attempts · orders · fills · events
summary ──status───▶ how an account stands
```

1. Nothing is wider than the terminal, from 80 columns up: cells and lines are folded, not cut.
2. Stored text is never interpreted (torghut.cli_text).
3. Times of a story are relative to the decision's creation; `now` is given, never asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from torghut import cli_words as words
from torghut.cli_headline import header
from torghut.cli_text import (
    BAD,
    Data,
    Row,
    after,
    duration,
    fields,
    grid,
    line,
    moment,
    order_in_words,
    order_now,
    printable,
    seconds_between,
    section,
    standing,
    times,
)
from torghut.cli_verdict import verdicts
from torghut.cli_words import in_words

HASH_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a list: its title and a row's cell; `fixed` cells are never folded."""

    title: str
    cell: Callable[[Data], str]
    fixed: bool = False
    right: bool = False


# ---------------------------------------------------------------- lists


def table(rows: Sequence[Data], columns: Sequence[Column]) -> RenderableType:
    """A list as a table, one row each, in the order given."""
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(
            column.title,
            no_wrap=column.fixed,
            overflow="fold",
            justify="right" if column.right else "left",
        )
    for row in rows:
        shown.add_row(*(line(printable(column.cell(row))) for column in columns))
    return shown


@dataclass(frozen=True, slots=True)
class Listing:
    """How one kind of list is shown, and what is said when there is nothing to show."""

    columns: Sequence[Column]
    empty: str


def _why(row: Data) -> str:
    if row["status"] == "closed":
        return str(row["status_detail"] or "")
    return row["status_reason"] or ""


def _filled(row: Data) -> str:
    return f"{row['cum_qty']}/{row['qty'] or '?'}" + (
        f" @ {row['avg_px']}" if row["avg_px"] else ""
    )


def _money(amount: str | None) -> str:
    return "" if amount is None else f"{Decimal(amount):,.2f}"


def _brokers(row: Data) -> str:
    """The broker's quantity, with the difference where there is one."""
    if row["broker_qty"] is None:
        return ""
    difference = Decimal(row["difference"])
    return f"{row['broker_qty']} ({difference:+f})" if difference else str(row["broker_qty"])


_SUBMIT = "submit one: torghut submit FILE"
_ORDER = Column("order", order_in_words)
_STRATEGY = Column("strategy", lambda row: row["strategy"] or "(external)")
_CLIENT_ORDER = Column("hash", lambda row: row["client_order_id"][:HASH_SHOWN], fixed=True)
_CREATED = Column("created (UTC)", lambda row: moment(row["created_at"]), fixed=True)

LISTINGS: Mapping[str, Listing] = {
    "decisions": Listing(
        (
            Column("hash", lambda row: row["decision_hash"][:HASH_SHOWN], fixed=True),
            _CREATED,
            _STRATEGY,
            _ORDER,
            Column("status", lambda row: f"{row['status']} {_why(row)}"),
        ),
        f"no decisions yet; {_SUBMIT}",
    ),
    "executions": Listing(
        (
            _CLIENT_ORDER,
            _CREATED,
            _STRATEGY,
            _ORDER,
            Column("status", lambda row: row["status"]),
            Column("filled", _filled),
        ),
        f"no broker orders yet; they follow decisions, {_SUBMIT}",
    ),
    "fills": Listing(
        (
            _CLIENT_ORDER,
            Column("filled at (UTC)", lambda row: moment(row["transact_time"]), fixed=True),
            _STRATEGY,
            Column(
                "fill", lambda r: f"{r['side']} {r['last_qty']} {r['symbol']} at {r['last_px']}"
            ),
            Column("left", lambda row: row["leaves_qty"], right=True),
        ),
        "no fills yet; see what is open: torghut executions",
    ),
    "positions": Listing(
        (
            Column("account", lambda row: row["account"]),
            Column("symbol", lambda row: row["symbol"]),
            Column("qty", lambda row: row["qty"], right=True),
            Column("avg px", lambda row: row["avg_px"], right=True),
            Column("mark", lambda row: row["mark"] or "", right=True),
            Column("realized P&L", lambda row: _money(row["realized_pl"]), right=True),
            Column("unrealized", lambda row: _money(row["unrealized_pl"]), right=True),
            Column("broker's", _brokers, right=True),
        ),
        "no positions yet; they follow fills: torghut fills",
    ),
}


# ---------------------------------------------------------------- one story


def explain(story: Data, now: datetime | None = None) -> RenderableType:
    """A decision's whole story (torghut.storage.queries.story) in order."""
    start = story["decision"]["created_at"]
    return Group(
        header(story, now),
        _identity(story),
        *verdicts(story["verdicts"], start),
        _attempts(story["attempts"], start),
        _orders(story["executions"], start),
        _fills(story, start),
        _discrepancies(story["discrepancies"], start),
        _timeline(story["events"], start),
    )


def _identity(story: Data) -> Group:
    decision = story["decision"]
    intact = "yes" if story["identity_intact"] else "NO: the stored row is not what was hashed"
    rows: list[Row] = [
        ("hash", decision["decision_hash"]),
        ("version", f"{decision['hash_version']}; the hash matches: {intact}"),
        ("canonical", printable(story["canonical_identity"])),
        ("digest", decision["payload_digest"]),
        ("received", f"{moment(decision['created_at'])} UTC from {decision['source']}"),
        ("signal at", f"{moment(decision['event_ts'])} UTC"),
    ]
    if decision["correlation_id"]:
        rows.append(("correlated", printable(decision["correlation_id"])))
    return section("Identity", grid(rows))


def _attempts(attempts: Sequence[Data], start: str) -> Group:
    if not attempts:
        return section("Attempts", line("none: nothing was sent to the broker"))
    rows: list[Row] = []
    for _, same in groupby(attempts, key=_attempt_kind):
        asked = list(same)
        first, last = asked[0], asked[-1]
        when = after(first["intended_at"], start)
        if len(asked) == 1:
            rows.append((when, line(_asked(first))))
        else:
            until = after(last["intended_at"], start)
            rows.append((when, line(f"{_asked(first)}; {times(len(asked))} until {until}")))
    return section("Attempts", grid(rows))


def _attempt_kind(attempt: Data) -> tuple[object, ...]:
    """Equal for lookups in a row that came to the same; every submission is its own."""
    if attempt["operation"] == "submit":
        return "submit", attempt["attempt_no"]
    return "lookup", attempt["outcome"], attempt["message"]


def _asked(attempt: Data) -> str:
    submit = attempt["operation"] == "submit"
    what = f"attempt {attempt['attempt_no']}, sent" if submit else "lookup"
    if attempt["outcome"] is None:
        return f"{what}: no answer is written; if its process has stopped, it is in doubt"
    took = duration(max(0.0, seconds_between(attempt["intended_at"], attempt["answered_at"])))
    codes = [f"HTTP {attempt['http_status']}" if attempt["http_status"] else ""]
    codes += [f"code {attempt['broker_code']}" if attempt["broker_code"] else ""]
    codes += [f"request {printable(attempt['request_id'])}" if attempt["request_id"] else ""]
    said = printable(attempt["message"] or (attempt["body"] or "")[:200])
    answer = in_words(words.PROOF_WORDS, attempt["outcome"])
    facts = ", ".join(part for part in codes if part)
    return (
        f"{what}: {answer}"
        + (f" ({facts})" if facts else "")
        + (f', "{said}"' if said else "")
        + f", after {took}"
    )


def _orders(orders: Sequence[Data], start: str) -> Group:
    if not orders:
        return section("Order at the broker", line("none that we know of"))
    content: list[RenderableType] = []
    for order in orders:
        origin = in_words(words.ORIGIN_WORDS, order["origin"])
        content += [
            line(f"{printable(order['broker_order_id'])}, {origin}"),
            line(printable(order_in_words(order)), f"; now {order_now(order)}"),
        ]
        seen: list[Row] = [
            (
                after(event["observed_at"], start),
                line(
                    standing(printable(event["status"])),
                    f", {event['cum_qty']} filled, seen in "
                    f"{in_words(words.SOURCE_WORDS, event['source'])}",
                ),
            )
            for event in order["events"]
        ]
        content += [grid(seen)] if seen else []
    return section("Order at the broker", *content)


def _fills(story: Data, start: str) -> Group:
    rows: list[Row] = [
        (
            after(fill["transact_time"], start),
            f"{fill['side']} {fill['last_qty']} {fill['symbol']} at {fill['last_px']}",
            line(printable(f"{fill['leaves_qty']} left, activity {fill['activity_id']}")),
        )
        for fill in story["fills"]
    ]
    waiting = [order for order in story["executions"] if order["cum_qty"] != order["ledger_qty"]]
    notes = [
        line(
            f"booked {order['ledger_qty']} of {order['cum_qty']} filled; the rest is to come with"
            " the broker's activities"
        )
        for order in waiting
    ]
    return section("Fills", *([grid(rows)] if rows else [line("none")]), *notes)


def _discrepancies(found: Sequence[Data], start: str) -> Group:
    if not found:
        return section("Discrepancies", line("none"))
    content: list[RenderableType] = []
    for item in found:
        kind = in_words(words.DISCREPANCY_WORDS, item["kind"])
        end = f"resolved: {printable(item['resolution'])}" if item["resolved_at"] else "open"
        content.append(
            line(
                (f"{item['kind']}: {kind}", BAD),
                f" ({after(item['opened_at'], start)}, {end}); {fields(item['evidence'])}",
            )
        )
    return section("Discrepancies", *content)


def _timeline(events: Sequence[Data], start: str) -> Group:
    rows: list[Row] = [
        (
            after(event["created_at"], start),
            event["kind"],
            line(
                f"{in_words(words.EVENT_WORDS, event['kind'])} ({printable(event['actor'])})"
                + (f"; {fields(event['payload'])}" if event["payload"] else "")
            ),
        )
        for event in events
    ]
    return section("Timeline", grid(rows) if rows else line("none"))


# ---------------------------------------------------------------- how an account stands


def status(summary: Data) -> RenderableType:
    """An account at a glance (torghut.storage.queries.summary)."""
    state, lease, doubt = summary["trading_state"], summary["lease"], summary["in_doubt"]
    if lease is None or not lease["valid"]:
        owner = line(("nobody", BAD), ": nothing is sent; start a daemon: torghut run")
    else:
        owner = line(printable(f"{lease['owner']} (fencing token {lease['fencing_token']})"))
    counts = ", ".join(f"{n} {name}" for name, n in summary["decisions"].items() if n)
    in_doubt = line("none")
    if doubt["decisions"]:
        in_doubt = line(
            (str(doubt["decisions"]), BAD),
            f", the oldest for "
            f"{duration(doubt['oldest_age_s'])}: torghut decisions --status in_doubt",
        )
    rows: list[Row] = [
        ("account", printable(summary["account"])),
        ("trading", line(standing(state["state"]), f" ({printable(state['reason'])})")),
        ("owner", owner),
        ("decisions", counts or "none yet; submit one: torghut submit FILE"),
        ("in doubt", in_doubt),
        ("open orders", str(summary["open_orders"])),
        ("discrepancies", _open_discrepancies(summary)),
        ("broker", _broker(summary["broker_account"])),
    ]
    return grid(rows)


def _open_discrepancies(summary: Data) -> Text:
    count = summary["open_discrepancies"]
    listed = [f"{d['kind']} {printable(d['subject'])}" for d in summary.get("discrepancies", ())]
    return line((f"{count} open", BAD), ": " + ", ".join(listed)) if count else line("none")


def _broker(snapshot: Data | None) -> Text:
    if snapshot is None:
        return line("not asked yet")
    blocked = [(", blocked", BAD)] if snapshot["blocked"] else []
    return line(
        printable(f"account {snapshot['account_number']} {snapshot['status']}"),
        *blocked,
        f"; equity {snapshot['equity']}, cash {snapshot['cash']}, buying power"
        f" {snapshot['buying_power']} {snapshot['currency']} at {moment(snapshot['observed_at'])}"
        " UTC",
    )
