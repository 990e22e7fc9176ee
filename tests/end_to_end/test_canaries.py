"""No secret in any log, page, event, answer, error or explanation: each is a canary here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from tests.end_to_end.user import User, decisions, eventually

CANARIES = {
    "api token": "canary-a9f1-api-token",
    "scraper's token": "canary-b8e2-scrape-token",
    "broker's key": "canary-c7d3-key-id",
    "broker's secret": "canary-d6c4-secret-key",
    "webhook's secret": "canary-e5b5-webhook-secret",
    "sink's secret": "canary-f4a6-sink-secret",
    "sink's password": "canary-09c7-sink-password",
    "sink's path": "canary-18d8-sink-path",
    "database's password": "canary-27e9-database-password",
}
CONFIG = f"""
[webhooks.tradingview.alerts.trend]
strategy = "trend"

[sinks.away]
kind = "webhook"
url = "http://someone:{CANARIES["sink's password"]}@127.0.0.1:1/{CANARIES["sink's path"]}"
secret = "{CANARIES["sink's secret"]}"
"""
PAGES = ("", *(f"console/{name}" for name in ("decisions", "orders", "positions", "fills", "pnl")),
         *(f"console/{name}" for name in ("risk", "attention", "strategies", "audit")))  # fmt: skip
READS = ("decisions", "executions", "fills", "positions", "actions", "discrepancies", "status",
         "trading-states", "events?after=0")  # fmt: skip
COMMANDS = (
    *(("status",), ("limits",), ("outbox", "--json"), ("doctor",), ("token", "list")),
    *(("discrepancies",), ("halt", "--reason", "a test")),
)


def leaks(text: str, secrets: Mapping[str, str]) -> list[str]:
    """Which secrets are in a text; in parts of it, too, as a message may be cut."""
    return [name for name, secret in secrets.items() if secret[:12] in text]


def everything(user: User) -> Iterator[tuple[str, str]]:
    """Each table of the database as text."""
    tables = user.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        for (row,) in user.sql(f"SELECT t::text FROM {table} t"):
            yield f"table {table}", row


def asked(url: str, token: str) -> Iterator[tuple[str, str]]:
    """What HTTP answers, to who may ask and who may not."""
    session = requests.Session()
    form = {"token": token}
    session.post(f"{url}/console/sign-in", data=form, timeout=60)
    page = session.get(f"{url}/", timeout=60)
    assert "Sign out" in page.text  # the token is let in
    for path in PAGES:
        answer = session.get(f"{url}/{path}", timeout=60)
        assert answer.status_code == 200, path
        yield f"page /{path}", answer.text + str(answer.headers)
    for head in ({"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer wrong"}, {}):
        for path in (*(f"v1/{name}" for name in READS), "metrics", "openapi.json", "readyz"):
            answer = requests.get(f"{url}/{path}", headers=head, timeout=60)
            yield f"GET /{path}", answer.text + str(answer.headers)
        for body in ('{"reason": 1}', "{", "[]", '{"strategy": "x", "qty": "-1"}'):
            for path in ("decisions", "decisions:batch", "halt", "orders:cancel"):
                kind = {"Content-Type": "application/json"}
                answer = requests.post(
                    f"{url}/v1/{path}", data=body, headers={**head, **kind}, timeout=60
                )
                yield f"POST /v1/{path}", answer.text + str(answer.headers)


def alerts(url: str) -> Iterator[tuple[str, str]]:
    """Alerts, right and wrong, with the secret in the path and in the body."""
    secret = CANARIES["webhook's secret"]
    now = datetime.now(UTC).isoformat()  # noqa: TID251 - the daemon's clock is the real one
    good = {"alert": "trend", "ticker": "AAPL", "action": "buy", "contracts": "1", "time": now}
    for sent, path in (
        ({**good, "timenow": now, "secret": secret}, ""),
        ({**good, "timenow": now}, f"/{secret}"),
        ({**good, "secret": secret, "comment": f"the secret is {secret}", "more": 1}, ""),
        ({**good, "secret": "guess"}, ""),
    ):
        answer = requests.post(f"{url}/webhooks/tradingview{path}", json=sent, timeout=60)
        yield f"alert {answer.status_code}", answer.text + str(answer.headers)


@pytest.fixture
def secretive(user: User) -> User:
    """A user whose every secret is a canary."""
    user.sim()
    address = user.env["TORGHUT_DATABASE_URL"]
    assert "torghut@" in address, "the tests' own server asks for no password"
    password = CANARIES["database's password"]
    config = Path(user.folder) / "torghut.toml"
    config.write_text(CONFIG, encoding="utf-8")
    config.chmod(0o600)
    user.env |= {
        "TORGHUT_DATABASE_URL": address.replace("torghut@", f"torghut:{password}@", 1),
        "TORGHUT_CONFIG": str(config),
        "TORGHUT_WEBHOOKS__TRADINGVIEW__SECRET": CANARIES["webhook's secret"],
        "TORGHUT_API_TOKENS": ",read:".join([CANARIES["api token"], CANARIES["scraper's token"]]),
        "APCA_API_KEY_ID": CANARIES["broker's key"],
        "APCA_API_SECRET_KEY": CANARIES["broker's secret"],
        "TORGHUT_LOG_LEVEL": "debug",
        "TORGHUT_LOG_FORMAT": "json",
    }
    return user


@pytest.mark.timeout(400)  # some twenty processes, one after the other
def test_no_secret_comes_out_anywhere(secretive: User) -> None:
    user, seen = secretive, list[tuple[str, str]]()
    made = user.torghut("token", "create", "canary", "--scope", "read").stdout.strip()
    secrets = {**CANARIES, "made token": made}
    daemon = user.run()
    found = re.search(r"(http://\S+)", daemon.find(r"API at (\S+)"))
    assert found
    url = found.group(1)
    assert user.submit(decisions(2))[0] == 0
    eventually(lambda: user.statuses().get("closed") == 2)
    seen += alerts(url)
    assert [name for name, _ in seen] == ["alert 201", "alert 200", "alert 422", "alert 401"]
    seen += asked(url, CANARIES["api token"])
    (first,) = user.sql("SELECT decision_hash FROM trade_decisions ORDER BY 1 LIMIT 1")
    for command in (*COMMANDS, ("explain", first[0]), ("explain", first[0], "--json")):
        done = user.torghut(*command)
        seen.append((" ".join(command), done.stdout + done.stderr))
    for wrong in ("TORGHUT_LEASE_TTL_S", "APCA_API_BASE_URL"):
        done = user.torghut("status", **{wrong: CANARIES["api token"]})
        assert done.returncode == 78
        seen.append((f"wrong {wrong}", done.stderr))
    away = user.env["TORGHUT_DATABASE_URL"].partition("@")[0] + "@127.0.0.1:1/nowhere"
    done = user.torghut("status", TORGHUT_DATABASE_URL=away)
    assert done.returncode == 1
    seen.append(("database away", done.stderr))
    assert daemon.end() == 0
    seen += [("log", daemon.output), *everything(user)]
    assert len(seen) > 100 and any("away" in text for name, text in seen if name == "log")
    told = [(name, leaks(text, secrets)) for name, text in seen]
    assert [one for one in told if one[1]] == []


def test_control_a_secret_would_be_found() -> None:
    for name, secret in CANARIES.items():
        assert leaks(json.dumps({"detail": f"x{secret}y"}), CANARIES) == [name]
    assert leaks("canary", CANARIES) == []
