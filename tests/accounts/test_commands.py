"""The command line with several accounts: each command means one, and says so if it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from tests.accounts.brokers import Brokers, key, secret
from tests.factories import decision_json
from torghut import doctor
from torghut.cli import app

CANARY = "canary-5f1d0c"


@pytest.fixture
def command(three: Brokers, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    """Commands whose settings have three accounts and no default; gamma's secret is wrong."""
    monkeypatch.setenv("TORGHUT_DATABASE_URL", three.url)
    monkeypatch.setenv("TORGHUT_BROKER", "alpaca")
    monkeypatch.setenv("TORGHUT_BROKER_TIMEOUT_S", "5")
    monkeypatch.delenv("TORGHUT_TEST_RUN_HOME", raising=False)
    for label, simulator in three.simulators.items():
        table = f"TORGHUT_ACCOUNTS__{label.upper()}__"
        monkeypatch.setenv(table + "APCA_API_KEY_ID", key(label))
        monkeypatch.setenv(
            table + "APCA_API_SECRET_KEY", CANARY if label == "gamma" else secret(label)
        )
        monkeypatch.setenv(table + "APCA_API_BASE_URL", simulator.url)
    yield CliRunner()


ABOUT_ONE = [
    ["status"],
    ["pnl"],
    ["limits"],
    ["limits", "reload"],
    ["reconcile"],
    ["replay"],
    ["accept", "AAPL", "--reason", "x"],
    ["cancel", "--all", "--reason", "x"],
    ["close", "AAPL", "--reason", "x"],
    ["flatten", "--reason", "x"],
]


@pytest.mark.parametrize("words", ABOUT_ONE, ids=" ".join)
def test_an_account_has_to_be_named(command: CliRunner, words: list[str]) -> None:
    done = command.invoke(app, words)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1 and "alpha, beta, gamma" in done.stderr


def test_what_is_named_is_meant(
    command: CliRunner, three: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = command.invoke(app, ["status", "--account", "beta", "--json"])
    assert json.loads(found.stdout)["account"] == "beta"
    done = command.invoke(app, ["reconcile", "--account", "beta"])
    assert (done.exit_code, done.exception) == (0, None), done.output
    unknown = command.invoke(app, ["limits", "--account", "delta"])
    assert unknown.exit_code == 2 and "'delta' is not in the settings" in unknown.stderr
    monkeypatch.setenv("TORGHUT_ACCOUNT", "alpha")
    assert json.loads(command.invoke(app, ["status", "--json"]).stdout)["account"] == "alpha"


def test_lines_go_to_the_accounts_that_they_name(command: CliRunner) -> None:
    lines = [decision_json(account=label) for label in ("alpha", "gamma", "delta", None)]
    done = command.invoke(app, ["submit", "-"], input="\n".join(map(json.dumps, lines)))
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["result"] for one in answers] == ["created", "created", "invalid", "invalid"]
    assert "alpha, beta, gamma" in answers[2]["error"] and "account" in answers[3]["error"]
    listed = command.invoke(app, ["decisions", "--account", "gamma", "--json"]).stdout
    assert [json.loads(line)["account"] for line in listed.splitlines()] == ["gamma"]


def test_doctor_looks_at_each(command: CliRunner, capsys: pytest.CaptureFixture[str]) -> None:
    found, code = doctor.examine()
    by_check = {finding.check: finding for finding in found}
    assert code == 1
    assert [by_check[f"{label}: broker"].result for label in ("alpha", "beta")] == ["ok", "ok"]
    refused = by_check["gamma: broker"]
    assert refused.result == "failed" and "[accounts.gamma] apca_api_key_id" in refused.found
    assert CANARY not in str(found)
