"""A real Prometheus scrapes a live daemon with the files that deploy/ ships.

What the dashboards show is there to be shown, and Prometheus evaluates every rule.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.deploy import promql
from tests.deploy.tools import DEPLOY, program
from tests.end_to_end.user import User, decisions, eventually

TOKEN = "metrics-and-more"
STRATEGY = """
[strategies.trend]
class = "ma-crossover"
schedule = "0 16 * * mon-fri"
symbols = ["AAPL"]
params = { fast = 2, slow = 3, target_weight = "0.1" }

[sinks.lines]
kind = "log"
"""


class Prometheus:
    """A running server; `ask` is its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **params: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=params, timeout=10)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def names(self) -> set[str]:
        return set(self.ask("label/__name__/values"))

    def value(self, expression: str) -> float | None:
        result = self.ask("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Prometheus with our configuration, faster and with its paths moved into `folder`."""
    (folder / "token").write_text(TOKEN)
    rules = promql.ALERTS.read_text(encoding="utf-8")
    (folder / "alerts.yaml").write_text(re.sub(r"interval: \d+s", "interval: 1s", rules))
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    for before, after in (
        ("/etc/prometheus/alerts.yaml", str(folder / "alerts.yaml")),
        ("/run/secrets/metrics_token", str(folder / "token")),
        ("torghut:8080", target),
        ("_interval: 15s", "_interval: 1s"),
    ):
        assert before in text
        text = text.replace(before, after)
    (folder / "prometheus.yml").write_text(text)
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            address = re.search(r'msg="Listening on" address=(\S+)', line) or address
            if "Server is ready" in line:
                break
        assert address, "prometheus did not start"
        yield Prometheus(f"http://{address.group(1)}")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def daemon(user: User) -> str:
    """A daemon that has traded: `host:port` of its HTTP interface."""
    user.sim()
    config = user.folder / "torghut.toml"
    config.write_text(STRATEGY)
    running = user.run(TORGHUT_CONFIG=str(config), TORGHUT_API_TOKENS=TOKEN)
    address = running.find(r"API at http://(\S+:\d+)")
    head = {"Authorization": f"Bearer {TOKEN}"}
    for body in (*decisions(3), *decisions(1)):
        answer = requests.post(
            f"http://{address}/v1/decisions", json=body, headers=head, timeout=10
        )
        assert answer.status_code in (200, 201), answer.text
    eventually(lambda: user.statuses().get("closed") == 3)
    return address


def test_everything_the_dashboards_show_is_scraped(daemon: str, tmp_path: Path) -> None:
    """Targets are up, each metric of each panel is there, each rule is evaluated."""
    asked = {name for _, expr in promql.expressions() for name in promql.names(expr)}
    assert len(asked) > 40
    with prometheus(tmp_path, daemon) as server:
        eventually(lambda: server.value('min(up{job="torghut"})') == 1, 30)
        missing = asked

        def all_there() -> bool:
            nonlocal missing
            missing = asked - server.names()
            return not missing

        with suppress(AssertionError):
            eventually(all_there, 90)
        assert missing == set()

        def evaluated() -> list[dict[str, Any]] | None:
            found = [r for g in server.ask("rules")["groups"] for r in g["rules"]]
            return found if all(rule["health"] != "unknown" for rule in found) else None

        rules = eventually(evaluated, 30)
        assert len(rules) == len(promql.rules())
        assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
        firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
        assert firing == [], "nothing is wrong here"
        for where, expression in promql.expressions():
            assert server.ask("query", query=expression)["resultType"] == "vector", where
        _is_what_happened(server)
        # control: with another token it is not let in
        (tmp_path / "token").write_text("another")
        eventually(lambda: server.value('min(up{job="torghut"})') == 0, 30)


def _is_what_happened(server: Prometheus) -> None:
    """The figures are those of three decisions, the first sent twice."""
    for expression, wanted in (
        ('torghut_decisions_total{result="created"}', 3),
        ('torghut_decisions_total{result="replayed"}', 1),
        ('torghut_duplicates_prevented_total{by="intake"}', 1),
        ('torghut_duplicates_prevented_total{by="broker"}', 0),
        ('torghut_decision_steps_total{status="approved",reason=""}', 3),
        ('torghut_decision_steps_total{status="closed",reason="order_terminal"}', 3),
        ('torghut_submission_attempts_total{outcome="accepted"}', 3),
        ('torghut_submission_attempts_total{outcome="in_doubt"}', 0),
        ("torghut_orders_sent_total", 3),
        ("torghut_order_excess_total", 0),
        ("torghut_decision_to_order_seconds_count", 3),
        ('torghut_decision_stage_seconds_count{stage="submitting"}', 3),
        ('torghut_decision_stage_seconds_count{stage="submitted"}', 3),
        ('torghut_http_request_seconds_count{route="POST /v1/decisions",code="201"}', 3),
        ('torghut_broker_request_seconds_count{method="POST",code="200"}', 3),
        ("torghut_lease_held", 1),
        ("torghut_stream_gap_seconds", 0),
        ("sum(torghut_discrepancies_open)", 0),
        ("torghut_decisions_in_doubt", 0),
    ):
        assert server.value(expression) == wanted, expression
    assert (server.value("torghut_equity_account_currency") or 0) > 0
    assert (server.value("torghut_gross_exposure_account_currency") or 0) > 0
    assert (server.value("torghut_database_pool_limit") or 0) > 12
    assert (server.value("torghut_rate_budget_left") or 0) > 0
