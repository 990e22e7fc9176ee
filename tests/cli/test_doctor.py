"""`torghut doctor`: each thing that can be wrong is found, with what to do; and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from sqlalchemy.engine import make_url

from torghut import doctor
from torghut.clock import utc_now
from torghut.doctor import FAILED, OK, WARNING, Finding
from torghut.simulator import SimConfig, Simulator
from torghut.storage.database import Database

KEYS = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}

Examine = Callable[..., tuple[dict[str, list[Finding]], int]]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimConfig(port=0, control_port=0)) as sim:
        yield sim


@pytest.fixture
def examine(
    durable_database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Examine:
    """The findings by check, and the exit code, with settings changed as named."""
    for name in list(os.environ):
        if name.startswith(("TORGHUT_", "APCA_")) and name != "TORGHUT_TEST_RUN_HOME":
            monkeypatch.delenv(name)
    usual = {
        "TORGHUT_DATABASE_URL": durable_database_url,
        "TORGHUT_BROKER": "alpaca",
        "APCA_API_KEY_ID": "k",
        "APCA_API_SECRET_KEY": "s",
        "APCA_API_BASE_URL": simulator.url,
    }

    def run(**settings: str) -> tuple[dict[str, list[Finding]], int]:
        run_home = os.environ.pop("TORGHUT_TEST_RUN_HOME", None)
        try:
            for name, value in (usual | settings).items():
                monkeypatch.setenv(name, value)
            found, code = doctor.examine()
        finally:
            if run_home is not None:
                os.environ["TORGHUT_TEST_RUN_HOME"] = run_home
        by_check: dict[str, list[Finding]] = {}
        for finding in found:
            by_check.setdefault(finding.check, []).append(finding)
            assert (finding.result == OK) == (finding.mend == ""), finding
        return by_check, code

    return run


@pytest.fixture
def configured(simulator: Simulator) -> Iterator[Callable[..., None]]:
    """Change the broker's account configuration; put back at the end."""
    url = f"{simulator.url}/v2/account/configurations"

    def change(**values: object) -> None:
        assert requests.patch(url, json=values, headers=KEYS, timeout=10).ok

    yield change
    change(suspend_trade=False, no_shorting=False)


def with_options(url: str, options: str) -> str:
    """The same database, with session settings of its own."""
    changed = make_url(url).update_query_dict({"options": options})
    return changed.render_as_string(hide_password=False)


def only_failed(by_check: dict[str, list[Finding]]) -> list[str]:
    """The checks that failed."""
    return sorted(c for c, found in by_check.items() if any(f.result == FAILED for f in found))


def test_all_is_well(examine: Examine, capsys: pytest.CaptureFixture[str]) -> None:
    found, code = examine()
    assert code == 0
    assert {f.result for findings in found.values() for f in findings} == {OK}
    assert {"settings", "database", "migrations", "database fsync", "database full_page_writes",
            "database synchronous_commit", "database stand-by", "database permissions", "clock",
            "trading", "broker", "account", "broker clock", "quotes"} == set(found)  # fmt: skip


def test_json_is_one_document(examine: Examine, capsys: pytest.CaptureFixture[str]) -> None:
    examine()
    doctor.run(as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert {"check", "result", "found", "mend"} == set(json.loads(line)[0])


def test_lossy_settings(examine: Examine, durable_database_url: str) -> None:
    url = with_options(durable_database_url, "-c synchronous_commit=off")
    found, code = examine(TORGHUT_DATABASE_URL=url)
    assert (only_failed(found), code) == (["database synchronous_commit"], 1)


def test_a_server_that_takes_no_writes(examine: Examine, durable_database_url: str) -> None:
    url = with_options(durable_database_url, "-c default_transaction_read_only=on")
    found, code = examine(TORGHUT_DATABASE_URL=url)
    assert (only_failed(found), code) == (["database permissions"], 1)
    assert "target_session_attrs" in found["database permissions"][0].mend


def test_a_role_that_may_not(examine: Examine, durable_database_url: str) -> None:
    """Reads everything, but cannot write: named table by table."""
    owner = Database(durable_database_url, pool_size=1)
    role = make_url(durable_database_url).database
    with owner.transaction() as tx:
        run = tx.exec_driver_sql
        run(f'CREATE ROLE "{role}"')
        run(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
    url = with_options(durable_database_url, f"-c role={role}")
    try:
        found, code = examine(TORGHUT_DATABASE_URL=url)
        assert (only_failed(found), code) == (["database permissions"], 1)
        assert ": INSERT" in found["database permissions"][0].found
        with owner.transaction() as tx:
            tx.exec_driver_sql(f'REVOKE ALL ON alembic_version FROM "{role}"')
        found, code = examine(TORGHUT_DATABASE_URL=url)
        assert "permission denied" in found["database"][0].found
    finally:
        with owner.transaction() as tx:
            tx.exec_driver_sql(f'DROP OWNED BY "{role}"')
            tx.exec_driver_sql(f'DROP ROLE "{role}"')
        owner.close()


def test_no_schema(examine: Examine, empty_database_url: str) -> None:
    found, code = examine(TORGHUT_DATABASE_URL=empty_database_url)
    assert (only_failed(found), code) == (["migrations"], 1)
    assert found["migrations"][0].mend == "torghut migrate"


def test_nobody_answers(examine: Examine) -> None:
    """Each side is examined, whatever the other one does; no password is shown."""
    found, code = examine(
        TORGHUT_DATABASE_URL="postgresql://u:canary@127.0.0.1:1/d",
        APCA_API_BASE_URL="http://127.0.0.1:1",
    )
    assert (only_failed(found), code) == (["broker", "database"], 1)
    assert "canary" not in str(found)


def test_keys_that_are_refused(examine: Examine, simulator: Simulator) -> None:
    rule = {"route": "account", "kind": "reject", "status": 401, "code": 40110000, "count": 1}
    answer = requests.post(f"{simulator.control_url}/faults", json=rule, timeout=10)
    assert answer.ok, answer.text
    found, code = examine()
    assert (only_failed(found), code) == (["broker"], 1)
    assert "APCA_API_KEY_ID" in found["broker"][0].found


def test_flags_of_the_account(examine: Examine, configured: Callable[..., None]) -> None:
    configured(suspend_trade=True, no_shorting=True)
    found, code = examine()
    assert (only_failed(found), code) == (["account"], 1)
    assert [f.result for f in found["account"]] == [FAILED, WARNING]
    configured(suspend_trade=False)
    found, code = examine()
    assert ([f.result for f in found["account"]], code) == ([WARNING], 0)


@pytest.mark.parametrize("ahead_s", [-30, 30])
def test_clocks_that_differ(
    ahead_s: float, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "utc_now", lambda: utc_now() + timedelta(seconds=ahead_s))
    found, code = examine()
    assert (only_failed(found), code) == (["broker clock", "clock"], 1)


def test_a_settings_file_with_secrets(examine: Examine, tmp_path: Path) -> None:
    file = tmp_path / "torghut.toml"
    file.write_text('api_tokens = "t0ken"\n')
    for mode, wanted in ((0o644, ["permissions"]), (0o600, [])):
        file.chmod(mode)
        found, code = examine(TORGHUT_CONFIG=str(file))
        assert (only_failed(found), code) == (wanted, 1 if wanted else 0)
    file.write_text("http_port = 8081\n")
    file.chmod(0o644)
    assert examine(TORGHUT_CONFIG=str(file))[1] == 0
