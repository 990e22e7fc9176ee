"""`torghut plan`, `plans`, `order` and `sagas`: stored, replayed, shown, refused (exit codes)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from tests.factories import decision_json
from torghut import cli_plans, config
from torghut.storage.database import Database

ITEM = {"symbol": "AAPL", "action": "buy", "trade_amount": "100"}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as opened:
        yield opened


@pytest.fixture
def app(database: Database, database_url: str) -> typer.Typer:
    made = typer.Typer()

    @contextmanager
    def connect() -> Iterator[Database]:
        yield database

    def load(**over: Any) -> config.Settings:
        return config.Settings(
            database_url=database_url, account="paper", decision_ttl_s=10**9, **over
        )

    cli_plans.register(made, load, connect)
    return made


def run(app: typer.Typer, *arguments: str, given: object = None) -> Result:
    text = given if isinstance(given, str) else json.dumps(given)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments), input=text)


def test_a_plan_is_stored_once(app: typer.Typer, database: Database, tmp_path: Path) -> None:
    body = {"correlation_id": "mine", "items": [ITEM]}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(body))
    created = run(app, "plan", str(file))
    assert created.exit_code == 0 and "created: plan 1 is working" in created.output
    again = run(app, "plan", "-", "--json", given=body)
    assert json.loads(again.output)["result"] == "replayed"
    changed = {**body, "items": [ITEM, ITEM]}
    conflict = run(app, "plan", "-", given=changed)
    assert conflict.exit_code == 1 and "items[1]" in conflict.output
    assert json.loads(run(app, "plan", "-", "--json", given=changed).output)["differing"] == [
        "items[1]"
    ]
    shown = run(app, "plans", "1")
    assert "buy 100 of AAPL" in shown.output and "being carried out" in shown.output
    assert "prepare" in shown.output
    assert "mine" in run(app, "plans").output
    assert json.loads(run(app, "plans", "1", "--json").output)["items"][0]["status"] == "pending"
    with database.transaction() as tx:
        source = tx.execute(text("SELECT source FROM plans")).scalar_one()
    assert source.startswith("cli:")


def test_an_order_is_a_saga(app: typer.Typer) -> None:
    created = run(app, "order", "-", "--json", given=decision_json())
    document = json.loads(created.output)
    assert created.exit_code == 0 and document["result"] == "created"
    again = json.loads(run(app, "order", "-", "--json", given=decision_json(qty="10.0")).output)
    assert (again["result"], again["saga_id"]) == ("replayed", document["saga_id"])
    other = run(app, "order", "-", given=decision_json(qty="11"))
    assert other.exit_code == 1 and "another payload" in other.output
    shown = run(app, "sagas", str(document["saga_id"])).output
    assert "validate_signal" in shown and "update_records" in shown
    assert "order" in run(app, "sagas", "--status", "open").output
    assert json.loads(run(app, "sagas", "--json").output)["status"] == "running"


@pytest.mark.parametrize(
    ("words", "given", "code", "said"),
    [
        (["plan", "-"], {"items": [ITEM]}, 1, "correlation_id: is missing"),
        (["plan", "-"], "{", 1, "is not JSON"),
        (["plan", "/no/such/file"], None, 2, "No such file"),
        (["order", "-"], {"qty": 1}, 1, "symbol: is missing"),
        (["order", "-"], decision_json(account="other"), 1, "not the account traded here"),
        (["plans", "7"], None, 1, "no plan 7"),
        (["sagas", "7"], None, 1, "no saga 7"),
        (["plans", "--status", "odd"], None, 2, "must be one of"),
        (["sagas"], None, 0, "no sagas"),
    ],
)
def test_what_cannot_be_done_says_so(
    app: typer.Typer, words: list[str], given: object, code: int, said: str
) -> None:
    result = run(app, *words, given=given)
    assert result.exit_code == code
    assert said in result.output
