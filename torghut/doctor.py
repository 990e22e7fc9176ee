"""`torghut doctor`: is everything as it must be, and if not, what to do.

Checks settings, database (durability settings, version, schema), broker (keys, account, clock
skew, quotes) and says for each: ok, warning or failure, with the mend. Nothing is changed or sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta

from rich.console import Console
from rich.text import Text
from sqlalchemy import text

from torghut import config, parts, places
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.domain.deny_reasons import DenyReason
from torghut.domain.errors import (
    EXIT_CONFIG,
    EXIT_FAILED,
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    TorghutError,
)
from torghut.domain.exposure import TradingState
from torghut.ports import MarketData
from torghut.services.account_check import verify_account
from torghut.storage import control, durability, queries
from torghut.storage.database import Database

CLOCK_SKEW_MAX_S = 1.0
SAMPLE_SYMBOL = "AAPL"

OK, WARNING, FAILED = "ok", "warning", "failed"
_MARKS = {OK: ("✓", "green"), WARNING: ("!", "yellow"), FAILED: ("✗", "bold red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; `mend` is empty when nothing is to be done."""

    check: str
    result: str
    found: str
    mend: str = ""


def run(*, as_json: bool) -> int:
    """Print all findings; 0 if nothing failed, else 1, or 78 if the settings are wrong."""
    findings, code = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
        return code
    console = Console(highlight=False)
    for finding in findings:
        mark, style = _MARKS[finding.result]
        line = Text.assemble((mark, style), f" {finding.check}: {finding.found}")
        if finding.mend:
            line.append(f"\n    {finding.mend}")
        console.print(line)
    return code


def examine() -> tuple[list[Finding], int]:
    """All findings and the exit code."""
    try:
        settings = config.load()
    except ConfigError as error:
        return [Finding("settings", FAILED, f"{error.setting} {error.problem}", error.mend)], (
            EXIT_CONFIG
        )
    found = [Finding("settings", OK, f"account {settings.account}, {settings.trading_mode} mode")]
    found += _guarded("database", lambda: _database(settings))
    found += _guarded("broker", lambda: _broker(settings))
    failed = any(finding.result == FAILED for finding in found)
    return found, EXIT_FAILED if failed else 0


def _guarded(check: str, examine_it: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return examine_it()
    except ConfigError as error:
        return [Finding(check, FAILED, f"{error.setting} {error.problem}", error.mend)]
    except TorghutError as error:
        return [Finding(check, FAILED, str(error))]


def _database(settings: Settings) -> list[Finding]:
    with places.open_database(settings) as database:
        return [
            Finding("database", OK, database.url.render_as_string(hide_password=True)),
            *_durability(database),
            _skew(database),
            *_states(database, settings),
        ]


def _durability(database: Database) -> list[Finding]:
    with database.transaction() as tx:
        found = durability.settings(tx)
    return [
        Finding(f"database {name}", OK, value)
        if durable
        else Finding(
            f"database {name}",
            FAILED,
            f"{value}: a crash of the server can lose acknowledged decisions",
            f"set {name} = on",
        )
        for name, (value, durable) in found.items()
    ]


def _states(database: Database, settings: Settings) -> list[Finding]:
    """What keeps orders back: the account's, the global and every strategy's state."""
    with database.transaction() as tx:
        found = queries.trading_states(tx)
    names = (control.GLOBAL, control.account_scope(settings.account))
    kept = [
        row
        for row in found
        if row["state"] != TradingState.ACTIVE
        and (row["scope"] in names or row["scope"].startswith(control.strategy_scope("")))
    ]
    if not kept:
        return [Finding("trading", OK, "active")]
    return [
        Finding(
            "trading",
            WARNING,
            f"{row['scope']} is {row['state']} since {row['changed_at']}, "
            f"by {row['actor']}: {row['reason']}",
            "when the reason is gone: torghut resume --reason …" + _option(row["scope"]),
        )
        for row in kept
    ]


def _option(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return f" --{kind} {name}" if name else ""


def _skew(database: Database) -> Finding:
    before = utc_now()
    with database.transaction() as tx:
        theirs = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    skew = theirs - before
    shown = f"{skew.total_seconds():+.3f} s against the database"
    if abs(skew) > timedelta(seconds=CLOCK_SKEW_MAX_S):
        return Finding("clock", WARNING, shown, "run a time service on both machines")
    return Finding("clock", OK, shown)


def _broker(settings: Settings) -> list[Finding]:
    at = places.reach(settings)
    broker, market = parts.open_broker(at, settings)
    try:
        verify_account(settings, broker)
        account = broker.account()
        quotes = _quotes(settings, market, at.data_url)
    finally:
        broker.close()
        market.close()
    shown = f"{at.base_url} answers; account {account.account_number} is {account.status}"
    if account.blocked:
        return [Finding("broker", WARNING, f"{shown}, blocked", "ask the broker why"), quotes]
    return [Finding("broker", OK, shown), quotes]


def _quotes(settings: Settings, market: MarketData, data_url: str) -> Finding:
    """Whether quotes come: what has no price of its own is judged by them."""
    policy = config.risk_policy(settings)
    symbol = min(policy.switches.symbols or {SAMPLE_SYMBOL})
    why = "is not among the answer"
    try:
        quote = market.quotes([symbol]).get(symbol)
    except (BrokerUnavailable, BrokerRefused) as error:
        quote, why = None, str(error)
    if quote is not None and (quote.bid_px or quote.ask_px):
        return Finding("quotes", OK, f"{symbol} {quote.bid_px} / {quote.ask_px} from {data_url}")
    return Finding(
        "quotes",
        WARNING,
        f"none for {symbol} from {data_url}: {why}. A market order without a quote waits "
        f"{settings.facts_wait_s:g} s and is denied as {DenyReason.FACTS_UNAVAILABLE}",
        "set APCA_API_DATA_URL to where these keys may ask for quotes; until quotes come, send "
        "limit orders: a buy with a limit needs none, nor does an order that only closes",
    )
