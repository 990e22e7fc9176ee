"""`torghut doctor`: is everything as it must be, and if not, what to do.

Checks settings, the settings file's permissions, database (address, migrations, durability,
synchronous stand-by, the role's privileges), broker (address, keys, account flags, quotes), the
clocks of both against ours, and trading states; says for each: ok, warning or failure, with the
mend. Nothing is sent, and nothing changed but the schema of the embedded database.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import requests
from rich.console import Console
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

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
from torghut.ports import BrokerAccount, MarketData
from torghut.services.account_check import verify_account
from torghut.storage import control, durability, queries
from torghut.storage.database import Database
from torghut.storage.database_faults import first_line
from torghut.storage.migrate import SchemaError
from torghut.storage.server import ServerFacts, missing_privileges, server_facts

CLOCK_SKEW_MAX_S = 1.0
BROKER_CLOCK_SKEW_MAX_S = 4.0
SAMPLE_SYMBOL = "AAPL"
CLOCK_ANSWER_S = 10

OK, WARNING, FAILED = "ok", "warning", "failed"
_MARKS = {OK: ("✓", "green"), WARNING: ("!", "yellow"), FAILED: ("✗", "bold red")}
_MENDS: Mapping[str, str] = {
    "database": "start the server, let this machine and role in, or mend TORGHUT_DATABASE_URL",
    "broker": "start the daemon if the broker is simulated; else look at the network, at "
    "APCA_API_BASE_URL and at the broker's status page",
}
_SECRETS = ("apca_api_secret_key", "api_tokens", "database_url")
_BLOCKING: Mapping[str, str] = {
    "account_blocked": "ask the broker why",
    "trading_blocked": "ask the broker why",
    "trade_suspended_by_user": "switch suspend_trade off in the broker's account configuration",
}


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
    accounts = settings.each()
    found = [
        Finding("settings", OK, f"account {one.account}, {one.trading_mode} mode")
        for one in accounts
    ]
    found += _config_file(settings)
    found += _guarded("database", lambda: _database(settings))
    for one in accounts:
        asked = _guarded("broker", partial(_broker, one))
        found += asked if len(accounts) == 1 else [_about(one.account, each) for each in asked]
    failed = any(finding.result == FAILED for finding in found)
    return found, EXIT_FAILED if failed else 0


def _about(account: str, finding: Finding) -> Finding:
    return replace(finding, check=f"{account}: {finding.check}")


def _guarded(check: str, examine_it: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return examine_it()
    except ConfigError as error:
        return [Finding(check, FAILED, f"{error.setting} {error.problem}", error.mend)]
    except TorghutError as error:
        return [Finding(check, FAILED, str(error), _MENDS[check])]
    except DBAPIError as error:
        return [Finding(check, FAILED, first_line(error), _MENDS[check])]


def _database(settings: Settings) -> list[Finding]:
    try:
        with places.open_database(settings) as database:
            with database.transaction() as tx:
                tx.execute(select(1))  # so that the question below is one round trip
                asked_at = utc_now()
                server = server_facts(tx)
                answered_at = utc_now()
                missing = missing_privileges(tx)
            shown = database.url.render_as_string(hide_password=True)
            return [
                Finding("database", OK, f"{shown}, PostgreSQL {server.version}"),
                Finding("migrations", OK, "the schema is the one that this version needs"),
                *_durability(database),
                _standby(server),
                _permissions(server, missing),
                _skew("clock", "the database", server.clock, asked_at, answered_at),
                *_states(database, settings),
            ]
    except SchemaError as error:
        return [Finding("migrations", FAILED, str(error), "torghut migrate")]


def _standby(server: ServerFacts) -> Finding:
    check = "database stand-by"
    wanted = server.standbys_wanted
    if not wanted:
        return Finding(check, OK, "none is waited for: a failover may lose the last decisions")
    if server.standbys is None:
        return Finding(check, OK, f"{wanted!r} is waited for")
    if not server.standbys:
        return Finding(
            check,
            FAILED,
            f"{wanted!r} is waited for, and none is there: nothing can be acknowledged",
            "start the stand-by, or take it out of synchronous_standby_names",
        )
    return Finding(check, OK, f"{server.standbys} confirm what is committed")


def _permissions(server: ServerFacts, missing: Sequence[str]) -> Finding:
    check = "database permissions"
    if server.read_only:
        return Finding(
            check,
            FAILED,
            "the server takes no writes: it is a stand-by",
            "name every host in TORGHUT_DATABASE_URL, with target_session_attrs=read-write",
        )
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return Finding(
            check,
            FAILED,
            f"the role lacks {', '.join(missing[:3])}{more}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO the role",
        )
    return Finding(check, OK, "the role may read and write every table")


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
            f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()",
        )
        for name, (value, durable) in found.items()
    ]


def _states(database: Database, settings: Settings) -> list[Finding]:
    """What keeps orders back: the account's, the global and every strategy's state."""
    with database.transaction() as tx:
        found = queries.trading_states(tx)
    names = (control.GLOBAL, *map(control.account_scope, settings.labels))
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


def _skew(
    check: str,
    whose: str,
    theirs: datetime,
    asked_at: datetime,
    answered_at: datetime,
    *,
    most_s: float = CLOCK_SKEW_MAX_S,
) -> Finding:
    """A clock that was asked between two instants of ours; how long that took is no skew."""
    unsure = (answered_at - asked_at) / 2
    skew = theirs - (asked_at + unsure)
    shown = f"{skew.total_seconds():+.3f} s against {whose}"
    if abs(skew) > timedelta(seconds=most_s) + unsure:
        return Finding(check, FAILED, shown, "run a time service on both machines")
    return Finding(check, OK, shown)


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
    return [Finding("broker", OK, shown), *_flags(account), *_broker_clock(at.base_url), quotes]


def _flags(account: BrokerAccount) -> list[Finding]:
    """What the broker says that the account may not do."""
    found = [
        Finding("account", FAILED, f"{flag} is set: the broker refuses every order", mend)
        for flag, mend in _BLOCKING.items()
        if account.raw.get(flag) is True
    ]
    if account.status.upper() != "ACTIVE":
        found.append(
            Finding("account", FAILED, f"its status is {account.status}", "ask the broker why")
        )
    if account.raw.get("shorting_enabled") is False:
        found.append(
            Finding(
                "account",
                WARNING,
                "short sales are refused by the broker",
                "set TORGHUT_RISK__SHORTS_ALLOWED=false, so that they are denied before",
            )
        )
    return found or [Finding("account", OK, "nothing is blocked")]


def _broker_clock(base_url: str) -> list[Finding]:
    """Its Date header, which any answer has, one without keys too: in whole seconds, and servers
    keep it for a second or two."""
    asked_at = utc_now()
    try:
        answer = requests.get(f"{base_url}/v2/clock", timeout=CLOCK_ANSWER_S)
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (requests.RequestException, KeyError, ValueError):
        return [Finding("broker clock", WARNING, "the broker does not tell its time")]
    answered_at = utc_now()
    middle = theirs + timedelta(seconds=1)
    most_s = BROKER_CLOCK_SKEW_MAX_S
    return [_skew("broker clock", "the broker", middle, asked_at, answered_at, most_s=most_s)]


def _config_file(_: Settings) -> list[Finding]:
    """A file with keys that everybody on the machine can read."""
    path = os.environ.get("TORGHUT_CONFIG")
    if not path or os.name != "posix":
        return []
    text = Path(path).read_text("utf-8")
    holds = any(re.search(rf"\b{name}\b", text) for name in _SECRETS)
    if holds and Path(path).stat().st_mode & 0o044:
        found = f"{path} holds secrets, and others may read it"
        return [Finding("permissions", FAILED, found, f"chmod 600 {path}")]
    return [Finding("permissions", OK, f"{path} is closed to others, or holds no secrets")]


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
